package upstream

import (
	"net"
	"sync/atomic"
	"time"
)

// An endpoint is one address of a target, with its connections and what is
// known of how it does.
type endpoint struct {
	spec  endpointSpec
	host  string // the target's own, or an address it resolved to
	pool  *pool
	tally *tally // of the target

	limits   atomic.Pointer[Connections]
	weight   atomic.Int64
	inFlight atomic.Int64 // exchanges begun and not closed
	entered  atomic.Int64 // when it came into service, in nanoseconds of Unix time
	latency  peakEWMA
	passive  passiveHealth
	active   activeHealth
	credit   int // what smooth weighted round robin owes it; guarded by the balancer
}

// newEndpoint returns an endpoint without connections, in service.
func newEndpoint(spec endpointSpec, host string, o *Options, b *buffers, t *tally) (*endpoint, error) {
	e := &endpoint{spec: spec, host: host, tally: t}
	d := &dialer{address: net.JoinHostPort(host, spec.port), connect: o.Connect, connects: &t.connects,
		timeout: func() time.Duration { return e.limits.Load().ConnectTimeout }}
	if spec.secure {
		var err error
		if d.tls, err = o.TLS.config(spec.host); err != nil {
			return nil, err
		}
	}
	e.pool = newPool(spec.URL, d, b, o.Now)
	e.entered.Store(o.Now().UnixNano())
	e.configure(o, spec.Weight)
	return e, nil
}

// configure sets what may change while there are connections.
func (e *endpoint) configure(o *Options, weight int) {
	e.weight.Store(int64(weight))
	if o.Health.Path == "" {
		e.active.down.Store(false) // nobody would bring it back
	}
	limits := o.Connections
	e.limits.Store(&limits)
	e.pool.configure(limits, o.HeadBytes)
}

// full reports whether another exchange would have to wait for a connection.
func (e *endpoint) full() bool { return e.inFlight.Load() >= int64(e.limits.Load().Max) }

// do sends a prepared request once, on a new connection if fresh is set.
func (e *endpoint) do(r *Request, fresh bool, now time.Time) (progress, *Error) {
	c, now, failure := e.pool.acquire(r, fresh, now)
	if failure != nil {
		return progress{}, failure
	}
	p, failure := c.exchange(r, now, e.pool.now)
	if failure != nil {
		if r.abort.detach() {
			failure = &Error{Kind: ErrAborted}
		}
		e.pool.discard(c)
	}
	return p, failure
}
