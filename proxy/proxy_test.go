package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"latchkey/apikey"
	"latchkey/cache"
	"latchkey/internal/nettest"
	"latchkey/proxy/gate"
	"latchkey/proxy/upstream"
)

var format = apikey.NewSecretFormat("lk")

// source is a store of keys that can be made to fail.
type source struct {
	mu   sync.Mutex
	keys map[apikey.Digest]*apikey.Key
	err  error
}

func (s *source) ByDigest(d *apikey.Digest) (*apikey.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	if k, ok := s.keys[*d]; ok {
		return k, nil
	}
	return nil, apikey.ErrNotFound
}

// harness is a proxy on a real listener in front of a real upstream.
type harness struct {
	t        *testing.T
	source   *source
	proxy    *Proxy
	addr     string
	log      *syncBuffer
	registry *prometheus.Registry
	serial   byte
	serving  sync.WaitGroup // listeners beside the first

	mu       sync.Mutex
	received []*http.Request // by the upstream, bodies drained
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a proxy with one route "all" to the handler, as adjusted by setup.
func start(t *testing.T, handler http.HandlerFunc, setup func(*Options)) *harness {
	t.Helper()
	h := &harness{t: t, source: &source{keys: map[apikey.Digest]*apikey.Key{}}, log: &syncBuffer{}, registry: prometheus.NewRegistry()}
	if handler == nil {
		handler = func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "served") }
	}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.received = append(h.received, r)
		h.mu.Unlock()
		handler(w, r)
	}))
	t.Cleanup(backend.Close)
	h.run(backend.URL, setup)
	return h
}

func (h *harness) run(target string, setup func(*Options)) {
	h.t.Helper()
	pool, err := upstream.New(upstream.Options{Targets: []upstream.Target{{URL: target}},
		Connections: upstream.Connections{Idle: 8, ConnectTimeout: 2 * time.Second, IdleTimeout: time.Minute}})
	if err != nil {
		h.t.Fatal(err)
	}
	keys, err := cache.New(h.source, 1<<20)
	if err != nil {
		h.t.Fatal(err)
	}
	logger := slog.New(slog.NewJSONHandler(h.log, nil))
	o := Options{
		Gate:        gate.New(keys, format),
		Routes:      []*Route{{Name: "all", Path: "/{rest:*}", Upstream: pool, Timeout: 5 * time.Second}},
		Credentials: []Credential{{Header: "X-API-Key"}, {Bearer: true}},
		ReadHeader:  5 * time.Second, Idle: 5 * time.Second, BodyIdle: 5 * time.Second,
		AccessLog: logger, LogSample: 1, Logger: logger,
	}
	if setup != nil {
		setup(&o)
	}
	for _, r := range o.Routes {
		if r.Upstream == nil {
			r.Upstream = pool
		}
	}
	o.Metrics = NewMetrics()
	h.registry.MustRegister(o.Metrics)
	if h.proxy, err = New(o); err != nil {
		h.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- h.proxy.Serve(l) }()
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := h.proxy.Shutdown(ctx); err != nil {
			h.t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			h.t.Errorf("Serve: %v", err)
		}
		h.serving.Wait()
		pool.Close()
		keys.Close()
	})
}

// issue makes a key and returns its secret.
func (h *harness) issue(spec apikey.Spec, adjust ...func(*apikey.Key)) string {
	h.t.Helper()
	if spec.Tenant == "" {
		spec.Tenant = "acme"
	}
	h.serial++
	c := apikey.NewCredentials(format, spec.Environment, time.Now(), [40]byte{h.serial, 3})
	change, err := apikey.Issue(spec, c, time.Now())
	if err != nil {
		h.t.Fatal(err)
	}
	k := change.Keys[0]
	for _, f := range adjust {
		f(&k)
	}
	h.source.mu.Lock()
	defer h.source.mu.Unlock()
	h.source.keys[k.Digest] = &k
	return c.Secret
}

// raw sends bytes on a connection of their own and returns the answer.
func (h *harness) raw(request string) (*http.Response, string) {
	h.t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		h.t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		h.t.Fatalf("read the answer to %q: %v", request, err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatalf("read the body of the answer to %q: %v", request, err)
	}
	return res, string(body)
}

// get sends a GET with the fields, one a line, and returns the answer.
func (h *harness) get(target string, fields ...string) (*http.Response, string) {
	h.t.Helper()
	return h.raw("GET " + target + " HTTP/1.1\r\nHost: api.test\r\n" + lines(fields) + "\r\n")
}

func lines(fields []string) string {
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(f + "\r\n")
	}
	return b.String()
}

// last returns the last request the upstream received, nil if there was none.
func (h *harness) last() *http.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.received) == 0 {
		return nil
	}
	return h.received[len(h.received)-1]
}

// problem is the body of a refusal.
type problem struct {
	Type, Title, Detail, Code string
	Status                    int
	RequestID                 string `json:"request_id"`
}

