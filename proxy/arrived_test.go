package proxy

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"latchkey/apikey"
	"latchkey/internal/nettest"

	"github.com/prometheus/client_golang/prometheus"
)

// TestWhatArrivesTogether: however the bytes of requests fall into segments, and
// whichever of them have bodies, each is answered in its turn. Requests without a body
// are served while the poller watches the socket, all others are not.
func TestWhatArrivesTogether(t *testing.T) {
	get := func(n int) string { return fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", n) }
	post := func(n int) string {
		return fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", n)
	}
	chunked := func(n int) string {
		return fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", n)
	}
	upgrade := func(n int) string {
		return fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: else\r\n\r\n", n)
	}
	for _, tc := range []struct {
		name     string
		segments []string
		answers  int
	}{
		{"one after the other", []string{get(1), get(2), get(3)}, 3},
		{"all at once", []string{get(1) + get(2) + get(3) + get(4)}, 4},
		{"a head in two segments", []string{get(1) + get(2)[:12], get(2)[12:]}, 2},
		{"a body in the same segment", []string{get(1) + post(2) + get(3)}, 3},
		{"a body in the next segment", []string{get(1) + post(2)[:len(post(2))-3], "abc" + get(3)}, 3},
		{"chunks between heads", []string{get(1), chunked(2) + get(3), chunked(4), get(5)}, 5},
		{"an upgrade that is none", []string{get(1), upgrade(2) + get(3)}, 3},
		{"an empty line before a head", []string{get(1), "\r\n" + get(2) + "\r\n" + get(3)}, 3},
		{"each byte for itself", splitEach(get(1) + post(2) + get(3)), 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := start(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(w, "%s %s", r.URL.Path, body)
			}, func(o *Options) { o.Routes[0].Public = true })
			c := h.dialRaw()
			go func() {
				for _, s := range tc.segments {
					io.WriteString(c, s)
					<-time.After(time.Millisecond) // so that it is a segment of its own
				}
			}()
			r := bufio.NewReader(c)
			for n := 1; n <= tc.answers; n++ {
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("answer %d: %v", n, err)
				}
				body, err := io.ReadAll(res.Body)
				if got := string(body); err != nil || res.StatusCode != 200 || got != fmt.Sprintf("/%d ", n) && got != fmt.Sprintf("/%d abc", n) {
					t.Fatalf("answer %d: %s %q, %v", n, res.Status, got, err)
				}
			}
			if r.Buffered() > 0 {
				t.Error("more answers than requests")
			}
		})
	}
}

// TestWhatFollowsAnUpload: what has arrived of a body goes along with its beginning, and
// what is behind it is the next request, however they fall into segments.
func TestWhatFollowsAnUpload(t *testing.T) {
	h := start(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d %x %v", r.URL.Path, len(body), sha256.Sum256(body), err)
	}, func(o *Options) { o.Routes[0].Public = true })
	for _, size := range []int{1, 4000, 4096, 5000, 12_000, 16_000, 16 << 10, 20_000, 64 << 10, 100_000} {
		body := strings.Repeat("0123456789abcdef", size/16+1)[:size]
		text := fmt.Sprintf("POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", size, body)
		for _, first := range []int{len(text), 60, 4096, 10_000, len(text) - 1} {
			first = min(first, len(text))
			c := h.dialRaw()
			go func() {
				for range 3 {
					// The next request is in the last segment of the body.
					for _, segment := range []string{text[:first], text[first:] + "GET /next HTTP/1.1\r\nHost: h\r\n\r\n"} {
						io.WriteString(c, segment)
						<-time.After(time.Millisecond) // so that it is a segment of its own
					}
				}
			}()
			r := bufio.NewReader(c)
			for i := range 6 {
				want := fmt.Sprintf("/up %d %x <nil>", size, sha256.Sum256([]byte(body)))
				if i%2 == 1 {
					want = fmt.Sprintf("/next 0 %x <nil>", sha256.Sum256(nil))
				}
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("%d bytes, %d first, answer %d: %v", size, first, i, err)
				}
				if got, err := io.ReadAll(res.Body); err != nil || string(got) != want {
					t.Fatalf("%d bytes, %d first, answer %d: %q, %v; want %q", size, first, i, got, err, want)
				}
			}
			c.Close()
		}
	}
}

// TestConnectionsTakeTurns: what a connection needs for a request is another's while it
// is idle, and its answers are its own all the same.
func TestConnectionsTakeTurns(t *testing.T) {
	h := start(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) },
		func(o *Options) { o.Routes[0].Public = true })
	var all [8]net.Conn
	for i := range all {
		all[i] = h.dialRaw()
		if err := all[i].SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 20 {
		for i, c := range all {
			path := fmt.Sprintf("/%d/%d", i, round)
			io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n")
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != path {
				t.Fatalf("%s: answered %q, %v", path, body, err)
			}
		}
	}
}

