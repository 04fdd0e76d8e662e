package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/apikey"
	"latchkey/internal/nettest"
)

// newHarness returns a harness whose proxy does not run yet.
func newHarness(t *testing.T) *harness {
	return &harness{t: t, source: &source{keys: map[apikey.Digest]*apikey.Key{}}, log: &syncBuffer{}, registry: prometheus.NewRegistry()}
}

// listening returns the address of a listener whose connections go to serve, each
// in a goroutine of its own. When the test ends all of them are closed and done.
func listening(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			running.Go(func() { defer c.Close(); serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return l.Addr().String()
}

// readRequestHead reads through the empty line that ends a head.
func readRequestHead(r *bufio.Reader) (head string, err error) {
	for {
		line, err := r.ReadString('\n')
		if head += line; err != nil || line == "\r\n" {
			return head, err
		}
	}
}

// leaving is the way in which a client goes.
var leaving = map[string]func(c net.Conn, socket *net.TCPConn){
	"closes": func(c net.Conn, _ *net.TCPConn) { c.Close() },
	"resets": func(_ net.Conn, s *net.TCPConn) { s.SetLinger(0); s.Close() },
}

// TestAClientThatLeavesReleasesTheUpstream has clients go in the middle of an
// exchange, and takes the time until the upstream's connection ends.
func TestAClientThatLeavesReleasesTheUpstream(t *testing.T) {
	for _, tc := range []struct {
		name, request string
		answer        string // of the upstream, which then says nothing more
		reads         bool   // the upstream reads what it is sent
	}{
		{"while the answer is awaited", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", true},
		{"during an upload", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome", "", true},
		{"during an upload in chunks", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n", "", true},
		{"during an upload that the upstream does not read",
			"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 33554432\r\n\r\n" + strings.Repeat("x", 32<<20-1), "", false},
		{"during an answer", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome", true},
		{"during a silent stream of events", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n", true},
	} {
		for how, leave := range leaving {
			if how == "closes" && !tc.reads {
				continue // the end of the connection queues behind what nobody reads: TCP does not tell
			}
			for _, encrypted := range []bool{false, true} {
				name := tc.name + ", " + how
				if encrypted {
					name += ", over TLS"
				}
				t.Run(name, func(t *testing.T) {
					released, gone := make(chan time.Time, 1), make(chan struct{})
					h := newHarness(t)
					arrived := make(chan struct{})
					h.run("http://"+listening(t, func(c net.Conn) {
						r := bufio.NewReader(c)
						if _, err := readRequestHead(r); err != nil {
							return
						}
						io.WriteString(c, tc.answer)
						close(arrived)
						if tc.reads {
							io.Copy(io.Discard, r)
						} else {
							<-gone
							awaitHangup(c)
						}
						released <- time.Now()
					}), func(o *Options) { o.Routes[0].Public = true; o.Routes[0].Timeout = time.Minute })
					c, socket := h.dial(encrypted)
					go io.WriteString(c, tc.request) // which may block
					<-arrived
					if tc.answer != "" {
						if _, err := io.ReadFull(c, make([]byte, len("HTTP/1.1 200 OK"))); err != nil {
							t.Fatal(err)
						}
					}
					from := time.Now()
					leave(c, socket)
					close(gone)
					select {
					case at := <-released:
						t.Logf("released after %v", at.Sub(from).Round(time.Millisecond))
						// Without the watcher it would be after body_idle, 5 seconds.
						if took := at.Sub(from); took >= 3*time.Second {
							t.Errorf("released after %v", took)
						}
					case <-time.After(5 * time.Second):
						t.Error("the upstream was not released within 5s")
					}
				})
			}
		}
	}
}

// awaitHangup waits for the peer of a connection to close it, and reads nothing
// before that: a write fails once it has. What is written is the head of a good
// answer that does not end.
func awaitHangup(c net.Conn) {
	piece := "HTTP/1.1 200 OK\r\nX: "
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); <-time.After(2 * time.Millisecond) {
		if _, err := io.WriteString(c, piece); err != nil {
			return
		}
		piece = "a"
	}
}

// dial connects to the proxy, and returns the connection and the socket below it.
func (h *harness) dial(encrypted bool) (net.Conn, *net.TCPConn) {
	h.t.Helper()
	addr := h.addr
	if encrypted {
		addr = h.serveTLS()
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	socket := c.(*net.TCPConn)
	if !encrypted {
		return c, socket
	}
	secured := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	if err := secured.Handshake(); err != nil {
		h.t.Fatal(err)
	}
	return secured, socket
}

// serveTLS has the proxy listen for TLS as well, and returns where.
func (h *harness) serveTLS() string {
	h.t.Helper()
	certificate := httptest.NewUnstartedServer(nil)
	certificate.StartTLS() // for the certificate that it comes with
	defer certificate.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certificate.TLS.Certificates})
	if err != nil {
		h.t.Fatal(err)
	}
	h.serving.Go(func() {
		if err := h.proxy.Serve(l); err != nil {
			h.t.Errorf("serve TLS: %v", err)
		}
	})
	return l.Addr().String()
}

// TestTheWatcherAbortsNobodyElse has many clients that leave in the middle of a
// slow exchange, so that their descriptors go to those that come after, beside
// clients that stay. Every one that stays gets its answer.
func TestTheWatcherAbortsNobodyElse(t *testing.T) {
	if watcherIsBlind {
		t.Skip("clients are not watched on this system")
	}
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	h := newHarness(t)
	var left, arrived atomic.Int64
	h.run("http://"+listening(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			head, err := readRequestHead(r)
			if err != nil {
				return
			}
			if strings.HasPrefix(head, "GET /leave") {
				arrived.Add(1)
				if _, err := r.ReadByte(); err != nil {
					left.Add(1)
				}
				return
			}
			<-time.After(5 * glance / 2) // long enough to be watched
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
				return
			}
		}
	}), func(o *Options) { o.Routes[0].Public = true })
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range rounds {
				h.leaveAfter(t, 3*glance)
			}
		})
		all.Go(func() {
			for range rounds {
				h.stay(t)
			}
		})
	}
	all.Wait()
	nettest.Until(t, "the exchanges whose clients left are aborted", func() bool { return left.Load() >= arrived.Load() })
	// On a busy machine some clients have left before their requests went on.
	if least := int64(16*rounds) / 2; arrived.Load() < least {
		t.Errorf("%d requests arrived, want at least %d", arrived.Load(), least)
	}
}

