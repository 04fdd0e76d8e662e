package keystore

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cockroachdb/pebble/v2"

	"latchkey/apikey"
)

// PutUses writes when keys were last used, one use a key. Uses have rows of
// their own: neither a key's record nor what caches hold of it is touched.
func (s *Store) PutUses(uses []apikey.Use) error {
	if len(uses) == 0 {
		return nil
	}
	if err := s.use(); err != nil {
		return err
	}
	defer s.life.RUnlock()
	if err := s.checkRoom(); err != nil {
		return err
	}
	w := s.newWriter()
	defer w.batch.Close()
	for i := range uses {
		w.set(useKey(uses[i].Key), appendUse(nil, &uses[i]))
	}
	if err := errors.Join(w.err, w.batch.Commit(pebble.Sync)); err != nil {
		return fmt.Errorf("write last uses: %w", err)
	}
	return nil
}

// Uses returns the last use of each of the keys, the zero Use where there is
// none.
func (s *Store) Uses(ids []apikey.ID) ([]apikey.Use, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()
	uses := make([]apikey.Use, len(ids))
	for i, id := range ids {
		row, err := get(s.db, useKey(id))
		if errors.Is(err, apikey.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		uses[i], err = decodeUse(row.value, id)
		row.close()
		if err != nil {
			return nil, fmt.Errorf("decode last use of key %s: %w", id, err)
		}
	}
	return uses, nil
}

const (
	tagUseAt = iota + 1
	tagUseAddress
	tagUseRoute
)

// appendUse appends all of u but its key's ID, which is in the row's key.
func appendUse(b []byte, u *apikey.Use) []byte {
	b = appendTime(b, tagUseAt, apikey.Instant(u.At))
	if u.Address.IsValid() {
		b = appendField(b, tagUseAddress, u.Address.AsSlice())
	}
	return appendText(b, tagUseRoute, u.Route)
}

// decodeUse reads what appendUse wrote.
func decodeUse(row []byte, id apikey.ID) (apikey.Use, error) {
	u := apikey.Use{Key: id}
	err := eachField(string(row), func(tag byte, v fieldValue) (err error) {
		switch tag {
		case tagUseAt:
			u.At, err = v.time()
		case tagUseAddress:
			var ok bool
			if u.Address, ok = netip.AddrFromSlice([]byte(v)); !ok {
				err = errCorrupt
			}
		case tagUseRoute:
			u.Route = string(v)
		default:
			err = errCorrupt
		}
		return err
	})
	if err == nil && u.At.IsZero() {
		err = errCorrupt
	}
	return u, err
}
