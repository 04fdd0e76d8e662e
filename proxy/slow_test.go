package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slowLimits are short, so that a test sees them pass.
func slowLimits(o *Options) {
	o.Routes[0].Public = true
	o.ReadHeader, o.Idle, o.BodyIdle = 400*time.Millisecond, 500*time.Millisecond, 400*time.Millisecond
	o.HeaderBytes, o.BodyBytes = 8<<10, 1<<20
}

// TestSlowAndLargeRequestsAreCut sends what is too slow or too large, and holds
// answer and time against the limits. What is sent "drop by drop" never stops.
func TestSlowAndLargeRequestsAreCut(t *testing.T) {
	const get, post = "GET / HTTP/1.1\r\nHost: a\r\n", "POST / HTTP/1.1\r\nHost: a\r\n"
	long := strings.Repeat("x", 16<<10)
	for _, tc := range []struct {
		name, request string
		drops         string // sent again and again, every 20ms
		status        int    // 0: the connection ends without an answer
		code          string
		after         time.Duration
	}{
		{"a client that says nothing", "", "", 0, "", 500 * time.Millisecond},
		{"half a head", get, "", 408, "request_timeout", 400 * time.Millisecond},
		{"half a request line", "GET /", "", 408, "request_timeout", 400 * time.Millisecond},
		{"a head, drop by drop", get, "X: y\r\n", 408, "request_timeout", 400 * time.Millisecond},
		{"half a body", post + "Content-Length: 10\r\n\r\nhalf", "", 408, "request_timeout", 400 * time.Millisecond},
		{"no body at all", post + "Content-Length: 10\r\n\r\n", "", 408, "request_timeout", 400 * time.Millisecond},
		{"half a chunk", post + "Transfer-Encoding: chunked\r\n\r\na\r\nhalf", "", 408, "request_timeout", 400 * time.Millisecond},
		{"a body that was to be announced and is not sent", post + "Content-Length: 10\r\nExpect: 100-continue\r\n\r\n", "", 408, "request_timeout", 400 * time.Millisecond},
		{"a body that is announced too long", post + "Content-Length: 1048577\r\n\r\n", "", 413, "body_too_large", 0},
		{"chunks that become too many", post + "Transfer-Encoding: chunked\r\n\r\n", "4000\r\n" + long + "\r\n", 413, "body_too_large", 0},
		{"a target that is too long", "GET /" + long + " HTTP/1.1\r\nHost: a\r\n\r\n", "", 414, "target_too_long", 0},
		{"a target without end", "GET /", long, 414, "target_too_long", 0},
		{"a query that is too long", "GET /?" + long + " HTTP/1.1\r\nHost: a\r\n\r\n", "", 414, "target_too_long", 0},
		{"a method without end", long, "", 431, "head_too_large", 0},
		{"a field that is too long", get + "X: " + long + "\r\n\r\n", "", 431, "head_too_large", 0},
		{"fields without end", get, "X: " + long[:1000] + "\r\n", 431, "head_too_large", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := start(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }, slowLimits)
			from := time.Now()
			c, _ := h.dial(false)
			c.SetDeadline(from.Add(10 * time.Second))
			go func() {
				io.WriteString(c, tc.request)
				for sent := 0; tc.drops != "" && (tc.after > 0 || sent < 2<<20); sent += len(tc.drops) {
					if _, err := io.WriteString(c, tc.drops); err != nil {
						return
					}
					if tc.after > 0 { // what is too large is so at any pace
						<-time.After(20 * time.Millisecond)
					}
				}
			}()
			wantCut(t, c, tc.status, tc.code)
			if took := time.Since(from); took < tc.after || took > tc.after+3*time.Second {
				t.Errorf("cut after %v, want %v", took, tc.after)
			}
		})
	}
}

// wantCut reads a problem from a connection, or its end.
func wantCut(t *testing.T, c net.Conn, status int, code string) {
	t.Helper()
	r := bufio.NewReader(c)
	if status == 0 {
		if b, err := r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %q, %v; want the end of the connection", b, err)
		}
		return
	}
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode == http.StatusContinue {
			continue
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		wantProblem(t, res, string(body), status, code)
		if !res.Close {
			t.Error("the connection is to go on")
		}
		return
	}
}

// TestASlowReaderIsCut has a client take nothing of an endless answer, or a byte
// now and then: the upstream is released.
func TestASlowReaderIsCut(t *testing.T) {
	for name, pause := range map[string]time.Duration{"nothing": 0, "drop by drop": 20 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			released := make(chan time.Time, 1)
			h := newHarness(t)
			h.run("http://"+listening(t, func(c net.Conn) {
				if _, err := readRequestHead(bufio.NewReader(c)); err != nil {
					return
				}
				piece := make([]byte, 64<<10)
				_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
				for err == nil {
					_, err = c.Write(piece)
				}
				released <- time.Now()
			}), slowLimits)
			c, socket := h.dial(false)
			socket.SetReadBuffer(4 << 10)
			from := time.Now()
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			done := make(chan struct{})
			defer close(done)
			if pause > 0 {
				go func() {
					for one := make([]byte, 1); ; {
						select {
						case <-done:
							return
						case <-time.After(pause):
							c.Read(one)
						}
					}
				}()
			}
			select {
			case at := <-released:
				t.Logf("cut after %v", at.Sub(from).Round(time.Millisecond))
			case <-time.After(10 * time.Second):
				t.Fatal("not cut within 10s")
			}
			if pause > 0 {
				return
			}
			// Nothing of the answer may wait in the kernel for a client that takes nothing.
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the rest of the answer ended with %v, want a reset", err)
			}
		})
	}
}
