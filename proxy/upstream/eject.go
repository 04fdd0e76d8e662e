package upstream

import (
	"errors"
	"sync/atomic"
	"time"
)

// Ejection takes a target's address out of service after failures in a row. A
// failure is what says that the server, and not the request, is at fault: no
// connection, a timeout, a response that is malformed or broken off, and the
// statuses 502, 503 and 504. Other 5xx statuses are an application's answer to
// one request. Any other response ends the row.
//
// At least half of the addresses that checks have not taken down stay in
// service, and at least one. One that comes back is ejected again by a
// failure within Interval.
type Ejection struct {
	Failures int           // in a row that eject; zero means 5, negative means that nothing is ejected
	Interval time.Duration // failures further apart are not in a row; zero means 10 s
	Duration time.Duration // out of service; zero means 30 s
}

func (e *Ejection) complete() {
	setDefault(&e.Failures, 5)
	setDefault(&e.Interval, 10*time.Second)
	setDefault(&e.Duration, 30*time.Second)
}

func (e *Ejection) validate() error {
	if e.Interval < 0 || e.Duration < 0 {
		return errors.New("Ejection: a duration is negative")
	}
	return nil
}

// passiveHealth is what exchanges tell of an endpoint. Times are nanoseconds of
// Unix time.
type passiveHealth struct {
	failures atomic.Int64 // in a row
	last     atomic.Int64 // when the last failure was
	until    atomic.Int64 // when the present or last ejection ends
}

// out reports whether the endpoint is ejected.
func (h *passiveHealth) out(now time.Time) bool { return now.UnixNano() < h.until.Load() }

// succeeded ends a row of failures.
func (h *passiveHealth) succeeded() {
	if h.failures.Load() != 0 { // not to write what all processors share
		h.failures.Store(0)
	}
}

// failed notes a failure of the endpoint and ejects it if it is time.
func (u *Upstream) failed(e *endpoint, now time.Time) {
	s := u.roster.Load()
	if s.ejection.Failures < 0 {
		return
	}
	u.ejecting.Lock()
	defer u.ejecting.Unlock()
	h := &e.passive
	if now.UnixNano()-max(h.last.Load(), h.until.Load()) > int64(s.ejection.Interval) {
		h.failures.Store(0)
	}
	h.last.Store(now.UnixNano())
	if h.failures.Add(1) < int64(s.ejection.Failures) || h.out(now) || !s.canSpare(e, now) {
		return
	}
	until := now.Add(s.ejection.Duration).UnixNano()
	h.failures.Store(int64(s.ejection.Failures) - 1)
	h.until.Store(until)
	e.entered.Store(until) // slow start begins when it comes back
	e.tally.ejections.Add(1)
}

// canSpare reports whether enough endpoints stay in service without e.
func (s *roster) canSpare(e *endpoint, now time.Time) bool {
	up, in := 0, 0
	for _, other := range s.endpoints {
		if other.active.down.Load() {
			continue
		}
		up++
		if other != e && !other.passive.out(now) {
			in++
		}
	}
	return in >= max(1, (up+1)/2)
}

// faulty reports whether a failure speaks against the target.
func faulty(kind error) bool {
	switch kind {
	case ErrUnavailable, ErrTimeout, ErrMalformed, ErrTruncated:
		return true
	}
	return false
}

// faultyStatus reports whether a status speaks against the target.
func faultyStatus(status int) bool { return 502 <= status && status <= 504 }
