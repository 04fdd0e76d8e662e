package upstream

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestResponses is the table of what an upstream may say, byte by byte, and
// what becomes of it and of its connection.
func TestResponses(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	chunked := ok + "Transfer-Encoding: chunked\r\n\r\n"
	long := strings.Repeat("0123456789", 20_000)
	for _, tc := range []struct {
		name, method, says string
		closes             bool   // the upstream closes after that
		want               string // status and body; or the kind of Do's error
		then               string // the kind of the error of the body
		reused             bool
	}{
		{"a length", "GET", ok + "Content-Length: 2\r\n\r\nhi", false, "200 hi", "", true},
		{"a length of zero", "GET", ok + "Content-Length: 0\r\n\r\n", false, "200 ", "", true},
		{"a long body", "GET", fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", ok, len(long), long), false, "200 " + long, "", true},
		{"chunks", "GET", chunked + "2\r\nhi\r\n0\r\n\r\n", false, "200 hi", "", true},
		{"a long chunk", "GET", fmt.Sprintf("%s%x\r\n%s\r\n0\r\n\r\n", chunked, len(long), long), false, "200 " + long, "", true},
		{"many chunks", "GET", chunked + strings.Repeat("a\r\n0123456789\r\n", 20_000) + "0\r\n\r\n", false, "200 " + long, "", true},
		{"trailer fields", "GET", chunked + "2\r\nhi\r\n0\r\nX-A: b\r\n\r\n", false, "200 hi", "", true},
		{"until close", "GET", ok + "\r\nhi", true, "200 hi", "", false},
		{"until close, in HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\n\r\nhi", true, "200 hi", "", false},
		{"HTTP/1.0 with a length", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", false, "200 hi", "", false},
		{"HTTP/1.0 kept alive", "GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", false, "200 hi", "", true},
		{"the upstream wants to close", "GET", ok + "Connection: close\r\nContent-Length: 2\r\n\r\nhi", false, "200 hi", "", false},
		{"a long head", "GET", ok + "X: " + strings.Repeat("y", 60_000) + "\r\nContent-Length: 2\r\n\r\nhi", false, "200 hi", "", true},
		{"a head too long", "GET", ok + "X: " + strings.Repeat("y", 70_000) + "\r\nContent-Length: 2\r\n\r\nhi", false, "malformed", "", false},
		{"a head without end", "GET", ok + strings.Repeat("X: y\r\n", 20_000), false, "malformed", "", false},
		{"a head that is not HTTP", "GET", "220 mail.example ESMTP", false, "malformed", "", false},
		{"both lengths", "GET", ok + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, "malformed", "", false},
		{"a bare LF", "GET", "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", false, "malformed", "", false},

		{"HEAD has no body", "HEAD", ok + "Content-Length: 2\r\n\r\n", false, "200 ", "", true},
		{"HEAD has no chunks", "HEAD", chunked, false, "200 ", "", true},
		{"HEAD without any length", "HEAD", ok + "\r\n", false, "200 ", "", true},
		{"HEAD with a body", "HEAD", ok + "Content-Length: 2\r\n\r\nhi", false, "200 ", "", false},
		{"HEAD with chunks", "HEAD", chunked + "0\r\n\r\n", false, "200 ", "", false},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", false, "204 ", "", true},
		{"204 that says it has a body", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", false, "204 ", "", false},
		{"204 with a body", "GET", "HTTP/1.1 204 No Content\r\n\r\nhi", false, "204 ", "", false},
		{"204 with chunks", "GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, "204 ", "", false},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", false, "304 ", "", true},
		{"304 with a body", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nhi", false, "304 ", "", false},

		{"100 first", "GET", "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nhi", false, "200 hi", "", true},
		{"several 1xx", "GET", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 8) + ok + "Content-Length: 2\r\n\r\nhi", false, "200 hi", "", true},
		{"too many 1xx", "GET", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 9) + ok + "Content-Length: 2\r\n\r\nhi", false, "malformed", "", false},
		{"1xx without end", "GET", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 5000), false, "malformed", "", false},
		{"1xx with a length", "GET", "HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\nhi", false, "malformed", "", false},
		{"1xx with a length that nothing comes of", "GET", "HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n" + clean, false, "malformed", "", false},
		{"1xx with chunks", "GET", "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, "malformed", "", false},
		{"101 that was not asked for", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", false, "malformed", "", false},

		{"a response after the response", "GET", clean + poison, false, "200 clean", "", false},
		{"a response after the chunks", "GET", chunked + "2\r\nhi\r\n0\r\n\r\n" + poison, false, "200 hi", "", false},
		{"a response after a long chunk", "GET", fmt.Sprintf("%s%x\r\n%s\r\n0\r\n\r\n%s", chunked, len(long), long, poison), false, "200 " + long, "", false},
		{"a response after HEAD's", "HEAD", ok + "Content-Length: 6\r\n\r\n" + poison, false, "200 ", "", false},
		{"a byte after a length of zero", "GET", ok + "Content-Length: 0\r\n\r\n\n", false, "200 ", "", false},
		{"a byte after a long body", "GET", fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s!", ok, len(long), long), false, "200 " + long, "", false},

		{"nothing", "GET", "", true, "truncated", "", false},
		{"half a status line", "GET", "HTTP/1.1 2", true, "truncated", "", false},
		{"half a head", "GET", ok + "Content-Length: 2\r\n", true, "truncated", "", false},
		{"100 and no more", "GET", "HTTP/1.1 100 Continue\r\n\r\n", true, "truncated", "", false},
		{"half a body", "GET", ok + "Content-Length: 4\r\n\r\nhi", true, "200 hi", "truncated", false},
		{"none of the body", "GET", ok + "Content-Length: 4\r\n\r\n", true, "200 ", "truncated", false},
		{"half a long body", "GET", fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", ok, 2*len(long), long), true, "200 " + long, "truncated", false},
		{"half a chunk", "GET", chunked + "4\r\nhi", true, "200 hi", "truncated", false},
		{"no last chunk", "GET", chunked + "2\r\nhi\r\n", true, "200 hi", "truncated", false},
		{"no end of the trailer fields", "GET", chunked + "2\r\nhi\r\n0\r\n", true, "200 hi", "truncated", false},
		{"a malformed chunk", "GET", chunked + "2\r\nhi\r\n+1\r\n", false, "200 hi", "malformed", false},
		{"a chunk without CRLF", "GET", chunked + "2\r\nhi0\r\n\r\n", false, "200 hi", "malformed", false},
	} {
		for _, how := range []string{"WriteTo", "Read", "Read bytewise"} {
			if how == "Read bytewise" && len(tc.says) > 1000 {
				continue
			}
			t.Run(tc.name+"/"+how, func(t *testing.T) {
				s := serve(t, func(c *peer, n int) {
					for first := n == 1; ; first = false {
						if _, _, ok := c.request(); !ok {
							return
						}
						if !first {
							c.say(clean)
							continue
						}
						if c.say(tc.says); tc.closes {
							return
						}
					}
				})
				u := open(t, Options{}, s)
				got, err := tell(u, request(tc.method), how)
				if k := kind(err); got != "" && k != tc.then || got == "" && k != tc.want {
					t.Errorf("error %v, want %q", err, tc.want+tc.then)
				}
				if got != "" && got != tc.want {
					t.Errorf("response %.60q of %d, want %.60q of %d", got, len(got), tc.want, len(tc.want))
				}
				wantClean(t, u)
				if reused := s.conns.Load() == 1; reused != tc.reused {
					t.Errorf("connection reused = %t, want %t", reused, tc.reused)
				}
			})
		}
	}
}

// tell does an exchange and returns the response's status and body.
func tell(u *Upstream, r *Request, how string) (string, error) {
	res, err := u.Do(r)
	if err != nil {
		return "", err
	}
	defer res.Close()
	var b strings.Builder
	switch how {
	case "WriteTo":
		_, err = res.WriteTo(&b)
	case "Read":
		_, err = io.Copy(&b, struct{ io.Reader }{res})
	default:
		_, err = io.Copy(&b, iotest.OneByteReader(res))
	}
	return fmt.Sprintf("%d %s", res.Status, b.String()), err
}

func TestInterimResponsesAreReported(t *testing.T) {
	s := serve(t, func(c *peer, n int) {
		c.request()
		c.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + clean)
		c.hold()
	})
	u := open(t, Options{}, s)
	var got []string
	r := request("GET")
	r.OnInterim = func(status int, fields []Field) { got = append(got, fmt.Sprintf("%d %q", status, fields)) }
	if _, body, err := fetch(u, r); body != "clean" || err != nil {
		t.Errorf("body %q, %v, want clean", body, err)
	}
	if want := `[103 [{"Link" "</a>"}] 102 []]`; fmt.Sprint(got) != want {
		t.Errorf("interim responses %v, want %s", got, want)
	}
}

func TestResponseSaysHowItsBodyEnds(t *testing.T) {
	for _, tc := range []struct{ method, fields, want string }{
		{"GET", "Content-Length: 5\r\n", "5 false false"},
		{"GET", "Transfer-Encoding: chunked\r\n", "-1 true false"},
		{"GET", "", "-1 false true"},
		{"HEAD", "Content-Length: 5\r\n", "0 false false"},
	} {
		t.Run(tc.method+" "+tc.fields, func(t *testing.T) {
			s := serve(t, func(c *peer, n int) {
				c.request()
				c.say("HTTP/1.1 200 OK\r\n" + tc.fields + "\r\n")
				c.hold()
			})
			res, err := open(t, Options{}, s).Do(request(tc.method))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Close()
			if got := fmt.Sprint(res.Length, res.Chunked, res.UntilClose); got != tc.want {
				t.Errorf("length, chunked, until close: %s, want %s", got, tc.want)
			}
			if got, want := string(res.Raw), "HTTP/1.1 200 OK\r\n"+tc.fields+"\r\n"; got != want {
				t.Errorf("raw head %q, want %q", got, want)
			}
		})
	}
}

func TestBodyLeftUnreadClosesTheConnection(t *testing.T) {
	s := serve(t, func(c *peer, n int) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			c.say(clean)
		}
	})
	u := open(t, Options{}, s)
	res, err := u.Do(request("GET"))
	if err != nil {
		t.Fatal(err)
	}
	var p [3]byte
	if _, err := io.ReadFull(res, p[:]); err != nil {
		t.Fatal(err)
	}
	res.Close()
	res.Close()
	if _, err := res.Read(p[:]); err == nil {
		t.Error("a closed response was read")
	}
	wantClean(t, u)
	if got := s.conns.Load(); got != 2 {
		t.Errorf("%d connections, want 2", got)
	}
}

func TestRequestThatWantsToCloseIsTakenAtItsWord(t *testing.T) {
	s := serve(t, func(c *peer, n int) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			c.say(clean)
		}
	})
	u := open(t, Options{}, s)
	r := request("GET")
	r.Close = true
	if _, _, err := fetch(u, r); err != nil {
		t.Fatal(err)
	}
	wantClean(t, u)
	if got := s.conns.Load(); got != 2 {
		t.Errorf("%d connections, want 2", got)
	}
}

