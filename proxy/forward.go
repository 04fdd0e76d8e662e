package proxy

import (
	"bytes"
	"errors"
	"net/netip"
	"strconv"

	"latchkey/apikey"
	"latchkey/proxy/upstream"
)

// forward sends the request to the route's upstream and hands its answer to the
// client.
func (x *exchange) forward() {
	x.buildRequest()
	if x.set.ServerTiming {
		x.handedOn = x.set.Now()
	}
	x.conn.waits()
	res, err := x.route.Upstream.Do(&x.req)
	if err != nil {
		x.conn.waitsNoMore()
		x.upstreamFault(err)
		x.traceUpstream(0)
		return
	}
	// Also where something panics: the upload has to end before its memory is used
	// for the answer to that. How the exchange ended is known.
	defer func() { _ = res.Close() }()
	defer x.conn.waitsNoMore()
	x.target = res.Target()
	if res.Status == 101 {
		x.tunnel(res)
	} else {
		x.relay(res)
	}
	x.traceUpstream(res.Status)
	x.route.count(x.target, res.Status, nil)
}

// upstreamFault answers a request that got no answer.
func (x *exchange) upstreamFault(err error) {
	var e *upstream.Error
	if errors.As(err, &e) {
		x.target = e.Target
	}
	x.route.count(x.target, 0, err)
	switch {
	case errors.Is(err, upstream.ErrAborted):
		x.fault(clientGone)
		return
	case errors.Is(err, upstream.ErrRequestBody) && x.body.fault != nil:
		x.fault(x.body.fault) // the client's failure, not the upstream's
		return
	}
	x.set.Logger.Warn("upstream failed", "request_id", string(x.id), "route", x.route.Name, "error", err)
	switch {
	case errors.Is(err, upstream.ErrBusy):
		x.fault(upstreamBusy)
	case errors.Is(err, upstream.ErrTimeout):
		x.fault(upstreamTimeout)
	case !upstream.Processed(err):
		x.fault(upstreamDown)
	default:
		x.fault(upstreamBroken)
	}
}

// buildRequest builds the request anew: the target as received but for the
// configured prefix, the end-to-end fields, and exactly one of each field that
// says who is asking.
func (x *exchange) buildRequest() {
	r, h := x.route, &x.head
	b := append(append(x.requestHead[:0], h.method...), ' ')
	b = x.appendTarget(b)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	switch {
	case r.HostRewrite != "":
		b = append(b, r.HostRewrite...)
	default:
		b = append(b, h.hostField...)
	}
	b = append(b, "\r\n"...)
	for _, f := range h.fields {
		if !hopByHop(f.name) && !h.isNamed(f.name) && !ours(f.name) && !x.isCredential(f) && !r.RequestEdits.drops(f.name) && !x.isTrace(f.name) {
			b = appendField(b, f.name, f.value)
		}
	}
	b = x.appendForwarding(b)
	b = appendIdentity(b, x.key)
	b = x.appendTrace(b)
	b = append(b, r.RequestEdits.set...)
	x.req.Reset()
	if h.length != 0 {
		x.req.Body, x.req.Length, x.req.StopBody = &x.body, h.length, x.stopBody
		if h.length > 0 {
			b = append(strconv.AppendInt(append(b, "Content-Length: "...), h.length, 10), "\r\n"...)
		} else {
			b = append(b, "Transfer-Encoding: chunked\r\n"...)
		}
	} else if needsLength(h.method) {
		b = append(b, "Content-Length: 0\r\n"...)
	}
	if x.upgrades() {
		x.req.Upgrade = true
		b = append(append(append(b, "Connection: Upgrade\r\nUpgrade: "...), h.upgrade...), "\r\n"...)
	}
	b = append(b, "\r\n"...)
	x.requestHead = b
	x.req.Method, x.req.Head = methodName(h.method), b
	x.req.HeadTimeout, x.req.BodyIdle, x.req.Retries = r.Timeout, x.set.BodyIdle, r.Retries
	x.req.OnInterim = x.onInterim
}

// needsLength reports whether a request of the method without a body should say
// so (RFC 9110, section 8.6).
func needsLength(method []byte) bool {
	return is(method, "POST") || is(method, "PUT") || is(method, "PATCH")
}

// methodName returns the method as a string, which for the usual ones does not
// allocate.
func methodName(method []byte) string {
	switch string(method) {
	case "GET":
		return "GET"
	case "HEAD":
		return "HEAD"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "PATCH":
		return "PATCH"
	case "DELETE":
		return "DELETE"
	case "OPTIONS":
		return "OPTIONS"
	}
	return string(method)
}

