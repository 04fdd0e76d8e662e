package proxy

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/apikey"
	"latchkey/internal/nettest"
	"latchkey/proxy/upstream"
)

var everyByte = flag.Bool("every-byte", false, "spoil answers behind each byte, not each seventh")

// A faultyAnswer is an answer that an upstream spoils. Where it says ID, the ID of the
// request is put.
type faultyAnswer struct {
	name, method, text string
	untilClose         bool // an orderly end is the end of the body
}

func faultyAnswers() []faultyAnswer {
	const ok, own = "HTTP/1.1 200 OK\r\n", "X-Own: ID\r\n"
	return []faultyAnswer{
		{"a length", "GET", ok + own + "Content-Length: 8\r\n\r\nID", false},
		{"a length, to a POST", "POST", ok + own + "Content-Length: 8\r\n\r\nID", false},
		{"chunks", "GET", ok + own + "Transfer-Encoding: chunked\r\n\r\n4;x=y\r\nhalf\r\n8\r\nID\r\n0\r\nX-T: z\r\n\r\n", false},
		{"chunks, to a POST", "POST", ok + own + "Transfer-Encoding: chunked\r\n\r\n8\r\nID\r\n0\r\n\r\n", false},
		{"until the end", "GET", ok + own + "\r\nID", true},
		{"until the end, to a POST", "POST", ok + own + "\r\nID", true},
		{"behind 100", "POST", "HTTP/1.1 100 Continue\r\n\r\n" + ok + own + "Content-Length: 8\r\n\r\nID", false},
		{"to a HEAD", "HEAD", ok + own + "Content-Length: 8\r\n\r\n", false},
		{"204", "DELETE", "HTTP/1.1 204 No Content\r\n" + own + "\r\n", false},
	}
}

// headEnd returns how much of the text is there when its final head is.
func (a *faultyAnswer) headEnd(text string) int {
	from := strings.Index(text, "X-Own")
	return from + strings.Index(text[from:], "\r\n\r\n") + 4
}

// A faultySite is a gateway in front of an upstream that does what its requests say:
// /answer/bytes/fault/ID. By one route every connection to it is new, by the other one
// that is there is used again.
type faultySite struct {
	*harness
	mu   sync.Mutex
	came map[string]int // requests by ID
}

func startFaulty(t *testing.T) *faultySite {
	s := &faultySite{harness: &harness{t: t, source: &source{keys: map[apikey.Digest]*apikey.Key{}}, log: &syncBuffer{}, registry: prometheus.NewRegistry()},
		came: map[string]int{}}
	addr := nettest.Serve(t, s.serve)
	s.run("http://"+addr, func(o *Options) {
		o.BodyIdle = 300 * time.Millisecond
		o.Routes = nil
		for name, idle := range map[string]time.Duration{"new": time.Nanosecond, "kept": time.Minute} {
			// No ejection: it is the only target, and told to fail.
			u, err := upstream.New(upstream.Options{Targets: []upstream.Target{{URL: "http://" + addr}}, Ejection: upstream.Ejection{Failures: -1},
				Connections: upstream.Connections{IdleTimeout: idle}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(u.Close)
			o.Routes = append(o.Routes, &Route{Name: name, Hosts: []string{name}, Path: "/{rest:*}", Public: true, Upstream: u, Timeout: 300 * time.Millisecond, Retries: 1})
		}
	})
	return s
}

func (s *faultySite) serve(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		f := strings.Split(req.URL.Path, "/")
		which, _ := strconv.Atoi(f[1])
		bytes, _ := strconv.Atoi(f[2])
		fault, id := f[3], f[4]
		s.mu.Lock()
		s.came[id]++
		again := s.came[id] > 1
		s.mu.Unlock()
		text := strings.ReplaceAll(faultyAnswers()[which].text, "ID", id)
		if again || fault == "none" {
			io.WriteString(c, text)
			if faultyAnswers()[which].untilClose {
				return
			}
			continue
		}
		io.WriteString(c, text[:bytes])
		switch fault {
		case "hangs":
			io.Copy(io.Discard, r) // until the gateway has had enough
		case "garbage":
			io.WriteString(c, "\x00\xff\x16\x03\x01 \r\n\r\n")
		case "resets":
			c.(*net.TCPConn).SetLinger(0)
		case "drips":
			for _, b := range []byte(text[bytes:]) { // never as long between two as is allowed, but too long in all
				<-time.After(30 * time.Millisecond)
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
			}
		}
		return
	}
}

// A faultyCase is one request and how its answer is spoilt.
type faultyCase struct {
	which, bytes int
	fault, route string
	id           string
}

// ask sends a case's request, on a connection to the upstream that was used before if
// it is by the route for that, and returns what a client makes of what comes back.
func (s *faultySite) ask(q faultyCase) (status int, own, body string, err error) {
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		return 0, "", "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	r := bufio.NewReader(c)
	if q.route == "kept" {
		if status, _, _, err := exchangeRaw(c, r, faultyCase{fault: "none", route: q.route, id: "9" + q.id[1:]}); err != nil || status != 200 {
			return 0, "", "", fmt.Errorf("the exchange before: %d, %w", status, err)
		}
	}
	return exchangeRaw(c, r, q)
}

func exchangeRaw(c net.Conn, r *bufio.Reader, q faultyCase) (status int, own, body string, err error) {
	method, content := faultyAnswers()[q.which].method, ""
	if method == "POST" {
		content = "Content-Length: 4\r\n\r\nwork"
	} else {
		content = "\r\n"
	}
	_, err = fmt.Fprintf(c, "%s /%d/%d/%s/%s HTTP/1.1\r\nHost: %s\r\nX-Request-Id: %[5]s\r\n%[7]s", method, q.which, q.bytes, q.fault, q.id, q.route, content)
	if err != nil {
		return 0, "", "", err
	}
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return 0, "", "", err
	}
	text, err := io.ReadAll(res.Body)
	if id := res.Header.Get("X-Request-Id"); id != q.id {
		return 0, "", "", fmt.Errorf("the answer is to request %q, not %q", id, q.id)
	}
	return res.StatusCode, res.Header.Get("X-Own"), string(text), err
}

