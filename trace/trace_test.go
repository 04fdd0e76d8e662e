package trace

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/proxy"
)

const (
	traceID  = "0af7651916cd43dd8448eb211c80319c"
	spanID   = "b7ad6b7169203331"
	sampled  = "00-" + traceID + "-" + spanID + "-01"
	withheld = "00-" + traceID + "-" + spanID + "-00"
)

func newTracer(t *testing.T, collector http.HandlerFunc, o Options) *Tracer {
	t.Helper()
	s := httptest.NewServer(collector)
	t.Cleanup(s.Close)
	o.Endpoint, o.Service = s.URL, "latchkey"
	tracer, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = tracer.Shutdown(ctx) // fails where the collector does
	})
	return tracer
}

func TestTraceContext(t *testing.T) {
	for _, tc := range []struct {
		name, parent, state string
		sample              float64
		same, recorded      bool // the client's trace goes on; it is recorded
		wantState           string
	}{
		{"without a parent, a trace begins", "", "", 1, false, true, ""},
		{"and is passed on where it is not recorded", "", "", 0, false, false, ""},
		{"a state without a parent is dropped", "", "a=1", 1, false, true, ""},
		{"a parent that is recorded is followed", sampled, "a=1,b=2", 0, true, true, "a=1,b=2"},
		{"a parent that is not is followed", withheld, "a=1", 1, true, false, "a=1"},
		{"a later version is understood", "01-" + traceID + "-" + spanID + "-01-more", "", 0, true, true, ""},
		{"a malformed state is dropped, the parent kept", sampled, "a=1,a=2,=", 0, true, true, ""},
		{"upper case is not valid", strings.ToUpper(sampled), "", 1, false, true, ""},
		{"nor is a trace of zeros", "00-" + strings.Repeat("0", 32) + "-" + spanID + "-01", "", 1, false, true, ""},
		{"nor a span of zeros", "00-" + traceID + "-" + strings.Repeat("0", 16) + "-01", "", 1, false, true, ""},
		{"nor version ff", "ff" + sampled[2:], "", 1, false, true, ""},
		{"nor more than version 00 has", sampled + "-00", "", 1, false, true, ""},
		{"nor anything", "\"' OR 1=1", "", 1, false, true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tracer := newTracer(t, func(http.ResponseWriter, *http.Request) {}, Options{Sample: tc.sample})
			s := tracer.Begin(tc.parent, tc.state, time.Now())
			defer s.End(&proxy.Traced{})
			parent, state := s.Forward(time.Now())
			parts := strings.Split(parent, "-")
			if len(parts) != 4 || parts[0] != "00" || len(parts[1]) != 32 || len(parts[2]) != 16 {
				t.Fatalf("traceparent %q", parent)
			}
			if (parts[1] == traceID) != tc.same || parts[2] == spanID {
				t.Errorf("traceparent %q after %q: same trace %t, want %t with a span of its own", parent, tc.parent, parts[1] == traceID, tc.same)
			}
			if flag := parts[3][1]&1 == 1; flag != tc.recorded || (s.TraceID() != "") != tc.recorded {
				t.Errorf("traceparent %q, trace ID %q, want recorded %t", parent, s.TraceID(), tc.recorded)
			}
			if s.TraceID() != "" && s.TraceID() != parts[1] {
				t.Errorf("trace ID %q, want %q", s.TraceID(), parts[1])
			}
			if state != tc.wantState {
				t.Errorf("tracestate %q, want %q", state, tc.wantState)
			}
		})
	}
}

func TestTheShareOfTraces(t *testing.T) {
	tracer := newTracer(t, func(http.ResponseWriter, *http.Request) {}, Options{Sample: 0.25})
	const n = 4000
	recorded := 0
	for range n {
		if s := tracer.Begin("", "", time.Now()); s.TraceID() != "" {
			recorded++
		}
	}
	if recorded < n/5 || recorded > n*3/10 { // seven standard deviations
		t.Errorf("%d of %d recorded, want about a quarter", recorded, n)
	}
}

// ends returns how many spans came to each end.
func (t *Tracer) ends(tb testing.TB) map[string]float64 {
	tb.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(t)
	families, err := r.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			out[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return out
}

// TestASlowCollectorHoldsNobodyUp has the collector answer nothing at all, while
// more spans end than there is room for.
func TestASlowCollectorHoldsNobodyUp(t *testing.T) {
	release := make(chan struct{})
	var once sync.Once
	free := func() { once.Do(func() { close(release) }) }
	defer free()
	tracer := newTracer(t, func(http.ResponseWriter, *http.Request) { <-release }, Options{Sample: 1})
	const n = 3 * queueSize
	begun := time.Now()
	for range n {
		tracer.Begin("", "", time.Now()).End(&proxy.Traced{Ended: time.Now()})
	}
	// Generous: what is shown is that no span waits for a timeout of the collector.
	if took := time.Since(begun); took > exportTimeout/2 {
		t.Errorf("%d spans took %v", n, took)
	}
	if got := tracer.ends(t)["dropped"]; got != n-queueSize {
		t.Errorf("%v spans dropped, want %d: as many as wait, and no more", got, n-queueSize)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	begun = time.Now()
	if err := tracer.Shutdown(ctx); err == nil || time.Since(begun) > exportTimeout/2 {
		t.Errorf("Shutdown = %v after %v, want an error at its bound", err, time.Since(begun))
	}
	free()
}

func TestACollectorThatRefusesIsCountedAndLoggedOnce(t *testing.T) {
	var log strings.Builder
	tracer := newTracer(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) },
		Options{Sample: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 3 {
		tracer.Begin("", "", time.Now()).End(&proxy.Traced{Ended: time.Now()})
		if err := tracer.provider.ForceFlush(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if err := tracer.Shutdown(context.Background()); err != nil {
		t.Errorf("Shutdown = %v, want nil: what the collector refuses is counted already", err)
	}
	if got := tracer.ends(t); got["failed"] != 3 || got["exported"] != 0 || got["dropped"] != 0 {
		t.Errorf("ends %v, want 3 failed", got)
	}
	if n := strings.Count(log.String(), "not exported"); n != 1 {
		t.Errorf("%d lines in the log, want one a minute:\n%s", n, log.String())
	}
}

func BenchmarkRecorded(b *testing.B)    { benchmark(b, 1) }
func BenchmarkNotRecorded(b *testing.B) { benchmark(b, 0) }

func benchmark(b *testing.B, sample float64) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	tracer, err := New(Options{Endpoint: s.URL, Sample: sample, Service: "latchkey"})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s := tracer.Begin("", "", time.Now())
		s.Forward(time.Now())
		s.End(&proxy.Traced{Route: "orders", Pattern: "/orders/{rest:*}", Method: "GET", Path: "/orders/7", Outcome: "allowed",
			Status: 200, Target: "http://127.0.0.1:9000", UpstreamPath: "/7", UpstreamStatus: 200, Ended: time.Now(), UpstreamEnded: time.Now()})
	}
	_ = tracer.Shutdown(context.Background())
}
