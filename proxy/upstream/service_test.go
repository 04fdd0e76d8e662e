package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"latchkey/internal/nettest"
)

// A clock stands still until it is moved.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ns.Store(int64(1e18))
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) forward(d time.Duration) { c.ns.Add(int64(d)) }

// untimed does an exchange without deadlines, for a clock that stands still.
func untimed(u *Upstream) error {
	r := request("GET")
	r.HeadTimeout, r.BodyIdle = 0, 0
	_, _, err := fetch(u, r)
	return err
}

// TestWhatCountsAsFailure does three exchanges that end alike, with another
// target beside that is never asked, and looks who is ejected.
func TestWhatCountsAsFailure(t *testing.T) {
	for _, tc := range []struct {
		name, says string
		want       bool
	}{
		{"200", clean, false},
		{"404", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false},
		{"500", "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", false},
		{"501", "HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n", false},
		{"502", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", true},
		{"503", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", true},
		{"504", "HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n", true},
		{"505", "HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Length: 0\r\n\r\n", false},
		{"malformed", "hello", true},
		{"broken off before the head", "", true},
		{"broken off in the body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", true},
		{"malformed chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t, func(c *peer, n int) { c.request(); c.say(tc.says) })
			u := open(t, Options{Ejection: Ejection{Failures: 3}, Targets: []Target{{URL: "http://192.0.2.1"}}}, s)
			other := u.roster.Load().endpoints[0]
			other.inFlight.Store(1) // and never answered: not chosen by its load
			for range 3 {
				if got := u.State()[1].Ejected; got != 0 {
					t.Fatal("ejected too soon")
				}
				_, _, _ = fetch(u, request("GET"))
			}
			if got := u.State()[1].Ejected == 1; got != tc.want {
				t.Errorf("ejected = %t, want %t: %+v", got, tc.want, u.State())
			}
		})
	}
}

func TestGoodResponseEndsARowOfFailures(t *testing.T) {
	answers := make(chan string, 10)
	s := serve(t, func(c *peer, n int) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			c.say(<-answers)
		}
	})
	u := open(t, Options{Ejection: Ejection{Failures: 3}, Targets: []Target{{URL: "http://192.0.2.1"}}}, s)
	u.roster.Load().endpoints[0].inFlight.Store(1) // not chosen by its load
	const bad = "HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n"
	for i, answer := range []string{bad, bad, clean, bad, bad, bad} {
		if got := u.State()[1].Ejected; got != 0 {
			t.Fatalf("ejected after %d exchanges, want after three bad ones in a row", i)
		}
		answers <- answer
		_, _, _ = fetch(u, request("GET"))
	}
	if got := u.State()[1].Ejected; got != 1 {
		t.Error("not ejected after three bad ones in a row")
	}
}

func TestConnectFailuresEject(t *testing.T) {
	dead := refused(t)
	u := open(t, Options{Balance: RoundRobin, Ejection: Ejection{Failures: 2}, Targets: []Target{{URL: dead}}}, serve(t, cleanServer))
	for range 10 {
		wantClean(t, u)
	}
	if got := u.State()[0]; got.Ejected != 1 || got.Ejections != 1 || got.InService != 0 {
		t.Errorf("after two failures to connect: %+v", got)
	}
}

// TestClientsFaultsDoNotEject: what the client did says nothing of the target.
func TestClientsFaultsDoNotEject(t *testing.T) {
	s := serve(t, func(c *peer, n int) { c.hold() })
	u := open(t, Options{Ejection: Ejection{Failures: 1}, Targets: []Target{{URL: "http://192.0.2.1"}}}, s)
	u.roster.Load().endpoints[0].inFlight.Store(1)
	if _, _, err := fetch(u, send("POST", strings.NewReader("x"), 2)); kind(err) != "body" {
		t.Errorf("error %v, want the body's", err)
	}
	r := request("GET")
	go r.Abort()
	if _, _, err := fetch(u, r); kind(err) != "aborted" {
		t.Errorf("error %v, want aborted", err)
	}
	if got := u.State()[1]; got.Ejected != 0 {
		t.Errorf("ejected by what clients did: %+v", got)
	}
}