// leaveAfter begins an exchange and leaves it.
func (h *harness) leaveAfter(t *testing.T, d time.Duration) {
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	io.WriteString(c, "GET /leave HTTP/1.1\r\nHost: a\r\n\r\n")
	<-time.After(d)
}

// stay makes one exchange on a connection of its own.
func (h *harness) stay(t *testing.T) {
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	io.WriteString(c, "GET /stay HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if answer, err := io.ReadAll(c); err != nil || !bytes.HasSuffix(answer, []byte("\r\n\r\nok")) {
		t.Errorf("a client that stayed got %q, %v", answer, err)
	}
}

// TestReleaseFigure measures what TestAClientThatLeavesReleasesTheUpstream only
// bounds, on an idle proxy: the median and the longest of 50 releases.
func TestReleaseFigure(t *testing.T) {
	if testing.Short() || watcherIsBlind {
		t.Skip("a measurement")
	}
	h := newHarness(t)
	arrived, released := make(chan struct{}), make(chan time.Time)
	h.run("http://"+listening(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		if _, err := readRequestHead(r); err == nil {
			arrived <- struct{}{}
			r.ReadByte()
			released <- time.Now()
		}
	}), func(o *Options) { o.Routes[0].Public = true })
	var took []time.Duration
	for range 50 {
		c, _ := h.dial(false)
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		<-arrived
		from := time.Now()
		c.Close()
		took = append(took, (<-released).Sub(from))
	}
	slices.Sort(took)
	t.Logf("released after %v in the median, %v at most", took[25].Round(time.Millisecond), took[49].Round(time.Millisecond))
}

// TestACutInALookUp ends the gateway while a key is looked up, which takes longer than the
// drain: the drain ends in time, and the upstream is not asked for a client that was cut.
func TestACutInALookUp(t *testing.T) {
	h := start(t, nil, nil)
	secret := h.issue(apikey.Spec{})
	c := h.dialRaw()
	h.source.mu.Lock()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: "+secret+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // it is looked up by then
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_ = h.proxy.Shutdown(ctx) // the drain was not enough, which is an error
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the drain took %v", took)
	}
	h.source.mu.Unlock()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a client that was cut is answered")
	}
	nettest.Until(t, "the connection is gone", func() bool {
		n := 0
		h.proxy.conns.each(func(*clientConn) { n++ })
		return n == 0
	})
	if h.last() != nil {
		t.Error("the upstream was asked")
	}
}
