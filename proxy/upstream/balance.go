package upstream

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// A Balance is a way to choose the target of a request.
type Balance string

// The ways to choose. Each goes by weights; "connections" are exchanges begun
// and not closed.
const (
	// PowerOfTwo draws two targets and takes the one with the lower load: its
	// peak-sensitive mean latency times its connections. See peakEWMA. Where weights
	// differ both may be the same, so that a target has at most twice its share, and is
	// left at least with the square of it.
	PowerOfTwo Balance = "power_of_two"

	// RoundRobin takes the targets in turn, the heavier ones oftener but spread
	// evenly: the smooth weighted round robin of nginx
	// (ngx_http_upstream_round_robin.c).
	RoundRobin Balance = "round_robin"

	// LeastConnections takes the target with the fewest connections for its weight, and
	// of several one at random in proportion to their weights: a target without
	// connections is taken before any that has one, as by nginx
	// (ngx_http_upstream_least_conn_module.c).
	LeastConnections Balance = "least_connections"
)

func (b Balance) validate() error {
	switch b {
	case "", PowerOfTwo, RoundRobin, LeastConnections:
		return nil
	}
	return fmt.Errorf("Balance: %q is not known", string(b))
}

// maxWeight bounds weights so that their sums in rampSteps fit any int.
const maxWeight = 1000

// rampSteps is how finely slow start raises a weight, and a tenth of it where it
// begins: with less, a target that is not asked would never warm up.
const rampSteps = 100

// A roster is the endpoints there are at a time. Only their own state changes.
type roster struct {
	endpoints   []*endpoint
	specs       []endpointSpec // the targets they belong to
	balance     Balance
	slowStart   time.Duration
	ejection    Ejection
	health      Health
	resolveEach time.Duration
	lookup      lookupFunc

	credits sync.Mutex // guards the endpoints' credit
}

// pick chooses an endpoint that was not tried, nil if there is none. One whose
// connections are all in use is chosen only if all are like that. One that was
// ejected is chosen only if no other is in service: Ejection never leaves a
// request without a target, even if checks take down the rest.
func (s *roster) pick(now time.Time, tried triedEndpoints) *endpoint {
	c := choice{roster: s, now: now, tried: tried}
	e := c.choose()
	if e == nil {
		c.full = true
		e = c.choose()
	}
	if e == nil {
		c.ejected = true
		e = c.choose()
	}
	return e
}

// triedEndpoints are those that a request could not connect to. They are copied,
// so that they need no memory of their own.
type triedEndpoints [maxTargets]*endpoint

func (t *triedEndpoints) contain(e *endpoint) bool {
	for _, other := range t {
		if other == e {
			return true
		}
	}
	return false
}

// A choice is one request's view of a roster.
type choice struct {
	*roster
	now     time.Time
	tried   triedEndpoints
	full    bool // endpoints without a free connection are candidates, too
	ejected bool // and so are ejected ones
}

// candidate reports whether e may be chosen.
func (c *choice) candidate(e *endpoint) bool {
	return !e.active.down.Load() && (c.ejected || !e.passive.out(c.now)) && (c.full || !e.full()) && !c.tried.contain(e)
}

// choose returns nil if there is no candidate. Endpoints change meanwhile, so
// nothing may be concluded from one look at a candidate for the next.
func (c *choice) choose() *endpoint {
	switch c.balance {
	case RoundRobin:
		return c.roundRobin()
	case LeastConnections:
		return c.leastConnections()
	}
	return c.powerOfTwo()
}

// weight returns an endpoint's share in steps. During slow start it rises from a
// tenth to the whole in proportion to the time.
func (c *choice) weight(e *endpoint) int {
	steps := rampSteps
	if since := c.now.Sub(time.Unix(0, e.entered.Load())); c.slowStart > 0 && since < c.slowStart {
		steps = max(rampSteps/10, int(rampSteps*since/c.slowStart))
	}
	return int(e.weight.Load()) * steps
}