// TestEjectionEnds walks through the life of an ejection by the clock.
func TestEjectionEnds(t *testing.T) {
	c := newClock()
	u := open(t, Options{Now: c.now, Ejection: Ejection{Failures: 3, Interval: 10 * time.Second, Duration: 30 * time.Second},
		Targets: []Target{{URL: "http://192.0.2.1"}, {URL: "http://192.0.2.2"}}})
	e := u.roster.Load().endpoints[0]
	fail := func(times int) {
		for range times {
			u.failed(e, c.now())
		}
	}
	want := func(what string, out bool) {
		t.Helper()
		if got := e.passive.out(c.now()); got != out {
			t.Errorf("%s: ejected = %t, want %t", what, got, out)
		}
	}
	fail(2)
	e.passive.succeeded()
	fail(2)
	want("a success between", false)
	c.forward(11 * time.Second)
	fail(2)
	want("failures too far apart", false)
	fail(1)
	want("three in a row", true)
	c.forward(29 * time.Second)
	want("before the end", true)
	c.forward(time.Second)
	want("at the end", false)
	if got := time.Unix(0, e.entered.Load()); !got.Equal(c.now()) {
		t.Errorf("slow start from %s, want from the end of the ejection", got)
	}
	fail(1)
	want("another failure at once", true)
	c.forward(30 * time.Second)
	e.passive.succeeded()
	fail(2)
	want("failures after a success", false)
}

// TestEjectionHasAFloor lets all endpoints fail, and counts who is left.
func TestEjectionHasAFloor(t *testing.T) {
	for _, tc := range []struct{ targets, down, left int }{{1, 0, 1}, {2, 0, 1}, {3, 0, 2}, {4, 0, 2}, {5, 0, 3}, {10, 0, 5}, {4, 2, 1}, {3, 2, 1}} {
		t.Run(fmt.Sprintf("%d of which %d down", tc.targets, tc.down), func(t *testing.T) {
			c := newClock()
			o := Options{Now: c.now, Ejection: Ejection{Failures: 1}}
			for i := range tc.targets {
				o.Targets = append(o.Targets, Target{URL: fmt.Sprintf("http://192.0.2.%d", i+1)})
			}
			u := open(t, o)
			all := u.roster.Load().endpoints
			for i := range tc.down {
				all[i].active.down.Store(true)
			}
			for _, e := range all[tc.down:] {
				u.failed(e, c.now())
				u.failed(e, c.now())
			}
			in := 0
			for _, s := range u.State() {
				in += s.InService
			}
			if in != tc.left {
				t.Errorf("%d left in service, want %d", in, tc.left)
			}
		})
	}
}

// TestChecks: an address goes out of service after so many bad checks in a row,
// comes back after so many good ones, and is not asked before its turn.
func TestChecks(t *testing.T) {
	c := newClock()
	var answer atomic.Value
	answer.Store("HTTP/1.1 204 No Content\r\n\r\n")
	var checks atomic.Int64
	s := serve(t, func(p *peer, n int) {
		if head := p.head(); strings.HasPrefix(head, "GET /health?x HTTP/1.1\r\nHost: "+p.LocalAddr().String()+"\r\n") {
			checks.Add(1)
			p.say(answer.Load().(string))
		}
	})
	u := open(t, Options{Now: c.now, Health: Health{Path: "/health?x", Interval: 10 * time.Second, Timeout: 5 * time.Second, Healthy: 2, Unhealthy: 3}}, s)
	check := func() int {
		c.forward(10 * time.Second)
		u.Check(t.Context(), c.now())
		u.Check(t.Context(), c.now()) // not its turn
		return u.State()[0].Down
	}
	for _, step := range []struct {
		answer string
		down   int
	}{
		{"HTTP/1.1 204 No Content\r\n\r\n", 0}, {"HTTP/1.1 500 x\r\n\r\n", 0}, {"HTTP/1.1 404 x\r\n\r\n", 0}, {"HTTP/1.1 302 x\r\n\r\n", 0}, // a good one ends the row
		{"HTTP/1.1 500 x\r\n\r\n", 0}, {"malformed", 0}, {"", 1}, {clean, 1}, {"HTTP/1.1 500 x\r\n\r\n", 1}, {clean, 1}, {clean, 0},
	} {
		answer.Store(step.answer)
		if got := check(); got != step.down {
			t.Errorf("after %q %d are down, want %d", step.answer, got, step.down)
		}
	}
	if got := checks.Load(); got != 11 {
		t.Errorf("%d checks, want 11: one for each turn", got)
	}
	if got := time.Unix(0, u.roster.Load().endpoints[0].entered.Load()); !got.Equal(c.now()) {
		t.Errorf("slow start from %s, want from the return", got)
	}
}

