package upstream

import (
	"errors"
	"io"
	"net"
	"time"

	"latchkey/proxy/http1"
)

// keptFields is how long a list of fields may be to be kept for the next
// exchange.
const keptFields = 64

// A Response is what came back. It must be closed, and is valid until then; it
// is for one goroutine at a time. Its Request's Abort ends what it waits for.
type Response struct {
	Status int
	Raw    []byte  // the head as received, through its empty line
	Fields []Field // of the head, all of them, as received: slices of Raw

	// Length is that of the body in bytes, -1 if the head does not tell. A
	// response to HEAD and the statuses 101, 204 and 304 have none, whatever the
	// head says (RFC 9112, section 6.3).
	Length     int64
	Chunked    bool // the body came in chunks, which are taken off
	UntilClose bool // the body ends with the connection

	req      *Request
	conn     *conn // nil once closed
	endpoint *endpoint
	upstream *Upstream
	head     head
	interim  int   // 1xx responses before this one
	left     int64 // bytes of a body of known length not read yet
	chunks   http1.ChunkDecoder
	headIn   time.Time // when the head was there
	later    bool      // the connection was read from after that
	complete bool      // the body was read to its end
	surplus  bool      // something followed it
	hijacked bool
	err      error // what Read returns from now on
}

// begin readies the response for an exchange.
func (r *Response) begin(c *conn, req *Request) {
	fields := r.head.fields
	if cap(fields) > keptFields {
		fields = nil
	}
	*r = Response{req: req, conn: c, head: head{fields: fields}}
}

// frame decides where the body ends (RFC 9112, section 6.3).
func (r *Response) frame(method string) {
	switch h := &r.head; {
	case method == "HEAD" || r.Status < 200 || r.Status == 204 || r.Status == 304:
		r.complete = true
		// A server that announces a body where there is none may send it.
		r.surplus = method != "HEAD" && r.Status != 304 && (h.chunked || h.length > 0)
	case h.chunked:
		r.Length, r.Chunked = -1, true
	case h.length >= 0:
		r.Length, r.left, r.complete = h.length, h.length, h.length == 0
	default:
		r.Length, r.UntilClose = -1, true
	}
}

