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
	"slices"
	"sync"

	"github.com/go-jose/go-jose/v4"

	"latchkey/apikey"
)

// Issuer is the `iss` of every token.
const Issuer = "latchkey"

// A Keyring keeps signing keys. AddSigningKey retires the key before; RemoveSigningKey
// takes out one that is retired.
type Keyring interface {
	SigningKeys() ([]apikey.SigningKey, error)
	AddSigningKey(apikey.Origin, apikey.SigningKey) error
	RemoveSigningKey(by apikey.Origin, id string) error
}

// Claims are what a token says (RFC 7519, section 4.1). Times are seconds since
// 1970.
type Claims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"` // the tenant
	ID       string `json:"jti"` // the key's ID
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`

	// Random has 256 random bits. Without it whoever has the signing key could make a token
	// that was issued once more from what lists show of its key: Ed25519 signs alike each time.
	Random string `json:"rnd"`
}

// A Signer signs with the key of a ring that is not retired. Its methods may be called by any
// goroutine.
type Signer struct {
	ring     Keyring
	changing sync.Mutex // the ring

	mu     sync.RWMutex
	signer jose.Signer
	set    []byte // the public halves of all keys, as a JWK Set
}

// NewSigner returns a signer over the ring, to which it adds a key if there is
// none.
func NewSigner(ring Keyring, by apikey.Origin) (*Signer, error) {
	s := &Signer{ring: ring}
	keys, err := ring.SigningKeys()
	if err != nil {
		return nil, fmt.Errorf("open signing keys: %w", err)
	}
	if !slices.ContainsFunc(keys, apikey.SigningKey.Signs) {
		return s, s.Rotate(by)
	}
	return s, s.load(keys)
}

// Rotate makes a new key the one that signs. The ones before stay in the set, so
// that tokens they signed go on being good.
func (s *Signer) Rotate(by apikey.Origin) error {
	var seed [ed25519.SeedSize]byte
	rand.Read(seed[:]) // never fails: crypto/rand ends the process instead
	return s.change(func() error { return s.ring.AddSigningKey(by, apikey.NewSigningKey(rand.Text(), seed, by.At)) })
}

// Withdraw takes a retired key out of the set: tokens that it signed are good no longer
// for those who check them by the set. For the key that signs it gives apikey.ErrSigns, for
// an ID that is not there apikey.ErrNotFound.
func (s *Signer) Withdraw(by apikey.Origin, id string) error {
	return s.change(func() error { return s.ring.RemoveSigningKey(by, id) })
}

// change has the ring changed and reads it again: also where that failed, since it may
// have failed to be read after the change before.
func (s *Signer) change(ring func() error) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	changed := ring()
	keys, err := s.ring.SigningKeys()
	if err == nil {
		err = s.load(keys)
	}
	if err != nil {
		return fmt.Errorf("read signing keys: %w", err) // what is published may be wrong; nothing else matters then
	}
	return changed
}

// load makes the one of the keys that is not retired the signing one, and the last of the
// set. It need not be the newest: a clock may have been set back.
func (s *Signer) load(keys []apikey.SigningKey) error {
	var set jose.JSONWebKeySet
	var signing, last jose.JSONWebKey
	for _, k := range keys {
		public := jose.JSONWebKey{Key: ed25519.PublicKey(k.Public[:]), KeyID: k.ID, Algorithm: string(jose.EdDSA), Use: "sig"}
		if k.Signs() {
			signing, last = jose.JSONWebKey{Key: ed25519.NewKeyFromSeed(k.Seed[:]), KeyID: k.ID}, public
		} else {
			set.Keys = append(set.Keys, public)
		}
	}
	set.Keys = append(set.Keys, last)
	encoded, err := json.Marshal(set)
	if err != nil {
		return fmt.Errorf("encode public keys: %w", err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: signing}, (&jose.SignerOptions{}).WithType("JWT"))
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
