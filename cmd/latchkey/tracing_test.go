package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"latchkey/config"
)

// receiver is a collector of OTLP over HTTP.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	paths    []string
	raw      []byte // all that was received, unpacked
	resource map[string]any
	spans    []*spans.Span
}

func startReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := r.receive(req); err != nil {
			t.Errorf("export: %v", err)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) receive(req *http.Request) error {
	var body io.Reader = req.Body
	if req.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if body, err = gzip.NewReader(body); err != nil {
			return err
		}
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	var export collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(raw, &export); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paths, r.raw = append(r.paths, req.URL.Path), append(r.raw, raw...)
	for name, values := range req.Header {
		r.raw = append(r.raw, name+strings.Join(values, ",")...)
	}
	for _, of := range export.GetResourceSpans() {
		r.resource = attributesOf(of.GetResource().GetAttributes())
		for _, scope := range of.GetScopeSpans() {
			r.spans = append(r.spans, scope.GetSpans()...)
		}
	}
	return nil
}

// of returns the two spans of the request with the ID.
func (r *receiver) of(t *testing.T, requestID string) (server, client *spans.Span) {
	t.Helper()
	for _, s := range r.spans {
		if s.GetKind() == spans.Span_SPAN_KIND_SERVER && attributesOf(s.GetAttributes())["latchkey.request_id"] == requestID {
			server = s
		}
	}
	if server == nil {
		t.Fatalf("no span of request %s among %d", requestID, len(r.spans))
	}
	for _, s := range r.spans {
		if s.GetKind() == spans.Span_SPAN_KIND_CLIENT && bytes.Equal(s.GetParentSpanId(), server.GetSpanId()) {
			client = s
		}
	}
	return server, client
}

func attributesOf(list []*common.KeyValue) map[string]any {
	out := map[string]any{}
	for _, a := range list {
		switch v := a.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			out[a.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			out[a.GetKey()] = v.IntValue
		}
	}
	return out
}

// traced is a gateway with traces, run until stop is called. Its upstream answers
// 500 for /fail and tells what traceparent it got.
type traced struct {
	*gateway
	receiver *receiver
	upstream string
	log      bytes.Buffer // to be read after stop
	stop     func()

	mu      sync.Mutex
	parents map[string]string // by request ID, what the upstream got
}

func startTraced(t *testing.T, adjust func(*config.Config)) *traced {
	t.Helper()
	g := &traced{receiver: startReceiver(t), parents: map[string]string{}}
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.parents[r.Header.Get("X-Request-Id")] = r.Header.Get("Traceparent")
		g.mu.Unlock()
		if strings.HasSuffix(r.URL.Path, "/fail") {
			w.WriteHeader(500)
		}
	}))
	t.Cleanup(up.Close)
	g.upstream = up.URL
	cfg := testConfig(t, up.URL)
	cfg.Routes[0].Name = "everything"
	cfg.Proxy.AccessLog = config.AccessLog{Enabled: true, Format: "json", Sample: 1}
	cfg.Proxy.Credentials = append(cfg.Proxy.Credentials, config.Credential{Query: "api_key"})
	cfg.Tracing = config.Tracing{Endpoint: g.receiver.URL, Sample: 1, Insecure: true, ServiceName: "edge"}
	if adjust != nil {
		adjust(cfg)
	}
	app, err := New(cfg, slog.New(slog.NewJSONHandler(&g.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx) }()
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, app.Close()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	t.Cleanup(g.stop)
	g.gateway = &gateway{t, app, "http://" + app.Addrs()[0].String(), "http://" + app.Addrs()[1].String()}
	return g
}

