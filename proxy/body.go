package proxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"latchkey/proxy/http1"
)

// A requestBody is the client's body on its way to the upstream. It is read by a
// goroutine of the upstream's exchange, which ends before the exchange does.
type requestBody struct {
	exchange *exchange
	chunked  bool
	left     int64 // bytes still to come of a body that is not chunked
	chunks   http1.ChunkDecoder
	taken    int64 // bytes handed on so far
	begun    bool  // some of it was asked for
	base     int   // where the head ends in the connection's buffer
	fault    *fault
	complete atomic.Bool // it was read to its end
	stopped  atomic.Bool

	speaking sync.Mutex // held while something is written before the answer
	answered bool       // the answer has begun; guarded by speaking
}

var (
	errStopped = errors.New("request body is no longer wanted")
	errTooLong = errors.New("request body is too long")
)

// begin readies the body for a request. A body that is not there is done.
func (b *requestBody) begin(x *exchange) {
	*b = requestBody{exchange: x, chunked: x.head.length < 0, left: max(x.head.length, 0), base: x.conn.r}
	b.complete.Store(b.done())
}

// done reports whether the body was read to its end.
func (b *requestBody) done() bool {
	if b.chunked {
		return b.chunks.Done()
	}
	return b.left == 0
}

// Len returns how much of a body of known length has been received already, for the
// upstream's exchange to send it with the head.
func (b *requestBody) Len() int {
	if c := b.exchange.conn; !b.chunked {
		return int(min(b.left, int64(c.w-c.r)))
	}
	return 0
}

// Read reads the next piece from the client, which is told to go ahead where it
// waits for that.
func (b *requestBody) Read(p []byte) (int, error) {
	switch {
	case b.stopped.Load():
		return 0, errStopped
	case b.done():
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	if err := b.goAhead(); err != nil {
		return 0, err
	}
	for {
		n, err := b.read(p)
		b.taken += int64(n)
		if b.done() {
			b.complete.Store(true)
		}
		limit := b.exchange.bodyLimit()
		switch {
		case limit > 0 && b.taken > limit:
			b.fault = bodyTooLarge
			return 0, errTooLong
		case err != nil && b.fault == nil && !b.stopped.Load():
			b.fault = b.bodyFault(err)
		}
		if n > 0 || err != nil {
			return n, err
		}
		if b.done() {
			return 0, io.EOF
		}
	}
}

// bodyFault says what it means that the body could not be read on. A client that
// has sent too little can still hear so.
func (b *requestBody) bodyFault(err error) *fault {
	switch {
	case http1.IsSyntax(err):
		return badFraming
	case errors.Is(err, io.ErrUnexpectedEOF):
		return badRequest
	}
	return b.exchange.conn.readFault(err)
}

// goAhead sends 100 Continue (RFC 9110, section 10.1.1) before the first piece is
// read, unless it is there already, or the answer has begun: in the middle of it
// or behind it, the line would be taken for data or for another answer.
func (b *requestBody) goAhead() error {
	x := b.exchange
	if b.begun {
		return nil
	}
	b.begun = true
	if !x.head.expects || x.head.minor == 0 || x.conn.r < x.conn.w {
		return nil
	}
	if x.sayFirst([]byte("HTTP/1.1 100 Continue\r\n\r\n")) != nil {
		b.fault = clientGone
		return errStopped
	}
	return nil
}

// sayFirst writes what comes before the answer, unless that has begun.
func (x *exchange) sayFirst(p []byte) error {
	b := &x.body
	b.speaking.Lock()
	defer b.speaking.Unlock()
	if b.answered {
		return nil
	}
	if err := x.conn.writes.renew(x.set.BodyIdle); err != nil {
		return err
	}
	_, err := x.conn.Write(p)
	return err
}

// beginAnswer notes that from now on nothing may be said before the answer.
func (x *exchange) beginAnswer() {
	if !x.head.expects {
		return
	}
	x.body.speaking.Lock()
	x.body.answered = true
	x.body.speaking.Unlock()
}

// read takes from what was read with the head first, and then from the
// connection.
func (b *requestBody) read(p []byte) (int, error) {
	c := b.exchange.conn
	if c.r < c.w {
		n, used, err := b.decode(p, c.in[c.r:c.w])
		if c.r += used; !b.chunked && b.left > 0 && n < len(p) {
			// What has arrived since goes along: a piece of its own costs two calls of
			// the system more.
			arrived := c.arrived(p[n:min(int64(len(p)), int64(n)+b.left)])
			b.left -= int64(arrived)
			n += arrived
		}
		return n, err
	}
	if err := b.wait(); err != nil {
		return 0, err
	}
	if b.chunked { // through the connection's buffer: what follows the body is the next request's
		b.makeRoom()
		return 0, ended(c.fill())
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := c.Conn.Read(p)
	if b.left -= int64(n); n > 0 {
		err = nil
	}
	c.ended = c.ended || err == io.EOF
	return n, ended(err)
}

// makeRoom empties the connection's buffer behind the head, which is still in
// use.
func (b *requestBody) makeRoom() {
	c := b.exchange.conn
	if b.base > len(c.in)-inputSize/4 {
		b.base, c.in = 0, c.proxy.inputs.get() // the old one stays with the head
	}
	c.r, c.w = b.base, b.base
}

// wait gives the client the idle time for the next piece. A body that is stopped
// meanwhile is not read on: see stop.
func (b *requestBody) wait() error {
	c := b.exchange.conn
	if c.proxy.draining.Load() {
		c.reads.moved = time.Time{} // Shutdown may have set another deadline
	}
	if err := c.reads.renew(b.exchange.set.BodyIdle); err != nil {
		return err
	}
	if b.stopped.Load() {
		return errStopped
	}
	return nil
}

// ended turns an end of the connection into an error: the body was to go on.
func ended(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (b *requestBody) decode(dst, src []byte) (written, read int, err error) {
	if b.chunked {
		return b.chunks.Decode(dst, src)
	}
	if int64(len(src)) > b.left {
		src = src[:b.left]
	}
	n := copy(dst, src)
	b.left -= int64(n)
	return n, n, nil
}

// stop makes a Read that is waiting return, and all further ones.
func (b *requestBody) stop() {
	b.stopped.Store(true)
	// Only wakes the read; fails where the connection is gone already.
	_ = b.exchange.conn.SetReadDeadline(time.Unix(1, 0))
}

// discard reads what was sent of a body that is not wanted, if that is all there
// is of it, so that the connection can be used again.
func (b *requestBody) discard() bool {
	c := b.exchange.conn
	var nowhere [512]byte
	for !b.done() && c.r < c.w {
		_, used, err := b.decode(nowhere[:], c.in[c.r:c.w])
		if c.r += used; err != nil {
			return false
		}
	}
	return b.done()
}
