package upstream

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// standing returns a roster of endpoints with these weights, none of which is
// ever connected to.
func standing(t *testing.T, b Balance, slowStart time.Duration, weights ...int) *roster {
	t.Helper()
	o := Options{Balance: b, SlowStart: slowStart, Connections: Connections{Max: 1 << 20}, Now: func() time.Time { return time.Unix(0, 0) }}
	for i, w := range weights {
		o.Targets = append(o.Targets, Target{URL: fmt.Sprintf("http://192.0.2.%d", i+1), Weight: w})
	}
	return open(t, o).roster.Load()
}

// later is long after every endpoint has entered.
func later() time.Time { return time.Unix(1_000_000, 0) }

func TestRoundRobinIsSmooth(t *testing.T) {
	s := standing(t, RoundRobin, 0, 5, 1, 1)
	var got strings.Builder
	for range 14 {
		e := s.pick(later(), triedEndpoints{})
		got.WriteByte('a' + e.host[len(e.host)-1] - '1')
	}
	if want := "aabacaaaabacaa"; got.String() != want {
		t.Errorf("order %s, want %s", got.String(), want)
	}
}

func TestLeastConnections(t *testing.T) {
	s := standing(t, LeastConnections, 0, 1, 1, 2)
	for i, n := range []int64{3, 1, 4} { // n/weight: 3, 1, 2
		s.endpoints[i].inFlight.Store(n)
	}
	for range 10 {
		if got := s.pick(later(), triedEndpoints{}); got != s.endpoints[1] {
			t.Fatalf("chose %s, want the one with the fewest for its weight", got.host)
		}
	}
	s.endpoints[1].inFlight.Store(3)
	if got := s.pick(later(), triedEndpoints{}); got != s.endpoints[2] {
		t.Errorf("chose %s, want the heavier one", got.host)
	}
}

func TestPowerOfTwo(t *testing.T) {
	s := standing(t, PowerOfTwo, 0, 1, 1)
	slow, fast := s.endpoints[0], s.endpoints[1]
	slow.latency.observe(later(), 100*time.Millisecond)
	fast.latency.observe(later(), 10*time.Millisecond)
	if got := s.pick(later(), triedEndpoints{}); got != fast {
		t.Error("chose the slow one")
	}
	fast.inFlight.Store(20)
	if got := s.pick(later(), triedEndpoints{}); got != slow {
		t.Error("chose the fast one that has a queue")
	}
}

// TestShares counts, for each way to choose, what endpoints get that are equal
// in all but weight, with so many exchanges at once that take time.
func TestShares(t *testing.T) {
	for _, tc := range []struct {
		balance Balance
		flying  int
		off     float64 // by at most
	}{
		{RoundRobin, 1, 0.01}, {RoundRobin, 8, 0.01}, {RoundRobin, 40, 0.01},
		{LeastConnections, 1, 0.05}, {LeastConnections, 8, 0.05}, {LeastConnections, 40, 0.05},
		{PowerOfTwo, 1, 0.19}, {PowerOfTwo, 8, 0.1}, {PowerOfTwo, 40, 0.05}, // 0.75*0.75 is the least there may be
	} {
		b := tc.balance
		t.Run(fmt.Sprintf("%s, %d at once", b, tc.flying), func(t *testing.T) {
			s := standing(t, b, 0, 1, 3)
			const total = 20_000
			counts := map[*endpoint]int{}
			var flying []*endpoint
			now := later()
			for range total {
				now = now.Add(time.Millisecond)
				if len(flying) == tc.flying { // the oldest ends
					flying[0].latency.observe(now, 40*time.Millisecond)
					flying[0].inFlight.Add(-1)
					flying = flying[1:]
				}
				e := s.pick(now, triedEndpoints{})
				e.inFlight.Add(1)
				flying = append(flying, e)
				counts[e]++
			}
			if got := float64(counts[s.endpoints[1]]) / total; math.Abs(got-0.75) > tc.off {
				t.Errorf("the heavier one gets %.2f, want 0.75", got)
			}
		})
	}
}

func TestPeakEWMA(t *testing.T) {
	var p peakEWMA
	now := time.Unix(1000, 0)
	if got := p.load(now, 0); got != leastCost {
		t.Errorf("load %g of an unknown endpoint, want the least", got)
	}
	p = peakEWMA{}
	if got := p.load(now, 1); got < float64(time.Hour) {
		t.Errorf("load %g of a busy unknown endpoint, want it to be avoided", got)
	}
	p.observe(now, 10*time.Millisecond)
	p.observe(now, 100*time.Millisecond)
	if got := p.load(now, 0); got != float64(100*time.Millisecond) {
		t.Errorf("load %g after a peak, want it at once", got)
	}
	now = now.Add(decay)
	p.observe(now, 10*time.Millisecond)
	want := 100/math.E + 10*(1-1/math.E)
	if got := p.load(now, 0) / float64(time.Millisecond); math.Abs(got-want) > 0.01 {
		t.Errorf("load %g ms after a fall, want %g", got, want)
	}
	if got := p.load(now, 2) / float64(time.Millisecond); math.Abs(got-3*want) > 0.01 {
		t.Errorf("load %g ms with two pending, want three times %g", got, want)
	}
}

