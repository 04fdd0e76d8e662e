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
	idle     time.Duration // between two pieces; zero means no limit
	left     int64         // bytes still allowed; negative means no limit
	renewed  time.Time     // when the deadline was last set

	mu       sync.Mutex // held while reading
	detached atomic.Bool
	fault    *fault // why the client's side failed, if it did; guarded by mu
}

func newRequestBody(x *exchange, limit int64) *requestBody {
	b := &requestBody{exchange: x.RequestCtx, source: x.RequestBodyStream(), idle: x.proxy.options.BodyIdle, left: -1}
	if limit > 0 {
		b.left = limit
	}
	return b
}

// errDetached reports a read after the exchange has ended.
var errDetached = errors.New("request body read after the exchange")

// Read reads the next piece from the client.
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.idle > 0 && renew(&b.renewed) {
		if err := b.exchange.SetReadDeadline(b.renewed.Add(b.idle)); err != nil {
			return 0, err
		}
	}
	// After the deadline, which detach may have set first to wake this read.
	if b.detached.Load() {
		return 0, errDetached
	}
	n, err := b.source.Read(p)
	if b.left >= 0 {
		if b.left -= int64(n); b.left < 0 {
			b.fault = bodyTooLarge
			return 0, errors.New("request body is too long")
		}
	}
	if err != nil && err != io.EOF {
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
	Body     io.ReadCloser
	exchange *fasthttp.RequestCtx
	idle     time.Duration
	renewed  time.Time
	upload   *requestBody // the request's body, which may still be under way
}

// Read reads the next piece from the upstream, and gives the client time to
// take it. An error makes fasthttp cut the connection, so that the client
// cannot take a truncated body for a whole one.
func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	if b.idle > 0 && n > 0 && renew(&b.renewed) {
		if err := b.exchange.SetWriteDeadline(b.renewed.Add(b.idle)); err != nil {
			return n, err
		}
	}
	return n, err
}

// Close ends the exchange with the upstream.
func (b *responseBody) Close() error {
	err := b.Body.Close()
	if b.upload != nil {
		b.upload.detach()
	}
	return err
}

// renew reports whether a deadline set a while ago is to be set again, and
// notes the time. Once a second is enough for limits of many seconds, and
// setting a deadline costs more than reading a small piece.
func renew(last *time.Time) bool {
	now := time.Now()
	if now.Sub(*last) < time.Second {
		return false
	}
	*last = now
	return true
}
