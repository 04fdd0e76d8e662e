package apikey

import (
	"fmt"
	"time"
)

// ScheduledGrace is how long a key goes on admitting after a scheduled rotation
// replaced it.
const ScheduledGrace = 24 * time.Hour

// Bounds of a scheduled rotation.
const (
	// DeliveryPatience is how long a replacement waits for its webhook before it
	// is discarded.
	DeliveryPatience = 24 * time.Hour
	// retryRotationAfter is when a rotation that was abandoned is tried again.
	retryRotationAfter = 24 * time.Hour
)

// A Delivery is a scheduled rotation under way. The replacement does not exist
// yet: its credentials wait here, admitting nobody, until the webhook of the key
// has taken them. A key has at most one, and has it exactly while its
// Rotation.Pending is the ID of Heir.
type Delivery struct {
	Key      ID          // the key to be replaced
	Heir     Credentials // of the key that is to replace it
	BegunAt  time.Time
	NextAt   time.Time // when it is to be tried next
	Attempts int       // that failed so far
	Taken    bool      // the webhook has it; only what follows from that is left to do
}

// BeginRotation returns the change that begins the scheduled rotation of a key
// whose time has come. However long past its time the key is, one rotation is
// begun. A key that is not active or not due, or whose rotation has begun, gives
// ErrNotLive.
func (k Key) BeginRotation(c Credentials, now time.Time) (Change, error) {
	now = Instant(now)
	due := k.Rotation.EveryDays > 0 && ended(k.Rotation.NextAt, now)
	if !due || k.State(now) != StateActive || !k.Rotation.ReplacedBy.IsZero() || !k.Rotation.Pending.IsZero() {
		return Change{}, ErrNotLive
	}
	k.Rotation.Pending = c.ID
	return Change{Action: ActionRotationBegun, Keys: []Key{k},
		Delivery: &Delivery{Key: k.ID, Heir: c, BegunAt: now, NextAt: now}}, nil
}

// CompleteRotation returns the change that puts a delivered replacement in the
// place of its key. A delivery that is no longer the key's own gives ErrNotLive.
func (k Key) CompleteRotation(c Credentials, now time.Time) (Change, error) {
	if k.Rotation.Pending != c.ID {
		return Change{}, ErrNotLive
	}
	return k.Rotate(c, ScheduledGrace, now)
}

// AbandonRotation returns the change that discards a replacement that could not
// be delivered. The key stays as it is, and its rotation is due again a day
// later. A delivery that is no longer the key's own gives ErrNotLive.
func (k Key) AbandonRotation(heir ID, now time.Time) (Change, error) {
	if k.Rotation.Pending != heir {
		return Change{}, ErrNotLive
	}
	k.Rotation.Pending = ID{}
	k.Rotation.NextAt = Instant(now.Add(retryRotationAfter))
	return Change{Action: ActionRotationAbandoned, Keys: []Key{k}}, nil
}

// A Secret is text that must not be seen. Whatever the verb it prints as
// "(secret)", and encoders get the same.
type Secret string

// Format implements fmt.Formatter.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, "(secret)") }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }
