package proxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"latchkey/apikey"
)

const (
	sentParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ourParent  = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
)

// spanRecorder is a Tracer that remembers.
type spanRecorder struct {
	mu      sync.Mutex
	unheard bool // nothing is recorded
	begun   [][2]string
	ended   []Traced
}

func (r *spanRecorder) Begin(parent, state string, _ time.Time) Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun = append(r.begun, [2]string{parent, state})
	return recorded{r}
}

type recorded struct{ *spanRecorder }

func (r recorded) TraceID() string {
	if r.unheard {
		return ""
	}
	return "0af7651916cd43dd8448eb211c80319c"
}

func (r recorded) Forward(time.Time) (string, string) { return ourParent, "ours=1" }

func (r recorded) End(t *Traced) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = append(r.ended, *t)
}

func traceFields(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		if strings.HasPrefix(strings.ToLower(name), "trace") {
			out[name] = values
		}
	}
	return out
}

func TestWithoutATracerTraceContextIsAFieldLikeAnyOther(t *testing.T) {
	h := start(t, nil, func(o *Options) { o.Routes[0].Public = true })
	h.get("/", "traceparent: "+sentParent, "tracestate: a=1", "tracestate: b=2", "Trace_State: c")
	want := http.Header{"Traceparent": {sentParent}, "Tracestate": {"a=1", "b=2"}, "Trace_state": {"c"}}
	if diff := cmp.Diff(want, traceFields(h.last().Header)); diff != "" {
		t.Errorf("fields at the upstream (-want +got):\n%s", diff)
	}
	h.get("/")
	if got := traceFields(h.last().Header); len(got) > 0 {
		t.Errorf("fields at the upstream of a request without any: %v", got)
	}
}

func TestTraceContextIsWrittenAnew(t *testing.T) {
	for _, tc := range []struct {
		name   string
		edits  Edits
		fields []string
		begun  [2]string
		want   http.Header
	}{
		{"where the client sends none", Edits{}, nil, [2]string{}, http.Header{"Traceparent": {ourParent}, "Tracestate": {"ours=1"}}},
		{"where it sends one", Edits{}, []string{"TraceParent: " + sentParent, "tracestate: a=1"}, [2]string{sentParent, "a=1"},
			http.Header{"Traceparent": {ourParent}, "Tracestate": {"ours=1"}}},
		{"of several lines of state, all count", Edits{}, []string{"traceparent: " + sentParent, "tracestate: a=1", "tracestate: b=2"}, [2]string{sentParent, "a=1,b=2"},
			http.Header{"Traceparent": {ourParent}, "Tracestate": {"ours=1"}}},
		{"of several parents, none counts", Edits{}, []string{"traceparent: " + sentParent, "traceparent: " + sentParent}, [2]string{},
			http.Header{"Traceparent": {ourParent}, "Tracestate": {"ours=1"}}},
		{"a route may keep it from its upstream", Edits{Remove: []string{"traceparent"}}, []string{"traceparent: " + sentParent}, [2]string{sentParent}, http.Header{}},
		{"or only the state", Edits{Remove: []string{"tracestate"}}, nil, [2]string{}, http.Header{"Traceparent": {ourParent}}},
		{"or write its own", Edits{Set: map[string]string{"traceparent": "fixed"}}, nil, [2]string{}, http.Header{"Traceparent": {"fixed"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &spanRecorder{}
			h := start(t, nil, func(o *Options) {
				o.Tracer, o.Routes[0].Public, o.Routes[0].RequestEdits = r, true, tc.edits
			})
			h.get("/", tc.fields...)
			if diff := cmp.Diff(tc.want, traceFields(h.last().Header)); diff != "" {
				t.Errorf("fields at the upstream (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([][2]string{tc.begun}, r.begun); diff != "" {
				t.Errorf("begun (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatASpanIsTold(t *testing.T) {
	r := &spanRecorder{}
	h := start(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/cut" {
			w.Header().Set("Content-Length", "9")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(404)
	}, func(o *Options) {
		o.Tracer, o.Credentials = r, append(o.Credentials, Credential{Query: "api_key"})
		o.Routes = append(o.Routes, &Route{Name: "cut", Path: "/to/{rest:*}", StripPrefix: "/to", Public: true})
	})
	key := h.issue(apikey.Spec{Tenant: "acme"})
	h.get("/x?api_key="+key+"&b=secret", "X-Request-Id: r1")
	h.settle()
	h.get("/denied?secret")
	h.settle()
	h.get("//refused?secret")
	h.settle()
	h.exchange("GET /to/cut?secret HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n")
	h.settle()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ended) != 4 {
		t.Fatalf("%d spans, want 4", len(r.ended))
	}
	for i, want := range []Traced{
		{Route: "all", Pattern: "/{rest:*}", Path: "/x", RequestID: "r1", Outcome: "allowed", Status: 404, Tenant: "acme", UpstreamPath: "/x", UpstreamStatus: 404},
		{Route: "all", Pattern: "/{rest:*}", Path: "/denied", Outcome: "missing_api_key", Status: 401},
		{Path: "//refused", Outcome: "ambiguous_path", Status: 400},
		{Route: "cut", Pattern: "/to/{rest:*}", Path: "/to/cut", Outcome: "upstream_failed", Status: 200, UpstreamPath: "/cut", UpstreamStatus: 200, Failure: "upstream_failed"},
	} {
		got := r.ended[i]
		if (got.Key != "") != (want.Tenant != "") || (got.Target != "") != (want.UpstreamStatus != 0) || got.Ended.IsZero() || got.RequestID == "" {
			t.Errorf("span %d: key %q, target %q, ended %v, request ID %q", i, got.Key, got.Target, got.Ended, got.RequestID)
		}
		if i > 0 {
			want.RequestID = got.RequestID
		}
		want.Method, want.Scheme, want.Host, want.Minor, want.Client = "GET", "http", "api.test", 1, got.Client
		want.Key, want.Target, want.Ended, want.UpstreamEnded = got.Key, got.Target, got.Ended, got.UpstreamEnded
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("span %d (-want +got):\n%s", i, diff)
		}
	}
	if n := strings.Count(h.log.String(), `"trace_id":"0af7651916cd43dd8448eb211c80319c"`); n != 4 {
		t.Errorf("%d lines of the log have the trace's ID, want 4", n)
	}
}

// TestPathsAreShownWithoutKeys asks for paths, and reads what the access log and the
// tracer are told of them. The middle of the key is to be in none.
func TestPathsAreShownWithoutKeys(t *testing.T) {
	r := &spanRecorder{}
	h := start(t, nil, func(o *Options) { o.Tracer, o.Routes[0].Public = r, true })
	key := h.issue(apikey.Spec{})
	spelt := fmt.Sprintf("%%%02x%s%%%02x%s", key[0], key[1:20], key[20], key[21:])
	paths := [][2]string{
		{"/a%41/b", "/a%41/b"},
		{"/x%2fy", "/x%2fy"}, // which is refused
		{"/" + key + "/b", "/(key)/b"},
		{"/%61/" + spelt, "/a/(key)"},
		{"/%4" + key, "/%4(key)"},
	}
	for _, p := range paths {
		h.get(p[0])
		h.settle()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, p := range paths {
		if got := r.ended[i]; got.Path != p[1] || got.UpstreamStatus != 0 && got.UpstreamPath != p[1] {
			t.Errorf("the tracer is told of another path than %q", p[1]) // which may hold the key
		}
		if want := fmt.Sprintf(`"path":%q`, p[1]); !strings.Contains(h.log.String(), want) {
			t.Errorf("the log has no %s", want)
		}
	}
	for _, part := range []string{key[8:19], key[21:40]} {
		if strings.Contains(h.log.String(), part) || strings.Contains(fmt.Sprintf("%+v", r.ended), part) {
			t.Error("a part of the key is shown")
		}
	}
}

func TestATraceThatIsNotRecordedIsNotLogged(t *testing.T) {
	h := start(t, nil, func(o *Options) { o.Tracer, o.Routes[0].Public = &spanRecorder{unheard: true}, true })
	h.get("/")
	h.settle()
	if strings.Contains(h.log.String(), "trace_id") {
		t.Error("the log has an ID that leads nowhere")
	}
}

// offExchange is an exchange on its way to an upstream while nothing is traced.
func offExchange(tracer Tracer) *exchange {
	x := &exchange{conn: &clientConn{}, set: &settings{Options: Options{Tracer: tracer, Now: time.Now}}, route: &Route{Name: "all"}}
	x.head.method, x.head.path, x.head.hostField = []byte("GET"), []byte("/a"), []byte("api.test")
	x.head.fields = []field{{[]byte("Accept"), []byte("*/*")}, {[]byte("Traceparent"), []byte(sentParent)}, {[]byte("User-Agent"), []byte("curl/8.5.0")}}
	x.requestHead = make([]byte, 0, 1<<10)
	return x
}

func (x *exchange) allSteps() {
	x.beginTrace()
	x.buildRequest()
	x.traceUpstream(200)
	x.endTrace(x.start)
}

func TestTracingThatIsOffAllocatesNothing(t *testing.T) {
	x := offExchange(nil)
	if n := testing.AllocsPerRun(1000, x.allSteps); n != 0 {
		t.Errorf("%v allocations a request, want 0", n)
	}
	if !strings.Contains(string(x.requestHead), "Traceparent: "+sentParent) {
		t.Errorf("head %q lost the client's traceparent", x.requestHead)
	}
}

func BenchmarkTracingOff(b *testing.B) {
	x := offExchange(nil)
	b.ReportAllocs()
	for b.Loop() {
		x.beginTrace()
		x.requestHead = x.appendTrace(x.requestHead[:0])
		x.traceUpstream(200)
		x.endTrace(x.start)
	}
}
