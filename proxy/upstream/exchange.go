package upstream

import (
	"errors"
	"fmt"
	"time"
)

// maxInterim is how many 1xx responses may come before the final one.
const maxInterim = 8

// progress is how far an attempt to send a request came.
type progress struct {
	reused   bool // the connection had carried an exchange before
	written  bool // a byte of the request may have been sent
	answered bool // a byte of a response was received
}

// exchange sends a prepared request at the time begun and reads the head of its final
// response into r.res. On errors the upload, if there is one, has ended, and r.res has let
// go of the connection.
func (c *conn) exchange(r *Request, begun time.Time, now func() time.Time) (progress, *Error) {
	p := progress{reused: c.used}
	c.used = true
	if err := c.begin(begun, r.HeadTimeout); err != nil {
		return p, readError(err)
	}
	n, err := c.send(r)
	p.written = n > 0
	if err != nil && (n == 0 || isTimeout(err)) {
		return p, readError(err)
	}
	c.partly = err != nil // if the upstream stopped reading, it may have said why
	if err == nil && r.hasRest() {
		r.forget(c.buffers)
		startUpload(c, r, now)
	}
	failure := c.readResponse(r)
	p.answered = c.w > 0 || r.res.interim > 0
	if failure == nil {
		return p, nil
	}
	if r.up != nil {
		if fault := r.up.fault.Load(); fault != nil {
			failure = fault
		}
		r.up.finish()
		r.up = nil
	}
	r.res.forget()
	return p, failure
}

// readResponse reads heads until the final one.
func (c *conn) readResponse(r *Request) *Error {
	res := &r.res
	res.begin(c, r)
	for {
		end, err := c.readHead()
		if err == nil {
			err = res.head.parse(c.buf.b[c.r : c.r+end])
		}
		if err != nil {
			return asError(err)
		}
		res.Status, res.Fields = res.head.status, res.head.fields
		res.Raw = c.buf.b[c.r : c.r+end : c.r+end]
		c.r += end
		if res.Status >= 200 {
			break
		}
		// RFC 9110, section 8.6, and RFC 9112, section 6.1.
		if res.head.chunked || res.head.length > 0 {
			return malformed("1xx response with a body")
		}
		if res.Status == 101 {
			if !r.Upgrade {
				return malformed("101 that was not asked for")
			}
			break
		}
		if res.interim++; res.interim > maxInterim {
			return malformed("too many 1xx responses")
		}
		if err := r.interim(res.Status, res.Fields); err != nil {
			return err
		}
	}
	if r.up != nil {
		if err := r.up.headIn(); err != nil {
			return readError(err)
		}
	}
	res.frame(r.Method)
	return nil
}

// interim calls OnInterim. Its panic is an error, so that it ends the exchange
// like any other failure and the connection is not lost.
func (r *Request) interim(status int, fields []Field) (failure *Error) {
	if r.OnInterim == nil {
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			failure = &Error{Kind: ErrRequest, Err: fmt.Errorf("panic in OnInterim: %v", v)}
		}
	}()
	r.OnInterim(status, fields)
	return nil
}

// asError returns the *Error that err is.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return readError(err)
}

// mayRepeat decides whether a request that failed may be sent again, on a new
// connection.
//
// On a connection that has carried an exchange before, a failure before the
// first byte of a response most likely means that the upstream had closed it
// while it was idle, and has seen nothing (RFC 9112, section 9.3.1). Then the
// request may be sent again if not a byte of it was sent, whatever it is; or if
// its method is idempotent and it has no body, of which some may be gone.
//
// A request that got any part of an answer, or whose time ran out, is never
// sent again: it may be at work.
func mayRepeat(r *Request, p progress, failure *Error) bool {
	switch {
	case failure.Kind != ErrTruncated, !p.reused, p.answered:
		return false
	case !p.written:
		return true
	}
	return !r.hasBody() && idempotent(r.Method)
}

// idempotent reports whether sending the method twice has the effect of sending
// it once (RFC 9110, section 9.2.2). CONNECT is not, and other methods are not
// known.
func idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}
