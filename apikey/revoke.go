package apikey

import (
	"time"
)

// Revoke returns the change that ends the key for good. A key that is already
// revoked gives ErrNotLive; one that merely expired can still be revoked.
func (k Key) Revoke(now time.Time) (Change, error) {
	if !k.RevokedAt.IsZero() {
		return Change{}, ErrNotLive
	}
	k.RevokedAt = Instant(now)
	k.Rotation.Pending = ID{}
	k.UpdatedAt = k.RevokedAt
	return Change{Action: ActionRevoked, Keys: []Key{k}}, nil
}

// Sweep returns the change that records that the key is past its end, and
// false if it is not. Admission never waits for it: see Admit.
func (k Key) Sweep(now time.Time) (Change, bool) {
	if end := k.EndsAt(); !ended(end, now) {
		return Change{}, false
	}
	k.EndedAt = Instant(now)
	k.Rotation.Pending = ID{}
	return Change{Action: ActionEnded, Keys: []Key{k}}, true
}
