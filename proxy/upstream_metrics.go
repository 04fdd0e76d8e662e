package proxy

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/proxy/upstream"
)

// UpstreamMetrics counts what upstreams answered.
type UpstreamMetrics struct{ *prometheus.CounterVec }

// NewUpstreamMetrics returns metrics without upstreams.
func NewUpstreamMetrics() *UpstreamMetrics {
	return &UpstreamMetrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "latchkey_upstream_requests_total",
		Help: "Requests sent to upstreams, by target and by the class of the answer's status, or timeout, busy, unreachable, aborted (by the client) or failed where there was none.",
	}, []string{"upstream", "target", "code"})}
}

// UpstreamCounts counts the answers of one upstream. Its labels are closed: the
// targets of the configuration, and "-" where none was chosen.
type UpstreamCounts struct {
	byTarget map[string]map[string]prometheus.Counter
}

// Upstream returns the counts of an upstream with the given name and targets.
func (m *UpstreamMetrics) Upstream(name string, targets []string) *UpstreamCounts {
	c := &UpstreamCounts{byTarget: map[string]map[string]prometheus.Counter{}}
	for _, target := range append([]string{"-"}, targets...) {
		codes := map[string]prometheus.Counter{}
		for _, code := range []string{"1xx", "2xx", "3xx", "4xx", "5xx", "timeout", "busy", "unreachable", "aborted", "failed"} {
			codes[code] = m.WithLabelValues(name, target, code)
		}
		c.byTarget[target] = codes
	}
	return c
}

// Forget ends the series of targets that an upstream no longer has: those of gone that
// are not of kept, which is nil where the upstream is no longer there.
func (m *UpstreamMetrics) Forget(name string, gone, kept *UpstreamCounts) {
	for target := range gone.byTarget {
		if kept == nil || kept.byTarget[target] == nil {
			m.DeletePartialMatch(prometheus.Labels{"upstream": name, "target": target})
		}
	}
}

func (c *UpstreamCounts) count(target string, status int, err error) {
	code := "failed"
	switch {
	case err == nil:
		code = class(status)
	case errors.Is(err, upstream.ErrTimeout):
		code = "timeout"
	case errors.Is(err, upstream.ErrBusy):
		code = "busy"
	case errors.Is(err, upstream.ErrUnavailable):
		code = "unreachable"
	case errors.Is(err, upstream.ErrAborted), errors.Is(err, upstream.ErrRequestBody):
		code = "aborted"
	}
	codes := c.byTarget[target]
	if codes == nil {
		codes = c.byTarget["-"]
	}
	if n := codes[code]; n != nil {
		n.Inc()
	}
}

// class returns the class of a status.
func class(status int) string {
	switch status / 100 {
	case 1:
		return "1xx"
	case 2:
		return "2xx"
	case 3:
		return "3xx"
	case 4:
		return "4xx"
	}
	return "5xx"
}
