package listen

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"latchkey/internal/nettest"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// loopback is a trusted proxy where the tests' clients are to be one.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// A site serves a Listener: each connection gets a line with what the server
// was told of it and the first line that the client sent, and then every
// further line back.
type site struct {
	t        *testing.T
	listener *Listener
	counters *Counters
	served   sync.WaitGroup
}

func within(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

func startSite(t *testing.T, o Options) *site {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if o.Counters == nil {
		o.Counters = new(Counters)
	}
	if o.Handshake == nil {
		o.Handshake = within(time.Hour) // nothing is cut off by time
	}
	s := &site{t: t, listener: New(inner, o), counters: o.Counters}
	s.served.Go(s.serve)
	t.Cleanup(func() {
		s.listener.Close()
		s.served.Wait()
	})
	return s
}

func (s *site) serve() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.served.Go(func() {
			defer c.Close()
			r := bufio.NewReader(c)
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s via %s: %s", c.RemoteAddr(), addrOf(Peer(c)), line)
			io.Copy(c, r)
		})
	}
}

func (s *site) dial() net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// answer sends text and returns the line that comes back, "" if the connection
// is closed instead.
func answer(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	if text != "" {
		// An error of a connection that is closed already shows in the reading.
		_, _ = io.WriteString(c, text)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if errors.Is(err, net.ErrClosed) || err != nil && strings.Contains(err.Error(), "timeout") {
		t.Fatalf("after %q: %v", text, err)
	}
	return strings.TrimSuffix(line, "\n")
}

func TestAConnectionIsHandedOverAsItIs(t *testing.T) {
	s := startSite(t, Options{})
	c := s.dial()
	want := c.LocalAddr().String() + " via 127.0.0.1: hello"
	if got := answer(t, c, "hello\n"); got != want {
		t.Errorf("answered %q, want %q", got, want)
	}
	if n := s.counters.Accepted.Load(); n != 1 {
		t.Errorf("%d accepted, want 1", n)
	}
}

// A scripted listener gives what is in its list, then that it is closed.
type scripted struct {
	net.Listener
	results []any // net.Conn or error
}

func (s *scripted) Accept() (net.Conn, error) {
	if len(s.results) == 0 {
		return nil, &net.OpError{Op: "accept", Err: net.ErrClosed}
	}
	next := s.results[0]
	s.results = s.results[1:]
	if err, ok := next.(error); ok {
		return nil, err
	}
	return next.(net.Conn), nil
}

// TestRunningOutOfFilesEndsNothing: a server takes any error of Accept for the
// end, so that one bad second would be the gateway's last.
func TestRunningOutOfFilesEndsNothing(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	full := &net.OpError{Op: "accept", Err: &net.OpError{Op: "accept4", Err: syscall.EMFILE}}
	counters := new(Counters)
	l := New(&scripted{results: []any{full, full, a, errors.New("broken for good")}}, Options{Counters: counters})
	c, err := l.Accept()
	if err != nil {
		t.Fatalf("Accept() = %v, want the connection after two errors that pass", err)
	}
	defer c.Close()
	if got := counters.Faults.Load(); got != 2 {
		t.Errorf("%d faults counted, want 2", got)
	}
	if _, err := l.Accept(); err == nil || err.Error() != "broken for good" {
		t.Errorf("Accept() = %v, want the error that does not pass", err)
	}
}

// TestSilentClientsHoldUpNobody opens connections that never say a word and
// then one that does, with no time limit that could help.
func TestSilentClientsHoldUpNobody(t *testing.T) {
	files := newFiles(t)
	files.write(newAuthority(t, "ca").issue(t, "a.example"))
	for name, o := range map[string]Options{
		"waiting for a PROXY header":   {ProxyProtocol: true, Trusted: loopback},
		"waiting for a TLS handshake":  {Certificates: files.load(t, "")},
		"waiting for one and the next": {ProxyProtocol: true, Trusted: loopback, Certificates: files.load(t, "")},
	} {
		t.Run(name, func(t *testing.T) {
			s := startSite(t, o)
			var silent []net.Conn
			for range 100 {
				silent = append(silent, s.dial())
			}
			c := s.dial()
			if o.ProxyProtocol {
				io.WriteString(c, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
			}
			if o.Certificates != nil {
				c = handshake(t, c, clientConfig("a.example"))
			}
			if got := answer(t, c, "hello\n"); !strings.HasSuffix(got, ": hello") {
				t.Errorf("answered %q behind silent clients", got)
			}
			for _, c := range silent {
				c.Close()
			}
		})
	}
}

// TestTimeIsUp lets the deadline pass at each stage.
func TestTimeIsUp(t *testing.T) {
	files := newFiles(t)
	files.write(newAuthority(t, "ca").issue(t, "a.example"))
	for _, tc := range []struct {
		name, sent string
		options    Options
		header     bool // it is the header that was too slow
	}{
		{"no header", "", Options{ProxyProtocol: true, Trusted: loopback}, true},
		{"a beginning of a version 1 header", "PROXY TCP4 ", Options{ProxyProtocol: true, Trusted: loopback}, true},
		{"a beginning of a version 2 header", v2("\x21\x11\x00\x0c\xc0"), Options{ProxyProtocol: true, Trusted: loopback}, true},
		{"no TLS handshake", "", Options{Certificates: files.load(t, "")}, false},
		{"a header and no TLS handshake", "PROXY UNKNOWN\r\n", Options{ProxyProtocol: true, Trusted: loopback, Certificates: files.load(t, "")}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.options.Handshake = within(50 * time.Millisecond)
			if tc.sent != "" && !tc.header {
				tc.options.Handshake = within(time.Second) // in which the header must come, on a busy machine too
			}
			s := startSite(t, tc.options)
			if got := answer(t, s.dial(), tc.sent); got != "" {
				t.Errorf("answered %q, want the connection closed", got)
			}
			counter := &s.counters.BadTLS
			if tc.header {
				counter = &s.counters.BadHeader
			}
			if counter.Load() != 1 || s.counters.Accepted.Load() != 0 {
				t.Errorf("%d counted as too slow and %d accepted, want 1 and 0", counter.Load(), s.counters.Accepted.Load())
			}
		})
	}
}

// TestTheDeadlineEndsWithTheHandshake: what comes later is the server's to time.
func TestTheDeadlineEndsWithTheHandshake(t *testing.T) {
	const handshake = 100 * time.Millisecond
	s := startSite(t, Options{ProxyProtocol: true, Trusted: loopback, Handshake: within(handshake)})
	c := s.dial()
	if got := answer(t, c, "PROXY UNKNOWN\r\nhello\n"); !strings.HasSuffix(got, ": hello") {
		t.Fatalf("answered %q", got)
	}
	<-time.After(2 * handshake)
	if got := answer(t, c, "still here\n"); got != "still here" {
		t.Errorf("answered %q after the deadline of the handshake, want the connection to live on", got)
	}
}

// TestCloseHandsOverWhatWasAccepted closes the listener while a client is
// between its connection and its header.
func TestCloseHandsOverWhatWasAccepted(t *testing.T) {
	s := startSite(t, Options{ProxyProtocol: true, Trusted: loopback})
	c := s.dial()
	nettest.Until(t, "the connection is accepted", func() bool { return s.counters.Open.Load() > 0 })
	s.listener.Close()
	if got := answer(t, c, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nhello\n"); got != "192.0.2.1:1 via 127.0.0.1: hello" {
		t.Errorf("answered %q, want the client that had been let in to be served", got)
	}
	c.Close()
	s.served.Wait()
	if _, err := s.listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept() = %v, want net.ErrClosed", err)
	}
}
