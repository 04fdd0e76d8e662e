package soak

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// WriteSummary writes what a series of at least one sample has in it, a line each.
func WriteSummary(w io.Writer, series []Sample) error {
	sum := Sample{Explained: map[string]int{}, Unexplained: map[string]int{}}
	for _, s := range series {
		sum.Requests += s.Requests
		sum.Changes += s.Changes
		sum.Reloads += s.Reloads
		sum.Restarts += s.Restarts
		add(sum.Explained, s.Explained)
		add(sum.Unexplained, s.Unexplained)
	}
	took := time.Duration(series[len(series)-1].Seconds * float64(time.Second))
	var out strings.Builder
	fmt.Fprintf(&out, "%v: %d requests, %d changes of keys, %d reloads, %d restarts of the upstream\n",
		took.Round(time.Second), sum.Requests, sum.Changes, sum.Reloads, sum.Restarts)
	fmt.Fprintf(&out, "errors that restarts explain: %s\nother errors: %s\n", kinds(sum.Explained), kinds(sum.Unexplained))
	for _, m := range append(Measures(),
		Measure{Name: "store, bytes", Of: func(s Sample) float64 { return float64(s.StoreBytes) }},
		Measure{Name: "median, ms", Of: func(s Sample) float64 { return s.Median }},
		Measure{Name: "99th percentile, ms", Of: func(s Sample) float64 { return s.P99 }},
	) {
		second, last := Quarters(series, m.Of)
		fmt.Fprintf(&out, "%s: %.10g in the second quarter of the time, %.10g in the last\n", m.Name, second, last)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func add(to, more map[string]int) {
	for kind, n := range more {
		to[kind] += n
	}
}

// kinds lists errors by kind.
func kinds(counts map[string]int) string {
	if len(counts) == 0 {
		return "none"
	}
	var out []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf("%d %s", counts[kind], kind))
	}
	return strings.Join(out, ", ")
}
