// Package apikey is the domain: what an API key is, what may change it and
// whom it admits.
//
// Everything here is a pure function of its arguments. The package knows no
// storage, no HTTP, no clock and no randomness: callers pass the time and the
// entropy in, so every rule can be tested by value. Package keystore keeps
// keys, package proxy/gate applies Admit to requests, and the admin dialects
// turn wire bodies into the changes declared here.
package apikey

import "time"

// DefaultTenant is the tenant meant by an operator of all tenants who names
// none.
const DefaultTenant = "default"

// AnyTenant stands for every tenant where an operator or a look-up is not
// bound to one. No key has it.
const AnyTenant = "*"

// EnvironmentLive is the environment of a key that names none.
const EnvironmentLive = "live"

// EnvironmentTest is the environment whose secrets are marked "test".
const EnvironmentTest = "test"

// A Key is one API key as it stands. Keys are values: a function that changes
// one returns a new one, and a *Key shared between goroutines is never written.
//
// Times are in UTC and whole microseconds; the zero time means "not set".
type Key struct {
	ID     ID
	Digest Digest // SHA-256 of the secret; the secret itself is kept nowhere
	Hint   Hint   // what may be shown of the secret

	Tenant      string // who owns the key; never empty, never AnyTenant
	Subject     string // the user or team it was made for; may be empty
	Name        string // for people; may be empty
	Environment string // "live", "test" or the tenant's own; empty means live

	AllowedIPs Allowlist // empty admits every address
	Scopes     []string  // empty means no scopes, not all scopes
	Pin        Pin       // the upstream API version it is tied to

	CreatedAt time.Time
	UpdatedAt time.Time // of the last change; CreatedAt until there is one
	ExpiresAt time.Time // the first instant at which the key no longer admits
	RevokedAt time.Time
	EndedAt   time.Time // set once, by Sweep, when the key was found past its end
	Rotation  Rotation
}

// Rotation says how a key is replaced and whether it has been.
type Rotation struct {
	ReplacedBy  ID        // the key that took over; zero while there is none
	GraceEndsAt time.Time // the first instant at which a replaced key no longer admits

	EveryDays  int       // days between scheduled rotations; zero means none
	NextAt     time.Time // when the next scheduled rotation is due
	WebhookURL string    // where a scheduled rotation delivers the new secret
	Pending    ID        // the replacement that was begun and waits for the webhook; see Delivery
}

// A Pin ties a key to a version of the upstream's API.
type Pin struct {
	Version          string    // YYYY-MM-DD; empty means not pinned
	ChangedAt        time.Time // when the version was last changed after creation
	NoDowngradeAfter time.Time // from then on the version can only move up
}

// State says whether a key may be used at all, before anything about the
// request is asked.
type State uint8

// The states of a key. Only StateActive admits.
const (
	StateActive  State = iota
	StateRevoked       // an operator ended it
	StateExpired       // its ExpiresAt has come
	StateRotated       // it was replaced and its grace is over
)

// String names the state for people and logs.
func (s State) String() string {
	switch s {
	case StateActive:
		return "active"
	case StateRevoked:
		return "revoked"
	case StateExpired:
		return "expired"
	case StateRotated:
		return "rotated"
	}
	return "unknown"
}

// State returns the key's state at now; see Grant.
func (k *Key) State(now time.Time) State {
	v := k.validity()
	return v.State(now)
}

// Live reports whether the key is listed among those in use. It stays so until
// it is revoked or, within about a second of its end, swept.
func (k *Key) Live() bool { return k.RevokedAt.IsZero() && k.EndedAt.IsZero() }

// EndsAt returns the earliest instant at which a live key stops admitting
// without anyone changing it, and the zero time if there is none or the key is
// not live.
func (k *Key) EndsAt() time.Time {
	if !k.Live() {
		return time.Time{}
	}
	if g := k.Rotation.GraceEndsAt; !g.IsZero() && (k.ExpiresAt.IsZero() || g.Before(k.ExpiresAt)) {
		return g
	}
	return k.ExpiresAt
}

// EnvironmentName returns the key's environment, "live" where it names none.
func (k *Key) EnvironmentName() string { return environmentName(k.Environment) }

func environmentName(name string) string {
	if name == "" {
		return EnvironmentLive
	}
	return name
}

// ended reports whether the limit is set and has been reached.
func ended(limit, now time.Time) bool { return !limit.IsZero() && !now.Before(limit) }

// Instant cuts t to what a Key can hold: UTC, whole microseconds. Every time
// that enters a Key goes through it, so that what is answered at creation
// equals what is read back.
func Instant(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}
