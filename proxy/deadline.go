package proxy

import "time"

// A deadline is moved on while data flows. Setting it costs more than reading a
// small piece, so it is moved in steps of an eighth of its time or of a second,
// whichever is less, and set that much later.
type deadline struct {
	set   func(time.Time) error
	moved time.Time     // when it was set last; zero after it was set to something else
	idle  time.Duration // to what time from then on
}

// renew gives the connection the idle time from now on; zero means no limit.
func (d *deadline) renew(idle time.Duration) error {
	if idle <= 0 {
		if d.idle == 0 && d.moved.IsZero() {
			return nil
		}
		*d = deadline{set: d.set}
		return d.set(time.Time{})
	}
	now, step := time.Now(), min(time.Second, idle/8)
	if d.idle == idle && now.Sub(d.moved) < step {
		return nil
	}
	d.moved, d.idle = now, idle
	return d.set(now.Add(idle + step))
}

// at sets the deadline to a time.
func (d *deadline) at(t time.Time) error {
	d.moved, d.idle = time.Time{}, -1
	return d.set(t)
}
