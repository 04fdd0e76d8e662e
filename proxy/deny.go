package proxy

import (
	"fmt"
	"strings"

	"github.com/valyala/fasthttp"

	"latchkey/apikey"
)

// A fault is an answer of the gateway's own that is not a verdict on a key.
type fault struct {
	status     int
	code       string // `code` of the answer, and the metric label
	detail     string
	retryAfter string // seconds; empty leaves the header out
}

// The faults. A request that is refused for its form is told which form.
var (
	badRequest       = &fault{400, "bad_request", "The request could not be read as HTTP/1.1.", ""}
	badVersion       = &fault{400, "bad_http_version", "Only HTTP/1.0 and HTTP/1.1 are spoken here.", ""}
	badFraming       = &fault{400, "ambiguous_framing", "A request has one Content-Length or one 'Transfer-Encoding: chunked', not both and no other.", ""}
	badHost          = &fault{400, "bad_host", "A request has exactly one Host, and it is a host name.", ""}
	badMethod        = &fault{400, "bad_method", "Methods are case-sensitive and in upper case; some servers take another case for the same.", ""}
	badTarget        = &fault{400, "bad_target", "The request target begins with '/' and has no fragment.", ""}
	ambiguousPath    = &fault{400, "ambiguous_path", "The path has a spelling that servers read differently: an encoded '/', '\\', ';' or unreserved character, a dot segment, ';' or '//'.", ""}
	methodRefused    = &fault{405, "method_not_allowed", "CONNECT and TRACE are not passed on.", ""}
	requestTimeout   = &fault{408, "request_timeout", "The request did not arrive in time.", ""}
	bodyTooLarge     = &fault{413, "body_too_large", "The request's body is longer than is allowed here.", ""}
	headTooLarge     = &fault{431, "head_too_large", "The request's head is longer than is allowed here.", ""}
	routeMissing     = &fault{404, "no_route", "No route is configured for this host and path.", ""}
	wrongMethod      = &fault{405, "method_not_allowed", "No route for this path takes this method.", ""}
	internalError    = &fault{500, "internal_error", "The gateway failed to handle the request.", ""}
	upstreamBroken   = &fault{502, "upstream_failed", "The upstream broke off the exchange; it may have processed the request.", ""}
	upstreamDown     = &fault{502, "upstream_unreachable", "The upstream could not be reached; it has not processed the request.", ""}
	upstreamTimeout  = &fault{504, "upstream_timeout", "The upstream did not answer in time; it may have processed the request.", ""}
	storeUnavailable = &fault{503, "key_store_unavailable", "The key could not be checked. This says nothing about the key; try again.", "1"}
)

// details says, for each verdict, what the client is told.
func details(v apikey.Verdict) (status int, detail string) {
	switch v {
	case apikey.MissingKey:
		return 401, "The request carries no API key."
	case apikey.InvalidKey:
		return 401, "The API key is not known here."
	case apikey.RevokedKey:
		return 401, "The API key has been revoked."
	case apikey.ExpiredKey:
		return 401, "The API key has expired."
	case apikey.RotatedKey:
		return 401, "The API key has been replaced and its grace is over."
	case apikey.IPNotAllowed:
		return 403, "The API key may not be used from this address."
	case apikey.InsufficientScope:
		return 403, "The API key lacks a scope that this route requires."
	case apikey.KeyNotAllowedHere:
		return 403, "The API key is for another tenant or environment than this route."
	}
	return 500, "The gateway failed to handle the request."
}

// deny answers a request the gate refused.
func (x *exchange) deny(v apikey.Verdict) {
	status, detail := details(v)
	if v == apikey.MissingKey {
		detail += " Send it " + x.proxy.places + "."
	}
	x.problem(status, v.String(), detail)
	if status == 401 {
		// RFC 6750, section 3: no error code for a request without credentials.
		challenge := `Bearer realm="latchkey"`
		if v != apikey.MissingKey {
			challenge += `, error="invalid_token"`
		}
		x.Response.Header.Set("WWW-Authenticate", challenge)
	}
}

// fault answers a request that did not get as far as a verdict, or failed
// after it.
func (x *exchange) fault(f *fault) {
	x.Response.ResetBody()
	x.problem(f.status, f.code, f.detail)
	if f.retryAfter != "" {
		x.Response.Header.Set("Retry-After", f.retryAfter)
	}
}

func (x *exchange) noRoute(allowed []string) {
	if len(allowed) == 0 {
		x.fault(routeMissing)
		return
	}
	x.fault(wrongMethod)
	x.Response.Header.Set("Allow", strings.Join(allowed, ", "))
}

// problem writes the answer in the form of RFC 9457. All of it is constants of
// this package in ASCII, which Go quotes as JSON does, and the request ID, which
// requestID checked or made.
func (x *exchange) problem(status int, code, detail string) {
	x.outcome = code
	x.SetStatusCode(status)
	h := &x.Response.Header
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	x.SetBodyString(fmt.Sprintf(`{"type":"urn:latchkey:problem:%s","title":%q,"status":%d,"detail":%q,"code":%q,"request_id":%q}`+"\n",
		code, fasthttp.StatusMessage(status), status, detail, code, x.id))
}
