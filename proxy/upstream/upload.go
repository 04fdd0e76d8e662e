package upstream

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// lastPieceWait is how long an exchange whose response is complete waits for
// the write of the upload's last piece to return, which the upstream has often
// answered already, rather than close a good connection.
const lastPieceWait = 100 * time.Millisecond

// Around a chunk's data in a buffer there is room for what frames it.
const (
	beforeData = 8 + len("\r\n") // up to eight digits
	afterData  = len("\r\n0\r\n\r\n")
)

// An upload sends a request's body in a goroutine of its own, so that a response
// that comes before its end is seen.
type upload struct {
	conn  *conn
	req   *Request
	now   func() time.Time
	ended chan struct{}
	last  atomic.Bool           // the last piece is on its way
	sent  bool                  // all was sent; set before ended is closed
	fault atomic.Pointer[Error] // why it failed; stored before the connection is disturbed

	mu       sync.Mutex
	answered bool // the response's head is there, so its deadline is over
}

// startUpload begins to send the body; the head must have been sent. While it
// goes on there is no limit for the response, which need not begin before the
// request has ended.
func startUpload(c *conn, r *Request, now func() time.Time) {
	r.up = &upload{conn: c, req: r, now: now, ended: make(chan struct{})}
	// A connection that cannot take a deadline is closed: the reader sees that.
	_ = c.clearDeadlines()
	c.timed = true
	go r.up.run()
}

func (u *upload) run() {
	defer close(u.ended)
	err := u.send()
	var e *Error
	switch {
	case err == nil:
		u.sent = true
		u.limitHead(u.req.HeadTimeout)
	case !errors.As(err, &e): // a write failed
		if e = readError(err); e.Kind == ErrTimeout {
			u.fault.Store(e)
			u.limitHead(time.Nanosecond)
			break
		}
		// The upstream takes no more, but what it said before may be there.
		u.limitHead(u.req.HeadTimeout)
	default: // the body failed: what was sent must not look like the whole of it
		u.fault.Store(e)
		u.conn.interrupt()
	}
}

// limitHead sets the deadline for the response's head, unless that is there.
func (u *upload) limitHead(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if d > 0 && !u.answered {
		// A connection that cannot take a deadline is closed: the reader sees that.
		_ = u.conn.net.SetReadDeadline(u.now().Add(d))
	}
}

// headIn ends the deadline for the response's head.
func (u *upload) headIn() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answered = true
	return u.conn.net.SetReadDeadline(time.Time{})
}

// send moves the body. Errors of the body are of kind ErrRequestBody, those of
// the connection are its own.
func (u *upload) send() error {
	get := u.conn.buffers.getSend
	if u.req.begun >= sendBuffer/2 { // what comes so fast comes in large pieces
		get = u.conn.buffers.getBody
	}
	memory := get()
	defer func() { // each keeps buffers of its size
		u.conn.buffers.putSend(memory)
		u.conn.buffers.putBody(memory)
	}()
	var (
		b       = memory.b
		chunked = u.req.Length < 0
		left    = u.req.Length - u.req.begun
		renewed idleDeadline
		ended   bool
	)
	for !ended {
		data := b
		if chunked {
			data = b[beforeData : len(b)-afterData]
		} else if int64(len(data)) > left {
			data = data[:left]
		}
		n, err := readPiece(u.req.Body, data)
		left -= int64(n)
		switch {
		case !chunked && left == 0:
			ended = true
		case err == io.EOF && chunked:
			ended = true
		case err != nil:
			return &Error{Kind: ErrRequestBody, Err: bodyEnd(err)}
		}
		piece := data[:n]
		if chunked {
			piece = frame(b, n, ended)
		}
		u.last.Store(ended)
		if idle := u.req.BodyIdle; idle > 0 {
			if err := renewed.renew(u.now(), idle, u.conn.net.SetWriteDeadline); err != nil {
				return err
			}
		}
		if _, err := u.conn.net.Write(piece); err != nil {
			return err
		}
		if chunked && n < len(data) {
			// To take thousands of chunks apart for a short piece is work, and a client
			// that sends them without a pause would have the processor for 10 ms at a time.
			runtime.Gosched()
		}
		if !ended && n == len(data) && len(b) < bodyBuffer { // there is more where this came from
			u.conn.buffers.putSend(memory)
			memory = u.conn.buffers.getBody()
			b = memory.b
		}
	}
	return nil
}

// frame makes a chunk of the n bytes from b[beforeData] on, followed by the last
// chunk if the body ends with it.
func frame(b []byte, n int, last bool) []byte {
	from, to := beforeData, beforeData+n
	if n > 0 {
		var digits [8]byte
		size := strconv.AppendInt(digits[:0], int64(n), 16)
		from -= len(size) + 2
		copy(b[from:], size)
		copy(b[from+len(size):], "\r\n")
		to += copy(b[to:], "\r\n")
	}
	if last {
		to += copy(b[to:], "0\r\n\r\n")
	}
	return b[from:to]
}

// readPiece reads until there is something. A panic of the reader is an error:
// it must not end the process from a goroutine that its author does not know.
func readPiece(r io.Reader, p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			n, err = 0, fmt.Errorf("panic while reading: %v", v)
		}
	}()
	for range 100 {
		if n, err = r.Read(p); n < 0 || n > len(p) {
			return 0, errors.New("reader returned an impossible count")
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// finish returns whether the whole body was sent. If it was not, the connection
// is closed, and in either case the body is no longer used once finish returns.
func (u *upload) finish() bool {
	if u.last.Load() {
		timer := time.NewTimer(lastPieceWait)
		defer timer.Stop()
		select {
		case <-u.ended:
		case <-timer.C:
		}
	}
	select {
	case <-u.ended:
		return u.sent
	default:
	}
	u.conn.interrupt()
	if u.req.StopBody != nil {
		u.req.StopBody()
	}
	<-u.ended
	return false
}