func TestChecksRunOutOfTime(t *testing.T) {
	s := serve(t, func(p *peer, n int) { p.head(); p.say("HTTP/1.1 200"); p.hold() })
	u := open(t, Options{Health: Health{Path: "/", Timeout: 50 * time.Millisecond, Unhealthy: 1}}, s)
	u.Check(t.Context(), time.Now())
	if _, err := u.Do(request("GET")); kind(err) != "unavailable" || u.State()[0].Down != 1 {
		t.Errorf("error %v, %+v, want the only target down", err, u.State()[0])
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	u = open(t, Options{Health: Health{Path: "/", Unhealthy: 1}}, s)
	if u.Check(ctx, time.Now()); u.State()[0].Down != 0 {
		t.Error("a pass that was called off took a target down")
	}
}

// TestATargetThatHangsDelaysNoChecks has one of two targets take all the time there is.
func TestATargetThatHangsDelaysNoChecks(t *testing.T) {
	var checks, hanging atomic.Int64
	good := serve(t, func(p *peer, n int) { p.head(); checks.Add(1); p.say(clean) })
	hangs := serve(t, func(p *peer, n int) { p.head(); hanging.Add(1); p.hold() })
	u := open(t, Options{Health: Health{Path: "/", Interval: time.Second, Timeout: time.Minute}}, good, hangs)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	var passes sync.WaitGroup
	for i := range 5 {
		passes.Go(func() { u.Check(ctx, time.Unix(int64(1000+i), 0)) })
		nettest.Until(t, "the good one is checked", func() bool { return checks.Load() == int64(i+1) })
		nettest.Until(t, "its check is over", func() bool {
			u.mu.Lock()
			defer u.mu.Unlock()
			return !u.roster.Load().endpoints[0].active.busy
		})
	}
	cancel()
	passes.Wait()
	if got := hanging.Load(); got != 1 {
		t.Errorf("the one that hangs was checked %d times at once, want 1", got)
	}
}

// TestResolve moves a name from one address to another under an exchange.
func TestResolve(t *testing.T) {
	c := newClock()
	more := make(chan struct{})
	s := serve(t, func(p *peer, n int) {
		for {
			head, _, ok := p.request()
			if !ok {
				return
			}
			if strings.Contains(head, "/slow") {
				p.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
				<-more
				p.say("clean")
				continue
			}
			p.say(clean)
		}
	})
	var addresses []netip.Addr
	var fault error
	var dialed []string
	u := open(t, Options{Now: c.now, ResolveEach: time.Minute, Balance: RoundRobin, Connections: Connections{IdleTimeout: time.Hour},
		Targets: []Target{{URL: "http://api.example:8000"}},
		Lookup: func(_ context.Context, _, host string) ([]netip.Addr, error) {
			if host != "api.example" {
				t.Errorf("looked up %q", host)
			}
			return addresses, fault
		},
		Connect: func(ctx context.Context, network, address string) (net.Conn, error) {
			dialed = append(dialed, address)
			return (&net.Dialer{}).DialContext(ctx, network, s.Addr().String())
		}})
	resolve := func(want string, now ...string) {
		t.Helper()
		c.forward(time.Minute)
		addresses = nil
		for _, a := range now {
			addresses = append(addresses, netip.MustParseAddr(a))
		}
		if err := u.Resolve(t.Context(), c.now()); (err != nil) != (fault != nil || len(now) == 0) {
			t.Errorf("Resolve: %v", err)
		}
		dialed = nil
		for range 4 {
			if err := untimed(u); err != nil {
				t.Error(err)
			}
		}
		if got := fmt.Sprint(dialed); got != want {
			t.Errorf("connections were made to %s, want to %s", got, want)
		}
	}
	if err := untimed(u); err != nil || fmt.Sprint(dialed) != "[api.example:8000]" {
		t.Errorf("before the first pass: %v, connected to %v", err, dialed)
	}
	resolve("[10.0.0.1:8000 10.0.0.2:8000]", "10.0.0.2", "10.0.0.1", "10.0.0.2")
	slow := request("GET")
	slow.Head, slow.HeadTimeout, slow.BodyIdle = []byte("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"), 0, 0
	res, err := u.Do(slow) // over the connection to 10.0.0.1
	if err != nil {
		t.Fatal(err)
	}
	if got := res.endpoint.host; got != "10.0.0.1" {
		t.Fatalf("asked %s", got)
	}
	resolve("[[fd00::1]:8000]", "10.0.0.2", "fd00::1")
	resolve("[]", "10.0.0.2", "fd00::1")
	fault = errors.New("no resolver")
	resolve("[]", "10.9.9.9")
	fault = nil
	resolve("[]") // no addresses at all
	close(more)
	var body bytes.Buffer
	if _, err := res.WriteTo(&body); body.String() != "clean" || err != nil {
		t.Errorf("the exchange under way: %q, %v", body.String(), err)
	}
	res.Close()
	if got := u.State()[0]; got.Addresses != 2 || got.Open != 2 || got.InFlight != 0 || got.Connects != 4 {
		t.Errorf("in the end: %+v", got)
	}
	nettest.Until(t, "the old addresses are closed", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.open) == 2 })
}

