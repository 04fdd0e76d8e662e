package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/config"
	"latchkey/internal/nettest"
	"latchkey/proxy/upstream"
)

// usedUpstreams returns upstreams in use that are configured so.
func usedUpstreams(t *testing.T, all map[string]config.Upstream) *upstreams {
	t.Helper()
	cfg := config.Default()
	cfg.Upstreams = all
	u := newUpstreams()
	next, err := u.prepare(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	u.replace(next)
	return u
}

// configured returns an upstream of one target.
func configured(url string) config.Upstream {
	c := config.DefaultUpstream()
	c.Targets = []config.Target{{URL: url, Weight: 1}}
	return c
}

// TestAnUpstreamThatHangsDelaysNoChecks has one of two take all the time there is.
func TestAnUpstreamThatHangsDelaysNoChecks(t *testing.T) {
	var checks atomic.Int64
	good := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { checks.Add(1) }))
	defer good.Close()
	hangs, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	a, b := configured(good.URL), configured("http://"+hangs.Addr().String())
	a.Health.Path, b.Health.Path = "/", "/"
	b.Health.Timeout = time.Minute
	u := usedUpstreams(t, map[string]config.Upstream{"a": a, "b": b})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	job := u.check()
	for i := range 3 {
		nettest.Until(t, "the good one is checked", func() bool {
			if err := job.Pass(ctx, time.Unix(int64(1000+100*i), 0)); err != nil {
				t.Fatal(err)
			}
			return checks.Load() == int64(i+1)
		})
	}
	cancel()
	u.close()
}

// TestNoIdleConnections: where none are to be kept, each exchange has its own.
func TestNoIdleConnections(t *testing.T) {
	for kept, want := range map[int]int64{0: 3, 1: 1} {
		var connections atomic.Int64
		up := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		up.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				connections.Add(1)
			}
		}
		up.Start()
		c := configured(up.URL)
		c.Connections.Idle = kept
		u := usedUpstreams(t, map[string]config.Upstream{"a": c})
		for range 3 {
			exchangeOnce(t, u.snapshot()["a"])
		}
		u.close()
		up.Close()
		if got := connections.Load(); got != want {
			t.Errorf("idle: %d has 3 exchanges over %d connections, want %d", kept, got, want)
		}
	}
}

func exchangeOnce(t *testing.T, s service) {
	t.Helper()
	res, err := s.Do(&upstream.Request{Method: "GET", Head: []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := res.WriteTo(io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := res.Close(); err != nil {
		t.Fatal(err)
	}
}

func seriesOf(c prometheus.Collector) int {
	all := make(chan prometheus.Metric, 1000)
	c.Collect(all)
	return len(all)
}

// TestWhatIsDiscardedLeavesNoSeries prepares a configuration that is not taken.
func TestWhatIsDiscardedLeavesNoSeries(t *testing.T) {
	u := usedUpstreams(t, map[string]config.Upstream{"a": configured("http://127.0.0.1:9")})
	defer u.close()
	before := seriesOf(u.answers)
	cfg := config.Default()
	cfg.Upstreams = map[string]config.Upstream{"a": configured("http://127.0.0.1:10"), "b": configured("http://127.0.0.1:9")}
	next, err := u.prepare(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := seriesOf(u.answers); got <= before {
		t.Fatalf("%d series once prepared, want more than the %d of before", got, before)
	}
	u.discard(next)
	if got := seriesOf(u.answers); got != before {
		t.Errorf("%d series are left, want the %d of before", got, before)
	}
}