func appendField(b, name, value []byte) []byte {
	return append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
}

// appendTarget appends the target: byte for byte as received, less the route's
// prefix and a credential in the query, behind the prefix that the route adds.
func (x *exchange) appendTarget(b []byte) []byte {
	path, query := x.head.path, x.head.query
	// By segments, not bytes: a prefix matches in any of its encodings.
	for range x.route.stripped {
		if next := bytes.IndexByte(path[1:], '/'); next >= 0 {
			path = path[1+next:]
		} else {
			path = []byte("/")
		}
	}
	b = append(append(b, x.route.AddPrefix...), path...)
	for _, c := range x.set.Credentials {
		if c.Query != "" && query != nil && !x.route.ForwardCredential {
			query = withoutParameter(query, c.Query)
		}
	}
	if query == nil || len(query) == 0 && len(x.head.query) > 0 {
		return b
	}
	return append(append(b, '?'), query...)
}

// isCredential reports whether a field is not to be forwarded because it carries
// a key: a header made for keys, in any spelling, whatever is in it; and
// Authorization where the key came from there, and where it is the same or spelt
// like one of ours.
func (x *exchange) isCredential(f field) bool {
	if x.route.ForwardCredential {
		return false
	}
	for _, c := range x.set.Credentials {
		if c.Header != "" && sameField(f.name, c.Header) {
			return true
		}
	}
	if !sameField(f.name, "Authorization") {
		return false
	}
	token, ok := bearer(f)
	return ok && (x.secret.place.Bearer || bytes.Equal(token, x.secret.value) || x.set.Gate.Recognises(token))
}

// appendForwarding says where the request came from. What a trusted proxy said of
// that is passed on and added to; what anyone else said is dropped.
func (x *exchange) appendForwarding(b []byte) []byte {
	h := &x.head
	proto, host := "http", h.hostField
	if x.conn.tls {
		proto = "https"
	}
	b = append(b, "X-Forwarded-For: "...)
	if x.trusted {
		for _, before := range h.values("X-Forwarded-For") {
			b = append(append(b, before...), ", "...)
		}
		if v := h.values("X-Forwarded-Proto"); len(v) == 1 {
			proto = v[0]
		}
		if v := h.values("X-Forwarded-Host"); len(v) == 1 {
			host = []byte(v[0])
		}
	}
	b = append(appendPeer(b, x.peer), "\r\nX-Forwarded-Proto: "...)
	b = append(append(b, proto...), "\r\nX-Request-Id: "...)
	b = append(append(b, x.id...), "\r\n"...)
	if len(host) > 0 {
		b = appendField(b, []byte("X-Forwarded-Host"), host)
	}
	if x.set.Forwarded {
		b = append(b, "Forwarded: "...)
		if x.trusted {
			for _, before := range h.values("Forwarded") {
				b = append(append(b, before...), ", "...)
			}
		}
		b = append(append(b, forwardedElement(string(appendPeer(nil, x.peer)), proto, string(host))...), "\r\n"...)
	}
	return b
}

func appendPeer(b []byte, peer netip.Addr) []byte {
	if !peer.IsValid() {
		return append(b, "unknown"...)
	}
	return peer.WithZone("").AppendTo(b)
}

// appendIdentity says whose key was used. A field that has nothing to say is left
// out; the client's own were dropped either way.
func appendIdentity(b []byte, k *apikey.Grant) []byte {
	if k == nil {
		return b
	}
	b = append(k.ID.AppendTo(append(b, "X-Latchkey-Key-Id: "...)), "\r\nX-Latchkey-Tenant: "...)
	b = append(append(b, k.Tenant...), "\r\nX-Latchkey-Environment: "...)
	b = append(append(b, k.EnvironmentName()...), "\r\n"...)
	if k.Subject != "" {
		b = append(append(append(b, "X-Latchkey-Subject: "...), k.Subject...), "\r\n"...)
	}
	for i, s := range k.Scopes {
		sep := " "
		if i == 0 {
			sep = "X-Latchkey-Scopes: "
		}
		b = append(append(b, sep...), s...)
	}
	if len(k.Scopes) > 0 {
		b = append(b, "\r\n"...)
	}
	if k.Version != "" {
		b = append(append(append(b, "X-Api-Version: "...), k.Version...), "\r\n"...)
	}
	return b
}
