package admin

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// TestUnreadableCalls: a client that takes a new connection from its pool just when
// the server has given up on it must not take what it finds there for an answer.
// Clients know 408 as that (RFC 9110, section 15.5.9).
func TestUnreadableCalls(t *testing.T) {
	for _, tc := range []struct {
		name, sent string
		want       int
	}{
		{"nothing", "", 408},
		{"half a request line", "GET /healthz", 408},
		{"half a head", "GET /healthz HTTP/1.1\r\nHost: a\r\n", 408},
		{"a head that is too long", "GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", maxHead) + "\r\n\r\n", 431},
		{"a head without an end that is too long", "GET /" + strings.Repeat("a", maxHead), 431},
		{"no request line", "nothing\r\n\r\n", 400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newServer(func(*fasthttp.RequestCtx) { t.Error("a call was served") })
			s.ReadTimeout = 50 * time.Millisecond
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go s.Serve(watchedListener{l})
			defer s.Shutdown()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(c, tc.sent); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != tc.want || !res.Close {
				t.Errorf("answered %s, and the connection ends: %t; want %d and true", res.Status, res.Close, tc.want)
			}
		})
	}
}
