package keystore

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"latchkey/apikey"
)

// errNoSigningKey reports a signing key that no token could refer to, or that has always
// been one.
var errNoSigningKey = errors.New("signing key has no ID or no time")

// AddSigningKey makes k the key that signs from its creation on. The one before
// it is retired at that instant; its public half stays so that what it signed can be
// checked, its private half is not kept. Table files have it, sealed, until
// they are compacted. An ID that is already there gives apikey.ErrExists.
func (s *Store) AddSigningKey(by apikey.Origin, k apikey.SigningKey) error {
	if k.ID == "" || k.CreatedAt.IsZero() {
		return errNoSigningKey
	}
	return s.changeSigningKeys(by, apikey.ActionSigningKeyAdded, k.ID, func(batch *pebble.Batch) error {
		if err := absent(s.db, signingKey(k.ID)); err != nil {
			return err
		}
		keys, err := s.signingKeys()
		if err != nil {
			return err
		}
		for _, old := range keys {
			if old.Signs() {
				old = old.Retire(k.CreatedAt)
				err = errors.Join(err, batch.Set(signingKey(old.ID), appendSigningKey(nil, &old, nil), nil))
			}
		}
		row := signingKey(k.ID)
		sealed := s.sealer.seal(row, apikey.Secret(k.Seed[:]))
		return errors.Join(err, batch.Set(row, appendSigningKey(nil, &k, sealed), nil))
	})
}

// RemoveSigningKey takes out a key that is retired. One that signs gives
// apikey.ErrSigns, an ID that is not there apikey.ErrNotFound.
func (s *Store) RemoveSigningKey(by apikey.Origin, id string) error {
	return s.changeSigningKeys(by, apikey.ActionSigningKeyWithdrawn, id, func(batch *pebble.Batch) error {
		keys, err := s.signingKeys()
		if err != nil {
			return err
		}
		at := slices.IndexFunc(keys, func(k apikey.SigningKey) bool { return k.ID == id })
		switch {
		case at < 0:
			return apikey.ErrNotFound
		case keys[at].Signs():
			return apikey.ErrSigns
		}
		return batch.Delete(signingKey(id), nil)
	})
}

// changeSigningKeys writes what change puts into the batch and the event that tells of it,
// all or nothing.
func (s *Store) changeSigningKeys(by apikey.Origin, action apikey.Action, id string, change func(*pebble.Batch) error) error {
	if err := s.use(); err != nil {
		return err
	}
	defer s.life.RUnlock()
	if err := s.checkRoom(); err != nil {
		return err
	}
	s.write.Lock()
	defer s.write.Unlock()
	batch := s.db.NewBatch()
	defer batch.Close()
	e := apikey.Event{Place: apikey.Place{Revision: s.revision + 1}, Origin: by, Action: action, Tenant: apikey.AnyTenant, SigningKey: id}
	err := change(batch)
	if err == nil {
		err = batch.Set(auditKey(e.Revision, 0), appendEvent(nil, &e), nil)
	}
	if err == nil {
		err = batch.Commit(pebble.Sync)
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", action, id, err)
	}
	s.revision++
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
		k, err := decodeSigningKey(it.Value(), string(it.Key()[1:]), func(sealed []byte) (apikey.Secret, error) { return s.sealer.open(it.Key(), sealed) })
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
	tagSigningPublic = iota + 1
	tagSigningSeed
	tagSigningCreatedAt
	tagSigningRetiredAt
)

// appendSigningKey appends all of k but its ID, which is in the row's key. The sealed seed
// is there for the key that signs alone.
func appendSigningKey(b []byte, k *apikey.SigningKey, sealed []byte) []byte {
	b = appendField(b, tagSigningPublic, k.Public[:])
	if k.Signs() {
		b = appendField(b, tagSigningSeed, sealed)
	}
	b = appendTime(b, tagSigningCreatedAt, apikey.Instant(k.CreatedAt))
	return appendTime(b, tagSigningRetiredAt, apikey.Instant(k.RetiredAt))
}

// decodeSigningKey reads what appendSigningKey wrote. Where open is nil the seed stays
// sealed, and the key is without.
func decodeSigningKey(row []byte, id string, open func([]byte) (apikey.Secret, error)) (apikey.SigningKey, error) {
	k, public, private := apikey.SigningKey{ID: id}, false, false
	err := eachField(string(row), func(tag byte, v fieldValue) (err error) {
		switch tag {
		case tagSigningPublic:
			public = copy(k.Public[:], v) == len(v) && len(v) == ed25519.PublicKeySize
		case tagSigningSeed:
			private = true
			if open == nil {
				return nil
			}
			seed, err := open([]byte(v))
			if err != nil {
				return err
			}
			if len(seed) != ed25519.SeedSize {
				return errCorrupt
			}
			copy(k.Seed[:], seed)
			if apikey.NewSigningKey(id, k.Seed, k.CreatedAt).Public != k.Public {
				return errCorrupt
			}
		case tagSigningCreatedAt:
			k.CreatedAt, err = v.time()
		case tagSigningRetiredAt:
			k.RetiredAt, err = v.time()
		default:
			err = errCorrupt
		}
		return err
	})
	if err == nil && (!public || id == "" || k.CreatedAt.IsZero() || private != k.Signs()) {
		err = errCorrupt
	}
	if err != nil {
		return apikey.SigningKey{}, fmt.Errorf("decode signing key %q: %w", id, err)
	}
	return k, nil
}
