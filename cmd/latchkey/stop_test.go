package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var stops = flag.Int("stops", 3, "how often TestStopUnderLoad stops the gateway")

// A swarm is clients that ask as fast as they can. What fails is counted.
type swarm struct {
	t                *testing.T
	addr             string
	stop             chan struct{}
	clients          sync.WaitGroup
	answered, failed atomic.Int64
	lasts            atomic.Int64 // answers that said that the connection ends
}

func newSwarm(t *testing.T, url string) *swarm {
	return &swarm{t: t, addr: strings.TrimPrefix(url, "http://"), stop: make(chan struct{})}
}

// keepAlive adds a client that uses a connection for as long as it is told it
// may; once adds one that makes a connection for each request.
func (s *swarm) keepAlive() { s.clients.Go(func() { s.run("") }) }
func (s *swarm) once()      { s.clients.Go(func() { s.run("Connection: close\r\n") }) }

func (s *swarm) run(field string) {
	var c net.Conn
	var r *bufio.Reader
	for n := 0; ; n++ {
		select {
		case <-s.stop:
			return
		default:
		}
		if c == nil {
			var err error
			if c, err = net.DialTimeout("tcp", s.addr, 10*time.Second); err != nil {
				s.fail("connect: %v", err)
				return
			}
			r = bufio.NewReader(c)
		}
		last, err := ask(c, r, n, field)
		if err != nil {
			s.fail("request %d: %v", n, err)
		}
		s.answered.Add(1)
		if last && field == "" {
			s.lasts.Add(1)
		}
		if last || err != nil {
			c.Close()
			c = nil
		}
	}
}

func (s *swarm) fail(format string, args ...any) {
	if s.failed.Add(1) < 5 { // the first ones tell
		s.t.Errorf(format, args...)
	}
}

// ask makes a request, every fourth with a body, and reports whether the answer
// is the connection's last. The upstream echoes bodies.
func ask(c net.Conn, r *bufio.Reader, n int, field string) (last bool, err error) {
	c.SetDeadline(time.Now().Add(20 * time.Second))
	request, want := "GET / HTTP/1.1\r\nHost: a\r\n"+field+"\r\n", strings.Repeat("0123456789abcdef", 256)
	if n%4 == 3 {
		want = fmt.Sprintf("body %d", n)
		request = fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n%s", field, len(want), want)
	}
	if _, err := io.WriteString(c, request); err != nil {
		return true, err
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return true, err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return true, fmt.Errorf("read the answer: %w", err)
	}
	if res.StatusCode != 200 || string(body) != want {
		return true, fmt.Errorf("answered %s with %d bytes: %.200s", res.Status, len(body), body)
	}
	return res.Close, nil
}

// await waits until so many more requests were answered.
func (s *swarm) await(more int64) {
	for before := s.answered.Load(); s.answered.Load() < before+more && s.failed.Load() < 5; {
		<-time.After(time.Millisecond)
	}
}

func (s *swarm) end() {
	close(s.stop)
	s.clients.Wait()
}

// echo answers POST with its body and GET with 4 KiB, after a moment.
func echo(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			io.Copy(w, r.Body)
			return
		}
		<-time.After(2 * time.Millisecond)
		io.WriteString(w, strings.Repeat("0123456789abcdef", 256))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestStopUnderLoad stops the gateway with SIGTERM, and starts it again on the
// same sockets, under clients at full speed: no request is dropped, none is cut,
// and the process ends with status 0.
//
//	go test ./cmd/latchkey -run TestStopUnderLoad -v -stops 50
func TestStopUnderLoad(t *testing.T) {
	s := newSite(t, fmt.Sprintf(`
proxy: {listen: ["PROXY"], access_log: {enabled: false}}
routes: [{name: all, path: "/{rest:*}", upstream: up, auth: none}]
upstreams: {up: {targets: [%q]}}
`, echo(t)))
	sockets := []*os.File{openSocket(t, strings.TrimPrefix(s.proxy, "http://")), openSocket(t, strings.TrimPrefix(s.admin, "http://"))}
	var slowest time.Duration
	run := func() (stop func()) {
		c := activate(t, s.config, "proxy:admin", sockets...)
		out := new(strings.Builder)
		c.Stderr = out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return func() {
			t.Helper()
			from := time.Now()
			if err := c.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			if err := c.Wait(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			slowest = max(slowest, time.Since(from))
		}
	}
	stop := run()
	clients := newSwarm(t, s.proxy)
	for range 4 {
		clients.keepAlive()
		clients.keepAlive()
		clients.once()
	}
	for range *stops {
		clients.await(300)
		stop()
		stop = run()
	}
	clients.await(300)
	clients.end()
	stop()
	t.Logf("%d stops, %d requests, %d failed, %d connections ended by their last answer; the slowest stop took %v",
		*stops, clients.answered.Load(), clients.failed.Load(), clients.lasts.Load(), slowest.Round(time.Millisecond))
	if clients.lasts.Load() == 0 {
		t.Error("no answer said that its connection ends")
	}
}

// TestReadinessGoesFirst stops a gateway with a request at the upstream: it says
// that it is not ready while the request goes on, and the answer, which says that
// the connection ends, is whole.
func TestReadinessGoesFirst(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		io.WriteString(w, "late")
	}))
	defer backend.Close()
	cfg := testConfig(t, backend.URL)
	cfg.Routes[0].Auth = "none"
	app, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx) }()
	answered := make(chan string, 1)
	go func() {
		res, err := (&http.Client{Transport: &http.Transport{}}).Get("http://" + app.Addrs()[0].String())
		if err != nil {
			answered <- err.Error()
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		answered <- fmt.Sprintf("%d %t %s %v", res.StatusCode, res.Close, body, err)
	}()
	<-arrived
	stop()
	for !errors.Is(app.readiness(), errNotServing) {
		runtime.Gosched()
	}
	res, err := http.Get("http://" + app.Addrs()[1].String() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 503 {
		t.Errorf("/readyz while a request is answered: %s, want 503", res.Status)
	}
	app.proxyDraining(t)
	close(release)
	if got := <-answered; got != "200 true late <nil>" {
		t.Errorf("the request under way got %s", got)
	}
	if err := errors.Join(<-ended, app.Close()); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// proxyDraining waits until the data plane accepts nobody any more.
func (a *App) proxyDraining(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		c, err := net.Dial("tcp", a.Addrs()[0].String())
		if err != nil {
			return
		}
		c.Close()
	}
	t.Error("connections are still accepted")
}