func wantProblem(t *testing.T, res *http.Response, body string, status int, code string) {
	t.Helper()
	var p problem
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		t.Fatalf("body %q: %v", body, err)
	}
	want := problem{"urn:latchkey:problem:" + code, http.StatusText(status), p.Detail, code, status, res.Header.Get("X-Request-Id")}
	if diff := cmp.Diff(want, p); diff != "" || res.StatusCode != status {
		t.Errorf("status %d, problem (-want +got):\n%s", res.StatusCode, diff)
	}
	if p.Detail == "" || p.RequestID == "" {
		t.Errorf("problem %+v lacks a detail or a request ID", p)
	}
	if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type = %q", got)
	}
	if got := res.Header.Get("WWW-Authenticate"); (got != "") != (status == 401) {
		t.Errorf("WWW-Authenticate = %q on a %d", got, status)
	}
}

func TestVerdictsOnTheWire(t *testing.T) {
	h := start(t, nil, func(o *Options) {
		o.Routes = append(o.Routes,
			&Route{Name: "scoped", Path: "/scoped", Demand: apikey.Demand{Scopes: []string{"orders:read"}}},
			&Route{Name: "live", Path: "/live", Demand: apikey.Demand{Environments: []string{"live"}}},
			&Route{Name: "public", Path: "/public", Public: true},
			&Route{Name: "posts", Path: "/posts", Methods: []string{"POST"}},
		)
	})
	good := h.issue(apikey.Spec{})
	long := time.Now().Add(-time.Hour)
	for _, tc := range []struct {
		name, target, key string
		status            int
		code              string
	}{
		{"a good key", "/x", good, 200, ""},
		{"no key", "/x", "", 401, "missing_api_key"},
		{"a made-up key", "/x", "nonsense", 401, "invalid_api_key"},
		{"a revoked key", "/x", h.issue(apikey.Spec{}, func(k *apikey.Key) { k.RevokedAt = long }), 401, "revoked_api_key"},
		{"an expired key", "/x", h.issue(apikey.Spec{}, func(k *apikey.Key) { k.ExpiresAt = long }), 401, "expired_api_key"},
		{"a replaced key", "/x", h.issue(apikey.Spec{}, func(k *apikey.Key) { k.Rotation.GraceEndsAt = long }), 401, "rotated_api_key"},
		{"the wrong address", "/x", h.issue(apikey.Spec{AllowedIPs: apikey.Allowlist{{Block: netip.MustParsePrefix("192.0.2.0/24")}}}), 403, "ip_not_allowed"},
		{"no scope", "/scoped", good, 403, "insufficient_scope"},
		{"the scope", "/scoped", h.issue(apikey.Spec{Scopes: []string{"orders:read"}}), 200, ""},
		{"the wrong environment", "/live", h.issue(apikey.Spec{Environment: "test"}), 403, "key_not_allowed_here"},
		{"a public route without a key", "/public", "", 200, ""},
		{"a public route with a bad key", "/public", "nonsense", 200, ""},
		{"a method the path does not take", "/posts", good, 405, "method_not_allowed"},
		{"an ambiguous path", "/x/%2e%2e/y", good, 400, "ambiguous_path"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(h.received)
			var fields []string
			if tc.key != "" {
				fields = []string{"X-API-Key: " + tc.key}
			}
			res, body := h.get(tc.target, fields...)
			if tc.code == "" {
				if res.StatusCode != tc.status || body != "served" {
					t.Errorf("got %d %q, want %d from the upstream", res.StatusCode, body, tc.status)
				}
				return
			}
			wantProblem(t, res, body, tc.status, tc.code)
			if len(h.received) != before {
				t.Error("the upstream was asked")
			}
		})
	}
}

func TestStoreFaultIs503AndNothingIsAdmitted(t *testing.T) {
	h := start(t, nil, nil)
	key := h.issue(apikey.Spec{})
	h.source.err = errors.New("input/output error")
	res, body := h.get("/", "X-API-Key: "+key)
	wantProblem(t, res, body, 503, "key_store_unavailable")
	if res.Header.Get("Retry-After") == "" {
		t.Error("Retry-After is missing")
	}
	if h.last() != nil {
		t.Error("the upstream was asked without a verdict")
	}
	h.source.mu.Lock()
	h.source.err = nil
	h.source.mu.Unlock()
	if res, _ := h.get("/", "X-API-Key: "+key); res.StatusCode != 200 {
		t.Errorf("once the store answers: %d, want 200", res.StatusCode)
	}
}

