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
// the Upstream's mu.
type activeHealth struct {
	down atomic.Bool
	busy bool      // being checked, or about to be
	last time.Time // when the last check was due
	row  int       // checks in a row that speak against the present state
}

// Check checks the addresses whose turn it is at the given time, and returns
// when all have answered or run out of time. It is one pass: call it at least as
// often as Health.Interval, and without waiting for the one before, lest an address that
// hangs delays the checks of others. No address is checked twice at once.
func (u *Upstream) Check(ctx context.Context, now time.Time) {
	s := u.roster.Load()
	if s.health.Path == "" {
		return
	}
	var all sync.WaitGroup
	for _, e := range u.due(s, now) {
		u.places <- struct{}{}
		all.Go(func() {
			good := e.check(ctx, &s.health)
			u.checked(ctx, e, good, now, &s.health)
			<-u.places
		})
	}
	all.Wait()
}

// due returns the endpoints whose turn it is, for one pass to check.
func (u *Upstream) due(s *roster, now time.Time) (due []*endpoint) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range s.endpoints {
		if a := &e.active; !a.busy && (a.last.IsZero() || now.Sub(a.last) >= s.health.Interval) {
			a.busy, a.last = true, now
			due = append(due, e)
		}
	}
	return due
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

// checked counts a check's outcome, unless the pass was called off, which says nothing of
// the endpoint, or what is asked has changed meanwhile: where nothing is asked any more,
// nobody would bring the endpoint back.
func (u *Upstream) checked(ctx context.Context, e *endpoint, good bool, now time.Time, h *Health) {
	u.mu.Lock()
	defer u.mu.Unlock()
	e.active.busy = false
	if ctx.Err() != nil || u.options.Health != *h {
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
