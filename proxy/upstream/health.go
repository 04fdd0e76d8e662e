package upstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Health asks each address of each target for a path, over a connection of its
// own. An answer of 200 to 399 in time is good. An address is in service until
// it has been found bad, and takes no requests while it is.
type Health struct {
	Path      string        // origin-form; empty means that nothing is asked, and all are in service
	Interval  time.Duration // between two checks of an address; zero means 5 s
	Timeout   time.Duration // of a check as a whole; zero means 1 s
	Healthy   int           // good checks in a row that bring an address back; zero means 2
	Unhealthy int           // bad checks in a row that take it out; zero means 3
}

func (h *Health) complete() {
	setDefault(&h.Interval, 5*time.Second)
	setDefault(&h.Timeout, time.Second)
	setDefault(&h.Healthy, 2)
	setDefault(&h.Unhealthy, 3)
}

func (h *Health) validate() error {
	switch {
	case h.Path != "" && (h.Path[0] != '/' || strings.ContainsFunc(h.Path, func(c rune) bool { return c <= ' ' || c >= 0x7f })):
		return errors.New("Health.Path is not a path as it is sent")
	case h.Interval < 0 || h.Timeout < 0 || h.Healthy < 0 || h.Unhealthy < 0:
		return errors.New("Health: a number is negative")
	}
	return nil
}

// maxChecks is how many addresses of an Upstream are checked at once.
const maxChecks = 16

// activeHealth is what checks tell of an endpoint. All but down is guarded by
// the Upstream's checking.
type activeHealth struct {
	down atomic.Bool
	last time.Time // when the last check began
	row  int       // checks in a row that speak against the present state
}

// Check checks the addresses whose turn it is at the given time, and returns
// when all have answered or run out of time. It is one pass: call it at least as
// often as Health.Interval. Passes do not overlap; a second waits.
func (u *Upstream) Check(ctx context.Context, now time.Time) {
	u.checking.Lock()
	defer u.checking.Unlock()
	s := u.roster.Load()
	if s.health.Path == "" {
		return
	}
	var all sync.WaitGroup
	places := make(chan struct{}, maxChecks)
	for _, e := range s.endpoints {
		if !e.active.last.IsZero() && now.Sub(e.active.last) < s.health.Interval {
			continue
		}
		e.active.last = now
		places <- struct{}{}
		all.Go(func() {
			good := e.check(ctx, &s.health)
			if ctx.Err() == nil { // else it says nothing of the endpoint
				u.checked(e, good, now, &s.health)
			}
			<-places
		})
	}
	all.Wait()
}

// check asks the endpoint once.
func (e *endpoint) check(ctx context.Context, h *Health) bool {
	r := &Request{Method: "GET", Close: true}
	r.Head = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: latchkey-health\r\nConnection: close\r\n\r\n",
		h.Path, e.spec.authority)
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	defer context.AfterFunc(ctx, r.Abort)()
	c, failure := e.pool.dialer.dial(r, e.pool)
	if failure != nil {
		return false
	}
	defer c.close()
	c.limit = defaultHeadBytes
	r.first = r.Head
	if !r.abort.attach(c) {
		return false
	}
	_, failure = c.exchange(r, e.pool.now(), e.pool.now)
	status := r.res.Status
	return !r.abort.detach() && failure == nil && 200 <= status && status < 400
}

// checked counts a check's outcome, unless what is asked has changed meanwhile: where
// nothing is asked any more, nobody would bring the endpoint back.
func (u *Upstream) checked(e *endpoint, good bool, now time.Time, h *Health) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.options.Health != *h {
		return
	}
	a := &e.active
	down := a.down.Load()
	if good != down { // as expected
		a.row = 0
		return
	}
	limit := h.Unhealthy
	if down {
		limit = h.Healthy
	}
	if a.row++; a.row < limit {
		return
	}
	a.row = 0
	if down {
		e.entered.Store(now.UnixNano())
	}
	a.down.Store(!down)
}