func TestIdentityFieldsAreOursAlone(t *testing.T) {
	h := start(t, nil, nil)
	key := h.issue(apikey.Spec{Tenant: "acme", Subject: "u-1", Scopes: []string{"a", "b"}, APIVersion: "2024-05-22"})
	h.get("/x", "X-API-Key: "+key,
		"X-Latchkey-Tenant: evil", "x-latchkey-tenant: evil", "X_Latchkey_Tenant: evil", "X-LATCHKEY_SUBJECT: evil",
		"X-Latchkey-Admin: evil", "X.Latchkey.Tenant: evil", "X-Latchkey~Key-Id: evil", "Proxy: evil", "X-Real-IP: 203.0.113.9", "X-Api-Version: 1999-01-01", "x_api_version: 1999-01-01",
		"Connection: X-Latchkey-Tenant, X-Latchkey-Key-Id, X-Api-Version, X-Custom", "X-Custom: dropped", "X-Other: kept",
		"Trailer: X-Latchkey-Tenant", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "X_Forwarded_For: 203.0.113.9", "Forwarded: for=203.0.113.9")
	got := h.last().Header
	want := http.Header{
		"X-Latchkey-Tenant":      {"acme"},
		"X-Latchkey-Subject":     {"u-1"},
		"X-Latchkey-Scopes":      {"a b"},
		"X-Latchkey-Environment": {"live"},
		"X-Latchkey-Key-Id":      got["X-Latchkey-Key-Id"],
		"X-Api-Version":          {"2024-05-22"},
		"X-Forwarded-For":        {"127.0.0.1"},
		"X-Forwarded-Proto":      {"http"},
		"X-Forwarded-Host":       {"api.test"},
		"X-Other":                {"kept"},
		"X-Request-Id":           got["X-Request-Id"],
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields at the upstream (-want +got):\n%s", diff)
	}
	if len(got["X-Latchkey-Key-Id"]) != 1 || len(got["X-Request-Id"]) != 1 {
		t.Errorf("key ID %q, request ID %q, want one each", got["X-Latchkey-Key-Id"], got["X-Request-Id"])
	}
}

func TestPublicRoutesHaveNoIdentity(t *testing.T) {
	h := start(t, nil, func(o *Options) { o.Routes[0].Public = true })
	h.get("/x", "X-Latchkey-Tenant: evil", "X_Latchkey_Key_Id: evil", "X-Api-Version: 1")
	for name := range h.last().Header {
		if strings.Contains(strings.ToLower(name), "latchkey") || strings.EqualFold(name, "X-Api-Version") {
			t.Errorf("the upstream of a public route got %s", name)
		}
	}
}

func TestTheKeyStaysAtTheGateway(t *testing.T) {
	h := start(t, nil, func(o *Options) {
		o.Credentials = append(o.Credentials, Credential{Query: "api_key"})
		o.Routes = append(o.Routes, &Route{Name: "raw", Path: "/raw", ForwardCredential: true})
	})
	key, other := h.issue(apikey.Spec{}), h.issue(apikey.Spec{})
	const foreign = "a-key-of-another-product"
	h.issue(apikey.Spec{}, func(k *apikey.Key) { k.Digest = apikey.DigestOf([]byte(foreign)) })
	for _, tc := range []struct {
		name, target string
		fields       []string
	}{
		{"in its header", "/x", []string{"X-API-Key: " + key}},
		{"in its header, spelt with an underscore too", "/x", []string{"X-API-Key: " + key, "X_API_KEY: " + other}},
		{"as bearer", "/x", []string{"Authorization: bearer " + key}},
		{"in its header and a second key as bearer", "/x", []string{"X-API-Key: " + key, "Authorization: Bearer " + other}},
		{"in its header and again as bearer, imported", "/x", []string{"X-API-Key: " + foreign, "Authorization: Bearer " + foreign}},
		{"in the query", "/x?a=1&api_key=" + key + "&b=%20", nil},
		{"in the query, its name encoded", "/x?a=1&api%5Fkey=" + key + "&b=%20", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res, body := h.get(tc.target, tc.fields...)
			if res.StatusCode != 200 {
				t.Fatalf("got %d %s", res.StatusCode, body)
			}
			got := fmt.Sprint(h.last().RequestURI, h.last().Header)
			if strings.Contains(got, key) || strings.Contains(got, other) || strings.Contains(got, foreign) {
				t.Errorf("the upstream got a key: %s", got)
			}
			if strings.Contains(tc.target, "?") && h.last().RequestURI != "/x?a=1&b=%20" {
				t.Errorf("the rest of the query came as %q", h.last().RequestURI)
			}
		})
	}
	t.Run("another's bearer token passes", func(t *testing.T) {
		h.get("/x", "X-API-Key: "+key, "Authorization: Bearer for-the-upstream")
		if got := h.last().Header.Get("Authorization"); got != "Bearer for-the-upstream" {
			t.Errorf("Authorization = %q", got)
		}
	})
	t.Run("a route may ask for it", func(t *testing.T) {
		h.get("/raw", "X-API-Key: "+key)
		if got := h.last().Header.Get("X-API-Key"); got != key {
			t.Error("the key was not forwarded")
		}
	})
	t.Run("two keys in one place are refused", func(t *testing.T) {
		res, body := h.get("/x", "X-API-Key: "+key, "X-API-Key: "+other)
		wantProblem(t, res, body, 401, "invalid_api_key")
	})
	if log := h.log.String(); strings.Contains(log, key) || strings.Contains(log, other) {
		t.Error("a key is in the log")
	}
}

