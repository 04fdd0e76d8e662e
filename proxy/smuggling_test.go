package proxy

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/http1oracle"
	"latchkey/internal/nettest"
)

// last is sent behind every shape: where it begins is where the shape has ended.
const last = "GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"

// TestPublishedShapes sends what servers were found to read differently, and
// looks at what the client is answered, at the bytes that the upstream got, and at
// what the next client is answered over the same connection to the upstream.
func TestPublishedShapes(t *testing.T) {
	u := startRawUpstream(t, nil)
	h := startRaw(t, u, func(o *Options) { o.BodyIdle, o.ReadHeader = 2*time.Second, 2*time.Second })
	for _, s := range shapes() {
		ok := t.Run(s.rule, func(t *testing.T) {
			h := &harness{t: t, addr: h.addr}
			h.wantShape(u, s)
			h.wantOwnAnswer(u)
		})
		if !ok {
			t.Logf("sent %.400q", s.sends)
		}
	}
}

// wantShape holds the gateway to what is to become of a shape.
func (h *harness) wantShape(u *rawUpstream, s shape) {
	h.t.Helper()
	wantAnswers, wantPassed := strings.Fields(strings.TrimSuffix(s.answers, ".")), s.passes
	if strings.HasSuffix(s.answers, "200") { // the connection goes on
		wantAnswers, wantPassed = append(wantAnswers, "200"), wantPassed+"\nGET /last "
	}
	before := len(u.since(0))
	got, err := h.converse(s.sends + last)
	u.settle() // what is a part of a request stays one: its connection ends
	if err != nil {
		h.t.Errorf("after %q: %v, want the connection to end in order", got, err)
	}
	var methods, passed []string
	raw, bad := u.bytes(before)
	for i, q := range u.since(before) {
		methods, passed = append(methods, q.Method), append(passed, q.Method+" "+q.Target+" "+q.Body)
		h.wantPlain(raw[i])
	}
	if answers, err := statuses(got, methods); err != nil || !slices.Equal(answers, wantAnswers) {
		h.t.Errorf("answered %s, %v, want %s: %q", answers, err, wantAnswers, got)
	}
	if len(bad) > 0 {
		h.t.Errorf("the upstream got what is no request: %q", bad)
	}
	if got := strings.Join(passed, "\n"); got != wantPassed {
		h.t.Errorf("the upstream got %q, want %q", got, wantPassed)
	}
}

// wantPlain holds a request's bytes to a form that every server reads alike: CRLF
// at the ends of lines, one Host, at most one field that frames the body.
func (h *harness) wantPlain(raw string) {
	h.t.Helper()
	head, _, _ := strings.Cut(raw, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	hosts, framing := 0, 0
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ": ")
		switch strings.NewReplacer("_", "-", ".", "-").Replace(http1oracle.Lower(name)) {
		case "host":
			hosts++
		case "content-length", "transfer-encoding":
			framing++
		}
		if !ok || strings.Trim(value, " \t") != value || strings.ContainsAny(line, "\r\n\x00\x0b\x0c") {
			h.t.Errorf("the upstream got the line %q", line)
		}
	}
	if hosts != 1 || framing > 1 || !strings.HasSuffix(lines[0], " HTTP/1.1") {
		h.t.Errorf("the upstream got a head with %d Host and %d lengths: %q", hosts, framing, head)
	}
}

// TestPauses: a client that pauses in its request (pause-based desync) is told
// so after the idle time; what it sends later is no request, and the upstream's
// connection is not used again.
func TestPauses(t *testing.T) {
	for _, tc := range []struct{ name, first, then string }{
		{"in the head", "POST /a HTTP/1.1\r\nHost: h\r\nX: ", "y\r\n\r\n" + evilNow},
		{"before the body", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 38\r\n\r\n", evilNow},
		{"in the body", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 41\r\n\r\nhel", evilNow},
		{"in a chunk's size", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2", "6\r\n" + evilNow},
		{"before the last chunk", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", "0\r\n\r\n" + evilNow},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := startRawUpstream(t, nil)
			h := startRaw(t, u, func(o *Options) { o.BodyIdle, o.ReadHeader = 50*time.Millisecond, 50*time.Millisecond })
			c := h.dialRaw()
			io.WriteString(c, tc.first)
			head := make([]byte, len("HTTP/1.1 408"))
			if _, err := io.ReadFull(c, head); err != nil || string(head) != "HTTP/1.1 408" {
				t.Fatalf("answered %q, %v, want 408", head, err)
			}
			io.WriteString(c, tc.then)
			rest, _ := io.ReadAll(c)
			u.settle()
			raw, _ := u.bytes(0)
			if strings.Contains(string(rest), "HTTP/1.1 ") || len(raw) > 0 {
				t.Errorf("went on with %q, the upstream got %q", rest, raw)
			}
			h.wantOwnAnswer(u)
		})
	}
}

const evilNow = "GET /evil HTTP/1.1\r\nHost: h\r\n\r\n"

// TestAnUploadIsLeftBehindByAnEarlyAnswer: an upstream that answers the head takes
// what follows for the next request (CL.0). Its connection ends with the answer.
func TestAnUploadIsLeftBehindByAnEarlyAnswer(t *testing.T) {
	addr := nettest.Serve(t, func(c net.Conn) {
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			for range strings.Count(string(buf[:n]), " HTTP/1.1\r\n") { // whatever stands before it
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"+strings.SplitN(string(buf[:n]), " ", 3)[1][:5])
			}
		}
	})
	h := startRaw(t, &rawUpstream{addr: addr}, nil)
	c := h.dialRaw()
	io.WriteString(c, "POST /post HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nGET /evil HTTP/1.1\r\nHost: h\r\n\r\n")
	got, err := io.ReadAll(c)
	if err != nil || strings.Count(string(got), "HTTP/1.1 ") != 1 || !strings.Contains(string(got), "Connection: close") {
		t.Errorf("answered %q, %v, want one answer and the end", got, err)
	}
	for range 5 {
		if got, err := h.converse("GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); err != nil || !strings.HasSuffix(got, "/next") {
			t.Errorf("the next client got %q, %v", got, err)
		}
	}
}
