package proxy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"

	"github.com/valyala/fasthttp"
)

// newServer sets fasthttp up to hand over requests after their head, with the
// body still on the connection.
func (p *Proxy) newServer() *fasthttp.Server {
	o := &p.options
	return &fasthttp.Server{
		Handler:       p.serve,
		ExpectHandler: p.expect,
		ErrorHandler:  p.unreadable,
		Logger:        silent{}, // its lines quote requests, secrets and all

		ReadBufferSize:    o.HeaderBytes,
		ReadTimeout:       o.ReadHeader,
		IdleTimeout:       o.Idle,
		WriteTimeout:      o.BodyIdle,
		Concurrency:       math.MaxInt32, // the listener sees to that; zero would be 256 Ki
		StreamRequestBody: true,
		// Before it calls the handler, fasthttp waits for as much of a body of
		// known length as this, and at most 8 KiB. One byte is the least it can
		// be told; longer bodies are then streamed. The limit on bodies is ours.
		MaxRequestBodySize: 1,

		DisablePreParseMultipartForm: true,
		SecureErrorLogMessage:        true,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		CloseOnShutdown:              true,
	}
}

// Serve answers requests on the listener until Shutdown. How many connections
// there may be is the listener's to decide, and their RemoteAddr is believed:
// with a PROXY header it is what a trusted proxy announced.
func (p *Proxy) Serve(l net.Listener) error {
	if err := p.server.Serve(l); err != nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown stops accepting connections, closes idle ones and waits for requests
// under way until ctx is done.
func (p *Proxy) Shutdown(ctx context.Context) error { return p.server.ShutdownWithContext(ctx) }

// unreadable answers what fasthttp could not parse as a request. The error may
// quote the request, so it goes nowhere.
func (p *Proxy) unreadable(ctx *fasthttp.RequestCtx, err error) {
	x := p.begin(ctx)
	var netErr net.Error
	var small *fasthttp.ErrSmallBuffer
	switch {
	case errors.As(err, &small):
		x.fault(headTooLarge)
	case errors.As(err, &netErr) && netErr.Timeout():
		x.fault(requestTimeout)
	default:
		x.fault(badRequest)
	}
	x.finish()
}

// silent is a fasthttp.Logger that drops everything.
type silent struct{}

// Printf does nothing.
func (silent) Printf(string, ...any) {}
