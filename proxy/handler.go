package proxy

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strconv"
	"time"

	"latchkey/apikey"
	"latchkey/proxy/gate"
	"latchkey/proxy/upstream"
)

// An exchange is one request on its way to an answer. A connection has one and
// uses it again for each request.
type exchange struct {
	proxy *Proxy
	conn  *clientConn
	set   *settings // those in force when the request came
	start time.Time

	head    head
	id      []byte // X-Request-Id, the client's or made here
	peer    netip.Addr
	trusted bool   // the peer is a trusted proxy
	route   *Route // nil until found
	key     *apikey.Grant
	secret  credential
	gate    gate.Request
	body    requestBody

	req         upstream.Request
	requestHead []byte
	handedOn    time.Time // when the request went to the upstream; kept only where answers tell
	target      string    // of the upstream, that answered or failed
	stopBody    func()
	onInterim   func(int, []upstream.Field)

	writer      answerWriter
	pieces      net.Buffers // of a long answer, written together
	piecesArray [4][]byte
	out         []byte // of the answer, not sent yet
	scratch     []byte
	sent        int64 // bytes of the answer
	status      int
	keep        bool     // the connection goes on after the answer
	cut         bool     // it ends in a way that nobody takes for orderly
	outcome     string   // the verdict or fault, for metrics and log
	tracing     *tracing // nil unless requests are traced
}

// exchange returns one for the requests of a connection, until that is idle. One whose
// connection ends is not used again: what still reads its request's body may not be done.
func (p *Proxy) exchange(c *clientConn) *exchange {
	x, ok := p.exchanges.Get().(*exchange)
	if !ok {
		x = &exchange{proxy: p}
		x.stopBody, x.onInterim = x.body.stop, x.interim
	}
	x.conn = c
	return x
}

// reset readies the exchange for the next request.
func (x *exchange) reset() {
	p := x.proxy
	x.head.clear()
	x.set = p.current.Load()
	x.conn.set = x.set
	x.start = x.set.Now()
	x.tracing = nil
	x.route, x.key, x.secret, x.gate = nil, nil, credential{}, gate.Request{}
	x.target, x.outcome, x.status, x.sent, x.keep, x.cut = "", "", 0, 0, true, false
	x.peer = addrOf(x.conn.peer)
	x.trusted = contains(x.set.Trusted, x.peer)
}

// serve answers a request whose head has been read.
func (x *exchange) serve() {
	x.id = appendRequestID(x.id[:0], x.head.fields)
	x.keep = x.head.persistent() && !x.proxy.draining.Load()
	x.body.begin(x)
	defer x.recover()
	x.beginTrace()
	if x.admit() {
		x.forward()
	}
}

// refuseUnread answers a request whose head could not be read. What follows on
// the connection may not begin where we think it does.
func (x *exchange) refuseUnread(f *fault) {
	x.id = appendRequestID(x.id[:0], nil)
	x.keep = false
	x.body.begin(x)
	x.fault(f)
}

// admit reports whether the request may go to an upstream; where it may not, the
// answer has been written. It reads the head and nothing else.
func (x *exchange) admit() bool {
	if f := x.head.screen(!x.set.LoosePaths); f != nil {
		x.keep = false
		x.fault(f)
		return false
	}
	if x.preflight() {
		return false
	}
	route, allowed, f := x.set.rule(&x.head)
	x.route = route
	if f != nil {
		x.refuse(f, allowed)
		return false
	}
	if limit := x.bodyLimit(); limit > 0 && x.head.length > limit {
		x.fault(bodyTooLarge)
		return false
	}
	x.secret = findCredential(x.set.Credentials, &x.head)
	if route.Public {
		x.outcome = outcomePublic
		return true
	}
	now := x.start
	if x.conn.held {
		now = x.set.Now() // the beginning of a head that is held back says nothing of its end
	}
	x.gate = gate.Request{Secret: x.secret.value, Now: now, Demand: &route.Demand,
		Client: clientAddr(x.peer, x.trusted, x.set.Trusted, &x.head)}
	if wait := x.proxy.throttled(x.set, &x.gate); wait > 0 {
		f := tooManyFailures
		x.problem(f.status, f.code, f.detail, "Retry-After: "+strconv.Itoa(int(wait/time.Second)+1)+"\r\n")
		return false
	}
	verdict, key, err := x.set.Gate.Decide(&x.gate)
	if err != nil {
		x.set.Logger.Error("key store cannot answer", "request_id", string(x.id), "error", err)
		x.fault(storeUnavailable)
		return false
	}
	x.key = key
	if verdict == apikey.InvalidKey && x.set.throttles(x.gate.Client) {
		x.proxy.failures.Add(x.gate.Client, now)
	}
	if verdict != apikey.Allowed {
		x.deny(verdict)
		return false
	}
	if x.set.Uses != nil {
		x.set.Uses.Record(apikey.Use{Key: key.ID, At: now, Address: x.gate.Client, Route: route.Name})
	}
	x.outcome = verdict.String()
	return true
}