// send sends a request with fields given as name and value in turn.
func (g *traced) send(id, target string, fields ...string) {
	g.t.Helper()
	req, err := http.NewRequest("GET", g.proxy+target, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("X-Request-Id", id)
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	res.Body.Close()
}

// TestTracesArriveWhole sends requests of each kind, stops the gateway and looks
// at what the collector has.
func TestTracesArriveWhole(t *testing.T) {
	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	g := startTraced(t, func(cfg *config.Config) {
		down := cfg.Routes[0]
		down.Name, down.Path, down.Upstream = "down", "/down", "down"
		cfg.Routes = append(cfg.Routes, down)
		gone := config.DefaultUpstream()
		gone.Targets = []config.Target{{URL: "http://127.0.0.1:1", Weight: 1}}
		cfg.Upstreams["down"] = gone
	})
	k, err := issue(http.DefaultClient, g.admin)
	if err != nil {
		t.Fatal(err)
	}
	g.send("followed", "/a/b?api_key="+k.Key+"&q=canary-query", "traceparent", "00-"+trace+"-"+parent+"-01", "Cookie", "canary-cookie")
	g.send("own", "/fail", "X-API-Key", k.Key)
	g.send("withheld", "/a", "X-API-Key", k.Key, "traceparent", "00-"+trace+"-"+parent+"-00")
	g.send("denied", "/a", "Authorization", "Bearer canary-"+k.Key)
	g.send("down", "/down", "X-API-Key", k.Key)
	g.stop()

	r := g.receiver
	if len(r.paths) == 0 || r.paths[0] != "/v1/traces" || r.resource["service.name"] != "edge" || r.resource["service.version"] != version() {
		t.Errorf("exported to %v by %v", r.paths, r.resource)
	}
	if len(r.spans) != 7 {
		t.Errorf("%d spans, want 7: one a request that is recorded, and one for each that was sent on", len(r.spans))
	}
	t.Run("a client's trace goes on", func(t *testing.T) {
		server, client := r.of(t, "followed")
		if got := hex.EncodeToString(server.GetTraceId()); got != trace {
			t.Errorf("trace %s, want the client's", got)
		}
		if got := hex.EncodeToString(server.GetParentSpanId()); got != parent {
			t.Errorf("parent %s, want the client's", got)
		}
		if got, want := g.parents["followed"], "00-"+trace+"-"+hex.EncodeToString(client.GetSpanId())+"-01"; got != want {
			t.Errorf("the upstream got %s, want %s", got, want)
		}
		if server.GetName() != "everything" || client.GetName() != "GET" {
			t.Errorf("names %q and %q", server.GetName(), client.GetName())
		}
		if server.GetStartTimeUnixNano() > client.GetStartTimeUnixNano() || client.GetEndTimeUnixNano() > server.GetEndTimeUnixNano() {
			t.Error("the exchange with the upstream is not within the request")
		}
		wantAttributes(t, server, map[string]any{"http.request.method": "GET", "http.response.status_code": int64(200), "http.route": g.app.cfg.Routes[0].Path,
			"url.path": "/a/b", "url.scheme": "http", "network.protocol.name": "http", "network.protocol.version": "1.1", "server.address": "127.0.0.1",
			"client.address": "127.0.0.1", "latchkey.route": "everything", "latchkey.verdict": "allowed", "latchkey.request_id": "followed",
			"latchkey.key_id": k.ID, "latchkey.tenant": attributesOf(server.GetAttributes())["latchkey.tenant"]})
		port := strings.TrimPrefix(g.upstream, "http://127.0.0.1:")
		got := attributesOf(client.GetAttributes())
		if number, _ := json.Marshal(got["server.port"]); string(number) != port {
			t.Errorf("server.port = %s, want %s", number, port)
		}
		wantAttributes(t, client, map[string]any{"http.request.method": "GET", "http.response.status_code": int64(200), "url.full": g.upstream + "/a/b",
			"network.protocol.name": "http", "network.protocol.version": "1.1", "server.address": "127.0.0.1", "server.port": got["server.port"], "latchkey.target": g.upstream})
	})
	t.Run("a trace of its own", func(t *testing.T) {
		server, client := r.of(t, "own")
		if len(server.GetParentSpanId()) != 0 || hex.EncodeToString(server.GetTraceId()) == trace {
			t.Error("it has a parent")
		}
		if got, want := g.parents["own"], "00-"+hex.EncodeToString(server.GetTraceId())+"-"+hex.EncodeToString(client.GetSpanId())+"-01"; got != want {
			t.Errorf("the upstream got %s, want %s", got, want)
		}
		for _, s := range []*spans.Span{server, client} {
			if s.GetStatus().GetCode() != spans.Status_STATUS_CODE_ERROR || attributesOf(s.GetAttributes())["error.type"] != "500" {
				t.Errorf("status %v, attributes %v of an upstream's 500", s.GetStatus(), attributesOf(s.GetAttributes()))
			}
		}
	})
	t.Run("a client that says no is followed", func(t *testing.T) {
		if got := g.parents["withheld"]; !strings.HasPrefix(got, "00-"+trace+"-") || !strings.HasSuffix(got, "-00") || strings.Contains(got, parent) {
			t.Errorf("the upstream got %s", got)
		}
	})
	t.Run("a refusal is no error", func(t *testing.T) {
		server, client := r.of(t, "denied")
		if client != nil || server.GetStatus().GetCode() != spans.Status_STATUS_CODE_UNSET || attributesOf(server.GetAttributes())["latchkey.verdict"] != "invalid_api_key" {
			t.Errorf("client %v, status %v, attributes %v", client, server.GetStatus(), attributesOf(server.GetAttributes()))
		}
	})
	t.Run("an upstream that is down is", func(t *testing.T) {
		server, client := r.of(t, "down")
		for _, s := range []*spans.Span{server, client} {
			if s.GetStatus().GetCode() != spans.Status_STATUS_CODE_ERROR || attributesOf(s.GetAttributes())["error.type"] != "upstream_unreachable" {
				t.Errorf("status %v, attributes %v", s.GetStatus(), attributesOf(s.GetAttributes()))
			}
		}
	})
	for _, secret := range []string{k.Key, k.Key[8:40], "canary", "api_key"} {
		// As a name of a place for keys api_key is harmless, but there is nowhere for it but a query.
		if bytes.Contains(bytes.ReplaceAll(r.raw, []byte("invalid_api_key"), nil), []byte(secret)) {
			t.Errorf("%q was exported", secret)
		}
	}
	wantTraceIDs(t, g.log.String(), map[string]bool{"followed": true, "own": true, "withheld": false, "denied": true, "down": true})
}

func wantAttributes(t *testing.T, s *spans.Span, want map[string]any) {
	t.Helper()
	if diff := cmp.Diff(want, attributesOf(s.GetAttributes())); diff != "" {
		t.Errorf("attributes of %s (-want +got):\n%s", s.GetName(), diff)
	}
}

// wantTraceIDs holds the access log to having trace IDs where they lead to a trace.
func wantTraceIDs(t *testing.T, log string, want map[string]bool) {
	t.Helper()
	got := map[string]bool{}
	for line := range strings.Lines(log) {
		var l struct {
			Msg   string
			ID    string `json:"request_id"`
			Trace string `json:"trace_id"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		if l.Msg == "request" {
			got[l.ID] = len(l.Trace) == 32
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines of the access log with a trace's ID (-want +got):\n%s", diff)
	}
}

// TestACollectorThatIsGoneFailsNoRequest has nobody listen where traces go.
func TestACollectorThatIsGoneFailsNoRequest(t *testing.T) {
	g := startTraced(t, func(cfg *config.Config) { cfg.Tracing.Endpoint = "http://127.0.0.1:1" })
	k, err := issue(http.DefaultClient, g.admin)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if status, code, err := use(http.DefaultClient, g.proxy, k.Key); status != 200 || err != nil {
			t.Fatalf("got %d %s, %v", status, code, err)
		}
	}
	begun := time.Now()
	g.stop()
	if took := time.Since(begun); took > traceFlush+10*time.Second {
		t.Errorf("stopping took %v with a bound of %v for traces", took, traceFlush)
	}
}