// TestPanicInOnInterim gives the connection back and is told as an error.
func TestPanicInOnInterim(t *testing.T) {
	s := serve(t, func(c *peer, n int) {
		c.request()
		c.say("HTTP/1.1 103 Early Hints\r\n\r\n" + clean)
		c.hold()
	})
	u := open(t, Options{Connections: Connections{Max: 1}}, s)
	r := request("GET")
	r.OnInterim = func(int, []Field) { panic("bad caller") }
	if _, err := u.Do(r); kind(err) != "request" || !strings.Contains(err.Error(), "bad caller") {
		t.Errorf("error %v, want the panic", err)
	}
	wantClean(t, u)
}

func TestRequestsThatCannotBeSent(t *testing.T) {
	u := open(t, Options{}, serve(t, func(c *peer, n int) { t.Error("a connection was made") }))
	for _, tc := range []struct {
		name   string
		change func(r *Request)
	}{
		{"no method", func(r *Request) { r.Method = "" }},
		{"no head", func(r *Request) { r.Head = nil }},
		{"a head without its end", func(r *Request) { r.Head = r.Head[:len(r.Head)-2] }},
		{"a length without a body", func(r *Request) { r.Length = 5 }},
		{"chunks without a body", func(r *Request) { r.Length = -1 }},
		{"a negative length", func(r *Request) { r.Body, r.Length = strings.NewReader("x"), -2 }},
		{"CONNECT", func(r *Request) { r.Method, r.Head = "CONNECT", []byte("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := request("GET")
			tc.change(r)
			if _, err := u.Do(r); kind(err) != "request" || Processed(err) {
				t.Errorf("error %v, want ErrRequest and not processed", err)
			}
		})
	}
}

func TestRequestIsForOneExchangeAtATime(t *testing.T) {
	u := open(t, Options{}, serve(t, cleanServer))
	r := request("GET")
	res, err := u.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Do(r); kind(err) != "request" {
		t.Errorf("error %v before Close, want ErrRequest", err)
	}
	if body, err := io.ReadAll(res); string(body) != "clean" || err != nil {
		t.Errorf("the response before: %q, %v, want clean", body, err)
	}
	res.Close()
	if _, body, err := fetch(u, r); body != "clean" || err != nil {
		t.Errorf("after Close: %q, %v, want clean", body, err)
	}
}
