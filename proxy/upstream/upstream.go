package upstream

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// maxTargets is how many endpoints a request tries to connect to. More would
// make a client wait for one connect timeout after the other.
const maxTargets = 3

var (
	errClosed   = errors.New("target is no longer there")
	errNoTarget = errors.New("no target is in service")
)

type lookupFunc = func(ctx context.Context, network, host string) ([]netip.Addr, error)

// An Upstream is a service that one or more targets provide. Its methods may be
// called by any goroutine.
type Upstream struct {
	now      func() time.Time
	buffers  buffers
	roster   atomic.Pointer[roster]
	ejecting sync.Mutex // one ejection at a time, because each looks at the others

	places    chan struct{} // one for each check under way
	resolving sync.Mutex    // one pass at a time; before mu

	mu      sync.Mutex // guards what follows, and changes of roster
	options Options    // complete
	names   map[string]*names
	tallies map[string]*tally
	closed  bool
}

// A tally counts what happened to a target, whatever addresses it had.
type tally struct{ connects, repeats, ejections atomic.Uint64 }

// New returns an Upstream without connections.
func New(o Options) (*Upstream, error) {
	specs, err := o.complete()
	if err != nil {
		return nil, err
	}
	u := &Upstream{now: o.Now, places: make(chan struct{}, maxChecks), names: map[string]*names{}, tallies: map[string]*tally{}}
	u.roster.Store(&roster{})
	if err := u.replace(o, specs); err != nil {
		return nil, err
	}
	return u, nil
}

// Update makes the Upstream as if it had been made with these options, but keeps
// the connections, and what is known of the health, of targets that are still
// there. Exchanges under way go on in any case. Now and Connect stay those of
// New; changed TLS options mean new connections. On errors nothing changes.
func (u *Upstream) Update(o Options) error {
	specs, err := o.complete()
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return errClosed
	}
	o.Now, o.Connect = u.options.Now, u.options.Connect
	return u.replace(o, specs)
}

// replace puts a new roster into service and retires the endpoints that it
// leaves out. The caller has the lock.
func (u *Upstream) replace(o Options, specs []endpointSpec) error {
	type key struct{ url, host string }
	old := map[key]*endpoint{}
	for _, e := range u.roster.Load().endpoints {
		old[key{e.spec.URL, e.host}] = e
	}
	keepTLS := o.TLS.equal(&u.options.TLS)
	s := &roster{specs: specs, balance: o.Balance, slowStart: o.SlowStart, ejection: o.Ejection, health: o.Health,
		resolveEach: o.ResolveEach, lookup: o.Lookup}
	for _, spec := range specs {
		hosts := []string{spec.host}
		if n := u.names[spec.URL]; n != nil && len(n.hosts) > 0 {
			hosts = n.hosts
		}
		for _, host := range hosts {
			e := old[key{spec.URL, host}]
			if e == nil || spec.secure && !keepTLS {
				var err error
				if e, err = newEndpoint(spec, host, &o, &u.buffers, u.tally(spec.URL)); err != nil {
					return err
				}
			} else {
				delete(old, key{spec.URL, host})
			}
			s.endpoints = append(s.endpoints, e)
		}
	}
	weights := map[string]int{}
	for _, spec := range specs {
		weights[spec.URL] = spec.Weight
	}
	maps.DeleteFunc(u.names, func(url string, _ *names) bool { _, there := weights[url]; return !there })
	for _, e := range s.endpoints {
		e.configure(&o, weights[e.spec.URL])
	}
	u.options = o
	u.roster.Store(s)
	for _, e := range old {
		e.pool.close()
	}
	return nil
}

func (u *Upstream) tally(url string) *tally {
	t := u.tallies[url]
	if t == nil {
		t = &tally{}
		u.tallies[url] = t
	}
	return t
}

// Do sends the request and returns the response once its head is there. What it
// returns is part of r. Errors are *Error, of one of this package's kinds.
//
// If a target cannot be connected to, another one is tried, whatever the method,
// up to three in all. Up to r.Retries times a request is sent again, to the same
// target on a new connection, if it failed before the first byte of a response
// on a connection that had been idle, and either nothing of it was sent, or its
// method is idempotent and it has no body.
func (u *Upstream) Do(r *Request) (*Response, error) {
	if err := r.prepare(&u.buffers); err != nil {
		return nil, err
	}
	defer r.forget(&u.buffers)
	var (
		failure   *Error
		tried     triedEndpoints
		processed bool
	)
	for n := range maxTargets {
		now := u.now()
		e := u.roster.Load().pick(now, tried)
		if e == nil {
			break
		}
		if failure = u.try(e, r, now); failure == nil {
			return &r.res, nil
		}
		processed = processed || failure.Processed
		failure.Target, failure.Processed = e.spec.URL, processed
		if failure.Kind != ErrUnavailable {
			break
		}
		tried[n] = e
	}
	if failure == nil {
		failure = &Error{Kind: ErrUnavailable, Err: errNoTarget}
	}
	return nil, failure
}

// try sends the request to one endpoint, as often as may be. An exchange that goes well
// has the clock read twice, here and in Do: to read it costs a hundredth of the exchange.
func (u *Upstream) try(e *endpoint, r *Request, begun time.Time) *Error {
	e.inFlight.Add(1)
	now, processed := begun, false
	for repeats := 0; ; repeats++ {
		p, failure := e.do(r, repeats > 0, now)
		now = u.now()
		processed = processed || p.written
		switch {
		case failure == nil:
			e.latency.observe(now, now.Sub(begun))
			r.res.endpoint, r.res.upstream, r.res.headIn = e, u, now
			return nil
		case repeats < r.Retries && mayRepeat(r, p, failure):
			e.tally.repeats.Add(1)
			continue
		}
		e.inFlight.Add(-1)
		failure.Processed = processed
		if faulty(failure.Kind) {
			e.latency.observe(now, max(now.Sub(begun), failureCost))
			u.failed(e, now)
		}
		return failure
	}
}

// done notes the end of an exchange whose response's head was good. Only now is
// it known whether the body was.
func (u *Upstream) done(e *endpoint, status int, err error) {
	e.inFlight.Add(-1)
	failure, failed := err.(*Error) // nothing wraps it
	switch {
	case failed && !faulty(failure.Kind):
	case failed:
		now := u.now()
		e.latency.observe(now, failureCost)
		u.failed(e, now)
	case faultyStatus(status):
		u.failed(e, u.now())
	default:
		e.passive.succeeded()
	}
}

// Expire closes the connections that have been idle too long at the given time.
// It is one pass.
func (u *Upstream) Expire(now time.Time) {
	for _, e := range u.roster.Load().endpoints {
		e.pool.expire(now)
	}
}

// Close closes idle connections and refuses requests from now on. Connections
// in use are closed when their exchange ends.
func (u *Upstream) Close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for _, e := range u.roster.Swap(&roster{}).endpoints {
		e.pool.close()
	}
}
