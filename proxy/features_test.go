package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/apikey"
)

func TestPrefixesAreStrippedAndAdded(t *testing.T) {
	h := start(t, nil, func(o *Options) {
		o.LoosePaths = true
		o.Routes = []*Route{
			{Name: "root", Path: "/{rest:*}", AddPrefix: "/v2"},
			{Name: "strip", Path: "/strip/{rest:*}", StripPrefix: "/strip"},
			{Name: "both", Path: "/a/b/{rest:*}", StripPrefix: "/a/b", AddPrefix: "/x/y"},
			{Name: "part", Path: "/p/q/{rest:*}", StripPrefix: "/p", AddPrefix: "/r"},
			{Name: "escaped", Path: "/a%20b/{rest:*}", StripPrefix: "/a%20b", AddPrefix: "/c%20d"},
			{Name: "parameter", Path: "/t/{id}/end", StripPrefix: "/t"},
		}
		for _, r := range o.Routes {
			r.Public = true
		}
	})
	for _, tc := range []struct{ name, sent, want string }{
		{"the root gets the prefix", "/", "/v2/"},
		{"and any path", "/m/n?q=/strip", "/v2/m/n?q=/strip"},
		{"a prefix alone leaves the root", "/strip", "/"},
		{"a prefix and a slash leave the root", "/strip/", "/"},
		{"the root with a query", "/strip?x", "/?x"},
		{"one segment is taken off once", "/strip/strip/strip", "/strip/strip"},
		{"a segment that only begins so is another", "/strips/x", "/v2/strips/x"},
		{"both", "/a/b/c", "/x/y/c"},
		{"both, of nothing", "/a/b", "/x/y/"},
		{"a part of the path", "/p/q/s", "/r/q/s"},
		{"an escaped prefix", "/a%20b/c", "/c%20d/c"},
		{"a prefix in other escapes", "/%61%20b/c", "/c%20d/c"},
		{"escapes behind it stay", "/strip/%2Fetc/%73?%2e", "/%2Fetc/%73?%2e"},
		{"an encoded slash does not end a segment", "/strip%2Fx/y", "/v2/strip%2Fx/y"},
		{"empty segments stay", "/strip//x", "//x"},
		{"a parameter behind it stays", "/t/7%25/end", "/7%25/end"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h.get(tc.sent)
			if got := h.last().RequestURI; got != tc.want {
				t.Errorf("%s arrived as %s, want %s", tc.sent, got, tc.want)
			}
		})
	}
}

func TestTheHostIsRewritten(t *testing.T) {
	h := start(t, nil, func(o *Options) {
		o.Routes[0].Public = true
		o.Routes = append(o.Routes, &Route{Name: "rewritten", Path: "/r", Public: true, HostRewrite: "inside.test:8443"})
	})
	for _, tc := range []struct{ name, target, want string }{
		{"without a rule it is the client's", "/x", "API.test:80"},
		{"with one it is the rule's", "/r", "inside.test:8443"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h.raw("GET " + tc.target + " HTTP/1.1\r\nHost: API.test:80\r\n\r\n")
			got := h.last()
			if got.Host != tc.want {
				t.Errorf("Host = %q, want %q", got.Host, tc.want)
			}
			if before := got.Header.Get("X-Forwarded-Host"); before != "API.test:80" {
				t.Errorf("X-Forwarded-Host = %q, want the client's", before)
			}
		})
	}
}

func TestARoutesBodyLimitGoesBeforeThatOfAll(t *testing.T) {
	h := start(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d %v", n, err)
	}, func(o *Options) {
		o.BodyBytes = 10
		o.Routes[0].Public = true
		o.Routes = append(o.Routes, &Route{Name: "more", Path: "/more", Public: true, BodyBytes: 20}, &Route{Name: "less", Path: "/less", Public: true, BodyBytes: 5})
	})
	for _, tc := range []struct {
		name, target string
		length       int
		refused      bool
	}{
		{"a route without a limit, at that of all", "/x", 10, false},
		{"a route without a limit, over that of all", "/x", 11, true},
		{"a higher limit, over that of all", "/more", 11, false},
		{"a higher limit, at it", "/more", 20, false},
		{"a higher limit, over it", "/more", 21, true},
		{"a lower limit, at it", "/less", 5, false},
		{"a lower limit, over it, below that of all", "/less", 6, true},
	} {
		body := strings.Repeat("x", tc.length)
		for framing, sent := range map[string]string{
			fmt.Sprintf("Content-Length: %d", tc.length): body,
			"Transfer-Encoding: chunked":                 fmt.Sprintf("3\r\nxxx\r\n%x\r\n%s\r\n0\r\n\r\n", tc.length-3, body[3:]),
		} {
			t.Run(tc.name+", "+framing[:7], func(t *testing.T) {
				res, got := h.raw("POST " + tc.target + " HTTP/1.1\r\nHost: a\r\n" + framing + "\r\n\r\n" + sent)
				if tc.refused {
					wantProblem(t, res, got, 413, "body_too_large")
				} else if want := fmt.Sprintf("%d <nil>", tc.length); got != want {
					t.Errorf("got %d %q, want %q", res.StatusCode, got, want)
				}
			})
		}
	}
}

