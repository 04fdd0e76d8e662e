package keystore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"latchkey/apikey"
)

// ByDigest returns the key whose secret has the given digest. This is the data
// plane's look-up on a cache miss: one Get, or none where the filter knows that
// the digest was never issued. An unknown digest gives apikey.ErrNotFound; any
// other error is a fault of the store.
func (s *Store) ByDigest(d *apikey.Digest) (*apikey.Key, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()
	if !s.filter.mayHave(d) {
		return nil, apikey.ErrNotFound
	}
	if err := s.damaged.known(d); err != nil {
		return nil, err
	}
	var buf [1 + len(*d)]byte
	row, err := get(s.db, appendDigestKey(buf[:0], d))
	if err != nil {
		s.damaged.note(d, err)
		return nil, err
	}
	defer row.close()
	id, fields, err := row.split(len(apikey.ID{}))
	if err != nil {
		return nil, err
	}
	return decodeKey(fields, apikey.ID(id), *d)
}

// ByID returns the tenant's key with the given ID; apikey.AnyTenant means
// whosever it is. A key of another tenant gives the same apikey.ErrNotFound as
// one that does not exist.
func (s *Store) ByID(tenant string, id apikey.ID) (apikey.Key, error) {
	if err := s.use(); err != nil {
		return apikey.Key{}, err
	}
	defer s.life.RUnlock()
	return byID(s.db, tenant, id)
}

// List returns a page of a tenant's keys, newest first. It reads what it
// returns and, with an offset, the index rows passed over; the total is kept,
// not counted. A cursor that names no key of the tenant gives
// apikey.ErrNotFound.
func (s *Store) List(q apikey.Query) (apikey.Page, error) {
	if err := s.use(); err != nil {
		return apikey.Page{}, err
	}
	defer s.life.RUnlock()
	if err := s.disk.stuck(); err != nil {
		return apikey.Page{}, err // a snapshot could not be closed
	}
	snap := s.db.NewSnapshot()
	defer snap.Close()
	for _, cursor := range []apikey.ID{q.Before, q.After} {
		if cursor.IsZero() {
			continue
		}
		if _, err := byID(snap, q.Tenant, cursor); err != nil {
			return apikey.Page{}, err
		}
	}
	page, err := list(snap, q)
	if err != nil {
		return apikey.Page{}, fmt.Errorf("list keys: %w", err)
	}
	return page, nil
}

// Due returns the IDs of up to limit keys for which something fell due at now
// or before, the longest due first.
func (s *Store) Due(kind DueKind, now time.Time, limit int) ([]apikey.ID, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()
	lower := []byte{familyDue, byte(kind)}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower,
		UpperBound: dueKey(kind, apikey.Instant(now).Add(time.Microsecond), apikey.ID{})})
	if err != nil {
		return nil, err
	}
	var ids []apikey.ID
	for it.First(); it.Valid() && len(ids) < limit; it.Next() {
		ids = append(ids, idAtEnd(it.Key()))
	}
	return ids, it.Close()
}

// DueEnds returns keys past their end that were not yet recorded as such.
func (s *Store) DueEnds(now time.Time, limit int) ([]apikey.ID, error) {
	return s.Due(DueEnd, now, limit)
}

// DueRotations returns keys whose scheduled rotation is to begin.
func (s *Store) DueRotations(now time.Time, limit int) ([]apikey.ID, error) {
	return s.Due(DueRotation, now, limit)
}

// list collects the IDs of a page from the index and reads their records.
func list(r pebble.Reader, q apikey.Query) (page apikey.Page, err error) {
	var walk listWalk
	defer func() { err = errors.Join(err, walk.close()) }()
	for _, state := range listStates(q.Which) {
		n, err := count(r, q.Tenant, state)
		if err != nil {
			return apikey.Page{}, err
		}
		page.Total += n
		if err := walk.add(r, listPrefix(familyList, q.Tenant, state)); err != nil {
			return apikey.Page{}, err
		}
	}
	ids := walk.page(q, page.Total)
	if len(ids) > 0 {
		page.Newer = walk.seekAfter(ids[0])
		page.Older = walk.seekBefore(ids[len(ids)-1])
	}
	if err := walk.error(); err != nil {
		return apikey.Page{}, err
	}
	page.Keys = make([]apikey.Key, len(ids))
	for i, id := range ids {
		page.Keys[i], err = byID(r, apikey.AnyTenant, id)
		if err != nil {
			return apikey.Page{}, indexed(err)
		}
	}
	return page, nil
}

func byID(r pebble.Reader, tenant string, id apikey.ID) (apikey.Key, error) {
	row, err := get(r, recordKey(id))
	if err != nil {
		return apikey.Key{}, err
	}
	defer row.close()
	digest, fields, err := row.split(len(apikey.Digest{}))
	if err != nil {
		return apikey.Key{}, err
	}
	k, err := decodeKey(fields, id, apikey.Digest(digest))
	if err != nil {
		return apikey.Key{}, err
	}
	if tenant != apikey.AnyTenant && k.Tenant != tenant {
		return apikey.Key{}, apikey.ErrNotFound
	}
	return *k, nil
}

// count reads how many rows a list has.
func count(r pebble.Reader, tenant string, state byte) (int, error) {
	row, err := get(r, listPrefix(familyCount, tenant, state))
	if errors.Is(err, apikey.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer row.close()
	return countOf(row.value)
}

func countOf(value []byte) (int, error) {
	if len(value) != 8 {
		return 0, fmt.Errorf("decode count: %w", errCorrupt)
	}
	return int(binary.BigEndian.Uint64(value)), nil
}

// indexed judges an error about a row that an index names: that it is not
// there is damage, not news about a key.
func indexed(err error) error {
	if errors.Is(err, apikey.ErrNotFound) {
		return fmt.Errorf("read indexed row: %w", errCorrupt)
	}
	return err
}

// A storedRow borrows a value from Pebble until it is closed.
type storedRow struct {
	value []byte
	close func() error
}

func get(r pebble.Reader, key []byte) (storedRow, error) {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return storedRow{}, apikey.ErrNotFound
	}
	if err != nil {
		return storedRow{}, fmt.Errorf("read key store: %w", err)
	}
	return storedRow{value, closer.Close}, nil
}

func (r storedRow) split(n int) (head, tail []byte, err error) {
	if len(r.value) < n {
		return nil, nil, fmt.Errorf("read key store: %w", errCorrupt)
	}
	return r.value[:n], r.value[n:], nil
}

// idAtEnd returns the ID that ends a row's key.
func idAtEnd(key []byte) apikey.ID { return apikey.ID(key[len(key)-len(apikey.ID{}):]) }
