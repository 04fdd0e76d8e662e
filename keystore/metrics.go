package keystore

import (
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// A metric is one series: where its value comes from, with its description
// bound at construction.
type metric struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	labels []string // values of the description's labels
	value  func(*pebble.Metrics) float64
}

// newMetrics lists every series of a store: those of Pebble's, and our own, which
// take no look into the database. Names and label values are closed.
func newMetrics(disk *disk, c *eventCounts) (pebbles, own []metric) {
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("latchkey_store_"+name, help, labels, nil)
	}
	lookups := desc("block_cache_lookups_total", "Look-ups in the cache of disk blocks, by whether the block was there.", "result")
	pebbles = []metric{
		{desc("disk_bytes", "Disk space the key store takes, its log included."), gauge, nil,
			func(m *pebble.Metrics) float64 { return float64(m.DiskSpaceUsage()) }},
		{desc("memtable_bytes", "Memory that holds changes not yet flushed to tables."), gauge, nil,
			func(m *pebble.Metrics) float64 { return float64(m.MemTable.Size) }},
		{desc("block_cache_bytes", "Memory the cache of disk blocks uses."), gauge, nil,
			func(m *pebble.Metrics) float64 { return float64(m.BlockCache.Size) }},
		{lookups, counter, []string{"hit"},
			func(m *pebble.Metrics) float64 { return float64(m.BlockCache.Hits) }},
		{lookups, counter, []string{"miss"},
			func(m *pebble.Metrics) float64 { return float64(m.BlockCache.Misses) }},
		{desc("compactions_total", "Compactions finished."), counter, nil,
			func(m *pebble.Metrics) float64 { return float64(m.Compact.Count) }},
		{desc("flushes_total", "Memtables flushed to tables."), counter, nil,
			func(m *pebble.Metrics) float64 { return float64(m.Flush.Count) }},
		{desc("wal_bytes_total", "Bytes written to the write-ahead log."), counter, nil,
			func(m *pebble.Metrics) float64 { return float64(m.WAL.BytesWritten) }},
	}
	own = []metric{
		{desc("disk_free_bytes", "Free space of the disk that the key store is on."), gauge, nil,
			func(*pebble.Metrics) float64 { return disk.freeBytes() }},
		{desc("full", "1 while changes are refused because the disk is full, else 0."), gauge, nil,
			func(*pebble.Metrics) float64 { return one(disk.room() != nil) }},
		{desc("background_errors_total", "Flushes and compactions that hit an error; they are retried."), counter, nil,
			func(*pebble.Metrics) float64 { return float64(c.backgroundErrors.Load()) }},
		{desc("damage_total", "Times that what was read from disk was not what had been written."), counter, nil,
			func(*pebble.Metrics) float64 { return float64(c.damaged.Load()) }},
		{desc("write_stalls_total", "Times changes had to wait for flushes or compactions."), counter, nil,
			func(*pebble.Metrics) float64 { return float64(c.writeStalls.Load()) }},
		{desc("slow_disk_total", "Disk operations that took longer than 5 seconds."), counter, nil,
			func(*pebble.Metrics) float64 { return float64(c.slowDisk.Load()) }},
		{desc("log_lines_dropped_total", "Log lines of the key store dropped because there was one in the same second."), counter, nil,
			func(*pebble.Metrics) float64 { return float64(c.dropped.Load()) }},
	}
	return pebbles, own
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (s *Store) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range slices.Concat(s.metrics, s.ownMetrics) {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector. A closed store has no metrics.
func (s *Store) Collect(ch chan<- prometheus.Metric) {
	if s.use() != nil {
		return
	}
	defer s.life.RUnlock()
	send := func(list []metric, now *pebble.Metrics) {
		for _, m := range list {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(now), m.labels...)
		}
	}
	send(s.ownMetrics, nil)
	if s.disk.stuck() == nil {
		send(s.metrics, s.db.Metrics())
	}
}
