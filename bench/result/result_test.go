package result

import (
	"bytes"
	"encoding/xml"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/bench/load"
	"latchkey/bench/soak"
)

// made returns five rounds of two systems, of which b takes factor times as long.
func made(factor float64) File {
	f := File{Date: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), Command: "go run ./bench compare hit",
		Machine: Machine{Processor: "a processor", Cores: 2, Kernel: "6.1", Go: "go1.26", Pinned: "nothing pinned"}, Versions: map[string]string{"b": "1.0"}}
	for round := 1; round <= 5; round++ {
		for i, system := range []string{"a", "b"} {
			drift := 1 + float64(round)/10
			cpu := 10 * drift
			if i == 1 {
				cpu *= factor
			}
			hit := 0.5
			f.Samples = append(f.Samples, Sample{Scenario: "hit", System: system, Round: round, UserSeconds: cpu / 4, SystemSeconds: cpu * 3 / 4, PeakRSS: 10 << 20, HitRatio: &hit,
				Load: load.Result{Requests: 1_000_000, Seconds: cpu, Latency: []load.Point{{Percentile: 0, Microseconds: 10}, {Percentile: 50, Microseconds: 100}, {Percentile: 99, Microseconds: 900}, {Percentile: 99.9, Microseconds: 2000}, {Percentile: 100, Microseconds: 3000}}}})
		}
	}
	return f
}

func TestMedianAndSpread(t *testing.T) {
	for _, tc := range []struct {
		values         []float64
		median, spread float64
	}{
		{[]float64{3}, 3, 0}, {[]float64{4, 1, 3}, 3, 0.5}, {[]float64{4, 1, 3, 2}, 2.5, 0.6},
	} {
		if m, s := Median(tc.values), Spread(tc.values); m != tc.median || s != tc.spread {
			t.Errorf("%v: median %g, spread %g, want %g and %g", tc.values, m, s, tc.median, tc.spread)
		}
	}
	if !math.IsNaN(Median(nil)) || !math.IsNaN(Spread(nil)) {
		t.Error("nothing has a median")
	}
}

// TestRatioIgnoresDrift: the machine gets slower by half, and the ratio stays.
func TestRatioIgnoresDrift(t *testing.T) {
	f := made(1.25)
	if got := Ratio(f.Of("hit", "b"), f.Of("hit", "a"), Sample.CPU); math.Abs(got-1.25) > 1e-9 {
		t.Errorf("ratio %g, want 1.25", got)
	}
}

func TestTables(t *testing.T) {
	var text, page strings.Builder
	f := made(1.25)
	if err := f.WriteText(&text, "hit"); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteMarkdown(&page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"requests/s", "76923 ±16%", "13.00 ±15%", "0.90", "50.0", "1.25"} {
		if !strings.Contains(text.String(), want) || !strings.Contains(page.String(), want) {
			t.Errorf("%q is missing in\n%s%s", want, &text, &page)
		}
	}
	if strings.Contains(text.String(), "KiB/conn") {
		t.Error("a column that nothing was measured for")
	}
	for _, want := range []string{"a processor, 2 cores, Linux 6.1, go1.26; nothing pinned.", "2026-01-02", f.Command, "Versions: b 1.0", "medians of 5 rounds"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &page)
		}
	}
}

func TestDiff(t *testing.T) {
	for _, tc := range []struct {
		name   string
		factor float64
		want   string
	}{
		{"slower", 2, "+100.0% worse"}, {"faster", 0.5, "-50.0% better"}, {"the same", 1.01, "~"},
	} {
		var out strings.Builder
		f := made(tc.factor)
		if err := Diff(&out, f, "a", f, "b"); err != nil {
			t.Fatal(err)
		}
		cpu := slices.Collect(strings.Lines(out.String()))
		i := slices.IndexFunc(cpu, func(line string) bool { return strings.Contains(line, "CPU s/M") })
		if i < 0 || !strings.Contains(cpu[i], tc.want) {
			t.Errorf("%s: want %q in\n%s", tc.name, tc.want, &out)
		}
	}
	if err := Diff(io.Discard, made(1), "a", made(1), "c"); err == nil {
		t.Error("a system without samples was compared")
	}
}

func TestFilesAndCharts(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "result.json")
	f := made(1.25)
	if err := f.Write(name); err != nil {
		t.Fatal(err)
	}
	again, err := Read(name)
	if err != nil || len(again.Samples) != 10 || again.Samples[3].CPU() != f.Samples[3].CPU() {
		t.Fatalf("read back %d samples, %v", len(again.Samples), err)
	}
	charts, err := again.WriteCharts(dir)
	if want := []string{"hit-latency.svg", "hit-throughput.svg", "hit-cpu.svg"}; err != nil || !slices.Equal(charts, want) {
		t.Fatalf("charts %v, %v, want %v", charts, err, want)
	}
	for _, chart := range charts {
		data, err := os.ReadFile(filepath.Join(dir, chart))
		if err != nil {
			t.Fatal(err)
		}
		wantDrawing(t, chart, data)
	}
	for name, text := range map[string]string{"none": "", "garbage": "{", "empty": "{}"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(file); err == nil {
			t.Errorf("%s was read as a result", name)
		}
	}
}

// wantDrawing expects an image in SVG that has something in it.
func wantDrawing(t *testing.T, name string, data []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(data))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if !bytes.Contains(data, []byte("<path")) {
		t.Errorf("%s has no line in it", name)
	}
}

func TestSoakChart(t *testing.T) {
	var series []soak.Sample
	for i := range 100 {
		series = append(series, soak.Sample{Seconds: float64(i) * 10, RSS: 60 << 20, Goroutines: 80, Descriptors: 90, P99: 2, Median: 0.5})
	}
	series[50].P99, series[50].Median = 0, 0 // nothing was asked
	var chart bytes.Buffer
	if err := WriteSoakChart(&chart, series); err != nil {
		t.Fatal(err)
	}
	wantDrawing(t, "the chart", chart.Bytes())
	for _, label := range []string{"MiB resident", "goroutines", "descriptors", "99th percentile", "minutes"} {
		if !bytes.Contains(chart.Bytes(), []byte(label)) {
			t.Errorf("the chart has no %q", label)
		}
	}
	if err := WriteSoakChart(io.Discard, series[:1]); err == nil {
		t.Error("one sample was drawn")
	}
}
