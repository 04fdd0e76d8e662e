package apikey

import (
	"fmt"
	"slices"
	"time"
)

// An Edit is what an operator may change about a live key. A nil field is left
// as it is.
type Edit struct {
	Name            *string
	AllowedIPs      *Allowlist
	APIVersion      *string
	DowngradeWindow time.Duration // how long after a move up a move down is allowed
}

// Update returns the change that applies the edit. It fails with ErrNotLive or
// a *FieldError. A change of nothing is a change all the same: the audit log
// shows that it was asked for.
func (k Key) Update(e Edit, now time.Time) (Change, error) {
	now = Instant(now)
	if k.State(now) != StateActive {
		return Change{}, ErrNotLive
	}
	if e.Name != nil {
		k.Name = *e.Name
	}
	if e.AllowedIPs != nil {
		k.AllowedIPs = slices.Clone(*e.AllowedIPs)
	}
	if e.APIVersion != nil {
		pin, err := k.Pin.Move(*e.APIVersion, e.DowngradeWindow, now)
		if err != nil {
			return Change{}, err
		}
		k.Pin = pin
	}
	k.UpdatedAt = now
	if err := k.Validate(); err != nil {
		return Change{}, err
	}
	return Change{Action: ActionUpdated, Keys: []Key{k}}, nil
}

// Move returns the pin after it was set to version. Versions are dates, so
// they compare as text. Moving up, or pinning what was not pinned, opens a
// window in which moving down is still allowed.
func (p Pin) Move(version string, window time.Duration, now time.Time) (Pin, error) {
	switch {
	case version == p.Version:
		return p, nil
	case !validVersion(version):
		return p, &FieldError{FieldAPIVersion, "must be a date, YYYY-MM-DD"}
	case version > p.Version:
		return Pin{version, Instant(now), Instant(now.Add(window))}, nil
	case ended(p.NoDowngradeAfter, now):
		return p, &FieldError{FieldAPIVersion, fmt.Sprintf("cannot move down from %s: that was allowed until %s",
			p.Version, p.NoDowngradeAfter.Format(time.RFC3339))}
	}
	return Pin{version, Instant(now), p.NoDowngradeAfter}, nil
}
