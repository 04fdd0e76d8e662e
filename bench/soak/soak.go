// Package soak is the series that a soak leaves: what the gateway took and gave
// every few seconds for hours, and whether that was flat. TestSoak in cmd/latchkey
// writes it, and `bench soak` draws it.
package soak

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// A Sample is one line of a series. What counts is since the sample before.
type Sample struct {
	Seconds     float64        `json:"seconds"` // since the load began
	RSS         int64          `json:"rss_bytes"`
	Goroutines  int            `json:"goroutines"`
	Descriptors int            `json:"descriptors"`
	StoreBytes  int64          `json:"store_bytes"`
	Requests    int            `json:"requests"`
	Changes     int            `json:"changes"` // of keys, that were answered well
	Reloads     int            `json:"reloads"`
	Restarts    int            `json:"restarts"` // of the upstream
	Median      float64        `json:"p50_ms"`
	P99         float64        `json:"p99_ms"`
	Longest     float64        `json:"longest_ms"`
	Late        float64        `json:"late_ms"`               // the longest time by which the load was behind its times: the machine's doing
	Explained   map[string]int `json:"explained,omitempty"`   // errors by kind, of an upstream that was restarted
	Unexplained map[string]int `json:"unexplained,omitempty"` // all others
}

// Read reads a series, a JSON object a line.
func Read(r io.Reader) (series []Sample, err error) {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	for {
		var s Sample
		if err := d.Decode(&s); errors.Is(err, io.EOF) {
			return series, nil
		} else if err != nil {
			return nil, fmt.Errorf("sample %d: %w", len(series)+1, err)
		}
		series = append(series, s)
	}
}

// A Measure is something that is not to grow with time.
type Measure struct {
	Name   string
	Of     func(Sample) float64
	Share  float64 // by which it may grow
	Amount float64 // by which it may grow at any rate
}

// Measures are what Grown looks at.
func Measures() []Measure {
	return []Measure{
		{"resident memory, bytes", func(s Sample) float64 { return float64(s.RSS) }, 0.10, 0},
		{"goroutines", func(s Sample) float64 { return float64(s.Goroutines) }, 0.05, 20},
		{"descriptors", func(s Sample) float64 { return float64(s.Descriptors) }, 0.05, 20},
	}
}

// Quarters returns a measure's medians in the second quarter of the time, when what
// fills up at the start is full, and in the last.
func Quarters(series []Sample, of func(Sample) float64) (second, last float64) {
	n := len(series)
	return median(series[n/4:max(n/2, n/4+1)], of), median(series[min(n*3/4, n-1):], of)
}

// Grown says in a line each what was not flat in a series of at least one sample.
func Grown(series []Sample) (grown []string) {
	for _, m := range Measures() {
		second, last := Quarters(series, m.Of)
		if last-second > max(second*m.Share, m.Amount) {
			grown = append(grown, fmt.Sprintf("%s: %.0f in the last quarter of the time, %.0f in the second; want at most %.0f%% or %.0f more",
				m.Name, last, second, 100*m.Share, m.Amount))
		}
	}
	return grown
}

func median(series []Sample, of func(Sample) float64) float64 {
	values := make([]float64, len(series))
	for i, s := range series {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
