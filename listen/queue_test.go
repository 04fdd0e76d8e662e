package listen

import (
	"io"
	"net"
	"testing"
)

// TestClientsInTheQueueAreServedAfterClose has clients connect that nobody
// accepts before the listener is closed.
func TestClientsInTheQueueAreServedAfterClose(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	counters := new(Counters)
	l := New(inner, Options{Counters: counters})
	var clients []net.Conn
	connect := func() {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		clients = append(clients, c)
	}
	serve := func() {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "served")
		c.Close()
	}
	connect()
	serve()
	for range 5 {
		connect()
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		serve()
	}
	if c, err := l.Accept(); err == nil {
		t.Errorf("accepted %s after all", c.RemoteAddr())
	}
	for i, c := range clients {
		if got, err := io.ReadAll(c); string(got) != "served" || err != nil {
			t.Errorf("client %d got %q, %v", i, got, err)
		}
	}
	if got := counters.Accepted.Load(); got != 6 {
		t.Errorf("%d connections are counted, want 6", got)
	}
	if c, err := net.Dial("tcp", inner.Addr().String()); err == nil {
		t.Errorf("connected to %s after it was closed", c.RemoteAddr())
	}
}

// TestTheQueueOfAnInheritedSocketIsLeftAlone closes one of two listeners that
// share a socket, as a restart does. Who waits is served by the other.
func TestTheQueueOfAnInheritedSocketIsLeftAlone(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := inner.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	next, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	l := New(&inheritedListener{inner}, Options{})
	l.accepting.Store(true)
	c, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err := l.Accept(); err == nil {
		t.Fatalf("the listener that was closed took %s", c.RemoteAddr())
	}
	waiting, err := next.Accept()
	if err != nil {
		t.Fatal(err)
	}
	waiting.Close()
}
