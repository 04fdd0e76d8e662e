package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/apikey"
	"latchkey/internal/http1oracle"
)

// A rawUpstream is an upstream on a socket that keeps what it gets, byte for
// byte, and answers each request with its number once it is there as a whole, by
// a reading that is not the gateway's.
type rawUpstream struct {
	addr   string
	reader *http1oracle.Reader
	answer func(n int, q http1oracle.Request) (answer string, closes bool) // nil means numbered

	mu    sync.Mutex
	seen  []http1oracle.Request
	raw   []string   // the bytes of each
	bad   []string   // what is no request that should have come through
	parts int        // connections that have a part of a request
	whole *sync.Cond // there are none
}

// numbered is the answer to the request of a number.
func numbered(n int, q http1oracle.Request) string {
	body := fmt.Sprint(n)
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
	if q.Method == "HEAD" {
		return head
	}
	return head + body
}

func startRawUpstream(t *testing.T, answer func(int, http1oracle.Request) (string, bool)) *rawUpstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &rawUpstream{addr: l.Addr().String(), reader: http1oracle.NewReader(), answer: answer}
	u.reader.EmptyHost = true
	u.whole = sync.NewCond(&u.mu)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go u.serve(c)
		}
	}()
	return u
}

func (u *rawUpstream) serve(c net.Conn) {
	defer c.Close()
	var pending []byte
	part := false
	defer func() {
		if part {
			u.part(-1)
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if n == 0 && err != nil {
			return
		}
		if pending = append(pending, buf[:n]...); !part {
			part = true
			u.part(1)
		}
		for len(pending) > 0 {
			q, rest, v := u.reader.Request(string(pending), 1<<20)
			if v == http1oracle.Refused {
				u.mu.Lock()
				u.bad = append(u.bad, string(pending))
				u.mu.Unlock()
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
				return
			}
			if v != http1oracle.Whole {
				break
			}
			u.mu.Lock()
			number := len(u.seen)
			u.seen = append(u.seen, q)
			u.raw = append(u.raw, string(pending[:len(pending)-len(rest)]))
			u.mu.Unlock()
			pending = []byte(rest)
			answer, closes := numbered(number, q), false
			if u.answer != nil {
				answer, closes = u.answer(number, q)
			}
			if len(pending) == 0 {
				part = false
				u.part(-1)
			}
			if _, err := io.WriteString(c, answer); err != nil || closes {
				return
			}
		}
	}
}

// part counts a connection with a part of a request.
func (u *rawUpstream) part(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.parts += n
	u.whole.Broadcast()
}

// settle waits until no connection has a part of a request: it has become a whole
// one, or its connection has ended.
func (u *rawUpstream) settle() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for u.parts > 0 {
		u.whole.Wait()
	}
}

// bytes returns what requests were made of from a number on, and what was none.
func (u *rawUpstream) bytes(n int) (raw, bad []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.raw[n:]), slices.Clone(u.bad)
}

// since returns the requests from a number on.
func (u *rawUpstream) since(n int) []http1oracle.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.seen[n:])
}

// startRaw runs a proxy with one public route to a raw upstream.
func startRaw(t *testing.T, u *rawUpstream, setup func(*Options)) *harness {
	t.Helper()
	h := &harness{t: t, source: &source{keys: map[apikey.Digest]*apikey.Key{}}, log: &syncBuffer{}, registry: prometheus.NewRegistry()}
	h.run("http://"+u.addr, func(o *Options) {
		o.Routes[0].Public = true
		if setup != nil {
			setup(o)
		}
	})
	return h
}

// converse sends all of a text on a connection of its own and returns all that
// comes back until the connection ends, and how it ended.
func (h *harness) converse(text string) (string, error) {
	h.t.Helper()
	c := h.dialRaw()
	defer c.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(c, text) // fails where the gateway has heard enough
	}()
	got, err := io.ReadAll(c)
	c.SetWriteDeadline(time.Unix(1, 0))
	<-sent
	return string(got), err
}

// wantOwnAnswer has another client ask, and holds its answer to being its own.
func (h *harness) wantOwnAnswer(u *rawUpstream) {
	h.t.Helper()
	got, err := h.converse("GET /next HTTP/1.1\r\nHost: next\r\nConnection: close\r\n\r\n")
	seen := u.since(0)
	n := len(seen) - 1
	if err != nil || n < 0 || seen[n].Target != "/next" || !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, fmt.Sprint("\r\n\r\n", n)) {
		h.t.Errorf("the next client got %q, %v, want the answer %d", got, err, n)
	}
}

// statuses reads answers to requests of the methods, and returns their statuses.
func statuses(answers string, methods []string) (out []string, err error) {
	r := bufio.NewReader(strings.NewReader(answers))
	for i := 0; ; i++ {
		if _, err := r.Peek(1); err != nil {
			return out, nil
		}
		method := "GET"
		if i < len(methods) {
			method = methods[i]
		}
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return out, err
		}
		if _, err := io.ReadAll(res.Body); err != nil {
			return out, err
		}
		if out = append(out, fmt.Sprint(res.StatusCode)); res.StatusCode < 200 {
			i--
			out = out[:len(out)-1]
		}
		if res.StatusCode >= 400 && !res.Close {
			return out, fmt.Errorf("status %d does not close the connection", res.StatusCode)
		}
	}
}
