package upstream

import (
	"crypto/tls"
	"fmt"
	"io"
	"latchkey/internal/nettest"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestStaleConnections: what happens to an idle connection decides on its use.
func TestStaleConnections(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(c net.Conn) // what the upstream does while it is idle
	}{
		{"the upstream closes", func(c net.Conn) { c.Close() }},
		{"the upstream closes its side", func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() }},
		{"the upstream resets", func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); c.Close() }},
		{"a byte arrives", func(c net.Conn) { _, _ = io.WriteString(c, "x") }},
		{"a response arrives that nobody asked for", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\n\r\n") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			idle := make(chan net.Conn, 2)
			s := serve(t, func(c *peer, n int) {
				c.request()
				c.say(clean)
				if n == 1 {
					idle <- c.Conn
				}
				cleanServer(c, n)
			})
			u := open(t, Options{}, s)
			wantClean(t, u)
			tc.change(<-idle)
			c := u.roster.Load().endpoints[0].pool.idle[0]
			nettest.Until(t, "it has arrived", func() bool { return !c.quiet() })
			r := request("POST") // is not repeated, so it must not go wrong at first
			if _, body, err := fetch(u, r); body != "clean" || err != nil {
				t.Errorf("%q, %v, want clean", body, err)
			}
			if got := s.conns.Load(); got != 2 {
				t.Errorf("%d connections, want 2", got)
			}
		})
	}
}

func TestPoolIsLastInFirstOut(t *testing.T) {
	u := open(t, Options{}, serve(t, cleanServer))
	first, second := request("GET"), request("GET")
	a, err := u.Do(first)
	if err != nil {
		t.Fatal(err)
	}
	b, err := u.Do(second)
	if err != nil {
		t.Fatal(err)
	}
	last := b.conn
	for _, res := range []*Response{a, b} {
		if _, err := res.WriteTo(io.Discard); err != nil {
			t.Fatal(err)
		}
		res.Close()
	}
	c, err := u.Do(first)
	if err != nil {
		t.Fatal(err)
	}
	if c.conn != last {
		t.Error("the connection used last was not used first")
	}
	c.Close()
}

func TestPoolKeepsSoManyIdleForSoLong(t *testing.T) {
	now := time.Unix(1000, 0)
	u := open(t, Options{Now: func() time.Time { return now }, Connections: Connections{Idle: 2, IdleTimeout: time.Minute}}, serve(t, cleanServer))
	burst := func(n int) {
		var all []*Response
		for range n {
			r := request("GET")
			r.HeadTimeout, r.BodyIdle = 0, 0 // the clock does not run
			res, err := u.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, res)
		}
		for _, res := range all {
			_, _ = res.WriteTo(io.Discard)
			res.Close()
		}
	}
	burst(4)
	if got := u.State()[0]; got.Idle != 2 || got.Open != 2 {
		t.Errorf("%d idle of %d, want 2 of 2", got.Idle, got.Open)
	}
	now = now.Add(30 * time.Second)
	burst(1)
	now = now.Add(30 * time.Second)
	u.Expire(now)
	if got := u.State()[0]; got.Idle != 1 || got.Open != 1 {
		t.Errorf("%d idle of %d after a minute, want 1 of 1: the one used since", got.Idle, got.Open)
	}
	now = now.Add(time.Hour)
	burst(1)
	if got := u.State()[0].Connects; got != 5 {
		t.Errorf("%d connections made, want 5: one that is over its time is not used, even before it is expired", got)
	}
}

// A connection is idle from the end of an answer that took long, not from its head.
func TestALongAnswerIsNoIdleTime(t *testing.T) {
	now := time.Unix(1000, 0)
	rest := make(chan struct{}, 3)
	u := open(t, Options{Now: func() time.Time { return now }, Connections: Connections{IdleTimeout: time.Minute}},
		serve(t, func(c *peer, _ int) {
			for c.head() != "" {
				c.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
				<-rest
				c.say("done")
			}
		}))
	for range 3 {
		r := request("GET")
		r.HeadTimeout, r.BodyIdle = 0, 0 // the clock does not run
		res, err := u.Do(r)
		rest <- struct{}{}
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Hour)
		_, _ = res.WriteTo(io.Discard)
		res.Close()
	}
	if got := u.State()[0].Connects; got != 1 {
		t.Errorf("%d connections made, want 1", got)
	}
}