func TestSlowStart(t *testing.T) {
	for _, b := range []Balance{RoundRobin, LeastConnections, PowerOfTwo} {
		t.Run(string(b), func(t *testing.T) {
			s := standing(t, b, 10*time.Second, 1, 1)
			s.endpoints[1].entered.Store(later().UnixNano())
			for _, step := range []struct {
				after time.Duration
				want  int // weight in steps
			}{{0, 10}, {5 * time.Second, 50}, {9 * time.Second, 90}, {10 * time.Second, 100}} {
				c := choice{roster: s, now: later().Add(step.after)}
				if got := c.weight(s.endpoints[1]); got != step.want {
					t.Errorf("after %s the weight is %d, want %d", step.after, got, step.want)
				}
			}
			// It may have entered after the clock was read.
			c := choice{roster: s, now: later().Add(-time.Hour)}
			if got := c.weight(s.endpoints[1]); got != 10 {
				t.Errorf("before it enters the weight is %d, want 10", got)
			}
			if c.roster = standing(t, b, 0, 1); c.weight(s.endpoints[1]) != 100 {
				t.Error("without slow start the weight is not whole")
			}
			newcomer := 0
			for range 11_000 {
				e := s.pick(later(), triedEndpoints{})
				if e.inFlight.Add(1); e == s.endpoints[1] {
					newcomer++
				}
			}
			if newcomer < 900 || newcomer > 1100 {
				t.Errorf("the newcomer got %d of 11000, want about 1000", newcomer)
			}
		})
	}
}

// TestPickTakesWhatIsThere: what was tried and what is down is left out; what
// was ejected is the last resort.
func TestPickTakesWhatIsThere(t *testing.T) {
	for _, b := range []Balance{RoundRobin, LeastConnections, PowerOfTwo} {
		t.Run(string(b), func(t *testing.T) {
			s := standing(t, b, 0, 1, 1, 1)
			first, second, third := s.endpoints[0], s.endpoints[1], s.endpoints[2]
			first.active.down.Store(true)
			second.passive.until.Store(later().Add(time.Second).UnixNano())
			for range 20 {
				if got := s.pick(later(), triedEndpoints{}); got != third {
					t.Fatalf("chose %s, want the only one in service", got.host)
				}
			}
			third.inFlight.Store(1 << 20)
			if got := s.pick(later(), triedEndpoints{}); got != third {
				t.Error("did not wait for the one that is full, but took one that was ejected")
			}
			second.passive.until.Store(0)
			for range 10 {
				if got := s.pick(later(), triedEndpoints{}); got != second {
					t.Fatal("did not prefer the one that is not full")
				}
			}
			third.inFlight.Store(0)
			second.passive.until.Store(later().Add(time.Second).UnixNano())
			if got := s.pick(later(), triedEndpoints{third}); got != second {
				t.Error("did not fall back on the one that was ejected")
			}
			if got := s.pick(later(), triedEndpoints{third, second}); got != nil {
				t.Errorf("chose %s, want none", got.host)
			}
			seen := map[*endpoint]bool{}
			for range 200 {
				seen[s.pick(later().Add(time.Second), triedEndpoints{})] = true
			}
			if len(seen) != 2 || seen[first] {
				t.Errorf("%d chosen after the ejection, want 2", len(seen))
			}
		})
	}
}

func TestValidateReportsEveryProblem(t *testing.T) {
	o := Options{
		Targets: []Target{{URL: "ftp://a"}, {URL: "http://"}, {URL: "http://a/path"}, {URL: "http://b", Weight: -1}, {URL: "http://c"}, {URL: "http://c"},
			{URL: "http://user@d"}, {URL: ":"}},
		Balance: "random", SlowStart: -1, Connections: Connections{Max: -1, Wait: -1}, HeadBytes: -1,
		TLS: TLS{CA: []byte("x")}, Ejection: Ejection{Duration: -1}, Health: Health{Path: "no slash"},
	}
	err := o.Validate()
	if err == nil {
		t.Fatal("no problem reported")
	}
	for _, want := range []string{"target 1:", "target 2:", "target 3:", "target 4:", "target 6:", "target 7:", "target 8:", "Balance", "SlowStart",
		"Connections.Max", "Connections.Wait", "HeadBytes", "TLS", "Ejection", "Health.Path"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no problem with %s in %q", want, err)
		}
	}
	if strings.Contains(err.Error(), "target 5:") {
		t.Errorf("a good target is reported: %v", err)
	}
	if err := (Options{Targets: []Target{{URL: "https://a.example:8443/"}}}).Validate(); err != nil {
		t.Errorf("the zero value with a target: %v", err)
	}
	if (Options{}).Validate() == nil {
		t.Error("no targets are no problem")
	}
}