// throttled returns how long the client has to wait, since it has tried too many unknown
// keys: also with a good one, or guessing could go on. Zero means that it may try.
func (p *Proxy) throttled(s *settings, r *gate.Request) time.Duration {
	if len(r.Secret) == 0 || !s.throttles(r.Client) {
		return 0
	}
	return p.failures.Wait(r.Client, s.FailuresPerIP, r.Now)
}

// throttles reports whether the unknown keys of a client are counted. Those of nobody in
// particular are not: where the client is unknown, or is a trusted proxy that does not say
// for whom it speaks, all who come that way would wait for one.
func (s *settings) throttles(client netip.Addr) bool {
	return s.FailuresPerIP > 0 && client.IsValid() && !contains(s.Trusted, client)
}

// rule returns the route for a request that has been screened. Where it is not open
// to the request, it returns the fault too; where the path is known but not with this
// method, the methods that are.
func (s *settings) rule(h *head) (route *Route, allowed []string, f *fault) {
	route, allowed = s.routes.find(h.host, h.method, h.path)
	switch {
	case route != nil:
		return route, nil, route.closed()
	case len(allowed) > 0:
		return nil, allowed, wrongMethod
	}
	return nil, nil, routeMissing
}

// bodyLimit returns the length that a body may have; zero means any.
func (x *exchange) bodyLimit() int64 {
	if x.route != nil && x.route.BodyBytes > 0 {
		return x.route.BodyBytes
	}
	return x.set.BodyBytes
}

// recover turns a panic into an answer: one request's fault is not another's.
func (x *exchange) recover() {
	if recover() == nil {
		return
	}
	x.set.Metrics.panics.Inc()
	// The value of the panic may quote the request; where it happened does not.
	x.set.Logger.Error("panic while serving a request", "request_id", string(x.id), "stack", string(debug.Stack()))
	x.conn.waitsNoMore()
	x.beginAnswer()
	x.keep = false
	x.fault(internalError)
}

// finish counts and logs the request, and reports whether the connection can
// carry another one.
func (x *exchange) finish() bool {
	p := x.proxy
	took := x.set.Now().Sub(x.start)
	name, metrics := noRoute, x.set.noRoute
	if x.route != nil {
		name, metrics = x.route.Name, x.route.metrics
	}
	metrics.count(x.outcome, took)
	if x.set.sampled() {
		x.log(name, took)
	}
	x.endTrace(x.start.Add(took))
	p.outputs.put(x.out)
	x.out = nil
	if x.keep && x.body.stopped.Load() {
		x.conn.reads.moved = time.Time{} // stop has set another deadline
	}
	switch {
	case x.cut:
		x.conn.reset()
	case !x.keep:
		x.conn.linger(x.outcome)
	}
	return x.keep
}

// log writes the request's line in the access log.
func (x *exchange) log(route string, took time.Duration) {
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs,
		slog.String("request_id", string(x.id)),
		slog.String("peer", x.peer.String()),
		slog.String("method", string(x.head.method)),
		slog.String("path", x.shownPath(x.head.path)),
		slog.String("route", route),
		slog.String("outcome", x.outcome),
		slog.Int("status", x.status),
		slog.Int64("bytes_in", x.body.taken),
		slog.Int64("bytes_out", x.sent),
		slog.Float64("duration_seconds", took.Seconds()),
	)
	if client := x.gate.Client; client.IsValid() && client != x.peer {
		attrs = append(attrs, slog.String("client", client.String()))
	}
	if x.target != "" {
		attrs = append(attrs, slog.String("target", x.target))
	}
	if x.tracing != nil && x.tracing.span.TraceID() != "" {
		attrs = append(attrs, slog.String("trace_id", x.tracing.span.TraceID()))
	}
	if x.key != nil {
		attrs = append(attrs, slog.String("key_id", x.key.ID.String()), slog.String("tenant", x.key.Tenant))
	}
	x.set.AccessLog.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
}

// shownPath returns a path for the access log and traces: as it is sent, unless it holds
// what is spelt like a key of ours, which is masked in what the path decodes to. No path
// is a place for keys, but clients put them there.
func (x *exchange) shownPath(path []byte) string {
	plain := decoded(path)
	if masked := x.set.Gate.Mask(plain); !bytes.Equal(masked, plain) {
		return string(masked)
	}
	return string(x.set.Gate.Mask(path)) // of a key whose first letters follow a percent sign
}

// addrOf returns the address of a peer without its port, the zero Addr if it
// has none.
func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