func TestARoutesTimeout(t *testing.T) {
	leave := make(chan struct{})
	h := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/short" {
			<-leave
		}
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-time.After(80 * time.Millisecond) // longer than the timeout, which is of the head alone
		io.WriteString(w, "late")
	}, func(o *Options) {
		o.Routes = []*Route{{Name: "short", Path: "/short", Public: true, Timeout: 30 * time.Millisecond},
			{Name: "stream", Path: "/stream", Public: true, Timeout: 70 * time.Millisecond}}
	})
	defer close(leave)
	res, body := h.get("/short")
	wantProblem(t, res, body, 504, "upstream_timeout")
	if res, body := h.get("/stream"); res.StatusCode != 200 || body != "late" {
		t.Errorf("a body after the head: %d %q", res.StatusCode, body)
	}
}

// closer is an upstream that answers the first request of its first connection,
// and closes that under the second request, unanswered. It counts requests.
func closer(t *testing.T) (url string, requests *atomic.Int64) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	requests = new(atomic.Int64)
	first := true
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			spoils := first
			first = false
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for n := 0; ; n++ {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					requests.Add(1)
					if _, err := io.Copy(io.Discard, req.Body); err != nil || spoils && n == 1 {
						return
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			}()
		}
	}()
	t.Cleanup(func() { l.Close() })
	return "http://" + l.Addr().String(), requests
}

func TestRetriesAreTheRoutes(t *testing.T) {
	for _, tc := range []struct {
		name, request string
		retries       int
		status        int
		sent          int64
	}{
		{"a GET is repeated", "GET /r HTTP/1.1\r\nHost: a\r\n\r\n", 1, 200, 3},
		{"but not where the route has no retries", "GET /r HTTP/1.1\r\nHost: a\r\n\r\n", 0, 502, 2},
		{"a DELETE without a body is repeated", "DELETE /r HTTP/1.1\r\nHost: a\r\n\r\n", 1, 200, 3},
		{"a POST is not", "POST /r HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 3, 502, 2},
		{"nor is a PUT with a body", "PUT /r HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 3, 502, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			url, requests := closer(t)
			h := &harness{t: t, source: &source{keys: map[apikey.Digest]*apikey.Key{}}, log: &syncBuffer{}, registry: prometheus.NewRegistry()}
			h.run(url, func(o *Options) { o.Routes[0].Public, o.Routes[0].Retries = true, tc.retries })
			// On one connection, so that the first exchange with the upstream is over
			// when the second begins.
			last := strings.Replace(tc.request, "Host: a", "Host: a\r\nConnection: close", 1)
			text := h.exchange("GET /first HTTP/1.1\r\nHost: a\r\n\r\n" + last)
			_, answer, _ := strings.Cut(text, "\r\n\r\nok")
			if !strings.HasPrefix(answer, fmt.Sprintf("HTTP/1.1 %d ", tc.status)) || requests.Load() != tc.sent {
				t.Errorf("got %q after %d requests, want %d after %d", answer, requests.Load(), tc.status, tc.sent)
			}
		})
	}
}

func TestMaintenance(t *testing.T) {
	answers := NewUpstreamMetrics()
	h := start(t, nil, func(o *Options) {
		counts := answers.Upstream("app", nil)
		o.Routes = []*Route{
			{Name: "closed", Path: "/closed", Maintenance: &Maintenance{Detail: `Back at "noon".`, RetryAfter: 90*time.Second + 1}, Counts: counts},
			{Name: "silent", Path: "/silent", Maintenance: &Maintenance{}, Counts: counts},
			{Name: "open", Path: "/open", Public: true},
		}
	})
	for _, tc := range []struct{ name, request, retry, detail string }{
		{"before a key is asked for", "GET /closed HTTP/1.1\r\nHost: a\r\n\r\n", "91", `Back at "noon".`},
		{"whatever the key", "GET /closed HTTP/1.1\r\nHost: a\r\nX-API-Key: " + h.issue(apikey.Spec{}) + "\r\n\r\n", "91", `Back at "noon".`},
		{"without a time and a text", "GET /silent HTTP/1.1\r\nHost: a\r\n\r\n", "", maintenance.detail},
		{"of an upload", "POST /closed HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n", "91", `Back at "noon".`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res, body := h.raw(tc.request)
			wantProblem(t, res, body, 503, "maintenance")
			if got := res.Header.Get("Retry-After"); got != tc.retry {
				t.Errorf("Retry-After = %q, want %q", got, tc.retry)
			}
			if !strings.Contains(body, fmt.Sprintf(`"detail":%q`, tc.detail)) {
				t.Errorf("body %s, want the detail %q", body, tc.detail)
			}
		})
	}
	h.settle()
	if h.last() != nil {
		t.Error("the upstream was asked")
	}
	if got := sum(t, answers, "latchkey_upstream_requests_total"); got != 0 {
		t.Errorf("%v requests are counted for the upstream, want none", got)
	}
	if got := sum(t, h.registry, "latchkey_requests_total"); got != 4 {
		t.Errorf("%v requests are counted, want 4", got)
	}
	if strings.Contains(h.log.String(), "upstream failed") {
		t.Error("the log speaks of a failure of the upstream")
	}
	if res, _ := h.get("/open"); res.StatusCode != 200 {
		t.Errorf("another route: %d", res.StatusCode)
	}
}

// sum adds up all series of a metric.
func sum(t *testing.T, from any, name string) (total float64) {
	t.Helper()
	g, ok := from.(prometheus.Gatherer)
	if !ok {
		r := prometheus.NewRegistry()
		r.MustRegister(from.(prometheus.Collector))
		g = r
	}
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return total
}
