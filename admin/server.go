package admin

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/fasthttp/router"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// maxHead is the longest head of a call, in bytes: enough for the longest access
// token that is looked at, of 16 KiB, and the rest. A connection that is being
// read from takes as much memory.
const maxHead = 20 << 10

func newServer(handler fasthttp.RequestHandler) *fasthttp.Server {
	return &fasthttp.Server{
		Handler:      handler,
		Logger:       silent{}, // its lines quote requests, tokens and all
		ErrorHandler: unreadable,

		ReadBufferSize: maxHead,
		ReadTimeout:    10 * time.Second,
		WriteTimeout:   30 * time.Second,
		IdleTimeout:    60 * time.Second,

		// Bodies are read by the calls, after the caller is known.
		StreamRequestBody:            true,
		MaxRequestBodySize:           wire.MaxBody + 1,
		DisablePreParseMultipartForm: true,
		SecureErrorLogMessage:        true,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		CloseOnShutdown:              true,
	}
}

// Serve answers calls on the listener until Shutdown.
func (p *Plane) Serve(l net.Listener) error { return p.server.Serve(watchedListener{l}) }

// ServeOpen answers /metrics, /healthz and /readyz on the listener, without
// asking for credentials, until Shutdown.
func (p *Plane) ServeOpen(l net.Listener) error { return p.open.Serve(l) }

// Shutdown stops accepting connections and waits for calls under way until ctx
// is done.
func (p *Plane) Shutdown(ctx context.Context) error {
	err := p.server.ShutdownWithContext(ctx)
	if openErr := p.open.ShutdownWithContext(ctx); err == nil {
		err = openErr
	}
	return err
}

// PlaneField is the header by which the command line knows an answer of the admin plane from
// that of whatever else may listen where it was sent: a 204 of an upstream is no revocation.
const PlaneField = "X-Latchkey-Plane"

// guard gives every answer its ID, counts and logs it, and keeps a panic from
// ending the process.
func (p *Plane) guard(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		id := rand.Text()
		ctx.Response.Header.Set("X-Request-Id", id)
		ctx.Response.Header.Set("Cache-Control", "no-store")
		ctx.Response.Header.Set(PlaneField, "admin")
		defer func() {
			if recover() != nil {
				p.options.Logger.Error("panic in an admin call", "request_id", id, "stack", string(debug.Stack()))
				writePlain(ctx, 500, "internal error")
			}
			p.record(ctx, id)
		}()
		next(ctx)
	}
}

// record counts a call and logs it. Probes and scrapes that went well are not
// logged: they come every few seconds and say nothing.
func (p *Plane) record(ctx *fasthttp.RequestCtx, id string) {
	status := ctx.Response.StatusCode()
	code := strconv.Itoa(status/100) + "xx"
	if status == 401 {
		code = "401"
	}
	p.options.Metrics.WithLabelValues(code).Inc()
	path := string(ctx.Path())
	if status == 200 && (path == "/healthz" || path == "/readyz" || path == "/metrics") {
		return
	}
	attrs := []any{"request_id", id, "client", clientAddr(ctx).String(), "method", methodOf(ctx)}
	attrs = append(attrs, placeOf(ctx)...)
	if name, _ := ctx.UserValue(operatorName).(string); name != "" {
		attrs = append(attrs, "operator", name)
	}
	p.options.Logger.Info("admin call", append(attrs, "status", status)...)
}

// operatorName is where a call keeps the name of who makes it, once that is known.
const operatorName = "operator.name"

// placeOf says for the log what a call was about: the pattern that its path
// matches, and the key that the path names. The path itself may hold what someone
// took for a key's ID, such as its secret.
func placeOf(ctx *fasthttp.RequestCtx) []any {
	pattern, _ := ctx.UserValue(router.MatchedRoutePathParam).(string)
	attrs := []any{"path", pattern}
	ctx.VisitUserValues(func(_ []byte, value any) {
		text, _ := value.(string)
		if key, err := apikey.ParseID(text); err == nil {
			attrs = append(attrs, "key_id", key.String())
		}
	})
	return attrs
}

// methodOf returns a call's method for the log, if it is one that there is.
func methodOf(ctx *fasthttp.RequestCtx) string {
	switch m := string(ctx.Method()); m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return m
	}
	return "other"
}

// NewMetrics returns the counter of calls. Its label is closed: the classes of
// statuses, with 401 for itself.
func NewMetrics() *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "latchkey_admin_requests_total",
		Help: "Calls of the admin plane by the class of their status, with 401, a failed authentication, for itself.",
	}, []string{"code"})
	for _, code := range []string{"2xx", "3xx", "4xx", "5xx", "401"} {
		c.WithLabelValues(code)
	}
	return c
}

// unreadable answers what could not be parsed as a call. The error may quote
// the call, so it goes nowhere.
//
// fasthttp also asks for an answer on a connection that has had no call yet and has
// been waited for long enough. 408 is what a client that calls at this moment takes for
// the end of the connection rather than for the answer to its call.
func unreadable(ctx *fasthttp.RequestCtx, err error) {
	var timeout net.Error
	var long *fasthttp.ErrSmallBuffer
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		writePlain(ctx, 408, "the call did not arrive in time")
	case errors.As(err, &long):
		writePlain(ctx, 431, "the call's head is longer than "+strconv.Itoa(maxHead)+" bytes")
	default:
		writePlain(ctx, 400, "the call could not be read as HTTP/1.1")
	}
}

func writePlain(ctx *fasthttp.RequestCtx, status int, text string) {
	ctx.Response.ResetBody()
	ctx.SetStatusCode(status)
	ctx.SetContentType("text/plain; charset=utf-8")
	ctx.SetBodyString(text + "\n")
}

// clientAddr returns the caller's address, the zero Addr if it is unknown.
func clientAddr(ctx *fasthttp.RequestCtx) netip.Addr {
	if tcp, ok := ctx.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// silent is a fasthttp.Logger that drops everything.
type silent struct{}

// Printf does nothing.
func (silent) Printf(string, ...any) {}
