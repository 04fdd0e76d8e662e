package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// A requestBody is the client's body on its way to the upstream. It is read by
// the upstream's connection, which may go on for a moment after the exchange is
// over; detach waits for that, because the memory and the connection behind the
// body belong to the next request then.
type requestBody struct {
	exchange *fasthttp.RequestCtx
	source   io.Reader
	length   int64 // as announced; -1 if it was not
	limit    int64 // the most bytes allowed; zero means no limit
	taken    int64 // bytes read so far
	deadline deadline

	mu       sync.Mutex // held while reading
	detached atomic.Bool
	fault    *fault // why the client's side failed, if it did; guarded by mu
}

func newRequestBody(x *exchange, length, limit int64) *requestBody {
	return &requestBody{exchange: x.RequestCtx, source: x.RequestBodyStream(), length: length, limit: limit,
		deadline: deadline{idle: x.proxy.options.BodyIdle, set: x.SetReadDeadline}}
}

var (
	errDetached = errors.New("request body read after the exchange")
	errTooLong  = errors.New("request body is too long")
)

// Read reads the next piece from the client.
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.detached.Load() {
		return 0, errDetached
	}
	if err := b.deadline.renew(); err != nil {
		return 0, err
	}
	// Again, because detach may have set its own deadline before ours.
	if b.detached.Load() {
		return 0, errDetached
	}
	n, err := b.source.Read(p)
	b.taken += int64(n)
	switch {
	case b.limit > 0 && b.taken > b.limit:
		b.fault, err = bodyTooLarge, errTooLong
	case err == io.EOF && b.taken < b.length:
		b.fault, err = badRequest, io.ErrUnexpectedEOF
	case err != nil && err != io.EOF:
		b.fault = badRequest
		var netErr net.Error
		if errors.As(err, &netErr) && netErr.Timeout() {
			b.fault = requestTimeout
		}
	}
	return n, err
}

// Close does nothing: fasthttp owns the body.
func (b *requestBody) Close() error { return nil }

// detach ends the upstream's use of the body. A read that waits for the client
// is cut short, and the connection closed after the answer.
func (b *requestBody) detach() {
	b.detached.Store(true)
	if !b.mu.TryLock() {
		b.exchange.SetConnectionClose()
		// Only wakes the read; fails where the connection is gone already.
		_ = b.exchange.SetReadDeadline(time.Unix(1, 0))
		b.mu.Lock()
	}
	b.mu.Unlock()
}

// A responseBody is the upstream's body on its way to the client. fasthttp
// reads and closes it.
type responseBody struct {
	source   io.ReadCloser
	idle     time.Duration // the longest wait for a piece; zero means no limit
	deadline deadline      // for the client to take one
	upload   *requestBody  // the request's body, which may still be under way
}

// Read reads the next piece from the upstream, and gives the client time to
// take it. An error makes fasthttp cut the connection, so that the client
// cannot take a truncated body for a whole one.
func (b *responseBody) Read(p []byte) (int, error) {
	if b.idle > 0 {
		defer time.AfterFunc(b.idle, func() { _ = b.source.Close() }).Stop() // which ends the read
	}
	n, err := b.source.Read(p)
	if n > 0 {
		if err := b.deadline.renew(); err != nil {
			return n, err
		}
	}
	return n, err
}

// Close ends the exchange with the upstream.
func (b *responseBody) Close() error {
	err := b.source.Close()
	if b.upload != nil {
		b.upload.detach()
	}
	return err
}

// A deadline is moved on while data flows. Setting it costs more than reading a
// small piece, so it is moved in steps of an eighth of its time or of a second,
// whichever is less, and set that much later.
type deadline struct {
	idle  time.Duration // zero means no limit
	set   func(time.Time) error
	moved time.Time
}

func (d *deadline) renew() error {
	if d.idle <= 0 {
		return nil
	}
	now, step := time.Now(), min(time.Second, d.idle/8)
	if now.Sub(d.moved) < step {
		return nil
	}
	d.moved = now
	return d.set(now.Add(d.idle + step))
}