// TestUpdateKeepsWhatIsUnchanged: connections and what is known of health stay;
// what is gone ends when its exchanges do.
func TestUpdateKeepsWhatIsUnchanged(t *testing.T) {
	stays, goes, comes := serve(t, cleanServer), serve(t, cleanServer), serve(t, cleanServer)
	o := Options{Balance: RoundRobin}
	u := open(t, o, stays, goes)
	wantClean(t, u)
	res, err := u.Do(request("GET"))
	if err != nil || res.Target() != goes.url() {
		t.Fatal(err)
	}
	kept := u.roster.Load().endpoints[0]
	kept.active.down.Store(true)
	o.Targets = []Target{{URL: comes.url()}, {URL: stays.url(), Weight: 7}}
	o.Health.Path, o.Connections.Idle, o.TLS.Insecure = "/", 3, true
	if err := u.Update(o); err != nil {
		t.Fatal(err)
	}
	s := u.roster.Load()
	if s.endpoints[1] != kept || !kept.active.down.Load() || kept.weight.Load() != 7 || kept.pool.limits.Idle != 3 {
		t.Error("the target that stays did not stay, or did not take its new weight and limits")
	}
	if got := u.State(); len(got) != 2 || got[0].Connects != 0 || got[1].Connects != 1 || got[1].Idle != 1 {
		t.Errorf("after it: %+v", got)
	}
	if _, err := res.WriteTo(new(bytes.Buffer)); err != nil {
		t.Errorf("the exchange under way: %v", err)
	}
	res.Close()
	nettest.Until(t, "the target that goes is closed", func() bool { goes.mu.Lock(); defer goes.mu.Unlock(); return len(goes.open) == 0 })
	o.Health.Path = ""
	if err := u.Update(o); err != nil || kept.active.down.Load() {
		t.Errorf("a target is down that nobody checks any more (%v)", err)
	}
	if err := u.Update(Options{}); err == nil || len(u.State()) != 2 {
		t.Error("bad options changed something")
	}
}

func TestUpdateOfTLSMakesNewConnections(t *testing.T) {
	o := Options{Targets: []Target{{URL: "https://192.0.2.1"}, {URL: "http://192.0.2.1"}}}
	u := open(t, o)
	before := u.roster.Load().endpoints
	o.TLS.ServerName = "other.example"
	if err := u.Update(o); err != nil {
		t.Fatal(err)
	}
	after := u.roster.Load().endpoints
	if before[0] == after[0] || before[1] != after[1] {
		t.Error("a change of TLS must renew what speaks TLS, and nothing else")
	}
}

// TestClose refuses who waits and who comes, and lets end who is there.
func TestClose(t *testing.T) {
	s := serve(t, cleanServer)
	u := open(t, Options{Connections: Connections{Max: 1, Wait: time.Minute}}, s)
	res, err := u.Do(request("GET"))
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error)
	go func() {
		_, err := u.Do(request("GET"))
		waiting <- err
	}()
	nettest.Until(t, "it waits", func() bool { return u.State()[0].Waiting == 1 })
	u.Close()
	if err := <-waiting; kind(err) != "unavailable" {
		t.Errorf("who waits: %v, want unavailable", err)
	}
	if _, err := u.Do(request("GET")); kind(err) != "unavailable" {
		t.Errorf("who comes: %v, want unavailable", err)
	}
	if err := u.Update(Options{Targets: []Target{{URL: s.url()}}}); err == nil {
		t.Error("a closed Upstream was updated")
	}
	var body bytes.Buffer
	if _, err := res.WriteTo(&body); body.String() != "clean" || err != nil {
		t.Errorf("who is there: %q, %v", body.String(), err)
	}
	res.Close()
	u.Close()
}
