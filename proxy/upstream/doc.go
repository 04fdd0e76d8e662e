// Package upstream carries requests to upstream services and brings their
// responses back.
//
// It knows connections, deadlines and HTTP/1.1 (RFC 9112). Which request goes
// to which upstream, and what it may say of its sender, is decided in package
// proxy before it gets here: a request's head is sent byte for byte as it is
// given. What of a response is for the client is decided there, too.
//
// # What it promises
//
// A response is read strictly. What two readers could take for two different
// things (RFC 9112, sections 6.3 and 11.1) is ErrMalformed, and what ends before
// its end is ErrTruncated: neither is ever reported as a whole response.
//
// A connection is used again only after a response that was read to its end,
// had an exact length and left nothing behind, and only if nothing has arrived
// on it since. Otherwise it is closed, so bytes of one exchange never reach the
// next.
//
// A request is sent twice only where the first sending cannot have had an
// effect, or an effect that is the same if it happens twice: see Upstream.Do.
//
// # An exchange
//
//	var r upstream.Request // kept and used again by the caller
//	r.Method, r.Head = "GET", head
//	res, err := u.Do(&r)
//	if err != nil {
//		return err // errors.Is tells which kind, Processed whether it may have had an effect
//	}
//	defer res.Close()
//	_, err = res.WriteTo(client)
//
// A request without a body is exchanged without allocating, once its connection
// is there. So that this is possible the Response is part of the Request, and
// its head is borrowed from the connection: Raw, Fields and what Hijack returns
// are valid until Close.
//
// Request.Abort ends an exchange from any goroutine, at any moment.
//
// # What runs it
//
// Nothing runs by itself but uploads. Expire, Check and Resolve are single
// passes over what is there at a given time, for the caller to call
// periodically; State says what there is, for metrics.
package upstream
