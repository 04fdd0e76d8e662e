package upstream

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// A conn is a connection to a target, with what was read from it and not used
// yet: buf.b[r:w]. The head of the present response stays in buf before r.
type conn struct {
	net     net.Conn
	raw     net.Conn     // below TLS; net itself without TLS
	records *recordConn  // between them; nil without TLS
	socket  *socket      // nil if there is none, as in tests
	pool    *pool        // where it belongs
	buffers *buffers     // of the Upstream
	buf     *buffer      // nil while idle
	r, w    int          // see above
	limit   int          // of a head, in bytes
	used    bool         // has carried an exchange
	partly  bool         // a request could not be sent in full
	timed   bool         // has deadlines that may still be in force
	reads   idleDeadline // for the response
	writes  idleDeadline // for the head of the request
	since   time.Time    // when it became idle
	stale   bool         // was idle too long
	one     [1]byte      // for quiet
}

// newConn returns a connection over raw, which speaks TLS if secured is not nil.
func newConn(raw net.Conn, secured net.Conn, records *recordConn, p *pool) *conn {
	c := &conn{net: raw, raw: raw, records: records, pool: p, buffers: p.buffers}
	if secured != nil {
		c.net = secured
	}
	if s, ok := raw.(syscall.Conn); ok {
		c.socket = newSocket(s)
	}
	return c
}

// interrupt ends what the connection is waiting for, from any goroutine. It
// closes the socket itself, because to close TLS is to write and may wait.
func (c *conn) interrupt() { c.raw.Close() }

// close closes an idle or spent connection and gives its memory back.
func (c *conn) close() {
	c.net.Close()
	c.releaseBuffer()
}

// releaseBuffer gives the buffer back, so that idle connections have none.
func (c *conn) releaseBuffer() {
	c.buffers.putHead(c.buf)
	c.buf, c.r, c.w = nil, 0, 0
}

// begin readies the connection for an exchange whose first phase, until the
// response's head is there, may last as long as given; zero means no limit. To set
// a deadline for each exchange would take a twentieth of its time.
func (c *conn) begin(now time.Time, limit time.Duration) error {
	if c.buf == nil {
		c.buf = c.buffers.getHead()
	}
	c.r, c.w = 0, 0
	if limit <= 0 {
		return c.clearDeadlines()
	}
	c.timed = true
	if err := c.reads.renew(now, limit, c.net.SetReadDeadline); err != nil {
		return err
	}
	return c.writes.renew(now, limit, c.net.SetWriteDeadline)
}

func (c *conn) clearDeadlines() error {
	if !c.timed {
		return nil
	}
	c.timed, c.reads, c.writes = false, idleDeadline{}, idleDeadline{}
	return c.net.SetDeadline(time.Time{})
}

// send sends the head of a request, with what there is of its body, and may have
// read the beginning of the answer when it returns. It returns how much it sent.
func (c *conn) send(r *Request) (sent int, err error) {
	if c.socket != nil && c.records == nil && !r.hasRest() {
		sent, c.w = c.socket.roundTrip(r.first, c.buf.b)
	}
	if sent == len(r.first) {
		return sent, nil
	}
	n, err := c.net.Write(r.first[sent:])
	return sent + n, err
}

// readHead reads until a whole head is buffered at r, and returns its length.
func (c *conn) readHead() (int, error) {
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	var s headScan
	for {
		end, err := s.scan(c.buf.b[c.r:c.w])
		switch {
		case err != nil:
			return 0, err
		case end > c.limit || end == 0 && c.w-c.r >= c.limit:
			return 0, malformed("head too long")
		case end > 0:
			return end, nil
		}
		if c.w == len(c.buf.b) {
			c.makeRoom()
		}
		n, err := c.net.Read(c.buf.b[c.w:])
		if c.w += n; n == 0 && err != nil {
			return 0, readError(err)
		}
	}
}

// makeRoom moves what is buffered to the front, or else into a buffer of twice
// the size, up to the limit of a head.
func (c *conn) makeRoom() {
	old := c.buf
	if c.r == 0 {
		c.buf = &buffer{make([]byte, min(2*len(old.b), max(c.limit, len(old.b)+1)))}
	}
	c.w = copy(c.buf.b, old.b[c.r:c.w])
	c.r = 0
	if c.buf != old {
		c.buffers.putHead(old)
	}
}

// receive reads the next bytes of a body, for which it waits as long as given
// at most.
func (c *conn) receive(p []byte, idle time.Duration, now func() time.Time) (int, error) {
	if idle <= 0 {
		if err := c.clearDeadlines(); err != nil {
			return 0, err
		}
	} else {
		c.timed = true
		if err := c.reads.renew(now(), idle, c.net.SetReadDeadline); err != nil {
			return 0, err
		}
	}
	return c.net.Read(p)
}

// quiet reports whether the connection can carry another exchange: it is open,
// was not idle too long, and nothing has arrived that no request had asked for. Such bytes, if left,
// would be taken for the next response (RFC 9112, section 9.2).
func (c *conn) quiet() bool {
	if c.stale || c.r != c.w || c.records != nil && !c.records.whole() || c.socket != nil && !c.socket.silent() {
		return false
	}
	if c.socket != nil && c.records == nil {
		return true
	}
	// What TLS has decrypted, or received and not decrypted, the socket does not
	// show. A read that may not wait does.
	c.timed, c.reads = true, idleDeadline{}
	if c.net.SetReadDeadline(time.Unix(1, 0)) != nil {
		return false
	}
	n, err := c.net.Read(c.one[:])
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// finished reports whether the end of what was read is one that the upstream
// meant. Over TLS it is if it was announced, or anyone on the way could have
// made it (RFC 9112, section 9.8); crypto/tls does not tell the difference.
func (c *conn) finished() bool { return c.records == nil || !c.records.cut }

// An idleDeadline is moved on while data flows. To set it costs more than to
// read a small piece, so it is moved in steps of an eighth of its time or of a
// second, whichever is less, and set that much later.
type idleDeadline struct {
	moved time.Time // zero if it was set to something else since
	idle  time.Duration
}

func (d *idleDeadline) renew(now time.Time, idle time.Duration, set func(time.Time) error) error {
	step := min(time.Second, idle/8)
	if d.idle == idle && now.Sub(d.moved) < step {
		return nil
	}
	*d = idleDeadline{now, idle}
	return set(now.Add(idle + step))
}
