package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"latchkey/apikey"
	"latchkey/internal/nettest"
	"latchkey/proxy/upstream"
)

// TestABodyUnderWayIsLeftToItsUpload: an answer of the gateway's own in place of
// one that broke off early does not read the body that the upload is reading, and
// the connection ends with it.
func TestABodyUnderWayIsLeftToItsUpload(t *testing.T) {
	p := inMemory(t, newRecorder().connect, nil)
	set := p.current.Load()
	c := &clientConn{Conn: &memoryClient{}, proxy: p, set: set, in: []byte("hello"), w: len("hello")}
	c.reads.set, c.writes.set = c.SetReadDeadline, c.SetWriteDeadline
	x := p.exchange(c)
	c.exchange = x
	x.reset()
	x.route, x.head = set.Routes[0], head{method: []byte("POST"), minor: 1, length: 5}
	x.body.begin(x)
	x.brokenOff(&upstream.Error{Kind: upstream.ErrMalformed}, false)
	if x.status != 502 || x.keep || c.r != 0 {
		t.Errorf("answered %d, keeps the connection: %t, %d bytes of the body taken; want 502, false and none", x.status, x.keep, c.r)
	}
}

// TestNothingIsSaidInsideAnAnswer: the upload goes at its own pace, so that its
// word to go ahead may come up when the upstream has already answered.
func TestNothingIsSaidInsideAnAnswer(t *testing.T) {
	p := inMemory(t, newRecorder().connect, nil)
	client := &memoryClient{}
	c := &clientConn{Conn: client, proxy: p}
	c.reads.set, c.writes.set = c.SetReadDeadline, c.SetWriteDeadline
	x := p.exchange(c)
	c.exchange = x
	for _, tc := range []struct {
		name, want string
		answered   bool
	}{
		{"before the answer", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n", false},
		{"after it has begun", "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client.answer.Reset()
			x.reset()
			x.head = head{method: []byte("POST"), minor: 1, length: 5, expects: true}
			x.body.begin(x)
			if tc.answered {
				x.beginAnswer()
			}
			if err := x.body.goAhead(); err != nil {
				t.Fatal(err)
			}
			x.interim(103, nil)
			if got := client.answer.String(); got != tc.want {
				t.Errorf("said %q, want %q", got, tc.want)
			}
		})
	}
}

// A hesitant connection holds 100 Continue back until something else is written,
// or a moment has passed.
type hesitant struct {
	net.Conn
	other chan struct{}
}

func (c hesitant) NetConn() net.Conn { return c.Conn }

func (c hesitant) Write(p []byte) (int, error) {
	if strings.HasPrefix(string(p), "HTTP/1.1 100") {
		select {
		case <-c.other:
		case <-time.After(200 * time.Millisecond):
		}
	} else {
		defer close(c.other)
	}
	return c.Conn.Write(p)
}

type hesitantListener struct{ net.Listener }

func (l hesitantListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return hesitant{c, make(chan struct{})}, err
}

func TestAnEarlyAnswerWaitsForTheWordToGoAhead(t *testing.T) {
	h := start(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(413) }, nil)
	key := h.issue(apikey.Spec{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = h.proxy.Serve(hesitantListener{l}) }()
	h.addr = l.Addr().String()
	c := h.dialRaw()
	io.WriteString(c, "POST /a HTTP/1.1\r\nHost: h\r\nX-API-Key: "+key+"\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
	got, err := io.ReadAll(c)
	if i, j := strings.Index(string(got), "HTTP/1.1 100"), strings.Index(string(got), "HTTP/1.1 413"); i > 0 || j < 0 || err != nil {
		t.Errorf("answered %q, %v, want 413, with 100 before it or nowhere", got, err)
	}
}

// dialRaw returns a connection to the gateway.
func (h *harness) dialRaw() net.Conn {
	h.t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// TestARestedConnectionIsToldToGoAhead: the time that the answer before had to be
// taken in is over, but not the connection's.
func TestARestedConnectionIsToldToGoAhead(t *testing.T) {
	h := start(t, nil, func(o *Options) { o.BodyIdle = 50 * time.Millisecond })
	key := h.issue(apikey.Spec{})
	c := h.dialRaw()
	r := bufio.NewReader(c)
	ask := func(request string) *http.Response {
		t.Helper()
		io.WriteString(c, request+"Host: h\r\nX-API-Key: "+key+"\r\n\r\n")
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		return res
	}
	ask("GET /a HTTP/1.1\r\n")
	c.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
	if _, err := r.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("while idle: %v, want nothing", err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if res := ask("POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n"); res.StatusCode != 100 {
		t.Errorf("answered %d, want 100", res.StatusCode)
	}
}

// TestABadBodyUnderAnAnswer has the client send what is no chunk while the answer is on
// its way: that is its own fault, and nobody takes it for the upstream's.
func TestABadBodyUnderAnAnswer(t *testing.T) {
	h := start(t, func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if err := errors.Join(c.EnableFullDuplex(), c.Flush()); err != nil {
			t.Error(err)
		}
		_, _ = io.Copy(io.Discard, r.Body) // ends with an error
	}, func(o *Options) { o.Routes[0].Public = true })
	c := h.dialRaw()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 200 ") {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := io.WriteString(c, "zz\r\n"); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err == nil && strings.HasSuffix(string(text), "0\r\n\r\n") {
		t.Errorf("the answer ends as if it were whole: %q", text)
	}
	nettest.Until(t, "the request is logged", func() bool { return strings.Contains(h.log.String(), `"outcome"`) })
	if log := h.log.String(); !strings.Contains(log, `"outcome":"ambiguous_framing"`) || strings.Contains(log, "upstream failed") {
		t.Errorf("the log has\n%s", log)
	}
}