func (c *choice) roundRobin() *endpoint {
	c.credits.Lock()
	defer c.credits.Unlock()
	var best *endpoint
	total := 0
	for _, e := range c.endpoints {
		if !c.candidate(e) {
			continue
		}
		w := c.weight(e)
		e.credit, total = e.credit+w, total+w
		if best == nil || e.credit > best.credit {
			best = e
		}
	}
	if best != nil {
		best.credit -= total
	}
	return best
}

func (c *choice) leastConnections() *endpoint {
	var best *endpoint
	least, ties := math.Inf(1), 0 // the sum of the weights of those with the least
	for _, e := range c.endpoints {
		if !c.candidate(e) {
			continue
		}
		w := c.weight(e)
		load := float64(e.inFlight.Load()) / float64(w)
		switch {
		case load < least:
			best, least, ties = e, load, w
		case load == least:
			if ties += w; rand.IntN(ties) < w {
				best = e
			}
		}
	}
	return best
}

func (c *choice) powerOfTwo() *endpoint {
	sum, even := 0, true
	for _, e := range c.endpoints {
		w := c.weight(e)
		sum, even = sum+w, even && w == c.weight(c.endpoints[0])
	}
	first := c.draw(nil)
	if first == nil {
		return nil
	}
	var except *endpoint
	if even { // else the shares are those of the draw
		except = first
	}
	second := c.draw(except)
	mean := float64(sum) / float64(len(c.endpoints))
	if second == nil || c.load(first, mean) <= c.load(second, mean) {
		return first
	}
	return second
}

// draw takes a candidate at random, in proportion to the weights.
func (c *choice) draw(except *endpoint) *endpoint {
	total := 0
	for _, e := range c.endpoints {
		if e != except && c.candidate(e) {
			total += c.weight(e)
		}
	}
	if total == 0 {
		return nil
	}
	n := rand.IntN(total)
	var last *endpoint
	for _, e := range c.endpoints {
		if e == except || !c.candidate(e) {
			continue
		}
		last = e
		if n -= c.weight(e); n < 0 {
			break
		}
	}
	return last
}

// load returns what the endpoint bears, its connections in proportion to its weight.
func (c *choice) load(e *endpoint, mean float64) float64 {
	return e.latency.load(c.now, float64(e.inFlight.Load())*mean/float64(c.weight(e)))
}

// Parameters of peakEWMA.
const (
	decay       = 10 * time.Second // after which an observation counts 1/e of itself
	leastCost   = float64(time.Microsecond)
	unknownCost = float64(time.Hour) // of an endpoint that is busy and has never answered
	failureCost = time.Second        // the least latency of a failure, lest failing fast attract requests
)

// A peakEWMA is a mean of latencies that follows a rise at once and a fall
// slowly, weighted by the time between observations: Finagle's Peak EWMA
// (finagle-core, com/twitter/finagle/loadbalancer/PeakEwma.scala). It differs in
// that it measures until the head of the response, so that a long body does not
// look like a slow server, and counts failures.
type peakEWMA struct {
	mu   sync.Mutex
	cost float64 // nanoseconds
	last time.Time
}

// observe adds a latency.
func (p *peakEWMA) observe(now time.Time, latency time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(now, float64(latency))
}

func (p *peakEWMA) add(now time.Time, latency float64) {
	if latency >= p.cost {
		p.cost = latency
	} else {
		w := math.Exp(-max(0, float64(now.Sub(p.last))) / float64(decay))
		p.cost = p.cost*w + latency*(1-w)
	}
	p.last = now
}

// load returns the latency to expect of one more request beside the pending
// ones. An endpoint that nobody asks comes to look better with time, so that it
// is asked again.
func (p *peakEWMA) load(now time.Time, pending float64) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cost == 0 && pending > 0 {
		return unknownCost * (pending + 1)
	}
	p.add(now, 0)
	return max(p.cost, leastCost) * (pending + 1)
}
