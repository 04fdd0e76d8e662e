// Package nettest is what tests of sockets have in common.
package nettest

import (
	"net"
	"testing"
	"time"
)

// Serve accepts connections on a free port of the loopback until the test ends,
// and has each served by its own goroutine, after which it is closed. It returns
// the address.
func Serve(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c) }()
		}
	}()
	return l.Addr().String()
}

// Until waits up to 10 s for a condition that another goroutine or the network
// brings about.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for range 5000 {
		if holds() {
			return
		}
		<-time.After(2 * time.Millisecond)
	}
	t.Fatalf("in vain waited until %s", what)
}
