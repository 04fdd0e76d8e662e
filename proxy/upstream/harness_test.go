package upstream

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"latchkey/internal/nettest"
)

// TestMain fails if the tests left goroutines or open files behind.
func TestMain(m *testing.M) {
	goroutines, files := runtime.NumGoroutine(), nettest.Descriptors()
	code := m.Run()
	if flag.Lookup("test.fuzz").Value.String() != "" { // which has goroutines of its own
		os.Exit(code)
	}
	for range 500 {
		if runtime.NumGoroutine() <= goroutines && nettest.Descriptors() <= files {
			os.Exit(code)
		}
		<-time.After(10 * time.Millisecond)
		runtime.GC() // which closes the pipes that package net keeps for splice(2)
	}
	fmt.Printf("left behind: %d goroutines, %d files\n", runtime.NumGoroutine()-goroutines, nettest.Descriptors()-files)
	buf := make([]byte, 1<<16)
	fmt.Printf("%s\n", buf[:runtime.Stack(buf, true)])
	os.Exit(1)
}

// A server is an upstream over raw connections.
type server struct {
	net.Listener
	conns  atomic.Int64
	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
	all    sync.WaitGroup
}

// serve gives each connection to handle, with its number from 1 on, and closes
// it after. The end of the test closes everything.
func serve(t testing.TB, handle func(c *peer, n int)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Listener: l, open: map[net.Conn]bool{}}
	t.Cleanup(s.stop)
	s.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := int(s.conns.Add(1))
			s.mu.Lock()
			if s.open[c] = true; s.closed {
				c.Close()
			}
			s.mu.Unlock()
			s.all.Go(func() {
				handle(&peer{c, bufio.NewReader(c)}, n)
				c.Close()
				s.mu.Lock()
				delete(s.open, c)
				s.mu.Unlock()
			})
		}
	})
	return s
}

func (s *server) stop() {
	s.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.all.Wait()
}

func (s *server) url() string { return "http://" + s.Addr().String() }

// A peer is the server's end of a connection.
type peer struct {
	net.Conn
	r *bufio.Reader
}

// head reads a request's head and returns it, "" at the end.
func (p *peer) head() string {
	var head strings.Builder
	for {
		line, err := p.r.ReadString('\n')
		if err != nil {
			return ""
		}
		head.WriteString(line)
		if line == "\r\n" {
			return head.String()
		}
	}
}

// request reads a whole request and returns its head and body; ok is false if
// it is not complete.
func (p *peer) request() (head, body string, ok bool) {
	if head = p.head(); head == "" {
		return "", "", false
	}
	if i := strings.Index(head, "Content-Length: "); i >= 0 {
		digits, _, _ := strings.Cut(head[i+len("Content-Length: "):], "\r\n")
		n, _ := strconv.Atoi(digits)
		b := make([]byte, n)
		got, err := io.ReadFull(p.r, b)
		return head, string(b[:got]), err == nil
	}
	if strings.Contains(head, "chunked") {
		var all strings.Builder
		for {
			line, err := p.r.ReadString('\n')
			if err != nil {
				return head, all.String(), false
			}
			n, err := strconv.ParseUint(strings.TrimSuffix(line, "\r\n"), 16, 31)
			if err != nil {
				return head, all.String(), false
			}
			b := make([]byte, n+2)
			if _, err := io.ReadFull(p.r, b); err != nil || string(b[n:]) != "\r\n" {
				return head, all.String(), false
			}
			if n == 0 {
				return head, all.String(), true
			}
			all.Write(b[:n])
		}
	}
	return head, "", true
}

// say writes text; the other end may be gone.
func (p *peer) say(text string) { _, _ = io.WriteString(p.Conn, text) }

// hold waits until the other end closes.
func (p *peer) hold() { _, _ = io.Copy(io.Discard, p.r) }

const clean = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nclean"

// open returns an Upstream of the servers' targets, closed at the test's end.
func open(t testing.TB, o Options, servers ...*server) *Upstream {
	t.Helper()
	for _, s := range servers {
		o.Targets = append(o.Targets, Target{URL: s.url()})
	}
	u, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

// request returns a request without a body.
func request(method string) *Request {
	return &Request{Method: method, Head: []byte(method + " / HTTP/1.1\r\nHost: x\r\n\r\n"), HeadTimeout: 10 * time.Second, BodyIdle: 10 * time.Second}
}

// send returns a request with a body that is read by an upload.
func send(method string, body io.Reader, length int64) *Request {
	r := request(method)
	framing := "Transfer-Encoding: chunked"
	if length >= 0 {
		framing = fmt.Sprintf("Content-Length: %d", length)
	}
	r.Head = []byte(method + " / HTTP/1.1\r\nHost: x\r\n" + framing + "\r\n\r\n")
	r.Body, r.Length = struct{ io.Reader }{body}, length
	return r
}

// fetch does the request and reads the response to its end.
func fetch(u *Upstream, r *Request) (status int, body string, err error) {
	res, err := u.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Close()
	var b strings.Builder
	_, err = res.WriteTo(&b)
	return res.Status, b.String(), err
}

// wantClean does another exchange, which must be like the first of its
// connection.
func wantClean(t *testing.T, u *Upstream) {
	t.Helper()
	status, body, err := fetch(u, request("GET"))
	if got := fmt.Sprint(status, " ", body, " ", err); got != "200 clean <nil>" {
		t.Errorf("the next exchange: %s, want 200 clean", got)
	}
}

// kind returns the kind of an error in a word.
func kind(err error) string {
	kinds := map[error]string{ErrTimeout: "timeout", ErrUnavailable: "unavailable", ErrBusy: "busy", ErrMalformed: "malformed",
		ErrTruncated: "truncated", ErrRequestBody: "body", ErrAborted: "aborted", ErrRequest: "request"}
	for e, word := range kinds {
		if errors.Is(err, e) {
			return word
		}
	}
	if err != nil {
		return err.Error()
	}
	return ""
}
