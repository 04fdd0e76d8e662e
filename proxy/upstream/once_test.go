package upstream

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestAtMostOnce closes a connection at each byte of an exchange, of the request
// and of the response, and counts on how many connections any part of the
// request came in. What is not safe to repeat never comes in twice.
func TestAtMostOnce(t *testing.T) {
	small := func() io.Reader { return bytes.NewReader([]byte("body")) }
	piped := func() io.Reader { return struct{ io.Reader }{strings.NewReader("body")} }
	for _, tc := range []struct {
		name, method string
		body         func() io.Reader // nil means none
		length       int64
		reused       bool // the connection has carried an exchange before
		most         int64
		answered     bool // an answer comes in the end if none had begun
	}{
		{"POST with a short body", "POST", small, 4, true, 1, false},
		{"POST with an uploaded body", "POST", piped, 4, true, 1, false},
		{"POST in chunks", "POST", piped, -1, true, 1, false},
		{"POST without a body", "POST", nil, 0, true, 1, false},
		{"PATCH", "PATCH", small, 4, true, 1, false},
		{"a method that is not known", "MKCOL", nil, 0, true, 1, false},
		{"PUT with a body", "PUT", small, 4, true, 1, false},
		{"PUT with an uploaded body", "PUT", piped, 4, true, 1, false},
		{"GET", "GET", nil, 0, true, 2, true},
		{"DELETE", "DELETE", nil, 0, true, 2, true},
		{"GET on a new connection", "GET", nil, 0, false, 1, false},
		{"POST on a new connection", "POST", small, 4, false, 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			probe := outgoing(tc.method, tc.body, tc.length)
			size := len(probe.Head) + int(tc.length)
			if tc.length < 0 {
				size = len(probe.Head) + len("4\r\nbody\r\n0\r\n\r\n")
			}
			for at := 0; at <= size+len(clean)-1; at++ {
				takes, says := min(at, size), clean[:max(0, at-size)]
				var came atomic.Int64
				s := serve(t, closingServer(tc.reused, takes, says, &came))
				u := open(t, Options{}, s)
				if tc.reused {
					wantClean(t, u)
				}
				r := outgoing(tc.method, tc.body, tc.length)
				_, body, err := fetch(u, r)
				if got := came.Load(); got > tc.most {
					t.Errorf("closed at byte %d: the request came in %d times, want %d at most", at, got, tc.most)
				}
				answered := err == nil && body == "clean"
				if tc.answered && says == "" && !answered {
					t.Errorf("closed at byte %d, before the response: %q, %v, want the response of another connection", at, body, err)
				}
				if says != "" && err == nil {
					t.Errorf("closed at byte %d, within the response: no error", at)
				}
				u.Close()
				s.stop()
			}
		})
	}
}

func outgoing(method string, body func() io.Reader, length int64) *Request {
	if body == nil {
		r := request(method)
		r.Retries = 5
		return r
	}
	r := send(method, nil, length)
	r.Body, r.Retries = body(), 5
	return r
}

// closingServer serves whole exchanges but on its first connection. There it
// serves one if told so, and then takes some bytes of a request, says some of a
// response, and closes. It counts connections on which a request began, that one
// apart.
func closingServer(first bool, takes int, says string, came *atomic.Int64) func(*peer, int) {
	return func(c *peer, n int) {
		if n == 1 {
			if first {
				c.request()
				c.say(clean)
			}
			got, _ := io.CopyN(io.Discard, c.r, int64(takes))
			if got > 0 {
				came.Add(1)
			}
			c.say(says)
			return
		}
		for {
			if _, err := c.r.Peek(1); err != nil {
				return
			}
			came.Add(1)
			if _, _, ok := c.request(); !ok {
				return
			}
			c.say(clean)
		}
	}
}

