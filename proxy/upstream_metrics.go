package proxy

import (
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/proxy/upstream"
)

// UpstreamMetrics counts what upstreams answered.
type UpstreamMetrics struct{ *prometheus.CounterVec }

// NewUpstreamMetrics returns metrics without upstreams.
func NewUpstreamMetrics() *UpstreamMetrics {
	return &UpstreamMetrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "latchkey_upstream_requests_total",
		Help: "Requests sent to upstreams, by target and by the class of the answer's status, or timeout, unreachable or failed where there was none.",
	}, []string{"upstream", "target", "code"})}
}

// Count returns the upstream with its requests counted under a name.
func (m *UpstreamMetrics) Count(name, target string, u Upstream) Upstream {
	c := &countedUpstream{Upstream: u, classes: map[string]prometheus.Counter{}}
	for _, code := range []string{"1xx", "2xx", "3xx", "4xx", "5xx", "timeout", "unreachable", "failed"} {
		c.classes[code] = m.WithLabelValues(name, target, code)
	}
	return c
}

// countedUpstream is an Upstream that counts.
type countedUpstream struct {
	Upstream
	classes map[string]prometheus.Counter
}

// Do sends the request on and counts the outcome.
func (u *countedUpstream) Do(r *upstream.Request) (*upstream.Response, error) {
	res, err := u.Upstream.Do(r)
	code := "failed"
	switch {
	case err == nil:
		code = strconv.Itoa(res.Status/100) + "xx"
	case errors.Is(err, upstream.ErrTimeout):
		code = "timeout"
	case errors.Is(err, upstream.ErrUnavailable):
		code = "unreachable"
	}
	if c := u.classes[code]; c != nil {
		c.Inc()
	}
	return res, err
}
