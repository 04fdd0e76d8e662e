package keystore

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"latchkey/apikey"
)

// errUnnamedSigningKey reports a signing key that no token could refer to.
var errUnnamedSigningKey = errors.New("signing key has no ID")

// AddSigningKey makes k the key that signs from its creation on. The one before
// it is retired at that instant, and stays so that what it signed can be
// checked. An ID that is already there gives apikey.ErrExists.
func (s *Store) AddSigningKey(k apikey.SigningKey) error {
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
	if err := absent(s.db, signingKey(k.ID)); err != nil {
		return fmt.Errorf("add signing key %q: %w", k.ID, err)
	}
	before, err := s.signingKeys()
	if err != nil {
		return err
	}
	batch := s.db.NewBatch()
	defer batch.Close()
	for _, old := range before {
		if old.RetiredAt.IsZero() {
			old.RetiredAt = k.CreatedAt
			err = errors.Join(err, batch.Set(signingKey(old.ID), appendSigningKey(nil, &old), nil))
		}
	}
	err = errors.Join(err, batch.Set(signingKey(k.ID), appendSigningKey(nil, &k), nil))
	if err == nil {
		err = batch.Commit(pebble.Sync)
	}
	if err != nil {
		return fmt.Errorf("add signing key %q: %w", k.ID, err)
	}
	return nil
}

// SigningKeys returns every signing key, retired ones too, oldest first.
func (s *Store) SigningKeys() ([]apikey.SigningKey, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()
	return s.signingKeys()
}

func (s *Store) signingKeys() ([]apikey.SigningKey, error) {
	it, err := s.iter([]byte{familySigning})
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	var keys []apikey.SigningKey
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
	slices.SortStableFunc(keys, func(a, b apikey.SigningKey) int {
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
func appendSigningKey(b []byte, k *apikey.SigningKey) []byte {
	b = appendField(b, tagSigningSeed, k.Seed[:])
	b = appendTime(b, tagSigningCreatedAt, apikey.Instant(k.CreatedAt))
	return appendTime(b, tagSigningRetiredAt, apikey.Instant(k.RetiredAt))
}

// decodeSigningKey reads what appendSigningKey wrote.
func decodeSigningKey(row []byte, id string) (apikey.SigningKey, error) {
	k, seeded := apikey.SigningKey{ID: id}, false
	err := eachField(string(row), func(tag byte, v fieldValue) (err error) {
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
		return apikey.SigningKey{}, fmt.Errorf("decode signing key %q: %w", id, err)
	}
	return k, nil
}
