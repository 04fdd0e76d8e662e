package result

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// A Measure is one column.
type Measure struct {
	Name   string // with the unit
	Format string
	Of     func(Sample) float64 // NaN where there is none
	Lower  bool                 // better
}

// Measures returns what tables and comparisons show.
func Measures() []Measure {
	latency := func(p float64) func(Sample) float64 {
		return func(s Sample) float64 {
			if s.Load.Requests == 0 {
				return math.NaN()
			}
			return s.Load.At(p) / 1000
		}
	}
	return []Measure{
		{"requests/s", "%.0f", Sample.Rate, false},
		{"p50 ms", "%.2f", latency(50), true},
		{"p99 ms", "%.2f", latency(99), true},
		{"p99.9 ms", "%.2f", latency(99.9), true},
		{"errors", "%.0f", func(s Sample) float64 { return float64(s.Load.Errors) }, true},
		{"CPU s/M", "%.2f", Sample.CPU, true},
		{"user s/M", "%.2f", func(s Sample) float64 { return s.CPU() * s.UserSeconds / (s.UserSeconds + s.SystemSeconds) }, true},
		{"peak MiB", "%.0f", func(s Sample) float64 { return positive(float64(s.PeakRSS) / (1 << 20)) }, true},
		{"hit %", "%.1f", func(s Sample) float64 { return 100 * optional(s.HitRatio) }, false},
		{"KiB/conn", "%.1f", func(s Sample) float64 { return optional(s.ConnectionRSS) / 1024 }, true},
	}
}

func optional(v *float64) float64 {
	if v == nil {
		return math.NaN()
	}
	return *v
}

func positive(v float64) float64 {
	if v <= 0 {
		return math.NaN()
	}
	return v
}

// rows returns a table of a scenario: medians over the rounds, with the spread of
// requests and CPU, and the CPU of each against that of the first system.
func (f File) rows(scenario string) (out [][]string) {
	systems := f.Systems(scenario)
	measures := slices.DeleteFunc(Measures(), func(m Measure) bool {
		return !slices.ContainsFunc(systems, func(system string) bool { return len(Values(f.Of(scenario, system), m.Of)) > 0 })
	})
	head := []string{"system"}
	for _, m := range measures {
		head = append(head, m.Name)
	}
	// Where there is one system, it is compared with itself under the first scenario.
	first, compared := f.Scenarios()[0], len(systems) > 1
	switch {
	case compared:
		head = append(head, "CPU against "+systems[0])
	case scenario != first:
		head = append(head, "requests/s against "+first, "CPU against "+first)
	}
	out = append(out, head)
	for _, system := range systems {
		samples := f.Of(scenario, system)
		row := []string{system}
		for _, m := range measures {
			row = append(row, cell(m, Values(samples, m.Of)))
		}
		switch {
		case compared:
			row = append(row, ratioCell(Ratio(samples, f.Of(scenario, systems[0]), Sample.CPU)))
		case scenario != first:
			against := f.Of(first, system)
			row = append(row, ratioCell(Ratio(samples, against, Sample.Rate)), ratioCell(Ratio(samples, against, Sample.CPU)))
		}
		out = append(out, row)
	}
	return out
}

func cell(m Measure, values []float64) string {
	if len(values) == 0 {
		return "-"
	}
	text := fmt.Sprintf(m.Format, Median(values))
	if len(values) > 1 && (m.Name == "requests/s" || m.Name == "CPU s/M") {
		text += fmt.Sprintf(" ±%.0f%%", 100*Spread(values))
	}
	return text
}

func ratioCell(q float64) string {
	if math.IsNaN(q) {
		return "-"
	}
	return fmt.Sprintf("%.2f", q)
}

// WriteText writes the table of a scenario for a terminal.
func (f File) WriteText(w io.Writer, scenario string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\n", scenario)
	for _, row := range f.rows(scenario) {
		fmt.Fprintln(t, "  "+strings.Join(row, "\t"))
	}
	return t.Flush()
}

// WriteMarkdown writes the tables of all scenarios, and what they depend on.
func (f File) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores, Linux %s, %s; %s.\nTaken on %s by:\n\n```sh\n%s\n```\n",
		f.Machine.Processor, f.Machine.Cores, f.Machine.Kernel, f.Machine.Go, f.Machine.Pinned, f.Date.Format("2006-01-02"), f.Command)
	var versions []string
	for name, version := range f.Versions {
		versions = append(versions, name+" "+version)
	}
	slices.Sort(versions)
	fmt.Fprintf(&b, "\nVersions: %s.\n", strings.Join(versions, ", "))
	for _, scenario := range f.Scenarios() {
		rounds := 0
		for _, s := range f.Of(scenario, f.Systems(scenario)[0]) {
			rounds = max(rounds, s.Round)
		}
		fmt.Fprintf(&b, "\n`%s`, medians of %d rounds:\n\n", scenario, rounds)
		for i, row := range f.rows(scenario) {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
			if i == 0 {
				fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(row)))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
