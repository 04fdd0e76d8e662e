package keystore

import (
	"github.com/cockroachdb/pebble/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// A metric is one series: where its value comes from, with its description
// bound at construction.
type metric struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	labels []string // values of the description's labels
	value  func(*pebble.Metrics, *eventCounts) float64
}

// newMetrics lists every series of a store. Names and label values are closed.
func newMetrics() []metric {
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("latchkey_store_"+name, help, labels, nil)
	}
	lookups := desc("block_cache_lookups_total", "Look-ups in the cache of disk blocks, by whether the block was there.", "result")
	return []metric{
		{desc("disk_bytes", "Disk space the key store takes, its log included."), gauge, nil,
			func(m *pebble.Metrics, _ *eventCounts) float64 { return float64(m.DiskSpaceUsage()) }},
		{desc("memtable_bytes", "Memory that holds changes not yet flushed to tables."), gauge, nil,
			func(m *pebble.Metrics, _ *eventCounts) float64 { return float64(m.MemTable.Size) }},
		{desc("block_cache_bytes", "Memory the cache of disk blocks uses."), gauge, nil,
			func(m *pebble.Metrics, _ *eventCounts) float64 { return float64(m.BlockCache.Size) }},
		{lookups, counter, []string{"hit"},
			func(m *pebble.Metrics, _ *eventCounts) float64 { return float64(m.BlockCache.Hits) }},
		{lookups, counter, []string{"miss"},
			func(m *pebble.Metrics, _ *eventCounts) float64 { return float64(m.BlockCache.Misses) }},
		{desc("compactions_total", "Compactions finished."), counter, nil,
			func(m *pebble.Metrics, _ *eventCounts) float64 { return float64(m.Compact.Count) }},
		{desc("flushes_total", "Memtables flushed to tables."), counter, nil,
			func(m *pebble.Metrics, _ *eventCounts) float64 { return float64(m.Flush.Count) }},
		{desc("wal_bytes_total", "Bytes written to the write-ahead log."), counter, nil,
			func(m *pebble.Metrics, _ *eventCounts) float64 { return float64(m.WAL.BytesWritten) }},
		{desc("background_errors_total", "Flushes and compactions that hit an error; they are retried."), counter, nil,
			func(_ *pebble.Metrics, c *eventCounts) float64 { return float64(c.backgroundErrors.Load()) }},
		{desc("write_stalls_total", "Times changes had to wait for flushes or compactions."), counter, nil,
			func(_ *pebble.Metrics, c *eventCounts) float64 { return float64(c.writeStalls.Load()) }},
		{desc("slow_disk_total", "Disk operations that took longer than 5 seconds."), counter, nil,
			func(_ *pebble.Metrics, c *eventCounts) float64 { return float64(c.slowDisk.Load()) }},
		{desc("log_lines_dropped_total", "Log lines of the key store dropped because there was one in the same second."), counter, nil,
			func(_ *pebble.Metrics, c *eventCounts) float64 { return float64(c.dropped.Load()) }},
	}
}

// Describe implements prometheus.Collector.
func (s *Store) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range s.metrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector. A closed store has no metrics.
func (s *Store) Collect(ch chan<- prometheus.Metric) {
	if s.use() != nil {
		return
	}
	now := s.db.Metrics()
	s.life.RUnlock()
	for _, m := range s.metrics {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(now, s.events), m.labels...)
	}
}
