package cache

import "github.com/prometheus/client_golang/prometheus"

// lookups describes the one metric of this package.
func lookups() *prometheus.Desc {
	return prometheus.NewDesc("latchkey_cache_lookups_total",
		"Look-ups of keys: answered from memory (hit), by the store (miss), known to neither (unknown), or failed.",
		[]string{"result"}, nil)
}

// Describe implements prometheus.Collector.
func (c *Keys) Describe(ch chan<- *prometheus.Desc) { ch <- lookups() }

// Collect implements prometheus.Collector.
func (c *Keys) Collect(ch chan<- prometheus.Metric) {
	for result, n := range map[string]uint64{
		"hit":     c.counts.Hits.Load(),
		"miss":    c.counts.Misses.Load(),
		"unknown": c.counts.Unknown.Load(),
		"failed":  c.counts.Failed.Load(),
	} {
		ch <- prometheus.MustNewConstMetric(lookups(), prometheus.CounterValue, float64(n), result)
	}
}
