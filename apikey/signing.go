package apikey

import (
	"crypto/ed25519"
	"fmt"
	"time"
)

// A SigningKey signs Truvera's JWTs with Ed25519 (RFC 8032). Its private half never leaves
// the store, which seals it: no dialect shows it, and neither printing nor JSON gives
// it away.
type SigningKey struct {
	ID        string // the `kid` of the tokens it signs; never empty
	Public    [ed25519.PublicKeySize]byte
	Seed      [ed25519.SeedSize]byte `json:"-"` // the private half; zero once it is retired
	CreatedAt time.Time              // never zero
	RetiredAt time.Time              // since when it signs nothing; zero while it signs
}

// NewSigningKey returns the key that a seed makes.
func NewSigningKey(id string, seed [ed25519.SeedSize]byte, now time.Time) SigningKey {
	private := ed25519.NewKeyFromSeed(seed[:])
	return SigningKey{ID: id, Seed: seed, Public: [ed25519.PublicKeySize]byte(private[ed25519.SeedSize:]), CreatedAt: now}
}

// Retire returns what is kept of the key once it signs nothing: what it signed can be
// checked, and nobody can sign by it.
func (k SigningKey) Retire(now time.Time) SigningKey {
	k.Seed, k.RetiredAt = [ed25519.SeedSize]byte{}, now
	return k
}

// Signs reports whether the key signs.
func (k SigningKey) Signs() bool { return k.RetiredAt.IsZero() }

// Format keeps seeds out of logs: whatever the verb, a signing key prints as
// its ID.
func (k SigningKey) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "signing key %q", k.ID) }
