package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/valyala/fasthttp"

	"latchkey/apikey"
	"latchkey/proxy/upstream"
)

// forward sends the request to the route's upstream and hands its answer to
// the client.
func (x *exchange) forward() {
	req := x.upstreamRequest()
	res, err := x.route.Upstream.Do(req)
	if body, ok := req.Body.(*requestBody); ok && err != nil {
		body.detach()
		if body.fault != nil {
			x.fault(body.fault) // the client's failure, not the upstream's
			return
		}
	}
	if err != nil {
		x.proxy.options.Logger.Warn("upstream failed", "request_id", x.id, "route", x.route.Name, "error", err)
		switch {
		case errors.Is(err, upstream.ErrTimeout):
			x.fault(upstreamTimeout)
		case errors.Is(err, upstream.ErrUnavailable):
			x.fault(upstreamDown)
		default:
			x.fault(upstreamBroken)
		}
		return
	}
	x.relay(req, res)
}

// upstreamRequest builds the request anew: the target as received but for the
// configured prefix, the end-to-end fields, and exactly one of each field that
// says who is asking.
func (x *exchange) upstreamRequest() *upstream.Request {
	r := x.route
	out := &upstream.Request{
		Method:      string(x.Method()),
		Target:      x.upstreamTarget(),
		Host:        string(x.Request.Header.Host()),
		HeadTimeout: r.Timeout,
	}
	named := connectionNamed(&x.head)
	for _, f := range x.head.fields {
		if !hopByHop(f.name, named) && !ours(f.name) && !x.isCredential(f) {
			out.Fields = append(out.Fields, f.upstreamField())
		}
	}
	out.Fields = append(out.Fields, x.forwardingFields()...)
	out.Fields = append(out.Fields, identityFields(x.key)...)
	if n := x.Request.Header.ContentLength(); n > 0 || n == -1 {
		out.ContentLength = int64(n)
		out.Body = newRequestBody(x, int64(n), x.proxy.options.BodyBytes)
	}
	return out
}

func (x *exchange) upstreamTarget() string {
	path, query := x.head.path, x.head.query
	// By segments, not bytes: a prefix matches in any of its encodings.
	for range strings.Count(x.route.StripPrefix, "/") {
		if next := bytes.IndexByte(path[1:], '/'); next >= 0 {
			path = path[1+next:]
		} else {
			path = []byte("/")
		}
	}
	for _, c := range x.proxy.options.Credentials {
		if c.Query != "" && query != nil && !x.route.ForwardCredential {
			query = withoutParameter(query, c.Query)
		}
	}
	if query == nil || len(query) == 0 && len(x.head.query) > 0 {
		return string(path)
	}
	return string(path) + "?" + string(query)
}

// isCredential reports whether a field is not to be forwarded because it
// carries a key: a header made for keys, in any spelling, whatever is in it; and
// Authorization where the key came from there.
func (x *exchange) isCredential(f field) bool {
	if x.route.ForwardCredential {
		return false
	}
	for _, c := range x.proxy.options.Credentials {
		if c.Header != "" && sameField(f.name, c.Header) {
			return true
		}
	}
	if !sameField(f.name, "Authorization") {
		return false
	}
	token, ok := bearer(f)
	return ok && (x.secret.place.Bearer || x.proxy.options.Gate.Recognises(token))
}

// forwardingFields says where the request came from. What a trusted proxy said
// of that is passed on and added to; what anyone else said is dropped.
func (x *exchange) forwardingFields() []upstream.Field {
	proto := "http"
	if x.IsTLS() {
		proto = "https"
	}
	host, peer := string(x.Request.Header.Host()), "unknown"
	if x.peer.IsValid() {
		peer = x.peer.WithZone("").String()
	}
	chain := peer
	if x.trusted {
		if before := x.head.values("X-Forwarded-For"); len(before) > 0 {
			chain = strings.Join(before, ", ") + ", " + peer
		}
		if v := x.head.values("X-Forwarded-Proto"); len(v) == 1 {
			proto = v[0]
		}
		if v := x.head.values("X-Forwarded-Host"); len(v) == 1 {
			host = v[0]
		}
	}
	fields := []upstream.Field{
		{Name: "X-Forwarded-For", Value: chain},
		{Name: "X-Forwarded-Proto", Value: proto},
		{Name: "X-Request-Id", Value: x.id},
	}
	if host != "" {
		fields = append(fields, upstream.Field{Name: "X-Forwarded-Host", Value: host})
	}
	if x.proxy.options.Forwarded {
		element := forwardedElement(peer, proto, host)
		if before := x.head.values("Forwarded"); x.trusted && len(before) > 0 {
			element = strings.Join(before, ", ") + ", " + element
		}
		fields = append(fields, upstream.Field{Name: "Forwarded", Value: element})
	}
	return fields
}

