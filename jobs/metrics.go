package jobs

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics says of each job when it last went well, how long its passes take and
// how many failed. Its label is closed: the names of the jobs.
type metrics struct {
	success  *prometheus.GaugeVec
	duration *prometheus.HistogramVec
	errors   *prometheus.CounterVec
}

func newMetrics(jobs []Job) metrics {
	m := metrics{
		success: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "latchkey_job_last_success_timestamp_seconds",
			Help: "When a pass of the background job last ended well, in seconds since 1970; 0 if none has.",
		}, []string{"job"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "latchkey_job_duration_seconds",
			Help:    "How long passes of the background job take, in seconds.",
			Buckets: []float64{.0001, .001, .01, .1, 1, 10, 60},
		}, []string{"job"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "latchkey_job_errors_total",
			Help: "Passes of the background job that failed.",
		}, []string{"job"}),
	}
	for _, j := range jobs {
		m.success.WithLabelValues(j.Name)
		m.duration.WithLabelValues(j.Name)
		m.errors.WithLabelValues(j.Name)
	}
	return m
}

func (m *metrics) record(job string, began, ended time.Time, err error) {
	m.duration.WithLabelValues(job).Observe(ended.Sub(began).Seconds())
	if err != nil {
		m.errors.WithLabelValues(job).Inc()
		return
	}
	m.success.WithLabelValues(job).Set(float64(ended.UnixMilli()) / 1000)
}

// Describe implements prometheus.Collector.
func (r *Runner) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range r.metrics.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (r *Runner) Collect(ch chan<- prometheus.Metric) {
	for _, c := range r.metrics.all() {
		c.Collect(ch)
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.success, m.duration, m.errors}
}
