package soak

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// run is a series of 80 samples that begin at a level and grow by a step in the end.
func run(rss int64, goroutines, descriptors int, more Sample) (series []Sample) {
	for i := range 80 {
		s := Sample{Seconds: float64(i), RSS: rss, Goroutines: goroutines, Descriptors: descriptors}
		if i < 20 {
			s.RSS, s.Goroutines, s.Descriptors = rss/4, 1, 1 // it warms up
		}
		if i >= 60 {
			s.RSS, s.Goroutines, s.Descriptors = rss+more.RSS, goroutines+more.Goroutines, descriptors+more.Descriptors
		}
		series = append(series, s)
	}
	return series
}

func TestGrown(t *testing.T) {
	for _, tc := range []struct {
		name   string
		series []Sample
		want   string // what each line begins with
	}{
		{"flat after the warm-up", run(100<<20, 60, 90, Sample{}), ""},
		{"a little more of each", run(100<<20, 60, 90, Sample{RSS: 9 << 20, Goroutines: 19, Descriptors: 19}), ""},
		{"less", run(100<<20, 60, 90, Sample{RSS: -50 << 20, Goroutines: -40, Descriptors: -40}), ""},
		{"a tenth more memory", run(100<<20, 60, 90, Sample{RSS: 11 << 20}), "resident"},
		{"21 goroutines more", run(100<<20, 60, 90, Sample{Goroutines: 21}), "goroutines"},
		{"21 descriptors more", run(100<<20, 60, 90, Sample{Descriptors: 21}), "descriptors"},
		{"of many, a twentieth", run(100<<20, 1000, 1000, Sample{Goroutines: 49, Descriptors: 51}), "descriptors"},
		{"one sample", []Sample{{RSS: 1}}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, line := range Grown(tc.series) {
				name, _, _ := strings.Cut(strings.ReplaceAll(line, ":", " "), " ")
				got = append(got, name)
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestReadWhatWasWritten(t *testing.T) {
	want := []Sample{
		{Seconds: 10, RSS: 1 << 20, Goroutines: 40, Requests: 1500, P99: 2.5, Explained: map[string]int{"POST 502 upstream_failed": 2}},
		{Seconds: 20, Unexplained: map[string]int{"no answer": 1}},
	}
	var text strings.Builder
	for _, s := range want {
		if err := json.NewEncoder(&text).Encode(s); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(strings.NewReader(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, broken := range []string{`{"seconds": 1`, `{"second": 1}`, "[]"} {
		if _, err := Read(strings.NewReader(text.String() + broken)); err == nil || !strings.HasPrefix(err.Error(), "sample 3: ") {
			t.Errorf("with %s behind it: %v, want an error of sample 3", broken, err)
		}
	}
}

func TestSummary(t *testing.T) {
	series := run(100<<20, 60, 90, Sample{RSS: 1 << 20})
	series[3] = Sample{Requests: 1500, Changes: 50, Reloads: 1, Restarts: 2, Explained: map[string]int{"POST 502": 3, "GET 502": 1}}
	series[70].Requests, series[70].Explained = 100, map[string]int{"POST 502": 4}
	var got strings.Builder
	if err := WriteSummary(&got, series); err != nil {
		t.Fatal(err)
	}
	const want = `1m19s: 1600 requests, 50 changes of keys, 1 reloads, 2 restarts of the upstream
errors that restarts explain: 1 GET 502, 7 POST 502
other errors: none
resident memory, bytes: 104857600 in the second quarter of the time, 105906176 in the last
goroutines: 60 in the second quarter of the time, 60 in the last
descriptors: 90 in the second quarter of the time, 90 in the last
store, bytes: 0 in the second quarter of the time, 0 in the last
median, ms: 0 in the second quarter of the time, 0 in the last
99th percentile, ms: 0 in the second quarter of the time, 0 in the last
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
}