// check asks and holds the answer against what the upstream did.
func (s *faultySite) check(q faultyCase) {
	a := faultyAnswers()[q.which]
	text := strings.ReplaceAll(a.text, "ID", q.id)
	head := a.headEnd(text)
	from := time.Now()
	status, own, body, err := s.ask(q)
	took := time.Since(from)
	s.mu.Lock()
	came := s.came[q.id]
	s.mu.Unlock()
	failed := func(why string) {
		s.t.Errorf("%s, %s at byte %d of %d by a %s connection: %d %q %q, %v, after %v, sent %d times: %s",
			a.name, q.fault, q.bytes, len(text), q.route, status, own, body, err, took, came, why)
	}
	if took > 10*time.Second {
		failed("waited too long")
	}
	if came > 1 && (a.method == "POST" || q.bytes > 0 || q.fault == "hangs" || q.route == "new") || came == 0 {
		failed("sent too often or not at all")
	}
	if own != "" && own != q.id || status < 300 && own == "" && err == nil {
		failed("the answer is another's")
	}
	var p problem
	if status >= 500 && (json.Unmarshal([]byte(body), &p) != nil && a.method != "HEAD" || err != nil) {
		failed("a fault of the gateway's that is not whole")
	}
	late := q.fault == "hangs" || q.fault == "drips"
	want := map[bool]string{false: "502 upstream_failed", true: "504 upstream_timeout"}[late]
	if a.method == "HEAD" {
		want = want[:4]
	}
	got := fmt.Sprint(status, " ", p.Code)
	whole := err == nil && status < 300
	switch {
	case came > 1: // it was repeated, and that was answered
		if !whole {
			failed("repeated in vain")
		}
	case q.bytes < head:
		if got != want {
			failed("want " + want)
		}
	case q.bytes == len(text), a.untilClose && q.fault == "closes":
		if q.fault == "closes" && (!whole || !strings.HasPrefix(q.id, body) && !strings.Contains(body, q.id)) {
			failed("want it whole")
		}
	case whole, !whole && err == nil && got != want: // the head may not have gone out
		failed("want it cut, or " + want)
	}
}

// TestFaultsAtEachByteOfAnAnswer has an upstream close, reset, hang or go mad behind
// each byte of each kind of answer. What came in part is never relayed as whole, what
// did not come is 502 or 504, nobody waits for long, nobody gets another's answer, and
// what is not idempotent is sent once.
func TestFaultsAtEachByteOfAnAnswer(t *testing.T) {
	nettest.NoLeaks(t)
	step := 7
	if *everyByte {
		step = 1
	}
	s := startFaulty(t)
	cases, n, began := map[string]int{}, 10_000_000, time.Now()
	slow := make(chan struct{}, 200) // as many wait at a time
	var waiting sync.WaitGroup
	for which, a := range faultyAnswers() {
		length := len(strings.ReplaceAll(a.text, "ID", "12345678"))
		head := a.headEnd(strings.ReplaceAll(a.text, "ID", "12345678"))
		for bytes := range length + 1 {
			if bytes > 0 && bytes < length && (bytes+which)%step != 0 {
				continue // behind none and behind all it is always
			}
			for _, fault := range []string{"closes", "resets", "garbage", "hangs"} {
				if fault == "garbage" && bytes >= head || fault == "hangs" && bytes == length {
					continue // in a body it is data, and behind an answer nobody's
				}
				for _, route := range []string{"new", "kept"} {
					n++
					q := faultyCase{which: which, bytes: bytes, fault: fault, route: route, id: fmt.Sprint(n)}
					cases[fault]++
					if fault != "hangs" {
						s.check(q)
						continue
					}
					slow <- struct{}{}
					waiting.Go(func() { s.check(q); <-slow })
				}
			}
		}
		n++
		q := faultyCase{which: which, fault: "drips", route: "new", id: fmt.Sprint(n)}
		cases["drips"]++
		waiting.Go(func() { s.check(q) })
	}
	t.Logf("%v, begun within %v", cases, time.Since(began))
	waiting.Wait()
	t.Logf("answered within %v", time.Since(began))
}
