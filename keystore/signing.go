package keystore

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"latchkey/apikey"
)

// A SigningKey is the private half of a key that signs Truvera JWTs, as its
// Ed25519 seed (RFC 8032, section 5.1.5). It never leaves the store's
// directory, which is readable by its owner alone (0700): no dialect shows it,
// and neither printing nor JSON gives the seed away.
type SigningKey struct {
	ID        string   // the `kid` of the tokens it signs; never empty
	Seed      [32]byte `json:"-"`
	CreatedAt time.Time
	RetiredAt time.Time // from then on it signs nothing; zero while it may sign
}

// Format keeps seeds out of logs: whatever the verb, a signing key prints as
// its ID.
func (k SigningKey) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "signing key %q", k.ID) }

// errUnnamedSigningKey reports a signing key that no token could refer to.
var errUnnamedSigningKey = errors.New("signing key has no ID")

// AddSigningKey keeps a signing key for good; it is on disk when AddSigningKey
// returns. An ID that is already there gives apikey.ErrExists.
func (s *Store) AddSigningKey(k SigningKey) error {
	if k.ID == "" {
		return errUnnamedSigningKey
	}
	if err := s.use(); err != nil {
		return err
	}
	defer s.life.RUnlock()
	if err := s.checkRoom(); err != nil {
		return err
	}
	s.write.Lock()
	defer s.write.Unlock()
	key := signingKey(k.ID)
	if err := absent(s.db, key); err != nil {
		return fmt.Errorf("add signing key %q: %w", k.ID, err)
	}
	if err := s.db.Set(key, appendSigningKey(nil, &k), pebble.Sync); err != nil {
		return fmt.Errorf("add signing key %q: %w", k.ID, err)
	}
	return nil
}

// SigningKeys returns every signing key, retired ones too, oldest first.
func (s *Store) SigningKeys() ([]SigningKey, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()
	it, err := s.iter([]byte{familySigning})
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	var keys []SigningKey
	for it.First(); it.Valid(); it.Next() {
		k, err := decodeSigningKey(it.Value(), string(it.Key()[1:]))
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		keys = append(keys, k)
	}
	if err := it.Close(); err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	slices.SortStableFunc(keys, func(a, b SigningKey) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return keys, nil
}

func signingKey(id string) []byte { return append([]byte{familySigning}, id...) }

const (
	tagSigningSeed = iota + 1
	tagSigningCreatedAt
	tagSigningRetiredAt
)

// appendSigningKey appends all of k but its ID, which is in the row's key.
func appendSigningKey(b []byte, k *SigningKey) []byte {
	b = appendField(b, tagSigningSeed, k.Seed[:])
	b = appendTime(b, tagSigningCreatedAt, apikey.Instant(k.CreatedAt))
	return appendTime(b, tagSigningRetiredAt, apikey.Instant(k.RetiredAt))
}

// decodeSigningKey reads what appendSigningKey wrote.
func decodeSigningKey(row []byte, id string) (SigningKey, error) {
	k, seeded := SigningKey{ID: id}, false
	err := eachField(row, func(tag byte, v fieldValue) (err error) {
		switch tag {
		case tagSigningSeed:
			if len(v) != len(k.Seed) {
				return errCorrupt
			}
			seeded = true
			copy(k.Seed[:], v)
		case tagSigningCreatedAt:
			k.CreatedAt, err = v.time()
		case tagSigningRetiredAt:
			k.RetiredAt, err = v.time()
		default:
			err = errCorrupt
		}
		return err
	})
	if err == nil && (!seeded || id == "") {
		err = errCorrupt
	}
	if err != nil {
		return SigningKey{}, fmt.Errorf("decode signing key %q: %w", id, err)
	}
	return k, nil
}
