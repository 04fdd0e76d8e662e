package load

import (
	"math"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A Point is the latency that so many percent of the requests did not exceed.
type Point struct {
	Percentile   float64
	Microseconds float64
}

// A ledger is what some of the connections found.
type ledger struct {
	mu       sync.Mutex
	latency  *hdrhistogram.Histogram // in units of 100 ns
	lateness *hdrhistogram.Histogram
	errors   int64
}

// unit is what the histograms count: finer than the clock is worth on any machine.
const unit = 100 * time.Nanosecond

func newLedger() *ledger {
	return &ledger{latency: newHistogram(), lateness: newHistogram()}
}

// newHistogram holds up to two minutes with three significant digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(2*time.Minute/unit), 3)
}

func (l *ledger) record(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.latency.RecordValue(units(took))
}

func (l *ledger) late(by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.lateness.RecordValue(units(by))
}

func (l *ledger) fail() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors++
}

// units fits a time into the histograms, so that recording it cannot fail.
func units(d time.Duration) int64 {
	return min(max(int64(d/unit), 1), int64(2*time.Minute/unit))
}

// merge adds the ledgers up.
func merge(all []*ledger) Result {
	latency, lateness := newHistogram(), newHistogram()
	var out Result
	for _, l := range all {
		l.mu.Lock()
		latency.Merge(l.latency)
		lateness.Merge(l.lateness)
		out.Errors += l.errors
		l.mu.Unlock()
	}
	out.Requests = latency.TotalCount()
	for _, p := range percentiles() {
		out.Latency = append(out.Latency, Point{p, microseconds(latency.ValueAtQuantile(p))})
	}
	out.Late = microseconds(lateness.ValueAtQuantile(99))
	return out
}

func microseconds(n int64) float64 { return float64(n) * float64(unit) / float64(time.Microsecond) }

// percentiles are those of the curve: four to each halving of what is left above.
func percentiles() []float64 {
	out := []float64{0}
	for i := 1; i <= 16*4; i++ {
		p := 100 * (1 - math.Pow(2, -float64(i)/4))
		for _, named := range []float64{50, 90, 99, 99.9, 99.99} {
			if out[len(out)-1] < named && named <= p {
				out = append(out, named)
			}
		}
		if p > out[len(out)-1] {
			out = append(out, p)
		}
	}
	return append(out, 100)
}

// At returns the latency at a percentile, in microseconds; of the points that are
// there it takes the next one above.
func (r Result) At(percentile float64) float64 {
	for _, p := range r.Latency {
		if p.Percentile >= percentile {
			return p.Microseconds
		}
	}
	return 0
}