// Read reads the next piece of the body, as soon as there is one. Its errors
// are *Error; io.EOF means that the body was complete. It may use all of p,
// which should be large.
func (r *Response) Read(p []byte) (int, error) {
	if r.conn == nil {
		return 0, net.ErrClosed
	}
	for r.err == nil && len(p) > 0 {
		if r.complete {
			r.err = io.EOF
			break
		}
		n, err := r.read(p)
		if err != nil {
			r.fail(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, r.err
}

// read takes from what came with the head first, and then from the connection.
func (r *Response) read(p []byte) (int, error) {
	c := r.conn
	if c.r < c.w {
		n, used, err := r.decode(p, c.buf.b[c.r:c.w])
		c.r += used
		return n, err
	}
	if !r.Chunked && !r.UntilClose && int64(len(p)) > r.left {
		p = p[:r.left] // what follows the body is not to be seen by its reader
	}
	r.later = true
	n, err := c.receive(p, r.req.BodyIdle, c.pool.now)
	if n == 0 && err != nil {
		if r.UntilClose && err == io.EOF && c.finished() {
			r.complete = true
			return 0, nil
		}
		return 0, readError(err)
	}
	if !r.Chunked {
		r.took(n)
		return n, nil
	}
	got, used, err := r.decode(p, p[:n])
	r.surplus = r.surplus || used < n && err == nil
	return got, err
}

// decode moves data of the body from src to dst, and returns how many bytes it
// wrote and read.
func (r *Response) decode(dst, src []byte) (written, read int, err error) {
	if r.Chunked {
		written, read, err = r.chunks.Decode(dst, src)
		r.complete = r.chunks.Done()
		if err != nil {
			err = malformed(err.Error())
		}
		return written, read, err
	}
	if !r.UntilClose && int64(len(src)) > r.left {
		src = src[:r.left]
	}
	n := copy(dst, src)
	r.took(n)
	return n, n, nil
}

// took counts data of a body that is not chunked.
func (r *Response) took(n int) {
	if !r.UntilClose {
		r.left -= int64(n)
		r.complete = r.left == 0
	}
}

// WriteTo writes the rest of the body to w, piece by piece as it arrives. An
// *Error comes from the upstream; any other error is w's.
func (r *Response) WriteTo(w io.Writer) (int64, error) {
	if r.conn == nil {
		return 0, net.ErrClosed
	}
	c, total := r.conn, int64(0)
	if large, n := r.gather(); n > 0 {
		written, err := w.Write(large.b[:n])
		c.buffers.putBody(large)
		if total = int64(written); err != nil {
			return total, err
		}
	}
	for c.r < c.w && !r.complete && r.err == nil {
		// In place: data is never longer than what it comes from.
		rest := c.buf.b[c.r:c.w]
		n, used, err := r.decode(rest, rest)
		c.r += used
		if err != nil {
			r.fail(err)
		}
		if n > 0 {
			written, err := w.Write(rest[:n])
			if total += int64(written); err != nil {
				return total, err
			}
		}
	}
	written, err := r.copyTo(w)
	return total + written, err
}

// gather moves the beginning of a body, of which the first read has filled the buffer
// and more may be there, into a large buffer with what is, and does not wait: to write
// the few KiB of the first read by themselves costs a tenth of an exchange of 64 KiB.
func (r *Response) gather() (large *buffer, n int) {
	c := r.conn
	began := c.w - c.r
	if c.w < len(c.buf.b) || r.Chunked || r.UntilClose || r.left <= int64(began) || began >= bodyBuffer || c.socket == nil || c.records != nil {
		return nil, 0
	}
	large = c.buffers.getBody()
	n = copy(large.b, c.buf.b[c.r:c.w])
	c.r = c.w
	// What follows the body stays where quiet finds it.
	n += c.socket.readNow(large.b[n:min(int64(len(large.b)), r.left)])
	r.took(n)
	return large, n
}

// copyTo writes what the connection still has to give. It reads into what the
// head left of its buffer, and into a large one only while the pieces that come
// are large: a stream that lives long and says little takes little memory.
func (r *Response) copyTo(w io.Writer) (total int64, err error) {
	var large *buffer
	defer func() { r.conn.buffers.putBody(large) }()
	small := r.conn.buf.b[r.conn.r:]
	for !r.complete && r.err == nil {
		p := small
		if large == nil && len(small) < headBuffer/4 {
			large = r.conn.buffers.getBody()
		}
		if large != nil {
			p = large.b
		}
		n, err := r.Read(p)
		if err != nil {
			break
		}
		written, err := w.Write(p[:n])
		if total += int64(written); err != nil {
			return total, err
		}
		switch {
		case large == nil && n > len(p)/2:
			large = r.conn.buffers.getBody()
		case large != nil && n < headBuffer/2:
			r.conn.buffers.putBody(large)
			large = nil
		}
	}
	return total, r.end()
}

// end returns the error with which the body ended, nil if it was complete.
func (r *Response) end() error {
	if r.err == io.EOF {
		return nil
	}
	return r.err
}

// fail notes why the body cannot be read on.
func (r *Response) fail(err error) {
	e := asError(err)
	if up := r.req.up; up != nil {
		if fault := up.fault.Load(); fault != nil {
			e = fault
		}
	}
	if r.req.abort.was() {
		e = &Error{Kind: ErrAborted}
	}
	failed := *e
	failed.Processed, failed.Target = true, r.conn.pool.target
	r.err = &failed
}

// Ready reports whether a Read would return without waiting: some of the body is
// there, or its end.
func (r *Response) Ready() bool { return r.complete || r.conn != nil && r.conn.r < r.conn.w }

// Complete reports whether the body was read to its end.
func (r *Response) Complete() bool { return r.complete }

// Target returns the URL of the target that the response is from, as configured.
func (r *Response) Target() string {
	if r.conn == nil {
		return ""
	}
	return r.conn.pool.target
}

// Hijack returns the connection after a 101, with what the upstream has sent
// already. They are borrowed: the connection counts as one of its target's until
// Close, which closes it, and Abort closes it at any time. It has no deadlines.
func (r *Response) Hijack() (net.Conn, []byte, error) {
	switch {
	case r.conn == nil:
		return nil, nil, net.ErrClosed
	case r.Status != 101:
		return nil, nil, errors.New("hijack a response other than 101")
	}
	r.hijacked = true
	if err := r.conn.clearDeadlines(); err != nil {
		return nil, nil, readError(err)
	}
	c := r.conn
	return c.net, c.buf.b[c.r:c.w:c.w], nil
}

// Close ends the exchange. The connection is kept for another one if the body
// was read to its end and that was exact, if nothing came after it, if the
// request was sent in full, and if neither side wants it closed; else it is
// closed. The request's body is not used any more when Close returns. To close
// again does nothing.
func (r *Response) Close() error {
	c := r.conn
	if c == nil {
		return nil
	}
	up := r.req.up
	sent := up == nil || up.finish()
	aborted := r.req.abort.detach()
	keep := sent && !aborted && r.reusable()
	r.req.up = nil
	r.forget()
	if keep {
		// The upstream's own limit for idle connections begins when it has sent all.
		since := r.headIn
		if r.later {
			since = c.pool.now()
		}
		c.pool.release(c, since)
	} else {
		c.pool.discard(c)
	}
	if r.upstream != nil {
		r.upstream.done(r.endpoint, r.Status, r.err)
	}
	return nil
}

// forget lets go of the connection and of what is borrowed from it.
func (r *Response) forget() { r.conn, r.Raw, r.Fields = nil, nil, nil }

func (r *Response) reusable() bool {
	return r.complete && !r.surplus && !r.UntilClose && !r.hijacked && r.Status != 101 &&
		!r.conn.partly && r.conn.r == r.conn.w && r.head.persistent() && !r.req.Close
}
