package apikey

import (
	"fmt"
	"time"
)

// A SigningKey is the private half of a key that signs Truvera's JWTs, as its
// Ed25519 seed (RFC 8032, section 5.1.5). It never leaves the store's
// directory, which is readable by its owner alone: no dialect shows it, and
// neither printing nor JSON gives the seed away.
type SigningKey struct {
	ID        string   // the `kid` of the tokens it signs; never empty
	Seed      [32]byte `json:"-"`
	CreatedAt time.Time
	RetiredAt time.Time // from then on it signs nothing; zero while it may sign
}

// Format keeps seeds out of logs: whatever the verb, a signing key prints as
// its ID.
func (k SigningKey) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "signing key %q", k.ID) }