// TestNewsWhileServingIsNotLost: what comes while a request is at the upstream, the
// next request or the client's end, is seen after the answer.
func TestNewsWhileServingIsNotLost(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	h := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			arrived <- struct{}{}
			<-release
		}
		io.WriteString(w, r.URL.Path)
	}, func(o *Options) { o.Routes[0].Public = true })
	c := h.dialRaw()
	r := bufio.NewReader(c)
	for range 20 {
		io.WriteString(c, "GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
		<-arrived
		io.WriteString(c, "GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
		release <- struct{}{}
		for _, want := range []string{"/slow", "/next"} {
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != want {
				t.Fatalf("answered %q, %v, want %q", body, err, want)
			}
		}
	}
	c.Close()
	h.settle() // the server has seen it
}

// TestABeginningIsNotHeldBack: where the first read of an answer fills the buffer, what
// has arrived goes to the client, whether or not there is more.
func TestABeginningIsNotHeldBack(t *testing.T) {
	const length = 200_000
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n"
	for _, first := range []int{4096 - len(head), 4097 - len(head), 10_000, 100_000, length} {
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			taken := make(chan struct{})
			body := strings.Repeat("0123456789", length/10)
			h := &harness{t: t, source: &source{keys: map[apikey.Digest]*apikey.Key{}}, log: &syncBuffer{}, registry: prometheus.NewRegistry()}
			h.run("http://"+nettest.Serve(t, func(c net.Conn) {
				r := bufio.NewReader(c)
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					io.WriteString(c, head+body[:first])
					<-taken
					io.WriteString(c, body[first:])
				}
			}), func(o *Options) { o.Routes[0].Public = true })
			c := h.dialRaw()
			r := bufio.NewReader(c)
			for range 3 { // on one connection to the upstream
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, length)
				if _, err := io.ReadFull(res.Body, got[:first]); err != nil {
					t.Fatalf("the beginning: %v", err)
				}
				taken <- struct{}{}
				if _, err := io.ReadFull(res.Body, got[first:]); err != nil || string(got) != body {
					t.Fatalf("the rest: %v, the same: %t", err, string(got) == body)
				}
			}
		})
	}
}

func splitEach(s string) (out []string) {
	for i := range len(s) {
		out = append(out, s[i:i+1])
	}
	return out
}

// TestWhatFollowsALargeBodyIsNobodys: bytes that an upstream sends behind a body go to
// no client, wherever the reads fall, and its connection is not used again.
func TestWhatFollowsALargeBodyIsNobodys(t *testing.T) {
	for _, length := range []int{4000, 4096, 10_000, 61_000, 65_536, 70_000, 200_000} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			var conns atomic.Int64
			body := strings.Repeat("b", length)
			h := &harness{t: t, source: &source{keys: map[apikey.Digest]*apikey.Key{}}, log: &syncBuffer{}, registry: prometheus.NewRegistry()}
			h.run("http://"+nettest.Serve(t, func(c net.Conn) {
				conns.Add(1)
				r := bufio.NewReader(c)
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", length, body)
				}
			}), func(o *Options) { o.Routes[0].Public = true })
			c := h.dialRaw()
			r := bufio.NewReader(c)
			for n := int64(1); n <= 3; n++ {
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(res.Body)
				if err != nil || string(got) != body {
					t.Fatalf("answer %d: %d bytes, %v, the body: %t", n, len(got), err, string(got) == body)
				}
				if got := conns.Load(); got != n {
					t.Errorf("%d connections for %d requests, want one each", got, n)
				}
			}
			if r.Buffered() > 0 {
				t.Error("bytes behind the last answer")
			}
		})
	}
}

// TestReadsThatEndWithARequest sends requests whose ends are where reads end, all at once:
// the poller has one piece of news for all of them.
func TestReadsThatEndWithARequest(t *testing.T) {
	h := start(t, nil, func(o *Options) { o.Routes[0].Public = true })
	for _, size := range []int{64, 256, 1024, inputSize} {
		request := "GET / HTTP/1.1\r\nHost: h\r\nX: "
		request += strings.Repeat("x", size-len(request)-4) + "\r\n\r\n"
		c := h.dialRaw()
		n := 4 * inputSize / size
		if _, err := io.WriteString(c, strings.Repeat(request, n)); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(c)
		for i := range n {
			res, err := http.ReadResponse(r, nil)
			if err == nil {
				_, err = io.Copy(io.Discard, res.Body)
			}
			if err != nil || res.StatusCode != 200 {
				t.Fatalf("requests of %d bytes: answer %d of %d: %v", size, i+1, n, err)
			}
		}
	}
}

// TestTheEndBehindARequest has the client say that it sends no more right behind a
// request: it gets its answer and then the end, and waits for no idle time.
func TestTheEndBehindARequest(t *testing.T) {
	h := start(t, nil, func(o *Options) { o.Idle = time.Minute }) // a key is asked for, so the answer is there at once
	for range 100 {
		c := h.dialRaw() // has 10 seconds for all of it
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 401 ") {
			t.Fatalf("%q, %v", text, err)
		}
	}
}
