package proxy

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"latchkey/apikey"
)

// answer begins an answer of the gateway's own.
func (x *exchange) answer(status int, code string) {
	x.outcome, x.status = code, status
	x.out = appendStatus(x.out[:0], status)
	x.addID()
	x.add("Date", x.proxy.date.text(x.start))
}

// add adds a field to the answer's head.
func (x *exchange) add(name, value string) {
	x.out = append(append(append(append(x.out, name...), ": "...), value...), "\r\n"...)
}

func (x *exchange) addID() {
	x.out = append(append(append(x.out, "X-Request-Id: "...), x.id...), "\r\n"...)
}

func appendStatus(b []byte, status int) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	return append(append(append(b, ' '), fasthttp.StatusMessage(status)...), "\r\n"...)
}

// addConnection says what becomes of the connection after this answer (RFC 9112,
// section 9.3). While the gateway drains it is the last one, also where the
// request came before.
func (x *exchange) addConnection() {
	x.keep = x.keep && !x.proxy.draining.Load()
	switch {
	case !x.keep:
		x.out = append(x.out, "Connection: close\r\n"...)
	case x.head.minor == 0:
		x.out = append(x.out, "Connection: keep-alive\r\n"...)
	}
}

// finishAnswer ends an answer of the gateway's own with its body.
func (x *exchange) finishAnswer(body []byte) {
	x.addConnection()
	if x.status != fasthttp.StatusNoContent {
		x.out = append(x.out, "Content-Length: "...)
		x.out = append(strconv.AppendInt(x.out, int64(len(body)), 10), "\r\n"...)
	}
	x.out = append(x.out, "\r\n"...)
	if !is(x.head.method, "HEAD") {
		x.out = append(x.out, body...)
	}
	if err := x.flush(); err != nil {
		x.keep = false
	}
}

// flush writes what is gathered of the answer. The client has the idle time to
// take it.
func (x *exchange) flush() error {
	if len(x.out) == 0 {
		return nil
	}
	if err := x.conn.writes.renew(x.set.BodyIdle); err != nil {
		return err
	}
	n, err := x.conn.send(x.out)
	x.sent += int64(n)
	x.out = x.out[:0]
	return err
}

// write writes pieces behind what is gathered, together where they are short.
func (x *exchange) write(pieces ...[]byte) error {
	length := len(x.out)
	for _, p := range pieces {
		length += len(p)
	}
	if length <= cap(x.out) {
		for _, p := range pieces {
			x.out = append(x.out, p...)
		}
		return x.flush()
	}
	if err := x.conn.writes.renew(x.set.BodyIdle); err != nil {
		return err
	}
	x.pieces = append(append(x.piecesArray[:0], x.out), pieces...)
	var n int64
	var err error
	if x.conn.plain != nil {
		n, err = x.pieces.WriteTo(x.conn.plain) // one call of the system for all of them
	} else {
		n, err = x.pieces.WriteTo(x.conn.Conn)
	}
	x.sent += n
	x.out = x.out[:0]
	return err
}

// A dateClock writes the value of Date, once a second.
type dateClock struct{ last atomic.Pointer[stampedDate] }

type stampedDate struct {
	second int64
	text   string
}

func (d *dateClock) text(now time.Time) string {
	last := d.last.Load()
	if second := now.Unix(); last == nil || last.second != second {
		last = &stampedDate{second, now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")}
		d.last.Store(last)
	}
	return last.text
}

// deny answers a request the gate refused.
func (x *exchange) deny(v apikey.Verdict) {
	status, detail := x.set.denial(v)
	challenge := ""
	if status == 401 {
		// RFC 6750, section 3: no error code for a request without credentials.
		challenge = "WWW-Authenticate: Bearer realm=\"latchkey\"\r\n"
		if v != apikey.MissingKey {
			challenge = "WWW-Authenticate: Bearer realm=\"latchkey\", error=\"invalid_token\"\r\n"
		}
	}
	x.problem(status, v.String(), detail, challenge)
}

// fault answers a request that did not get as far as a verdict, or failed after
// it. Once some of another answer was sent, all that is left is to cut it short.
func (x *exchange) fault(f *fault) {
	if x.sent > 0 || f == clientGone {
		x.outcome, x.keep = f.code, false
		x.out = x.out[:0]
		return
	}
	retry := ""
	if f.retryAfter != "" {
		retry = "Retry-After: " + f.retryAfter + "\r\n"
	}
	x.problem(f.status, f.code, f.detail, retry)
}

// problem answers in the form of RFC 9457. All of it is constants of this package
// in ASCII, which Go quotes as JSON does, and the request ID, which was checked or
// made here. further are fields of the head.
func (x *exchange) problem(status int, code, detail, further string) {
	x.settle()
	x.answer(status, code)
	x.add("Content-Type", "application/problem+json")
	x.add("Cache-Control", "no-store")
	x.out = append(x.out, further...)
	body := append(x.scratch[:0], `{"type":"urn:latchkey:problem:`...)
	body = append(append(body, code...), `","title":`...)
	body = strconv.AppendQuote(body, fasthttp.StatusMessage(status))
	body = append(body, `,"status":`...)
	body = strconv.AppendInt(body, int64(status), 10)
	body = append(body, `,"detail":`...)
	body = strconv.AppendQuote(body, detail)
	body = append(append(append(body, `,"code":"`...), code...), `","request_id":"`...)
	body = append(append(body, x.id...), "\"}\n"...)
	x.scratch = body
	x.addCORS()
	x.finishAnswer(body)
}

// settle decides whether the connection can go on after an answer that does not
// read the request's body: only if all of it is there already.
func (x *exchange) settle() {
	if x.keep && !x.body.discard() {
		x.keep = false
	}
}
