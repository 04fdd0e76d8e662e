package keystore

import (
	"fmt"
	"sort"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// gather returns the value of every series by its name and label.
func gather(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += fmt.Sprintf("{%s=%q}", l.GetName(), l.GetValue())
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return got
}

func TestMetrics(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(s); err != nil {
		t.Fatal(err)
	}
	before := gather(t, registry)
	var names []string
	for name := range before {
		names = append(names, name)
	}
	sort.Strings(names)
	want := []string{
		"latchkey_store_background_errors_total",
		"latchkey_store_block_cache_bytes",
		`latchkey_store_block_cache_lookups_total{result="hit"}`,
		`latchkey_store_block_cache_lookups_total{result="miss"}`,
		"latchkey_store_compactions_total",
		"latchkey_store_damage_total",
		"latchkey_store_disk_bytes",
		"latchkey_store_disk_free_bytes",
		"latchkey_store_flushes_total",
		"latchkey_store_full",
		"latchkey_store_log_lines_dropped_total",
		"latchkey_store_memtable_bytes",
		"latchkey_store_slow_disk_total",
		"latchkey_store_wal_bytes_total",
		"latchkey_store_write_stalls_total",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}

	mustCreate(t, s, manyKeys("acme", 0, 1000)...)
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantKey(t, s, testKey("acme", 1))
	}
	s.logger.Errorf("first line")
	for range 10 {
		s.logger.Errorf("another line")
	}
	after := gather(t, registry)
	for _, name := range []string{
		`latchkey_store_block_cache_lookups_total{result="hit"}`, `latchkey_store_block_cache_lookups_total{result="miss"}`,
		"latchkey_store_block_cache_bytes", "latchkey_store_disk_bytes", "latchkey_store_flushes_total",
		"latchkey_store_wal_bytes_total", "latchkey_store_log_lines_dropped_total",
	} {
		if after[name] <= before[name] {
			t.Errorf("%s went from %v to %v, want more", name, before[name], after[name])
		}
	}
	if after["latchkey_store_memtable_bytes"] == 0 {
		t.Error("a store without memtable")
	}

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := gather(t, registry); len(got) != 0 {
		t.Errorf("a closed store has metrics: %v", got)
	}
}
