package proxy

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/apikey"
)

// noRoute is the route label of requests that no route was found for.
const noRoute = "-"

// outcomePublic is the verdict label of requests for public routes.
const outcomePublic = "public"

// outcomePreflight is the verdict label of CORS preflights that were answered.
const outcomePreflight = "preflight"

// Metrics counts requests. Its labels are closed sets, bound here: the routes
// of the configuration and the outcomes of this package. A client cannot make a
// new one.
type Metrics struct {
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	panics    prometheus.Counter

	mu    sync.Mutex
	bound []string // the routes that there are series of
}

type routeMetrics struct {
	outcomes map[string]prometheus.Counter
	duration prometheus.Observer
}

// NewMetrics returns metrics without routes.
func NewMetrics() *Metrics {
	return &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "latchkey_requests_total",
			Help: "Requests at the data plane, by route and by what became of them: allowed, public, preflight, client_gone, or the code of the refusal.",
		}, []string{"route", "verdict"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "latchkey_request_duration_seconds",
			Help:    "Time from a request's head to the end of its answer, in seconds.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "latchkey_panics_total",
			Help: "Requests at the data plane that were answered 500 after a panic.",
		}),
	}
}

// bind gives each route its metrics, and returns those of requests without one.
// The labels are closed sets: the names of the routes and the outcomes of this
// package. Series of routes that are no longer there go: what their last requests
// come to is lost, but reloads add up to nothing.
func (m *Metrics) bind(routes []*Route) *routeMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.bound
	m.bound = nil
	for _, r := range routes {
		r.metrics = m.of(r.Name)
		m.bound = append(m.bound, r.Name)
	}
	for _, name := range before {
		if !slices.Contains(m.bound, name) {
			m.requests.DeletePartialMatch(prometheus.Labels{"route": name})
			m.durations.DeleteLabelValues(name)
		}
	}
	return m.of(noRoute)
}

func (m *Metrics) of(route string) *routeMetrics {
	rm := &routeMetrics{outcomes: map[string]prometheus.Counter{}, duration: m.durations.WithLabelValues(route)}
	for _, o := range outcomes() {
		rm.outcomes[o] = m.requests.WithLabelValues(route, o)
	}
	return rm
}

// outcomes lists everything that can become of a request.
func outcomes() []string {
	all := []string{outcomePublic, outcomePreflight}
	for _, v := range apikey.Verdicts() {
		all = append(all, v.String())
	}
	for _, f := range []*fault{badRequest, badVersion, badFraming, badHost, badMethod, badTarget, ambiguousPath, methodRefused,
		requestTimeout, bodyTooLarge, targetTooLong, headTooLarge, routeMissing, internalError, upstreamBroken, upstreamDown,
		upstreamTimeout, storeUnavailable, tooManyFailures, expectationFailed, upstreamBusy, maintenance, clientGone} {
		all = append(all, f.code)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (rm *routeMetrics) count(outcome string, took time.Duration) {
	if c := rm.outcomes[outcome]; c != nil {
		c.Inc()
	}
	rm.duration.Observe(took.Seconds())
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range []prometheus.Collector{m.requests, m.durations, m.panics} {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{m.requests, m.durations, m.panics} {
		c.Collect(ch)
	}
}