func TestTargetsPassByteForByte(t *testing.T) {
	h := start(t, nil, func(o *Options) {
		o.Routes = append(o.Routes, &Route{Name: "cut", Path: "/orders/{rest:*}", StripPrefix: "/orders"},
			&Route{Name: "cut2", Path: "/v1:x/batch/{rest:*}", StripPrefix: "/v1:x/batch"})
	})
	key := h.issue(apikey.Spec{})
	for _, tc := range []struct{ sent, want string }{
		{"/", "/"},
		{"/a/b?x=1&y=%2F&&z", "/a/b?x=1&y=%2F&&z"},
		{"/caf%C3%A9/a+b%20c", "/caf%C3%A9/a+b%20c"},
		{"/a?", "/a?"},
		{"/a??b=c?d", "/a??b=c?d"},
		{"/orders/7?x=1", "/7?x=1"},
		{"/orders", "/"},
		{"/orders/", "/"},
		{"/v1:x/batch/a", "/a"},
		{"/v1%3Ax/batch/a", "/a"},
	} {
		h.get(tc.sent, "X-API-Key: "+key)
		if got := h.last().RequestURI; got != tc.want {
			t.Errorf("%s arrived as %s, want %s", tc.sent, got, tc.want)
		}
	}
}

func TestAllowlistsSeeTheRightAddress(t *testing.T) {
	allow := apikey.Spec{AllowedIPs: apikey.Allowlist{{Block: netip.MustParsePrefix("203.0.113.0/24")}}}
	for _, tc := range []struct {
		name    string
		trusted []netip.Prefix
		forward string
		status  int
	}{
		{"a stranger's X-Forwarded-For is not believed", nil, "203.0.113.9", 403},
		{"a trusted proxy's is", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, "203.0.113.9", 200},
		{"its right-most entry counts", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, "203.0.113.9, 198.51.100.1", 403},
		{"entries of trusted proxies are passed over", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}, "198.51.100.1, 203.0.113.9, 10.0.0.7", 200},
		{"an entry that is no address denies", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, "203.0.113.9, unknown", 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := start(t, nil, func(o *Options) { o.Trusted = tc.trusted })
			res, _ := h.get("/", "X-API-Key: "+h.issue(allow), "X-Forwarded-For: "+tc.forward)
			if res.StatusCode != tc.status {
				t.Errorf("got %d, want %d", res.StatusCode, tc.status)
			}
		})
	}
}

func TestForwardedIsWrittenWhereAsked(t *testing.T) {
	h := start(t, nil, func(o *Options) { o.Forwarded = true })
	h.get("/", "X-API-Key: "+h.issue(apikey.Spec{}), "Forwarded: for=evil")
	if got, want := h.last().Header["Forwarded"], []string{`for=127.0.0.1;proto=http;host="api.test"`}; !cmp.Equal(got, want) {
		t.Errorf("Forwarded = %q, want %q", got, want)
	}
}

func TestRequestIDIsMadeOrPassed(t *testing.T) {
	h := start(t, nil, nil)
	key := h.issue(apikey.Spec{})
	for _, tc := range []struct {
		name, sent string
		passed     bool
	}{
		{"a plain one is passed", "abc-123", true},
		{"one that could spoil a log is replaced", `a"b`, false},
		{"a long one is replaced", strings.Repeat("a", 200), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res, _ := h.get("/", "X-API-Key: "+key, "X-Request-Id: "+tc.sent)
			got := res.Header.Get("X-Request-Id")
			if (got == tc.sent) != tc.passed || got == "" || got != h.last().Header.Get("X-Request-Id") {
				t.Errorf("answered %q, upstream saw %q", got, h.last().Header.Get("X-Request-Id"))
			}
		})
	}
}

func TestBodiesPassBothWays(t *testing.T) {
	h := start(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Framing", fmt.Sprint(r.ContentLength, r.TransferEncoding))
		w.Write(body)
	}, nil)
	key := h.issue(apikey.Spec{})
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	for _, tc := range []struct {
		name    string
		body    io.Reader
		want    []byte
		framing string
	}{
		{"none", nil, nil, "0 []"},
		{"short, of known length", bytes.NewReader([]byte("hello")), []byte("hello"), "5 []"},
		{"long, of known length", bytes.NewReader(large), large, "1048576 []"},
		{"long and chunked", io.MultiReader(bytes.NewReader(large)), large, "-1 [chunked]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequest("POST", "http://"+h.addr+"/", tc.body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-API-Key", key)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			got, err := io.ReadAll(res.Body)
			if err != nil || !bytes.Equal(got, tc.want) {
				t.Errorf("got %d bytes back, %v, want %d", len(got), err, len(tc.want))
			}
			if got := res.Header.Get("X-Framing"); got != tc.framing {
				t.Errorf("the upstream saw framing %s, want %s", got, tc.framing)
			}
		})
	}
}

