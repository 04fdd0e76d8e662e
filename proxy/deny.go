package proxy

import (
	"strings"

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
	badRequest        = &fault{400, "bad_request", "The request could not be read as HTTP/1.1.", ""}
	badVersion        = &fault{400, "bad_http_version", "Only HTTP/1.0 and HTTP/1.1 are spoken here.", ""}
	badFraming        = &fault{400, "ambiguous_framing", "A request has one Content-Length or one 'Transfer-Encoding: chunked', not both and no other.", ""}
	badHost           = &fault{400, "bad_host", "A request has exactly one Host, and it is a host name.", ""}
	badMethod         = &fault{400, "bad_method", "Methods are case-sensitive and in upper case; some servers take another case for the same.", ""}
	badTarget         = &fault{400, "bad_target", "The request target begins with '/' and has no fragment.", ""}
	ambiguousPath     = &fault{400, "ambiguous_path", "The path has a spelling that servers read differently: an encoded '/', '\\', ';' or unreserved character, a dot segment, ';' or '//'.", ""}
	methodRefused     = &fault{405, "method_not_allowed", "CONNECT and TRACE are not passed on.", ""}
	tooManyFailures   = &fault{429, "too_many_failures", "Too many requests with unknown keys came from this address; wait.", ""}
	requestTimeout    = &fault{408, "request_timeout", "The request did not arrive in time.", ""}
	bodyTooLarge      = &fault{413, "body_too_large", "The request's body is longer than is allowed here.", ""}
	targetTooLong     = &fault{414, "target_too_long", "The request's target is longer than is allowed here.", ""}
	headTooLarge      = &fault{431, "head_too_large", "The request's head is longer than is allowed here.", ""}
	routeMissing      = &fault{404, "no_route", "No route is configured for this host and path.", ""}
	wrongMethod       = &fault{405, "method_not_allowed", "No route for this path takes this method.", ""}
	internalError     = &fault{500, "internal_error", "The gateway failed to handle the request.", ""}
	upstreamBroken    = &fault{502, "upstream_failed", "The upstream broke off the exchange; it may have processed the request.", ""}
	upstreamDown      = &fault{502, "upstream_unreachable", "The upstream could not be reached; it has not processed the request.", ""}
	upstreamTimeout   = &fault{504, "upstream_timeout", "The upstream did not answer in time; it may have processed the request.", ""}
	expectationFailed = &fault{417, "expectation_failed", "The only expectation understood here is 100-continue.", ""}
	upstreamBusy      = &fault{503, "upstream_busy", "All connections to the upstream were in use for too long; it has not processed the request.", "1"}
	maintenance       = &fault{503, "maintenance", "This part of the service is closed for maintenance.", ""}
	clientGone        = &fault{499, "client_gone", "", ""} // nobody is left to be answered
	storeUnavailable  = &fault{503, "key_store_unavailable", "The key could not be checked. This says nothing about the key; try again.", "1"}
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

// denial says with which status a verdict is answered, and what the client is told.
func (s *settings) denial(v apikey.Verdict) (status int, detail string) {
	status, detail = details(v)
	if v == apikey.MissingKey {
		detail += " Send it " + s.places + "."
	}
	return status, detail
}

// refuse answers a request to which no route is open, and names the methods that
// are, if it is only about those.
func (x *exchange) refuse(f *fault, allowed []string) {
	if len(allowed) == 0 {
		x.fault(f)
		return
	}
	x.problem(f.status, f.code, f.detail, "Allow: "+strings.Join(allowed, ", ")+"\r\n")
}
