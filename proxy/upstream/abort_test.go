package upstream

import (
	"context"
	"fmt"
	"io"
	"latchkey/internal/nettest"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestAbort ends an exchange in each of its phases.
func TestAbort(t *testing.T) {
	// A case calls reached once the exchange is about to wait in its phase.
	for _, tc := range []struct {
		name   string
		handle func(c *peer, reached func())
		start  func(t *testing.T, u *Upstream, r *Request, reached func()) // nil means nothing
		body   bool
	}{
		{name: "before it begins", start: func(_ *testing.T, _ *Upstream, _ *Request, reached func()) { reached() }},
		{name: "waiting for the head", handle: func(c *peer, reached func()) { c.head(); reached(); c.hold() }},
		{name: "in the middle of the head", handle: func(c *peer, reached func()) { c.head(); c.say("HTTP/1.1 200 OK\r\n"); reached(); c.hold() }},
		{name: "in the body", handle: func(c *peer, reached func()) {
			c.head()
			c.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
			reached()
			c.hold()
		}},
		{name: "in an upload", body: true, handle: func(c *peer, reached func()) { c.head(); reached(); c.hold() }},
		{name: "waiting for a connection", start: func(t *testing.T, u *Upstream, _ *Request, reached func()) {
			res, err := u.Do(request("GET"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { res.Close() })
			go func() {
				nettest.Until(t, "the request waits", func() bool { return u.State()[0].Waiting == 1 })
				reached()
			}()
		}, handle: func(c *peer, _ func()) { c.head(); c.say(clean); c.hold() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var once sync.Once
			ready := make(chan struct{})
			reached := func() { once.Do(func() { close(ready) }) }
			s := serve(t, func(c *peer, n int) { tc.handle(c, reached) })
			u := open(t, Options{Connections: Connections{Max: 1, Wait: time.Minute}}, s)
			r := request("GET")
			if tc.body {
				body := newGatedReader()
				r = send("POST", body, -1)
				r.StopBody = body.stop
			}
			r.HeadTimeout, r.BodyIdle, r.Retries = 0, 0, 5
			if tc.start != nil {
				tc.start(t, u, r, reached)
			}
			var aborter sync.WaitGroup
			if tc.name == "before it begins" {
				r.Abort()
			} else {
				aborter.Go(func() { <-ready; r.Abort(); r.Abort() })
			}
			_, _, err := fetch(u, r)
			aborter.Wait()
			if kind(err) != "aborted" {
				t.Errorf("error %v, want aborted", err)
			}
		})
	}
}

func TestAbortWhileConnecting(t *testing.T) {
	dialing := make(chan struct{})
	u := open(t, Options{
		Targets: []Target{{URL: "http://192.0.2.1"}},
		Connect: func(ctx context.Context, _, _ string) (net.Conn, error) {
			close(dialing)
			<-ctx.Done()
			return nil, ctx.Err()
		},
		Connections: Connections{ConnectTimeout: time.Hour},
	})
	r := request("GET")
	go func() { <-dialing; r.Abort() }()
	if _, err := u.Do(r); kind(err) != "aborted" || Processed(err) {
		t.Errorf("error %v, want aborted and not processed", err)
	}
	if got := u.State()[0]; got.Open != 0 || got.InFlight != 0 {
		t.Errorf("after it: %+v", got)
	}
}

func TestAbortAfterCloseDoesNothing(t *testing.T) {
	u := open(t, Options{}, serve(t, cleanServer))
	r := request("GET")
	if _, _, err := fetch(u, r); err != nil {
		t.Fatal(err)
	}
	r.Abort()
	if got := u.State()[0]; got.Idle != 1 {
		t.Errorf("%d idle connections, want 1", got.Idle)
	}
	wantClean(t, u)
	if got := u.State()[0].Connects; got != 1 {
		t.Errorf("%d connections made, want 1", got)
	}
	if _, err := u.Do(r); kind(err) != "aborted" {
		t.Errorf("error %v before Reset, want aborted", err)
	}
	head := r.Head
	r.Reset()
	r.Method, r.Head = "GET", head
	if _, body, err := fetch(u, r); body != "clean" || err != nil {
		t.Errorf("%q, %v after Reset, want clean", body, err)
	}
}

// TestAbortAfterTheBody: the exchange is over, but not the loan of the connection.
func TestAbortAfterTheBody(t *testing.T) {
	u := open(t, Options{}, serve(t, cleanServer))
	r := request("GET")
	res, err := u.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := res.WriteTo(io.Discard); err != nil {
		t.Fatal(err)
	}
	r.Abort()
	res.Close()
	if got := u.State()[0]; got.Open != 0 {
		t.Errorf("the aborted connection was kept: %+v", got)
	}
	wantClean(t, u)
}

// cleanServer serves every request well.
func cleanServer(c *peer, _ int) {
	for {
		if _, _, ok := c.request(); !ok {
			return
		}
		c.say(clean)
	}
}

// TestAbortHitsNobodyElse aborts exchanges at arbitrary moments while others use
// the same few connections. The others must not notice.
func TestAbortHitsNobodyElse(t *testing.T) {
	u := open(t, Options{Ejection: Ejection{Failures: -1}, Connections: Connections{Max: 4, Wait: time.Minute}}, serve(t, cleanServer))
	var workers sync.WaitGroup
	var aborted, through atomic.Int64
	for i := range 4 {
		workers.Go(func() {
			for n := range 500 {
				r := request("GET")
				var aborter sync.WaitGroup
				aborter.Go(func() {
					for range (n*7919 + i*1000) % 40000 {
						_ = time.Now() // a moment, of another length each time
					}
					r.Abort()
				})
				_, body, err := fetch(u, r)
				switch {
				case err == nil && body == "clean":
					through.Add(1)
				case kind(err) == "aborted":
					aborted.Add(1)
				default:
					t.Errorf("%q, %v, want aborted or whole", body, err)
				}
				aborter.Wait()
			}
		})
		workers.Go(func() {
			for range 1000 {
				if _, body, err := fetch(u, request("POST")); body != "clean" || err != nil {
					t.Errorf("not aborted: %q, %v", body, err)
				}
			}
		})
	}
	workers.Wait()
	t.Logf("%d aborted, %d came through", aborted.Load(), through.Load())
	if got := u.State()[0]; got.InFlight != 0 || got.Open != got.Idle || got.Waiting != 0 {
		t.Errorf("after it: %+v", got)
	}
}

func TestTimeouts(t *testing.T) {
	for _, tc := range []struct {
		name, says string
		head, idle time.Duration
		want       string
	}{
		{"no head", "", 50 * time.Millisecond, time.Minute, " timeout"},
		{"a head that does not end", "HTTP/1.1 200 OK\r\n", 50 * time.Millisecond, time.Minute, " timeout"},
		{"1xx does not extend the time", "HTTP/1.1 100 Continue\r\n\r\n", 50 * time.Millisecond, time.Minute, " timeout"},
		{"a body that stops", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ncle", time.Minute, 50 * time.Millisecond, "cle timeout"},
		{"chunks that stop", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ncle", time.Minute, 50 * time.Millisecond, "cle timeout"},
		{"a body until close that stops", "HTTP/1.1 200 OK\r\n\r\ncle", time.Minute, 50 * time.Millisecond, "cle timeout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t, func(c *peer, n int) { c.head(); c.say(tc.says); c.hold() })
			u := open(t, Options{}, s)
			r := request("GET")
			r.HeadTimeout, r.BodyIdle, r.Retries = tc.head, tc.idle, 5
			_, body, err := fetch(u, r)
			if got := body + " " + kind(err); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			if got := s.conns.Load(); got != 1 {
				t.Errorf("a request that timed out was sent %d times", got)
			}
		})
	}
}

// TestHeadTimeoutIsNotTheBodys: a stream lives on after its head was in time,
// and so does the connection's next exchange.
func TestHeadTimeoutIsNotTheBodys(t *testing.T) {
	for _, idle := range []time.Duration{0, time.Minute} {
		t.Run(fmt.Sprint(idle), func(t *testing.T) {
			more := make(chan struct{})
			s := serve(t, func(c *peer, n int) {
				c.head()
				c.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
				<-more
				c.say("clean")
				cleanServer(c, n)
			})
			u := open(t, Options{}, s)
			r := request("GET")
			r.HeadTimeout, r.BodyIdle = 200*time.Millisecond, idle
			res, err := u.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			<-time.After(400 * time.Millisecond) // the time that must not count
			close(more)
			if body, err := io.ReadAll(res); string(body) != "clean" || err != nil {
				t.Errorf("%q, %v, want clean", body, err)
			}
			res.Close()
			r = request("GET")
			r.HeadTimeout, r.BodyIdle = 0, 0
			if _, body, err := fetch(u, r); body != "clean" || err != nil {
				t.Errorf("then %q, %v, want clean", body, err)
			}
		})
	}
}