func TestResponseHeadsPass(t *testing.T) {
	h := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Set-Cookie"] = []string{"a=1; Path=/", "a=2; Path=/x", "b"}
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "dropped")
		w.Header().Set("X-Kept", "kept")
		w.Header().Set("Etag", `"abc"`)
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.WriteHeader(304)
		default:
			w.Header().Set("Content-Length", "5")
			w.WriteHeader(418)
			io.WriteString(w, "short")
		}
	}, nil)
	key := h.issue(apikey.Spec{})
	for _, tc := range []struct {
		method, target string
		status         int
		body, length   string
	}{
		{"GET", "/", 418, "short", "5"},
		{"HEAD", "/", 418, "", "5"},
		{"GET", "/204", 204, "", ""},
		{"GET", "/304", 304, "", ""},
	} {
		t.Run(tc.method+tc.target, func(t *testing.T) {
			res, body := h.raw(tc.method + " " + tc.target + " HTTP/1.1\r\nHost: a\r\nX-API-Key: " + key + "\r\n\r\n")
			if res.StatusCode != tc.status || body != tc.body || res.Header.Get("Content-Length") != tc.length || len(res.TransferEncoding) > 0 {
				t.Errorf("got %d, body %q, length %q, encoding %q", res.StatusCode, body, res.Header.Get("Content-Length"), res.TransferEncoding)
			}
			if got, want := res.Header["Set-Cookie"], []string{"a=1; Path=/", "a=2; Path=/x", "b"}; !cmp.Equal(got, want) {
				t.Errorf("Set-Cookie = %q, want %q", got, want)
			}
			if res.Header.Get("X-Hop") != "" || res.Header.Get("X-Kept") != "kept" || res.Header.Get("Etag") != `"abc"` {
				t.Errorf("header = %v", res.Header)
			}
		})
	}
}

func TestTruncationByTheUpstreamIsVisible(t *testing.T) {
	for _, tc := range []struct{ name, answer string }{
		{"of known length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := &harness{t: t, source: &source{keys: map[apikey.Digest]*apikey.Key{}}, log: &syncBuffer{}, registry: prometheus.NewRegistry()}
			h.run("http://"+answering(t, tc.answer), nil)
			key := h.issue(apikey.Spec{})
			req, _ := http.NewRequest("GET", "http://"+h.addr+"/", nil)
			req.Header.Set("X-API-Key", key)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return // cut before the head had been sent: as visible as can be
			}
			defer res.Body.Close()
			if body, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("a truncated body was relayed as whole: %q", body)
			}
		})
	}
}

// answering returns the address of a server that answers every request with the
// bytes and closes.
func answering(t *testing.T, answer string) string {
	t.Helper()
	return nettest.Serve(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, answer)
		}
	})
}

func TestUpstreamFaults(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, tc := range []struct {
		name, target string
		status       int
		code         string
	}{
		{"nobody listens", closed.Addr().String(), 502, "upstream_unreachable"},
		{"no answer in time", silent.Addr().String(), 504, "upstream_timeout"},
		{"closed without an answer", answering(t, ""), 502, "upstream_failed"},
		{"garbage", answering(t, "SSH-2.0-OpenSSH_9.2\r\n"), 502, "upstream_failed"},
		{"two lengths that differ", answering(t, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), 502, "upstream_failed"},
		{"a head without end", answering(t, "HTTP/1.1 200 OK\r\nA: "+strings.Repeat("x", 1<<20)+"\r\n\r\n"), 502, "upstream_failed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := &harness{t: t, source: &source{keys: map[apikey.Digest]*apikey.Key{}}, log: &syncBuffer{}, registry: prometheus.NewRegistry()}
			h.run("http://"+tc.target, func(o *Options) {
				if tc.status == 504 { // the others fail before any time is up
					o.Routes[0].Timeout = 200 * time.Millisecond
				}
			})
			res, body := h.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nX-API-Key: " + h.issue(apikey.Spec{}) + "\r\n\r\nhi")
			wantProblem(t, res, body, tc.status, tc.code)
		})
	}
}

