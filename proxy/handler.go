package proxy

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/valyala/fasthttp"

	"latchkey/apikey"
	"latchkey/proxy/gate"
)

// An exchange is one request on its way to an answer.
type exchange struct {
	*fasthttp.RequestCtx
	proxy *Proxy
	start time.Time

	id      string // X-Request-Id, the client's or made here
	peer    netip.Addr
	trusted bool // the peer is a trusted proxy
	head    head
	route   *Route      // nil until found
	key     *apikey.Key // nil until found, and on public routes
	secret  credential
	gate    gate.Request

	outcome string // the verdict or fault, for metrics and log
}

// serve answers a request whose head has been read.
func (p *Proxy) serve(ctx *fasthttp.RequestCtx) {
	x := p.begin(ctx)
	defer x.finish()
	defer x.recover()
	if x.admit() {
		x.forward()
	}
}

// expect answers a request that waits for 100 Continue before it sends its body
// (RFC 9110, section 10.1.1). One that is admitted comes to serve next.
func (p *Proxy) expect(ctx *fasthttp.RequestCtx) (status int) {
	x := p.begin(ctx)
	admitted := false
	func() {
		defer x.recover()
		admitted = x.admit()
	}()
	if admitted {
		return fasthttp.StatusContinue
	}
	x.finish()
	return ctx.Response.StatusCode()
}

func (p *Proxy) begin(ctx *fasthttp.RequestCtx) *exchange {
	x := &exchange{RequestCtx: ctx, proxy: p, start: p.options.Now(), peer: addrOf(ctx.RemoteAddr())}
	x.trusted = contains(p.options.Trusted, x.peer)
	x.id = requestID(ctx.Request.Header.Peek("X-Request-Id"))
	ctx.Response.Header.Set("X-Request-Id", x.id)
	return x
}

// admit reports whether the request may go to an upstream; where it may not,
// the answer has been written.
func (x *exchange) admit() bool {
	p := x.proxy
	if f := x.head.screen(x.RequestCtx, !p.options.LoosePaths); f != nil {
		// What follows on the connection may not begin where we think it does.
		x.SetConnectionClose()
		x.fault(f)
		return false
	}
	if limit := p.options.BodyBytes; limit > 0 && int64(x.Request.Header.ContentLength()) > limit {
		x.fault(bodyTooLarge)
		return false
	}
	route, allowed := p.routes.find(x.head.host, x.Method(), x.head.path)
	if route == nil {
		x.noRoute(allowed)
		return false
	}
	x.route = route
	x.secret = findCredential(p.options.Credentials, &x.head)
	if route.Public {
		x.outcome = outcomePublic
		return true
	}
	x.gate = gate.Request{Secret: x.secret.value, Now: x.start, Demand: &route.Demand,
		Client: clientAddr(x.peer, x.trusted, p.options.Trusted, &x.head)}
	verdict, key, err := p.options.Gate.Decide(&x.gate)
	if err != nil {
		p.options.Logger.Error("key store cannot answer", "request_id", x.id, "error", err)
		x.fault(storeUnavailable)
		return false
	}
	x.key = key
	if verdict != apikey.Allowed {
		x.deny(verdict)
		return false
	}
	if p.options.Uses != nil {
		p.options.Uses.Record(apikey.Use{Key: key.ID, At: x.start, Address: x.gate.Client, Route: route.Name})
	}
	x.outcome = verdict.String()
	return true
}

// recover turns a panic into an answer: one request's fault is not another's.
func (x *exchange) recover() {
	cause := recover()
	if cause == nil {
		return
	}
	x.proxy.options.Metrics.panics.Inc()
	// The value of the panic may quote the request; where it happened does not.
	x.proxy.options.Logger.Error("panic while serving a request", "request_id", x.id, "stack", string(debug.Stack()))
	x.fault(internalError)
}

// finish counts and logs the request. A streamed response body is still to be
// written, so the duration is that of the response's head.
func (x *exchange) finish() {
	p, took := x.proxy, x.proxy.options.Now().Sub(x.start)
	name := noRoute
	if x.route != nil {
		name = x.route.Name
	}
	p.options.Metrics.count(name, x.outcome, took)
	if !p.sampled() {
		return
	}
	attrs := []slog.Attr{
		slog.String("request_id", x.id),
		slog.String("peer", x.peer.String()),
		slog.String("method", string(x.Method())),
		slog.String("path", x.proxy.loggedPath(x.head.path)),
		slog.String("route", name),
		slog.String("outcome", x.outcome),
		slog.Int("status", x.Response.StatusCode()),
		slog.Float64("duration_seconds", took.Seconds()),
	}
	if x.key != nil {
		attrs = append(attrs, slog.String("key_id", x.key.ID.String()), slog.String("tenant", x.key.Tenant))
	}
	p.options.AccessLog.LogAttrs(x, slog.LevelInfo, "request", attrs...)
}

// loggedPath returns a path for the access log. A segment that is spelt like a key
// of ours is masked: no path is a place for keys, but clients put them there.
func (p *Proxy) loggedPath(path []byte) string {
	segments := bytes.Split(path, []byte("/"))
	for i, s := range segments {
		if p.options.Gate.Recognises(s) {
			segments[i] = []byte("(key)")
		}
	}
	return string(bytes.Join(segments, []byte("/")))
}

// addrOf returns the address of a peer without its port, the zero Addr if it
// has none.
func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
