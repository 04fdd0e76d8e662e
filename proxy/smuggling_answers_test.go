package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"latchkey/internal/http1oracle"
)

// What an upstream may answer with.
const (
	good  = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
	forge = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
)

// errAborted is how a test calls an end that no client takes for orderly.
var errAborted = errors.New("aborted")

// oneAnswer sends a request on a connection of its own and returns the final
// answer's status and body as a client reads them, and whether what came was one
// whole answer and no more.
func (h *harness) oneAnswer(request string) (status int, body string, err error) {
	h.t.Helper()
	text, err := h.converse(request)
	if err != nil {
		return 0, "", errAborted
	}
	method, _, _ := strings.Cut(request, " ")
	for r := bufio.NewReader(strings.NewReader(text)); ; {
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return 0, "", errAborted
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			return res.StatusCode, string(b), errAborted
		}
		if res.StatusCode < 200 {
			continue
		}
		if rest, _ := io.ReadAll(r); len(rest) > 0 {
			return res.StatusCode, string(b), fmt.Errorf("%q follows", rest)
		}
		return res.StatusCode, string(b), nil
	}
}

// TestAnswersOfUpstreams: nothing that is left of an answer reaches the next
// client, what two readers could read differently reaches none, and what is cut
// short is cut short for the client too, whichever version it speaks.
func TestAnswersOfUpstreams(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	early := strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 8)
	for _, tc := range []struct {
		name, method, answer string
		status               int
		body                 string
		err                  error
	}{
		{"something left behind a length", "GET", good + forge, 200, "hi", nil},
		{"a byte left behind a length", "GET", good + "\n", 200, "hi", nil},
		{"something left behind chunks", "GET", ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n" + forge, 200, "hi", nil},
		{"something left behind no body", "GET", ok + "Content-Length: 0\r\n\r\n" + forge, 200, "", nil},
		{"a HEAD with a body", "HEAD", good + forge, 200, "", nil},
		{"a HEAD with chunks", "HEAD", ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200, "", nil},
		{"a 204 with a body", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 63\r\n\r\n" + forge, 204, "", nil},
		{"a 204 with chunks", "GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 204, "", nil},
		{"a 304 with a body", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nhi" + forge, 304, "", nil},
		{"announcements", "GET", early + good, 200, "hi", nil},
		{"a flood of announcements", "GET", early + "HTTP/1.1 102 Processing\r\n\r\n" + good, 502, "upstream_failed", nil},
		{"an announcement with a body", "GET", "HTTP/1.1 103 Early Hints\r\nContent-Length: 62\r\n\r\n" + forge + good, 502, "upstream_failed", nil},
		{"100 that is the last word", "GET", "HTTP/1.1 100 Continue\r\n\r\n", 502, "upstream_failed", nil},
		{"101 that nobody asked for", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + forge, 502, "upstream_failed", nil},
		{"a length and a coding", "GET", ok + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 502, "upstream_failed", nil},
		{"two lengths", "GET", ok + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", 502, "upstream_failed", nil},
		{"a length that is none", "GET", ok + "Content-Length: +2\r\n\r\nhi", 502, "upstream_failed", nil},
		{"another coding", "GET", ok + "Transfer-Encoding: identity\r\n\r\nhi", 502, "upstream_failed", nil},
		{"a coding in another alphabet", "GET", ok + "Transfer-Encoding: chun\u212aed\r\n\r\n0\r\n\r\n", 502, "upstream_failed", nil},
		{"chunks in HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502, "upstream_failed", nil},
		{"a folded line", "GET", ok + "X: y\r\n z\r\nContent-Length: 2\r\n\r\nhi", 502, "upstream_failed", nil},
		{"a bare LF", "GET", ok + "X: y\nContent-Length: 2\r\n\r\nhi", 502, "upstream_failed", nil},
		{"a bare CR", "GET", ok + "X: y\rSet-Cookie: z\r\nContent-Length: 2\r\n\r\nhi", 502, "upstream_failed", nil},
		{"a space before the colon", "GET", ok + "Content-Length : 2\r\n\r\nhi", 502, "upstream_failed", nil},
		{"a NUL", "GET", ok + "X: \x00\r\nContent-Length: 2\r\n\r\nhi", 502, "upstream_failed", nil},
		{"another version", "GET", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 502, "upstream_failed", nil},
		{"HTTP/0.9", "GET", "<html>hi</html>", 502, "upstream_failed", nil},
		{"nothing", "GET", "", 502, "upstream_failed", nil},
		{"half a head", "GET", ok + "Content-Le", 502, "upstream_failed", nil},
		{"a chunk that is none at the start", "GET", ok + "Transfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n", 502, "upstream_failed", nil},
		{"cut in its length", "GET", ok + "Content-Length: 100\r\n\r\nhi", 200, "hi", errAborted},
		{"cut in a chunk", "GET", ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhi", 200, "hi", errAborted},
		{"cut between chunks", "GET", ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", 200, "hi", errAborted},
		{"cut in the last chunk", "GET", ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", 200, "hi", errAborted},
		{"a chunk that is none behind a good one", "GET", ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n2 \r\nhi\r\n0\r\n\r\n", 200, "hi", errAborted},
		{"a chunk longer than its size", "GET", ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi!\r\n0\r\n\r\n", 200, "hi", errAborted},
		{"until the end", "GET", ok + "\r\nhi", 200, "hi", nil},
		{"until the end of HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\n\r\nhi", 200, "hi", nil},
	} {
		for _, version := range []string{"HTTP/1.1", "HTTP/1.0"} {
			t.Run(tc.name+" to "+version, func(t *testing.T) {
				u := startRawUpstream(t, func(n int, q http1oracle.Request) (string, bool) {
					if n == 0 {
						return tc.answer, !strings.HasSuffix(tc.answer, forge) && !strings.HasSuffix(tc.answer, good)
					}
					return numbered(n, q), false
				})
				h := startRaw(t, u, nil)
				status, body, err := h.oneAnswer(tc.method + " /a " + version + "\r\nHost: h\r\nConnection: close\r\n\r\n")
				if tc.err == nil && (err != nil || status != tc.status || body != tc.body && !(status == 502 && strings.Contains(body, tc.body))) {
					t.Errorf("answered %d %q, %v, want %d %q", status, body, err, tc.status, tc.body)
				}
				if tc.err != nil && !errors.Is(err, tc.err) {
					t.Errorf("answered %d %q, %v, want it to be seen to be cut short", status, body, err)
				}
				h.wantOwnAnswer(u)
			})
		}
	}
}

// TestAnAnswerThatIsResetIsSeenToBe: where the end of the connection is the end of
// the body, a reset is not an end.
func TestAnAnswerThatIsResetIsSeenToBe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan struct{})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhi")
			<-got
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}()
	h := startRaw(t, &rawUpstream{addr: l.Addr().String()}, nil)
	for _, version := range []string{"HTTP/1.1", "HTTP/1.0"} {
		t.Run(version, func(t *testing.T) {
			c := h.dialRaw()
			io.WriteString(c, "GET /a "+version+"\r\nHost: h\r\n\r\n")
			var all bytes.Buffer
			buf := make([]byte, 1<<10)
			for !strings.Contains(all.String(), "hi") {
				n, err := c.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				all.Write(buf[:n])
			}
			got <- struct{}{}
			rest, err := io.ReadAll(c)
			if all.Write(rest); err == nil && (version == "HTTP/1.0" || strings.HasSuffix(all.String(), "0\r\n\r\n")) {
				t.Errorf("relayed as whole: %q", all.String())
			}
		})
	}
}