// TestWritesAreSentOnce guards against a retry of what may have been processed,
// a client's Idempotency-Key notwithstanding.
func TestWritesAreSentOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var mu sync.Mutex
	puts := 0
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					io.Copy(io.Discard, req.Body)
					if req.Method != "GET" {
						mu.Lock()
						puts++
						mu.Unlock()
						return // after the request was read, before an answer
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			}()
		}
	}()
	h := &harness{t: t, source: &source{keys: map[apikey.Digest]*apikey.Key{}}, log: &syncBuffer{}, registry: prometheus.NewRegistry()}
	h.run("http://"+l.Addr().String(), nil)
	key := h.issue(apikey.Spec{})
	for _, method := range []string{"PUT", "POST"} {
		for _, body := range []string{"", "hi"} {
			puts = 0
			h.get("/", "X-API-Key: "+key) // leaves a connection in the pool
			res, got := h.raw(fmt.Sprintf("%s / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: %d\r\nX-API-Key: %s\r\n\r\n%s", method, len(body), key, body))
			wantProblem(t, res, got, 502, "upstream_failed")
			mu.Lock()
			if puts != 1 {
				t.Errorf("%s with body %q: the upstream got it %d times, want 1", method, body, puts)
			}
			mu.Unlock()
		}
	}
}

func TestTheVerdictComesBeforeTheBody(t *testing.T) {
	h := start(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }, nil)
	key := h.issue(apikey.Spec{})
	head := "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
	t.Run("a refused request gets no 100 Continue", func(t *testing.T) {
		res, body := h.raw(head + "X-API-Key: nonsense\r\n\r\n")
		wantProblem(t, res, body, 401, "invalid_api_key")
		if !res.Close {
			t.Error("the connection stays open with a body due on it")
		}
	})
	t.Run("an admitted one does", func(t *testing.T) {
		c, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, head+"X-API-Key: "+key+"\r\n\r\n")
		r := bufio.NewReader(c)
		if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("got %q, %v, want 100 Continue", line, err)
		}
		r.ReadString('\n')
		io.WriteString(c, "hello")
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(res.Body); string(body) != "hello" {
			t.Errorf("body = %q", body)
		}
	})
	t.Run("a refused request is answered before its body comes", func(t *testing.T) {
		res, body := h.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx")
		wantProblem(t, res, body, 401, "missing_api_key")
	})
}

func TestBodyLimit(t *testing.T) {
	h := start(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }, func(o *Options) { o.BodyBytes = 10 })
	key := h.issue(apikey.Spec{})
	for _, tc := range []struct {
		name, framing, body string
		status              int
	}{
		{"of known length at the limit", "Content-Length: 10", "0123456789", 200},
		{"of known length over it", "Content-Length: 11", "0123456789a", 413},
		{"chunked at the limit", "Transfer-Encoding: chunked", "a\r\n0123456789\r\n0\r\n\r\n", 200},
		{"chunked over it", "Transfer-Encoding: chunked", "b\r\n0123456789a\r\n0\r\n\r\n", 413},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res, body := h.raw("POST / HTTP/1.1\r\nHost: a\r\n" + tc.framing + "\r\nX-API-Key: " + key + "\r\n\r\n" + tc.body)
			if res.StatusCode != tc.status {
				t.Errorf("got %d %s, want %d", res.StatusCode, body, tc.status)
			}
		})
	}
}

func TestHeadLimitAndUnreadableRequests(t *testing.T) {
	h := start(t, nil, func(o *Options) { o.HeaderBytes = 4 << 10 })
	canary := "canary-" + h.issue(apikey.Spec{})
	for _, tc := range []struct {
		name, request string
		status        int
		code          string
	}{
		{"a head that is too long", "GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: " + canary + strings.Repeat("x", 8<<10) + "\r\n\r\n", 431, "head_too_large"},
		{"no HTTP", canary + "\r\n\r\n", 400, "bad_request"},
		{"a space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX-API-Key : " + canary + "\r\n\r\n", 400, "bad_request"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res, body := h.raw(tc.request)
			wantProblem(t, res, body, tc.status, tc.code)
		})
	}
	if strings.Contains(h.log.String(), "canary") {
		t.Error("what could not be read is quoted in the log")
	}
}

func TestAPanicIsOneRequestsFault(t *testing.T) {
	h := start(t, nil, func(o *Options) {
		o.Routes = append(o.Routes, &Route{Name: "broken", Path: "/broken", Upstream: panicking{}})
	})
	key := h.issue(apikey.Spec{})
	res, body := h.get("/broken", "X-API-Key: "+key)
	wantProblem(t, res, body, 500, "internal_error")
	if res, _ := h.get("/", "X-API-Key: "+key); res.StatusCode != 200 {
		t.Errorf("the next request got %d", res.StatusCode)
	}
	if got := h.metric("latchkey_panics_total", nil); got != 1 {
		t.Errorf("latchkey_panics_total = %v, want 1", got)
	}
}

type panicking struct{}

func (panicking) Do(*upstream.Request) (*upstream.Response, error) { panic("on purpose") }

// metric returns the value of a counter, or the count of a histogram.
func (h *harness) metric(name string, labels map[string]string) float64 {
	h.t.Helper()
	families, err := h.registry.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	next:
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if want, ok := labels[l.GetName()]; ok && want != l.GetValue() {
					continue next
				}
			}
			if m.Histogram != nil {
				return float64(m.Histogram.GetSampleCount())
			}
			return m.GetCounter().GetValue()
		}
	}
	h.t.Fatalf("no metric %s with %v", name, labels)
	return 0
}

