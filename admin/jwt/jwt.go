// Package jwt signs the tokens that Truvera calls keys, so that upstreams can
// check them without asking.
//
// The gateway itself never reads one: it looks a token up by its digest like
// any other secret, so nothing that a token's header says can talk it into
// anything.
package jwt

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"latchkey/apikey"
)

// Issuer is the `iss` of every token.
const Issuer = "latchkey"

// A Keyring keeps signing keys. AddSigningKey retires the key before.
type Keyring interface {
	SigningKeys() ([]apikey.SigningKey, error)
	AddSigningKey(apikey.SigningKey) error
}

// Claims are what a token says (RFC 7519, section 4.1). Times are seconds since
// 1970.
type Claims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"` // the tenant
	ID       string `json:"jti"` // the key's ID
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
}

// A Signer signs with the newest key of a ring. Its methods may be called by any
// goroutine.
type Signer struct {
	ring Keyring

	mu     sync.RWMutex
	signer jose.Signer
	set    []byte // the public halves of all keys, as a JWK Set
}

// NewSigner returns a signer over the ring, to which it adds a key if there is
// none.
func NewSigner(ring Keyring, now time.Time) (*Signer, error) {
	s := &Signer{ring: ring}
	keys, err := ring.SigningKeys()
	if err != nil {
		return nil, fmt.Errorf("open signing keys: %w", err)
	}
	if len(keys) == 0 {
		return s, s.Rotate(now)
	}
	return s, s.load(keys)
}

// Rotate makes a new key the one that signs. The ones before stay in the set, so
// that tokens they signed go on being good.
func (s *Signer) Rotate(now time.Time) error {
	key := apikey.SigningKey{ID: rand.Text(), CreatedAt: now}
	rand.Read(key.Seed[:]) // never fails: crypto/rand ends the process instead
	if err := s.ring.AddSigningKey(key); err != nil {
		return fmt.Errorf("rotate signing key: %w", err)
	}
	keys, err := s.ring.SigningKeys()
	if err != nil {
		return fmt.Errorf("rotate signing key: %w", err)
	}
	return s.load(keys)
}

// load makes the newest of the keys the signing one.
func (s *Signer) load(keys []apikey.SigningKey) error {
	var set jose.JSONWebKeySet
	var newest jose.JSONWebKey
	for _, k := range keys {
		private := ed25519.NewKeyFromSeed(k.Seed[:])
		newest = jose.JSONWebKey{Key: private, KeyID: k.ID}
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: private.Public(), KeyID: k.ID, Algorithm: string(jose.EdDSA), Use: "sig"})
	}
	encoded, err := json.Marshal(set)
	if err != nil {
		return fmt.Errorf("encode public keys: %w", err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: newest}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return fmt.Errorf("make signer: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signer, s.set = signer, encoded
	return nil
}

// Sign returns the token that makes the claims, in compact form.
func (s *Signer) Sign(c Claims) (string, error) {
	payload, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	s.mu.RLock()
	signer := s.signer
	s.mu.RUnlock()
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return signed.CompactSerialize()
}

// KeySet returns the public keys as a JWK Set (RFC 7517, section 5).
func (s *Signer) KeySet() []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.set
}