// TestMayRepeat states the rule itself.
func TestMayRepeat(t *testing.T) {
	stale := progress{reused: true}
	sent := progress{reused: true, written: true}
	for _, tc := range []struct {
		name, method string
		body         bool
		p            progress
		failure      error
		want         bool
	}{
		{"nothing sent", "POST", false, stale, ErrTruncated, true},
		{"nothing sent, with a body", "POST", true, stale, ErrTruncated, true},
		{"sent, idempotent", "GET", false, sent, ErrTruncated, true},
		{"sent, idempotent with a body", "PUT", true, sent, ErrTruncated, false},
		{"sent, not idempotent", "POST", false, sent, ErrTruncated, false},
		{"sent in lower case", "get", false, sent, ErrTruncated, false},
		{"an answer has begun", "GET", false, progress{reused: true, written: true, answered: true}, ErrTruncated, false},
		{"a new connection", "GET", false, progress{written: true}, ErrTruncated, false},
		{"a timeout", "GET", false, sent, ErrTimeout, false},
		{"a malformed answer", "GET", false, sent, ErrMalformed, false},
		{"an abort", "GET", false, sent, ErrAborted, false},
		{"the client's body", "PUT", true, sent, ErrRequestBody, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := request(tc.method)
			if tc.body {
				r = send(tc.method, strings.NewReader("body"), 4)
			}
			if got := mayRepeat(r, tc.p, &Error{Kind: tc.failure}); got != tc.want {
				t.Errorf("mayRepeat = %t, want %t", got, tc.want)
			}
		})
	}
}

func TestRetriesAreCounted(t *testing.T) {
	for _, retries := range []int{0, 1} {
		t.Run(fmt.Sprint(retries), func(t *testing.T) {
			var came atomic.Int64
			s := serve(t, closingServer(true, 10, "", &came))
			u := open(t, Options{}, s)
			wantClean(t, u)
			r := request("GET")
			r.Retries = retries
			_, _, err := fetch(u, r)
			if got, want := kind(err), []string{"truncated", ""}[retries]; got != want {
				t.Errorf("error %v, want %q", err, want)
			}
			if got := u.State()[0].Repeats; got != uint64(retries) {
				t.Errorf("%d repeats, want %d", got, retries)
			}
			if err != nil && !Processed(err) {
				t.Error("a request that was sent is said not to have been processed")
			}
		})
	}
}

// TestRepeatIsOnANewConnection: where one idle connection was stale, the others
// may be, too.
func TestRepeatIsOnANewConnection(t *testing.T) {
	s := serve(t, func(c *peer, n int) {
		c.request()
		c.say(clean)
		if n > 2 {
			cleanServer(c, n)
			return
		}
		_, _ = io.CopyN(io.Discard, c.r, 10) // of a second request
	})
	u := open(t, Options{Connections: Connections{Max: 2}}, s) // one has to give way
	first, second := request("GET"), request("GET")
	for _, r := range []*Request{first, second} {
		if _, err := u.Do(r); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []*Request{first, second} {
		_, _ = r.res.WriteTo(io.Discard)
		r.res.Close()
	}
	first.Retries = 1
	if _, body, err := fetch(u, first); body != "clean" || err != nil {
		t.Errorf("%q, %v, want clean", body, err)
	}
	if got := u.State()[0]; got.Connects != 3 || got.Open > 2 {
		t.Errorf("after it: %+v", got)
	}
}

// TestConnectFailureGoesOnToAnotherTarget: any method goes on to a target that can be connected to.
func TestConnectFailureGoesOnToAnotherTarget(t *testing.T) {
	s := serve(t, func(c *peer, n int) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			c.say(clean)
		}
	})
	for range 20 {
		u := open(t, Options{Targets: []Target{{URL: refused(t)}, {URL: refused(t)}}}, s)
		r := send("POST", bytes.NewReader([]byte("body")), 4)
		if _, body, err := fetch(u, r); body != "clean" || err != nil {
			t.Fatalf("%q, %v, want clean", body, err)
		}
		u.Close()
	}
	u := open(t, Options{Targets: []Target{{URL: refused(t)}}})
	_, err := u.Do(request("POST"))
	if kind(err) != "unavailable" || Processed(err) || !strings.Contains(err.Error(), "http://127.0.0.1:") {
		t.Errorf("error %v, want unavailable, not processed, with the target", err)
	}
}

// refused returns the URL of a port that is taken and not listened on, so that
// nobody else comes to listen on it.
func refused(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
}