// settle waits until every connection has ended: a request is counted and logged
// once its answer is out.
func (h *harness) settle() {
	h.t.Helper()
	nettest.Until(h.t, "every connection has ended", func() bool {
		open := 0
		h.proxy.conns.each(func(*clientConn) { open++ })
		return open == 0
	})
}

func TestRequestsAreCountedAndLogged(t *testing.T) {
	h := start(t, nil, nil)
	key := h.issue(apikey.Spec{Tenant: "acme"})
	h.get("/a?secret=1", "X-API-Key: "+key)
	h.get("/b")
	h.get("//c", "X-API-Key: "+key)
	h.raw("GET /d HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
	h.settle()
	for verdict, want := range map[string]float64{"allowed": 1, "missing_api_key": 2} {
		if got := h.metric("latchkey_requests_total", map[string]string{"route": "all", "verdict": verdict}); got != want {
			t.Errorf("%s = %v, want %v", verdict, got, want)
		}
	}
	if got := h.metric("latchkey_requests_total", map[string]string{"route": "-", "verdict": "ambiguous_path"}); got != 1 {
		t.Errorf("ambiguous_path = %v, want 1", got)
	}
	var first map[string]any
	line := ""
	for l := range strings.Lines(h.log.String()) {
		if strings.Contains(l, `"path":"/a"`) {
			line = l
		}
	}
	if err := json.Unmarshal([]byte(line), &first); err != nil {
		t.Fatalf("access log %q: %v", line, err)
	}
	for k, want := range map[string]any{"path": "/a", "method": "GET", "route": "all", "outcome": "allowed", "status": 200.0, "tenant": "acme"} {
		if first[k] != want {
			t.Errorf("access log: %s = %v, want %v", k, first[k], want)
		}
	}
}

func TestPipelinedRequestsGetTheirOwnAnswers(t *testing.T) {
	h := start(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) }, nil)
	key := h.issue(apikey.Spec{})
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	var all strings.Builder
	for i := range 20 {
		field := "X-API-Key: " + key + "\r\n"
		if i%3 == 1 {
			field = ""
		}
		fmt.Fprintf(&all, "GET /%d HTTP/1.1\r\nHost: a\r\n%s\r\n", i, field)
	}
	io.WriteString(c, all.String())
	r := bufio.NewReader(c)
	for i := range 20 {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		want, status := fmt.Sprintf("/%d", i), 200
		if i%3 == 1 {
			status = 401
		}
		if res.StatusCode != status || status == 200 && string(body) != want {
			t.Errorf("answer %d: %d %q", i, res.StatusCode, body)
		}
	}
}

func TestMethodsInAnotherCaseAreRefused(t *testing.T) {
	h := start(t, nil, func(o *Options) {
		o.Routes = append(o.Routes, &Route{Name: "strict", Path: "/x", Methods: []string{"DELETE"}, Demand: apikey.Demand{Scopes: []string{"admin"}}},
			&Route{Name: "lax", Path: "/x"})
	})
	key := h.issue(apikey.Spec{})
	for method, code := range map[string]string{"DELETE": "insufficient_scope", "delete": "bad_method", "Delete": "bad_method", "trace": "bad_method"} {
		_, body := h.raw(method + " /x HTTP/1.1\r\nHost: a\r\nX-API-Key: " + key + "\r\n\r\n")
		if !strings.Contains(body, code) {
			t.Errorf("%s: %s, want %s", method, body, code)
		}
	}
}

func TestAnAmbiguousRequestEndsItsConnection(t *testing.T) {
	h := start(t, nil, nil)
	for name, head := range map[string]string{
		"bare LF":        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n",
		"folded line":    "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
		"other encoding": "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", h.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			io.WriteString(c, head+"GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
			answer, err := io.ReadAll(c)
			if err != nil || bytes.Count(answer, []byte("HTTP/1.1 ")) != 1 || !bytes.HasPrefix(answer, []byte("HTTP/1.1 400")) {
				t.Errorf("answered %q, %v, want one 400 and the end", answer, err)
			}
		})
	}
}

// unsized answers with a body of unknown length.
func unsized(w http.ResponseWriter, _ *http.Request) {
	io.WriteString(w, "hello, ")
	w.(http.Flusher).Flush()
	io.WriteString(w, "world")
}

func TestHTTP10ClientsGetNoChunks(t *testing.T) {
	h := start(t, unsized, nil)
	key := h.issue(apikey.Spec{})
	for _, connection := range []string{"", "Connection: keep-alive\r\n"} {
		c, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, "GET / HTTP/1.0\r\nHost: a\r\n"+connection+"X-API-Key: "+key+"\r\n\r\n")
		answer, err := io.ReadAll(c)
		head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
		if err != nil || body != "hello, world" || strings.Contains(head, "chunked") || !strings.Contains(head, "X-Request-Id: ") {
			t.Errorf("answered %q, %v", answer, err)
		}
	}
}

