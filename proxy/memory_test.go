package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"latchkey/cache"
	"latchkey/internal/http1oracle"
	"latchkey/proxy/gate"
	"latchkey/proxy/upstream"
)

// A memoryClient is a client's connection in memory: what it sends is there, in
// pieces, and then its end.
type memoryClient struct {
	net.Conn // nil: what is not overridden is not used
	pieces   func() int
	mu       sync.Mutex
	rest     []byte
	answer   bytes.Buffer
	past     bool // the read deadline is over
	closed   bool
}

func (c *memoryClient) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case c.past:
		return 0, os.ErrDeadlineExceeded
	case len(c.rest) == 0:
		return 0, io.EOF
	}
	n := copy(p[:max(1, min(len(p), c.pieces()))], c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *memoryClient) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answer.Write(p)
}

func (c *memoryClient) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *memoryClient) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.past = !t.IsZero() && t.Unix() < 2
	return nil
}

func (*memoryClient) SetWriteDeadline(time.Time) error { return nil }

func (*memoryClient) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1}
}

// A recorder is an upstream in memory. It answers each request with its number,
// once it is there as a whole by a reading that is not the gateway's.
type recorder struct {
	reader *http1oracle.Reader
	mu     sync.Mutex
	wake   *sync.Cond
	conns  []*recorderConn
	seen   []http1oracle.Request
}

func newRecorder() *recorder {
	r := &recorder{reader: http1oracle.NewReader()}
	r.reader.EmptyHost = true
	r.wake = sync.NewCond(&r.mu)
	return r
}

// begin forgets what was seen. Connections stay open.
func (r *recorder) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = nil
	var open []*recorderConn
	for _, c := range r.conns {
		if !c.closed {
			open = append(open, c)
		}
	}
	r.conns = open
}

// end closes all connections: whoever waits for an answer does not get it.
func (r *recorder) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.closed = true
	}
	r.wake.Broadcast()
}

func (r *recorder) connect(context.Context, string, string) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &recorderConn{recorder: r}
	r.conns = append(r.conns, c)
	return c, nil
}

// left returns what connections have received besides whole requests, and
// whether all of these are closed.
func (r *recorder) left() (left []string, closed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	closed = true
	for _, c := range r.conns {
		if len(c.pending) > 0 {
			left, closed = append(left, string(c.pending)), closed && c.closed
		}
	}
	return left, closed
}

type recorderConn struct {
	net.Conn
	recorder *recorder
	pending  []byte // received, and not a whole request yet
	answers  []byte
	past     bool
	closed   bool
}

func (c *recorderConn) Write(p []byte) (int, error) {
	r := c.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	c.pending = append(c.pending, p...)
	q, rest, v := r.reader.Request(string(c.pending), 1<<20)
	if v != http1oracle.Whole {
		return len(p), nil
	}
	c.pending = []byte(rest)
	body := fmt.Sprint(len(r.seen))
	r.seen = append(r.seen, q)
	c.answers = append(c.answers, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))...)
	if q.Method != "HEAD" {
		c.answers = append(c.answers, body...)
	}
	r.wake.Broadcast()
	return len(p), nil
}

func (c *recorderConn) Read(p []byte) (int, error) {
	r := c.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(c.answers) == 0 && !c.closed && !c.past {
		r.wake.Wait()
	}
	switch {
	case len(c.answers) > 0 && !c.closed:
		n := copy(p, c.answers)
		c.answers = c.answers[n:]
		return n, nil
	case c.past && !c.closed:
		return 0, os.ErrDeadlineExceeded
	}
	return 0, io.EOF
}

func (c *recorderConn) Close() error {
	c.recorder.mu.Lock()
	defer c.recorder.mu.Unlock()
	c.closed = true
	c.recorder.wake.Broadcast()
	return nil
}

func (c *recorderConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (*recorderConn) SetWriteDeadline(t time.Time) error { return nil }

func (c *recorderConn) SetReadDeadline(t time.Time) error {
	c.recorder.mu.Lock()
	defer c.recorder.mu.Unlock()
	c.past = !t.IsZero() && t.Unix() < 2
	c.recorder.wake.Broadcast()
	return nil
}

// inMemory returns a proxy without a listener, all of whose requests go to an
// upstream in memory. No key is asked for, unless setup wants it.
func inMemory(t testing.TB, connect func(context.Context, string, string) (net.Conn, error), setup func(*Options)) *Proxy {
	t.Helper()
	pool, err := upstream.New(upstream.Options{Targets: []upstream.Target{{URL: "http://192.0.2.1"}}, Connect: connect,
		Ejection: upstream.Ejection{Failures: -1}})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := cache.New(&source{}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Gate: gate.New(keys, format), Credentials: []Credential{{Header: "X-API-Key"}},
		Routes: []*Route{{Name: "all", Path: "/{rest:*}", Public: true, Upstream: pool}}}
	if setup != nil {
		setup(&o)
	}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		pool.Close()
		keys.Close()
	})
	return p
}

// serveAll has the proxy serve a client that sends a text in pieces of the sizes
// and then no more, and returns what it was answered.
func serveAll(p *Proxy, text string, sizes ...byte) string {
	i := 0
	c := &memoryClient{rest: []byte(text), pieces: func() int {
		if i++; len(sizes) == 0 {
			return 1 << 20
		}
		return int(sizes[i%len(sizes)])
	}}
	_ = p.serveConn(&hookedConn{c}) // nil always
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answer.String()
}
