package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"latchkey/apikey"
	"latchkey/cache"
	"latchkey/internal/nettest"
	"latchkey/proxy/gate"
	"latchkey/proxy/upstream"
)

// respond answers every request on the connection with the answer, and allocates
// nothing for it. Requests have no bodies and come one at a time.
func respond(c net.Conn, answer []byte) {
	b := make([]byte, 16<<10)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if bytes.HasSuffix(b[:n], []byte("\r\n\r\n")) {
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}
}

// startLean runs a proxy whose parts allocate as little as they can, and returns
// its address and a good key.
func startLean(t testing.TB, answer []byte) (addr, key string) {
	t.Helper()
	backend := nettest.Serve(t, func(c net.Conn) { respond(c, answer) })
	up, err := upstream.New(upstream.Options{Targets: []upstream.Target{{URL: "http://" + backend}}})
	if err != nil {
		t.Fatal(err)
	}
	keys := &source{keys: map[apikey.Digest]*apikey.Key{}}
	key = format.New(apikey.EnvironmentLive, [32]byte{1})
	made, err := apikey.Issue(apikey.Spec{Tenant: "acme", Subject: "user-1", Scopes: []string{"orders:read"}},
		apikey.NewCredentials(format, apikey.EnvironmentLive, time.Now(), [40]byte{1}), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	made.Keys[0].Digest = apikey.DigestOf([]byte(key))
	keys.keys[made.Keys[0].Digest] = &made.Keys[0]
	cached, err := cache.New(keys, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Options{Gate: gate.New(cached, format), Credentials: []Credential{{Header: "X-API-Key"}, {Bearer: true}},
		Routes:     []*Route{{Name: "all", Path: "/{rest:*}", Upstream: up, Timeout: 5 * time.Second, Demand: apikey.Demand{Scopes: []string{"orders:read"}}}},
		ReadHeader: 5 * time.Second, Idle: time.Minute, BodyIdle: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		<-served
		up.Close()
		cached.Close()
	})
	return l.Addr().String(), key
}

// leanClient sends the same request again and again.
type leanClient struct {
	net.Conn
	request []byte
	buf     []byte
	answer  int // bytes of each answer
}

func newLeanClient(t testing.TB, addr, key string) *leanClient {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	l := &leanClient{Conn: c, buf: make([]byte, 1<<20), request: fmt.Appendf(nil,
		"GET /orders/17 HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\nX-API-Key: %s\r\n\r\n", key)}
	// The first answer says how long all are.
	if _, err := l.Write(l.request); err != nil {
		t.Fatal(err)
	}
	if err := l.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := l.Read(l.buf)
	head := bytes.Index(l.buf[:n], []byte("\r\n\r\n"))
	var length int
	if head > 0 {
		_, after, _ := strings.Cut(string(l.buf[:head]), "Content-Length: ")
		_, _ = fmt.Sscan(after, &length)
	}
	if err != nil || head < 0 || !bytes.HasPrefix(l.buf, []byte("HTTP/1.1 200 ")) {
		t.Fatalf("%v: %.300q", err, l.buf[:n])
	}
	l.answer = head + 4 + length
	if _, err := io.ReadFull(l, l.buf[:l.answer-n]); err != nil {
		t.Fatal(err)
	}
	if err := l.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *leanClient) do() error {
	if _, err := l.Write(l.request); err != nil {
		return err
	}
	_, err := io.ReadFull(l, l.buf[:l.answer])
	return err
}

// BenchmarkRequest times an admitted request on one connection, with the upstream
// and the client in the same process.
func BenchmarkRequest(b *testing.B) {
	for _, size := range []int{0, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			addr, key := startLean(b, []byte(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))))
			c := newLeanClient(b, addr, key)
			b.ReportAllocs()
			for b.Loop() {
				if err := c.do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// benchHead is the head of a request as clients send it.
const benchHead = "GET /v1/orders/17?expand=lines HTTP/1.1\r\nHost: api.example\r\nUser-Agent: curl/8.5.0\r\nAccept: application/json\r\n" +
	"Accept-Encoding: gzip\r\nX-API-Key: lk_live_0000\r\nX-Request-Id: 7c9adadee984d4e6649da56f132b5e0c\r\n\r\n"

// BenchmarkHead times what is made of a request's head before a route is looked for:
// reading and screening it.
func BenchmarkHead(b *testing.B) {
	var h head
	text := []byte(benchHead)
	b.ReportAllocs()
	for b.Loop() {
		h.clear()
		if h.parse(text) != nil || h.screen(true) != nil {
			b.Fatal("refused")
		}
	}
}

// BenchmarkBuildRequest times building the head that the upstream gets.
func BenchmarkBuildRequest(b *testing.B) {
	p := inMemory(b, newRecorder().connect, nil)
	c := &clientConn{Conn: &memoryClient{}, proxy: p, peer: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711}}
	x := p.exchange(c)
	x.reset()
	if x.head.parse([]byte(benchHead)) != nil || x.head.screen(true) != nil {
		b.Fatal("refused")
	}
	x.id = appendRequestID(x.id[:0], x.head.fields)
	x.route = x.set.Routes[0]
	x.key = &apikey.Grant{ID: apikey.ID{1}, Tenant: "acme", Subject: "user-1", Scopes: []string{"orders:read"}, Environment: apikey.EnvironmentLive}
	b.ReportAllocs()
	for b.Loop() {
		x.buildRequest()
	}
}
