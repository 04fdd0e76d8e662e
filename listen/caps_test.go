package listen

import (
	"fmt"
	"io"
	"latchkey/internal/nettest"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fakeConn is read from memory.
type fakeConn struct{ io.Reader }

func (fakeConn) Write(p []byte) (int, error)      { return len(p), nil }
func (fakeConn) Close() error                     { return nil }
func (fakeConn) LocalAddr() net.Addr              { return fakeAddr() }
func (fakeConn) RemoteAddr() net.Addr             { return fakeAddr() }
func (fakeConn) SetDeadline(time.Time) error      { return nil }
func (fakeConn) SetReadDeadline(time.Time) error  { return nil }
func (fakeConn) SetWriteDeadline(time.Time) error { return nil }

func fakeAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 1} }

func TestCapsCountAddresses(t *testing.T) {
	for _, tc := range []struct {
		name, first, second string
		same                bool
	}{
		{"an IPv4 address", "192.0.2.1", "192.0.2.1", true},
		{"the next IPv4 address", "192.0.2.1", "192.0.2.2", false},
		{"mapped IPv4 counts as IPv4", "192.0.2.1", "::ffff:192.0.2.1", true},
		{"mapped IPv4 is not one /64", "::ffff:192.0.2.1", "::ffff:192.0.2.2", false},
		{"an IPv6 address", "2001:db8::1", "2001:db8::1", true},
		{"one IPv6 /64", "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true},
		{"the next IPv6 /64", "2001:db8::1", "2001:db8:0:1::1", false},
		{"a zone does not count", "fe80::1%eth0", "fe80::1%eth1", true},
		{"unknown addresses are one", "", "", true},
		{"unknown is not 0.0.0.0", "", "0.0.0.0", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			addr := func(s string) (a netip.Addr) {
				if s != "" {
					a = netip.MustParseAddr(s)
				}
				return a
			}
			c := NewCaps(0, 1)
			place, ok := c.claim(addr(tc.first))
			if !ok {
				t.Fatal("no place for the first connection")
			}
			if _, ok := c.claim(addr(tc.second)); ok == tc.same {
				t.Errorf("a place for %s beside %s: %t, want %t", tc.second, tc.first, ok, !tc.same)
			}
			c.leave(place)
			if _, ok := c.claim(addr(tc.second)); ok != tc.same && tc.same {
				t.Errorf("no place for %s after %s left", tc.second, tc.first)
			}
		})
	}
}

func TestCapsAreLeftOnce(t *testing.T) {
	caps := NewCaps(2, 1)
	var conns []*conn
	l := New(&scripted{}, Options{Caps: caps})
	for range 2 {
		if !caps.enter() {
			t.Fatal("no place")
		}
		c := &conn{Conn: fakeConn{strings.NewReader("")}, remote: fakeAddr(), listener: l}
		l.options.Counters.Open.Add(1)
		conns = append(conns, c)
	}
	if !conns[0].claim(&l.options) || conns[1].claim(&l.options) {
		t.Fatal("want a place for the first of one address and none for the second")
	}
	var closing sync.WaitGroup
	for range 8 {
		closing.Go(func() { conns[0].Close() })
	}
	closing.Wait()
	if caps.open != 1 || len(caps.taken) != 0 || l.options.Counters.Open.Load() != 1 {
		t.Errorf("%d open, %d addresses kept and %d counted after the first was closed 8 times, want 1, 0 and 1",
			caps.open, len(caps.taken), l.options.Counters.Open.Load())
	}
}

// TestCapsHold opens more connections than there is room for, closes one and
// opens another, for each limit.
func TestCapsHold(t *testing.T) {
	const limit = 3
	none := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	from := func(client int) string {
		return fmt.Sprintf("PROXY TCP6 2001:db8::%x 2001:db8:1::1 1 2\r\n", client+1)
	}
	elsewhere := func(client int) string {
		return fmt.Sprintf("PROXY TCP6 2001:db8:0:%x::1 2001:db8:1::1 1 2\r\n", client+1)
	}
	nothing := func(int) string { return "" }
	for _, tc := range []struct {
		name    string
		options Options
		header  func(client int) string
		full    bool // it is the limit for all that is reached
		roomFor int  // of limit+1 clients
	}{
		{"for all", Options{Caps: NewCaps(limit, 0)}, nothing, true, limit},
		{"for an address", Options{Caps: NewCaps(0, limit), Trusted: none}, nothing, false, limit},
		{"none", Options{Caps: NewCaps(0, 0)}, nothing, false, limit + 1},
		{"for a trusted proxy's address there is none", Options{Caps: NewCaps(0, limit), Trusted: loopback}, nothing, false, limit + 1},
		{"for all, behind a proxy", Options{Caps: NewCaps(limit, 0), Trusted: loopback, ProxyProtocol: true}, elsewhere, true, limit},
		{"for an announced /64", Options{Caps: NewCaps(0, limit), Trusted: loopback, ProxyProtocol: true}, from, false, limit},
		{"not for several", Options{Caps: NewCaps(0, limit), Trusted: loopback, ProxyProtocol: true}, elsewhere, false, limit + 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := startSite(t, tc.options)
			var open []net.Conn
			for client := range limit + 1 {
				c := s.dial()
				if got := answer(t, c, tc.header(client)+"hello\n"); (got != "") != (client < tc.roomFor) {
					t.Fatalf("client %d: answered %q", client, got)
				}
				open = append(open, c)
			}
			full, address := s.counters.Full.Load(), s.counters.AddressFull.Load()
			if got := int(full + address); got != limit+1-tc.roomFor || tc.full != (full > 0) {
				t.Errorf("%d refused in all and %d by address", full, address)
			}
			// A client sees its connection closed before its place is given back.
			nettest.Until(t, fmt.Sprintf("%d are open", tc.roomFor), func() bool { return int(s.counters.Open.Load()) == tc.roomFor })
			open[0].Close()
			nettest.Until(t, "the server has seen one leave", func() bool { return int(s.counters.Open.Load()) < tc.roomFor })
			if got := answer(t, s.dial(), tc.header(0)+"hello\n"); got == "" {
				t.Error("no room after a client had left")
			}
		})
	}
}

func BenchmarkCaps(b *testing.B) {
	c := NewCaps(1000, 10)
	addr := netip.MustParseAddr("2001:db8::1")
	for b.Loop() {
		c.enter()
		place, _ := c.claim(addr)
		c.leave(place)
	}
}
