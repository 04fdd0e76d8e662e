// Package result is what the bench found: kept as JSON, shown as a table and charts,
// compared between builds. It measures nothing.
package result

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"latchkey/bench/load"
)

// A File is one invocation of the bench.
type File struct {
	Date     time.Time
	Command  string            // as typed, without the program's own path
	Machine  Machine           // where it ran
	Versions map[string]string // of each system
	Absent   map[string]string `json:",omitempty"` // systems that are not installed, and what installs them
	Samples  []Sample
}

// A Machine is what a figure depends on most.
type Machine struct {
	Processor string
	Cores     int
	Kernel    string
	Go        string
	Pinned    string // which cores ran what
}

// A Sample is one system under one scenario in one round.
type Sample struct {
	Scenario string
	System   string
	Round    int
	Load     load.Result

	// Of all processes of the system, while requests counted. Zero where there are none.
	UserSeconds   float64
	SystemSeconds float64
	PeakRSS       int64 // bytes, since the system's start
	RSS           int64 // bytes at the end

	HitRatio       *float64 `json:",omitempty"` // of look-ups of issued keys; nil where nothing is cached
	ConnectionRSS  *float64 `json:",omitempty"` // bytes by which an idle connection raised RSS; nil where that was not measured
	ChangesPerSec  float64  `json:",omitempty"` // keys issued and revoked meanwhile
	ChangeFailures int      `json:",omitempty"`
}

// Rate returns requests a second.
func (s Sample) Rate() float64 { return float64(s.Load.Requests) / s.Load.Seconds }

// CPU returns processor seconds per million requests, or NaN without processes.
func (s Sample) CPU() float64 {
	if s.UserSeconds+s.SystemSeconds == 0 {
		return math.NaN()
	}
	return (s.UserSeconds + s.SystemSeconds) / float64(s.Load.Requests) * 1e6
}

// Read reads a file.
func Read(name string) (File, error) {
	var f File
	data, err := os.ReadFile(name)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf("%s: not a result of this bench: %w", name, err)
	}
	if len(f.Samples) == 0 {
		return f, fmt.Errorf("%s: no samples", name)
	}
	return f, nil
}

// Write writes the file.
func (f File) Write(name string) error {
	data, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(data, '\n'), 0o644)
}

// Scenarios returns the scenarios' names in the order in which they were run.
func (f File) Scenarios() []string {
	return f.distinct(func(s Sample) string { return s.Scenario }, "")
}

// Systems returns the names of the systems of a scenario in the order in which they
// were run.
func (f File) Systems(scenario string) []string {
	return f.distinct(func(s Sample) string { return s.System }, scenario)
}

func (f File) distinct(of func(Sample) string, scenario string) (out []string) {
	for _, s := range f.Samples {
		if name := of(s); (scenario == "" || s.Scenario == scenario) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// Of returns the samples of a system under a scenario.
func (f File) Of(scenario, system string) (out []Sample) {
	for _, s := range f.Samples {
		if s.Scenario == scenario && s.System == system {
			out = append(out, s)
		}
	}
	return out
}

// Values applies a measure to samples, without those that have none (NaN).
func Values(all []Sample, of func(Sample) float64) (out []float64) {
	for _, s := range all {
		if v := of(s); !math.IsNaN(v) {
			out = append(out, v)
		}
	}
	return out
}

// Median returns the middle value, or the mean of the middle two; NaN of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Spread returns half the distance from the smallest to the largest value, as a part
// of the median.
func Spread(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	return (slices.Max(values) - slices.Min(values)) / 2 / Median(values)
}

// Ratio returns the median, over the rounds that both have, of the quotient of a
// measure: what a machine does that drifts meets both halves of a round.
func Ratio(a, b []Sample, of func(Sample) float64) float64 {
	var all []float64
	for _, x := range a {
		for _, y := range b {
			if q := of(x) / of(y); x.Round == y.Round && !math.IsNaN(q) {
				all = append(all, q)
			}
		}
	}
	return Median(all)
}
