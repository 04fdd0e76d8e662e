package proxy

import (
	"errors"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"latchkey/proxy/upstream"
)

// relay hands the upstream's answer on: the head with what is for the client, and
// the body as it comes in. What the upstream breaks off, the client sees broken
// off.
func (x *exchange) relay(res *upstream.Response) {
	x.beginAnswer()
	x.status = res.Status
	x.keep = x.keep && x.body.complete.Load()
	body := !bodiless(res.Status) && !is(x.head.method, "HEAD")
	chunked := body && res.Length < 0
	if chunked && x.head.minor == 0 {
		// HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
		chunked, x.keep = false, false
	}
	x.appendHead(res, chunked)
	x.writer = answerWriter{x, res, chunked}
	var err error
	if body && !res.Ready() {
		err = x.flush() // the head of a stream is not held back
	}
	if body && err == nil {
		_, err = res.WriteTo(&x.writer)
	}
	if err == nil {
		if chunked {
			x.out = append(x.out, "0\r\n\r\n"...)
		}
		err = x.flush()
	}
	if err != nil {
		x.brokenOff(err, body && res.Length < 0 && !chunked)
	}
}

// addTiming says how long the gateway and the upstream took until now, where that
// is asked for (Server-Timing, W3C). The times are in milliseconds.
func (x *exchange) addTiming() {
	if !x.set.ServerTiming {
		return
	}
	now := x.set.Now()
	for name, d := range map[string]time.Duration{"gateway": x.handedOn.Sub(x.start), "upstream": now.Sub(x.handedOn)} {
		x.add("Server-Timing", name+";dur="+strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', -1, 64))
	}
}

// bodiless reports whether a response of this status never has a body.
func bodiless(status int) bool {
	return status == fasthttp.StatusNoContent || status == fasthttp.StatusNotModified
}

// brokenOff ends an answer whose rest will not come, or that the client does not
// take.
func (x *exchange) brokenOff(err error, untilClose bool) {
	x.keep = false
	if untilClose && x.sent > 0 {
		// An orderly end would pass for the end of the body.
		x.cut = true
	}
	var e *upstream.Error
	if !errors.As(err, &e) || errors.Is(err, upstream.ErrAborted) {
		x.outcome = clientGone.code
		return
	}
	if errors.Is(err, upstream.ErrRequestBody) && x.body.fault != nil {
		x.fault(x.body.fault) // the client's failure, not the upstream's
		return
	}
	x.set.Logger.Warn("upstream failed in its answer", "request_id", string(x.id), "route", x.route.Name, "error", err)
	if x.sent == 0 {
		// Nothing is under way to the client yet: it gets a whole answer. What is
		// left of its body may still be read by the upload.
		x.keep = x.head.persistent() && x.body.complete.Load() && !x.proxy.draining.Load()
		if errors.Is(err, upstream.ErrTimeout) {
			x.fault(upstreamTimeout)
		} else {
			x.fault(upstreamBroken)
		}
		return
	}
	x.outcome = upstreamBroken.code
}

// appendHead appends the head that the client gets.
func (x *exchange) appendHead(res *upstream.Response, chunked bool) {
	x.out = appendStatusLine(x.out[:0], res)
	dated := false
	named := connectionOptions(res.Fields)
	for _, f := range res.Fields {
		switch {
		case !x.passes(f.Name, named):
			continue
		case len(f.Name) == 4 && sameField(f.Name, "Date"):
			dated = true
		}
		x.out = appendField(x.out, f.Name, f.Value)
	}
	x.out = append(x.out, x.route.ResponseEdits.set...)
	if !dated {
		x.add("Date", x.proxy.date.text(x.start)) // RFC 9110, section 6.6.1
	}
	x.addID()
	x.addTiming()
	x.addCORS()
	x.appendLength(res, chunked)
	x.addConnection()
	x.out = append(x.out, "\r\n"...)
}

// passes reports whether a field of a head that the upstream sent is for the
// client. named is what its Connection fields name.
func (x *exchange) passes(name []byte, named [][]byte) bool {
	return !hopByHop(name) && !isNamed(named, name) && !sameField(name, "X-Request-Id") &&
		!x.route.ResponseEdits.drops(name) && !x.ownsCORS(name)
}

// appendStatusLine appends the status line with the reason that the upstream
// gave.
func appendStatusLine(b []byte, res *upstream.Response) []byte {
	b = append(b, "HTTP/1.1 "...)
	line := res.Raw[len("HTTP/1.1 "):]
	for i, c := range line {
		if c == '\r' {
			line = line[:i]
			break
		}
	}
	b = append(b, line...)
	if len(line) == 3 {
		b = append(b, ' ') // a reason may be empty, its space not missing (RFC 9112, section 4)
	}
	return append(b, "\r\n"...)
}

// appendLength says where the body ends (RFC 9112, section 6.3). An answer
// without a body says how long it would have been, as the upstream did.
func (x *exchange) appendLength(res *upstream.Response, chunked bool) {
	switch {
	case chunked:
		x.out = append(x.out, "Transfer-Encoding: chunked\r\n"...)
	case is(x.head.method, "HEAD") || res.Status == fasthttp.StatusNotModified:
		for _, f := range res.Fields {
			if sameField(f.Name, "Content-Length") {
				x.out = appendField(x.out, f.Name, f.Value)
			}
		}
	case res.Status == fasthttp.StatusNoContent || res.Length < 0:
	default:
		x.out = append(strconv.AppendInt(append(x.out, "Content-Length: "...), res.Length, 10), "\r\n"...)
	}
}

// An answerWriter writes an answer's body to the client as it comes in, in chunks
// where the client gets it so.
type answerWriter struct {
	*exchange
	res     *upstream.Response
	chunked bool
}

// Write writes a piece. The last one waits for what ends the answer.
func (w *answerWriter) Write(p []byte) (int, error) {
	x := w.exchange
	if !w.chunked {
		return len(p), x.write(p)
	}
	// In out, so that the head, the frame and a short piece are one write.
	x.out = append(strconv.AppendInt(x.out, int64(len(p)), 16), "\r\n"...)
	if w.res.Complete() && len(x.out)+len(p)+len("\r\n0\r\n\r\n") <= cap(x.out) {
		x.out = append(append(x.out, p...), "\r\n"...)
		return len(p), nil
	}
	return len(p), x.write(p, x.proxy.crlf)
}

// interim relays a response that announces another one (RFC 9110, section 15.2).
// The upstream's 100 is not for the client: it gets the gateway's own.
func (x *exchange) interim(status int, fields []upstream.Field) {
	if status == fasthttp.StatusContinue || x.head.minor == 0 {
		return
	}
	b := appendStatus(nil, status)
	named := connectionOptions(fields)
	for _, f := range fields {
		if x.passes(f.Name, named) {
			b = appendField(b, f.Name, f.Value)
		}
	}
	if x.sayFirst(append(b, "\r\n"...)) != nil {
		x.req.Abort() // part of it may be out, and an answer behind that would be none
	}
}