// forwardedElement writes one element of Forwarded (RFC 7239, section 4). An
// IPv6 address and anything else that is not a token is quoted.
func forwardedElement(peer, proto, host string) string {
	if strings.Contains(peer, ":") {
		peer = `"[` + peer + `]"`
	}
	element := "for=" + peer + ";proto=" + proto
	if host != "" {
		element += `;host="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(host) + `"`
	}
	return element
}

// identityFields says whose key was used. A field that has nothing to say is
// left out; the client's own were dropped either way.
func identityFields(k *apikey.Key) []upstream.Field {
	if k == nil {
		return nil
	}
	fields := []upstream.Field{
		{Name: "X-Latchkey-Key-Id", Value: k.ID.String()},
		{Name: "X-Latchkey-Tenant", Value: k.Tenant},
		{Name: "X-Latchkey-Environment", Value: k.EnvironmentName()},
	}
	if k.Subject != "" {
		fields = append(fields, upstream.Field{Name: "X-Latchkey-Subject", Value: k.Subject})
	}
	if len(k.Scopes) > 0 {
		fields = append(fields, upstream.Field{Name: "X-Latchkey-Scopes", Value: strings.Join(k.Scopes, " ")})
	}
	if k.Pin.Version != "" {
		fields = append(fields, upstream.Field{Name: "X-Api-Version", Value: k.Pin.Version})
	}
	return fields
}

// relay hands the upstream's answer on. The body is streamed: fasthttp reads it
// after the handler has returned, and closes it.
func (x *exchange) relay(req *upstream.Request, res *upstream.Response) {
	h := &x.Response.Header
	fields := endToEnd(res.Fields)
	for _, f := range fields {
		if f.Name == "Content-Encoding" && len(h.Peek(f.Name)) > 0 {
			// fasthttp keeps one; the codings of several lines are a list (RFC
			// 9110, section 8.4).
			h.Set(f.Name, string(h.Peek(f.Name))+", "+f.Value)
			continue
		}
		h.Add(f.Name, f.Value)
	}
	x.SetStatusCode(res.Status)
	upload, _ := req.Body.(*requestBody)
	if bodiless(res.Status) || x.IsHead() && res.ContentLength < 0 {
		res.Body.Close()
		if upload != nil {
			upload.detach()
		}
		x.Response.SkipBody = true
		return
	}
	idle := x.proxy.options.BodyIdle
	body := &responseBody{source: res.Body, idle: idle, upload: upload, deadline: deadline{idle: idle, set: x.SetWriteDeadline}}
	if res.ContentLength < 0 && !x.Request.Header.IsHTTP11() {
		x.relayUntilClose(body, fields)
		return
	}
	// A head whose body may be long in coming is not held back for it.
	x.Response.ImmediateHeaderFlush = res.ContentLength < 0 || res.ContentLength > longBody
	x.SetBodyStream(body, int(res.ContentLength))
}

// longBody is the length in bytes above which a body fills more than fasthttp's
// write buffer.
const longBody = 4 << 10

// relayUntilClose hands an answer of unknown length to a client of HTTP/1.0,
// which knows no chunks: the end of the connection is the end of the body. What
// a client of HTTP/1.0 cannot tell from that is a body cut short.
func (x *exchange) relayUntilClose(body *responseBody, fields []upstream.Field) {
	head := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nConnection: close\r\nX-Request-Id: %s\r\n",
		x.Response.StatusCode(), fasthttp.StatusMessage(x.Response.StatusCode()), x.id)
	for _, f := range fields {
		head = fmt.Appendf(head, "%s: %s\r\n", f.Name, f.Value)
	}
	x.HijackSetNoResponse(true)
	x.Hijack(func(c net.Conn) {
		defer body.Close()
		body.deadline.set = c.SetWriteDeadline
		if _, err := c.Write(append(head, "\r\n"...)); err == nil {
			_, _ = io.Copy(c, body) // an end of either side is the end of both
		}
	})
}

// bodiless reports whether a response of this status never has a body.
func bodiless(status int) bool {
	return status == fasthttp.StatusNoContent || status == fasthttp.StatusNotModified
}