func TestTheHeadOfAStreamIsNotHeldBack(t *testing.T) {
	release := make(chan struct{})
	h := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		<-release
		io.WriteString(w, "data: late\n\n")
	}, nil)
	req, _ := http.NewRequest("GET", "http://"+h.addr+"/", nil)
	req.Header.Set("X-API-Key", h.issue(apikey.Spec{}))
	res, err := http.DefaultClient.Do(req) // returns with the head
	close(release)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); string(body) != "data: late\n\n" || err != nil {
		t.Errorf("body %q, %v", body, err)
	}
}

// TestAStalledUpstreamIsCut has an upstream that stops in the middle of a body.
func TestAStalledUpstreamIsCut(t *testing.T) {
	ended := make(chan struct{})
	h := start(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "part")
		w.(http.Flusher).Flush()
		<-r.Context().Done() // the gateway has let go of us
		close(ended)
	}, func(o *Options) { o.BodyIdle = 100 * time.Millisecond })
	req, _ := http.NewRequest("GET", "http://"+h.addr+"/", nil)
	req.Header.Set("X-API-Key", h.issue(apikey.Spec{}))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("a body that stalled was relayed as whole: %q", body)
	}
	<-ended
}

// TestSlowBodiesLiveWhileTheyFlow sends pieces at a tenth of the time allowed
// between them, for several times that time and longer than the upstream has to
// answer.
func TestSlowBodiesLiveWhileTheyFlow(t *testing.T) {
	t.Parallel()
	const idle, pieces = 2 * time.Second, 24 // a stall of the machine is shorter than idle
	drip := func(w io.Writer) {
		for range pieces {
			time.Sleep(idle / 10) // the pace is what is tested
			if _, err := io.WriteString(w, "x"); err != nil {
				return
			}
			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}
		}
	}
	h := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			drip(w)
			return
		}
		io.Copy(w, r.Body)
	}, func(o *Options) { o.BodyIdle, o.Routes[0].Timeout = idle, 2*idle })
	key := h.issue(apikey.Spec{})
	for _, method := range []string{"GET", "POST"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			var body io.Reader
			if method == "POST" {
				r, w := io.Pipe()
				go func() { drip(w); w.Close() }()
				body = r
			}
			req, _ := http.NewRequest(method, "http://"+h.addr+"/", body)
			req.Header.Set("X-API-Key", key)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if got, err := io.ReadAll(res.Body); string(got) != strings.Repeat("x", pieces) || err != nil {
				t.Errorf("%d: %q, %v", res.StatusCode, got, err)
			}
		})
	}
}

func TestAnUploadCutShortIsTheClientsFault(t *testing.T) {
	h := start(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }, nil)
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nX-API-Key: "+h.issue(apikey.Spec{})+"\r\n\r\npart")
	c.(*net.TCPConn).CloseWrite()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	wantProblem(t, res, string(body), 400, "bad_request")
}

func TestCodingsOfSeveralLinesAreKept(t *testing.T) {
	h := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Encoding"] = []string{"br", "gzip"}
		io.WriteString(w, "x")
	}, nil)
	res, _ := h.get("/", "X-API-Key: "+h.issue(apikey.Spec{}))
	if got := strings.Join(res.Header["Content-Encoding"], ", "); got != "br, gzip" {
		t.Errorf("Content-Encoding = %q, want br, gzip", got)
	}
}

func TestAnUpgradeNobodyAskedForIsAFault(t *testing.T) {
	h := &harness{t: t, source: &source{keys: map[apikey.Digest]*apikey.Key{}}, log: &syncBuffer{}, registry: prometheus.NewRegistry()}
	h.run("http://"+answering(t, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), nil)
	res, body := h.get("/", "X-API-Key: "+h.issue(apikey.Spec{}), "Upgrade: x", "Connection: Upgrade")
	wantProblem(t, res, body, 502, "upstream_failed")
}

// TestAFailedTLSHandshakeIsUnreachable has an upstream whose certificate nobody
// signed, and one that does not speak TLS: nothing of the request was sent.
func TestAFailedTLSHandshakeIsUnreachable(t *testing.T) {
	for name, target := range map[string]string{
		"a certificate of nobody": httptestTLS(t), "no TLS at all": "https://" + answering(t, "HTTP/1.1 200 OK\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			h := &harness{t: t, source: &source{keys: map[apikey.Digest]*apikey.Key{}}, log: &syncBuffer{}, registry: prometheus.NewRegistry()}
			h.run(target, nil)
			res, body := h.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nX-API-Key: " + h.issue(apikey.Spec{}) + "\r\n\r\nhi")
			wantProblem(t, res, body, 502, "upstream_unreachable")
		})
	}
}

func httptestTLS(t *testing.T) string {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}
