package upstream

import (
	"slices"
	"sync"
	"time"
)

// A pool is the connections to one address. Its methods may be called by any
// goroutine.
type pool struct {
	target  string // as configured, for errors
	dialer  *dialer
	buffers *buffers
	now     func() time.Time

	mu      sync.Mutex
	limits  Connections
	limit   int     // of a response's head, in bytes
	idle    []*conn // the one used last at the end
	open    int     // idle, in use and being made
	waiting waiters
	closed  bool
}

func newPool(target string, d *dialer, b *buffers, now func() time.Time) *pool {
	return &pool{target: target, dialer: d, buffers: b, now: now}
}

// configure sets the limits, also of what is open.
func (p *pool) configure(limits Connections, headBytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limits, p.limit = limits, headBytes
}

// acquire returns a connection for the request: the one used last, or a new one
// if there is none or fresh is set. It waits if the pool is full. The request's
// abort is attached to what it returns. It returns the time anew if it had to wait.
func (p *pool) acquire(r *Request, fresh bool, now time.Time) (*conn, time.Time, *Error) {
	for {
		c, w, err := p.take(fresh, now)
		if err != nil {
			return nil, now, err
		}
		if w != nil {
			if c, err = p.wait(r, w); err != nil {
				return nil, now, err
			}
			now = p.now()
		}
		if c == nil {
			return p.connect(r)
		}
		if fresh || w != nil && !c.quiet() {
			c.close() // but keep its place, for which others may be waiting
			return p.connect(r)
		}
		if w == nil && !c.quiet() {
			p.discard(c)
			continue
		}
		if !r.abort.attach(c) {
			p.release(c, now)
			return nil, now, &Error{Kind: ErrAborted}
		}
		return c, now, nil
	}
}

// take returns an idle connection, or nil as the leave to make one, or the
// place in the queue for either.
func (p *pool) take(fresh bool, now time.Time) (*conn, *waiter, *Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, &Error{Kind: ErrUnavailable, Err: errClosed}
	}
	if n := len(p.idle) - 1; n >= 0 && !fresh {
		c := p.idle[n]
		p.idle[n] = nil
		p.idle = p.idle[:n]
		c.stale = now.Sub(c.since) >= p.limits.IdleTimeout
		return c, nil, nil
	}
	if p.open < p.limits.Max {
		p.open++
		return nil, nil, nil
	}
	if len(p.idle) > 0 { // and fresh: the oldest gives way
		c := p.idle[0]
		p.idle = slices.Delete(p.idle, 0, 1)
		return c, nil, nil
	}
	if p.limits.Wait <= 0 {
		return nil, nil, &Error{Kind: ErrBusy}
	}
	return nil, p.waiting.join(), nil
}

// wait waits for the queue to come to w. Nil means that a connection may be
// made.
func (p *pool) wait(r *Request, w *waiter) (*conn, *Error) {
	if !r.abort.attach(w) {
		return nil, p.leave(w, ErrAborted)
	}
	defer r.abort.detach()
	p.mu.Lock()
	limit := p.limits.Wait
	p.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case g := <-w.granted:
		if g.closed {
			return nil, &Error{Kind: ErrUnavailable, Err: errClosed}
		}
		return g.conn, nil
	case <-w.interrupted:
		return nil, p.leave(w, ErrAborted)
	case <-timer.C:
		return nil, p.leave(w, ErrBusy)
	}
}

// leave gives up the place in the queue, and passes on what was granted
// meanwhile.
func (p *pool) leave(w *waiter, kind error) *Error {
	p.mu.Lock()
	queued := p.waiting.remove(w)
	p.mu.Unlock()
	if !queued {
		switch g := <-w.granted; {
		case g.conn != nil:
			p.release(g.conn, p.now())
		case !g.closed:
			p.vacate()
		}
	}
	return &Error{Kind: kind}
}

// connect makes a connection in the place that take or wait gave.
func (p *pool) connect(r *Request) (*conn, time.Time, *Error) {
	c, err := p.dialer.dial(r, p)
	now := p.now()
	if err != nil {
		p.vacate()
		return nil, now, err
	}
	p.mu.Lock()
	c.limit = p.limit
	p.mu.Unlock()
	if !r.abort.attach(c) {
		p.discard(c)
		return nil, now, &Error{Kind: ErrAborted}
	}
	return c, now, nil
}

// release takes back a connection that can carry another exchange: for who
// waits first, or else to be idle, which it is since the given time.
func (p *pool) release(c *conn, since time.Time) {
	c.releaseBuffer()
	c.since = since
	p.mu.Lock()
	c.limit = p.limit
	if p.closed || p.open > p.limits.Max {
		p.mu.Unlock()
		p.discard(c)
		return
	}
	if w := p.waiting.next(); w != nil {
		w.granted <- grant{conn: c}
		p.mu.Unlock()
		return
	}
	if len(p.idle) >= p.limits.Idle {
		p.mu.Unlock()
		p.discard(c)
		return
	}
	p.idle = append(p.idle, c)
	p.mu.Unlock()
}

// discard closes a connection and frees its place.
func (p *pool) discard(c *conn) {
	c.close()
	p.vacate()
}

// vacate frees a place: for who waits first, or else altogether.
func (p *pool) vacate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open <= p.limits.Max {
		if w := p.waiting.next(); w != nil {
			w.granted <- grant{}
			return
		}
	}
	p.open--
}

// expire closes the connections that have been idle too long at the time.
func (p *pool) expire(now time.Time) {
	var old []*conn
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now.Sub(p.idle[n].since) >= p.limits.IdleTimeout {
		n++
	}
	old = append(old, p.idle[:n]...)
	p.idle = slices.Delete(p.idle, 0, n)
	p.mu.Unlock()
	for _, c := range old {
		p.discard(c)
	}
}

// close closes what is idle and refuses those who wait. What is in use is closed
// when its exchange ends.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	for w := p.waiting.next(); w != nil; w = p.waiting.next() {
		w.granted <- grant{closed: true}
	}
	p.mu.Unlock()
	for _, c := range idle {
		p.discard(c)
	}
}

// counts returns how many connections are open and how many of them idle, and
// how many exchanges wait for one.
func (p *pool) counts() (open, idle, waiting int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open, len(p.idle), p.waiting.len()
}
