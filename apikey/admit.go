package apikey

import (
	"net/netip"
	"slices"
	"time"
)

// A Verdict is the answer to "may this request pass?". The set is closed:
// every request gets exactly one, and a fault of ours is never one of them.
type Verdict uint8

// The verdicts. MissingKey and InvalidKey are for requests that name no key
// the store knows; the others are about a key that was found.
const (
	Allowed           Verdict = iota
	MissingKey                // no credential was presented
	InvalidKey                // the credential is malformed or unknown
	RevokedKey                // see StateRevoked
	ExpiredKey                // see StateExpired
	RotatedKey                // see StateRotated
	IPNotAllowed              // the client's address is not on the allowlist
	InsufficientScope         // a scope the route requires is missing
	KeyNotAllowedHere         // the key's tenant or environment is not the route's
)

// Verdicts lists every verdict, in order, for metrics and tables.
func Verdicts() []Verdict {
	return []Verdict{Allowed, MissingKey, InvalidKey, RevokedKey, ExpiredKey, RotatedKey,
		IPNotAllowed, InsufficientScope, KeyNotAllowedHere}
}

// String returns the verdict's name on the wire: the `code` of a refusal and
// the value of the metric label.
func (v Verdict) String() string {
	switch v {
	case Allowed:
		return "allowed"
	case MissingKey:
		return "missing_api_key"
	case InvalidKey:
		return "invalid_api_key"
	case RevokedKey:
		return "revoked_api_key"
	case ExpiredKey:
		return "expired_api_key"
	case RotatedKey:
		return "rotated_api_key"
	case IPNotAllowed:
		return "ip_not_allowed"
	case InsufficientScope:
		return "insufficient_scope"
	case KeyNotAllowedHere:
		return "key_not_allowed_here"
	}
	return "unknown"
}

// A Demand is what a route asks of a key.
type Demand struct {
	Scopes       []string // the key must have all of them
	Tenants      []string // the key must be of one of them; empty means any
	Environments []string // likewise
}

// Admit decides whether a request from the given address may use the key for
// what the demand asks. Expiry and grace are decided here, by the clock, on
// every request; nothing that cleans up later has a say. What a caller learns
// goes from the key outwards: one who holds a dead key, or a live one in the
// wrong place, is not told what the route would have asked next.
//
// Admit runs once per request, does not allocate (TestAdmitAllocs) and keeps
// no reference to its arguments.
func (g *Grant) Admit(d *Demand, from netip.Addr, now time.Time) Verdict {
	switch g.State(now) {
	case StateActive:
	case StateExpired:
		return ExpiredKey
	case StateRotated:
		return RotatedKey
	default:
		return RevokedKey
	}
	if !g.AllowedIPs.Admits(from) {
		return IPNotAllowed
	}
	if len(d.Tenants) > 0 && !slices.Contains(d.Tenants, g.Tenant) {
		return KeyNotAllowedHere
	}
	if len(d.Environments) > 0 && !slices.Contains(d.Environments, g.EnvironmentName()) {
		return KeyNotAllowedHere
	}
	for _, s := range d.Scopes {
		if !slices.Contains(g.Scopes, s) {
			return InsufficientScope
		}
	}
	return Allowed
}