func TestPoolIsBounded(t *testing.T) {
	u := open(t, Options{Connections: Connections{Max: 1}}, serve(t, cleanServer))
	res, err := u.Do(request("GET"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	if _, err := u.Do(request("GET")); kind(err) != "busy" || Processed(err) {
		t.Errorf("error %v, want busy and not processed", err)
	}
	if err := u.Update(Options{Targets: u.options.Targets, Connections: Connections{Max: 1, Wait: 50 * time.Millisecond}}); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Do(request("GET")); kind(err) != "busy" {
		t.Errorf("error %v after the wait, want busy", err)
	}
	if got := u.State()[0]; got.Waiting != 0 || got.Open != 1 {
		t.Errorf("after it: %+v", got)
	}
}

func TestLowerLimitClosesWhatIsOverIt(t *testing.T) {
	u := open(t, Options{}, serve(t, cleanServer))
	var all []*Response
	for range 3 {
		res, err := u.Do(request("GET"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, res)
	}
	if err := u.Update(Options{Targets: u.options.Targets, Connections: Connections{Max: 1}}); err != nil {
		t.Fatal(err)
	}
	for _, res := range all {
		_, _ = res.WriteTo(io.Discard)
		res.Close()
	}
	if got := u.State()[0]; got.Open != 1 || got.Idle != 1 {
		t.Errorf("%d open, %d idle, want 1", got.Open, got.Idle)
	}
}

// TestWaitingIsInTurn lets requests queue one after the other, and serves them
// in that order, whether the connection before can be used again or not.
func TestWaitingIsInTurn(t *testing.T) {
	for _, closes := range []bool{false, true} {
		t.Run(fmt.Sprintf("closes %t", closes), func(t *testing.T) {
			u := open(t, Options{Connections: Connections{Max: 1, Wait: time.Minute}}, serve(t, cleanServer))
			holder := request("GET")
			holder.Close = closes
			res, err := u.Do(holder)
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			var order []int
			var all sync.WaitGroup
			for i := range 5 {
				all.Go(func() {
					r := request("GET")
					r.Close = closes
					res, err := u.Do(r)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
					_, _ = res.WriteTo(io.Discard)
					res.Close()
				})
				nettest.Until(t, "it waits", func() bool { return u.State()[0].Waiting == i+1 })
			}
			_, _ = res.WriteTo(io.Discard)
			res.Close()
			all.Wait()
			if got := fmt.Sprint(order); got != "[0 1 2 3 4]" {
				t.Errorf("served in the order %s", got)
			}
		})
	}
}

func TestUpgrade(t *testing.T) {
	s := serve(t, func(c *peer, n int) {
		if head := c.head(); !strings.Contains(head, "Upgrade: echo") {
			return
		}
		c.say("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello")
		_, _ = io.Copy(c.Conn, c.r)
	})
	u := open(t, Options{Connections: Connections{Max: 1}}, s)
	upgrade := func() *Request {
		r := request("GET")
		r.Head = []byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		r.Upgrade, r.HeadTimeout = true, 200*time.Millisecond
		return r
	}
	r := upgrade()
	res, err := u.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	conn, buffered, err := res.Hijack()
	if err != nil || res.Status != 101 || string(buffered) != "hello" {
		t.Fatalf("%d, %q, %v, want 101 and hello", res.Status, buffered, err)
	}
	<-time.After(400 * time.Millisecond) // the time for the head must not count
	p := make([]byte, 4)
	if _, err := io.WriteString(conn, "ping"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, p); err != nil || string(p) != "ping" {
		t.Errorf("%q, %v, want ping", p, err)
	}
	if _, err := u.Do(upgrade()); kind(err) != "busy" {
		t.Errorf("error %v beside a tunnel, want busy: it counts", err)
	}
	go r.Abort()
	if _, err := conn.Read(p); err == nil {
		t.Error("a read of an aborted tunnel went well")
	}
	res.Close()
	if got := u.State()[0]; got.Open != 0 || got.InFlight != 0 {
		t.Errorf("after it: %+v", got)
	}
}

func TestUpgradeDeclinedIsAResponse(t *testing.T) {
	u := open(t, Options{}, serve(t, cleanServer))
	r := request("GET")
	r.Upgrade = true
	res, err := u.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	if _, _, err := res.Hijack(); err == nil || res.Status != 200 {
		t.Errorf("a %d was hijacked: %v", res.Status, err)
	}
}

// TestTLS: who is trusted, what is offered, and what is left on a connection.
func TestTLS(t *testing.T) {
	ca, serverCert, clientPair := certificates(t)
	type seen struct{ name, protocol, client string }
	for _, tc := range []struct {
		name string
		tls  TLS
		host string
		max  uint16
		want string // of seen; or the kind of the error
	}{
		{"its own authority", TLS{CA: ca}, "localhost", 0, "{localhost http/1.1 }"},
		{"another name", TLS{CA: ca, ServerName: "inner.example"}, "127.0.0.1", 0, "{inner.example http/1.1 }"},
		{"a client certificate", TLS{CA: ca, Cert: clientPair[0], Key: clientPair[1]}, "localhost", 0, "{localhost http/1.1 gateway}"},
		{"no check", TLS{Insecure: true}, "localhost", 0, "{localhost http/1.1 }"},
		{"an authority that is not trusted", TLS{}, "localhost", 0, "unavailable"},
		{"a name that is not the certificate's", TLS{CA: ca, ServerName: "other.example"}, "localhost", 0, "unavailable"},
		{"TLS 1.2", TLS{CA: ca}, "localhost", tls.VersionTLS12, "{localhost http/1.1 }"},
		{"TLS 1.1", TLS{CA: ca}, "localhost", tls.VersionTLS11, "unavailable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			config := &tls.Config{Certificates: []tls.Certificate{serverCert}, NextProtos: []string{"h2", "http/1.1"},
				ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS10, MaxVersion: tc.max}
			came := make(chan seen, 1)
			s := serve(t, overTLS(config, func(c *peer, n int) {
				state := c.Conn.(*tls.Conn).ConnectionState()
				v := seen{name: state.ServerName, protocol: state.NegotiatedProtocol}
				if len(state.PeerCertificates) > 0 {
					v.client = state.PeerCertificates[0].Subject.CommonName
				}
				came <- v
				cleanServer(c, n)
			}))
			_, port, _ := net.SplitHostPort(s.Addr().String())
			u := open(t, Options{TLS: tc.tls, Targets: []Target{{URL: "https://" + net.JoinHostPort(tc.host, port)}}})
			_, body, err := fetch(u, request("GET"))
			got := kind(err)
			if err == nil && body == "clean" {
				got = fmt.Sprint(<-came)
				wantClean(t, u)
				if n := s.conns.Load(); n != 1 {
					t.Errorf("%d connections, want 1", n)
				}
			}
			if got != tc.want {
				t.Errorf("%s (%v), want %s", got, err, tc.want)
			}
		})
	}
}

// TestTLSLeavesNothing: what TLS has decrypted, or has only begun to, is as much
// on the connection as what the socket holds.
func TestTLSLeavesNothing(t *testing.T) {
	ca, cert, _ := certificates(t)
	for _, tc := range []struct {
		name, after string
		part        bool // only a part of the record that holds it
		reused      bool
	}{
		{"nothing", "", false, true},
		{"a response in a record of its own", clean, false, false},
		{"the beginning of a record", clean, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t, overTLS(&tls.Config{Certificates: []tls.Certificate{cert}}, func(c *peer, n int) {
				if n > 1 {
					cleanServer(c, n)
					return
				}
				c.request()
				// Both records in one segment, so that they are read at once.
				gather := c.Conn.(*tls.Conn).NetConn().(*gatheringConn)
				gather.on = true
				c.say(clean)
				c.say(tc.after)
				gather.on = false
				if tc.part {
					gather.gathered = gather.gathered[:len(gather.gathered)-10]
				}
				_, _ = gather.Write(gather.gathered)
				cleanServer(c, n)
			}))
			_, port, _ := net.SplitHostPort(s.Addr().String())
			u := open(t, Options{TLS: TLS{CA: ca}, Targets: []Target{{URL: "https://localhost:" + port}}})
			wantClean(t, u)
			if got := u.State()[0]; got.Idle != 1 {
				t.Errorf("%d idle, want 1: a case that shows nothing", got.Idle)
			}
			wantClean(t, u)
			if reused := s.conns.Load() == 1; reused != tc.reused {
				t.Errorf("connection reused = %t, want %t", reused, tc.reused)
			}
		})
	}
}

// TestTLSUntilClose: an end that TLS has not announced may be an attacker's.
func TestTLSUntilClose(t *testing.T) {
	ca, cert, _ := certificates(t)
	for _, announced := range []bool{true, false} {
		t.Run(fmt.Sprintf("announced %t", announced), func(t *testing.T) {
			s := serve(t, overTLS(&tls.Config{Certificates: []tls.Certificate{cert}}, func(c *peer, n int) {
				c.request()
				c.say("HTTP/1.1 200 OK\r\n\r\nclean")
				if announced {
					_ = c.Conn.(*tls.Conn).CloseWrite()
				}
			}))
			_, port, _ := net.SplitHostPort(s.Addr().String())
			u := open(t, Options{TLS: TLS{CA: ca}, Targets: []Target{{URL: "https://localhost:" + port}}})
			_, body, err := fetch(u, request("GET"))
			if got, want := body+" "+kind(err), map[bool]string{true: "clean ", false: "clean truncated"}[announced]; got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}
