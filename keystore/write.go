package keystore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"latchkey/apikey"
)

// Create commits new keys, all or none. An ID or digest that is already there
// gives apikey.ErrExists.
func (s *Store) Create(by apikey.Origin, c apikey.Change) error {
	_, err := s.change(by, func() (*apikey.Key, apikey.Change, error) { return nil, c, nil })
	return err
}

// Change reads the tenant's key with the given ID, lets decide say what it is
// to become, and commits that. Nothing else changes the key in between. The
// first key of the change is the one that was read; any further ones are new.
// An error of decide is returned as it is, with nothing written.
func (s *Store) Change(by apikey.Origin, tenant string, id apikey.ID, decide func(apikey.Key) (apikey.Change, error)) (apikey.Change, error) {
	return s.change(by, func() (*apikey.Key, apikey.Change, error) {
		before, err := byID(s.db, tenant, id)
		if err != nil {
			return nil, apikey.Change{}, err
		}
		c, err := decide(before)
		if err == nil && !sameKey(c.Keys, &before) {
			err = fmt.Errorf("change of key %s is not about it", id)
		}
		return &before, c, err
	})
}

// sameKey reports whether a change is about the key: what its rows are found
// by never changes.
func sameKey(keys []apikey.Key, before *apikey.Key) bool {
	return len(keys) > 0 && keys[0].ID == before.ID && keys[0].Digest == before.Digest && keys[0].Tenant == before.Tenant
}

// change is the one way into the store. It orders changes, gives each a
// revision, writes everything that follows from it in one batch, and returns
// only when the batch is on disk and the caches have been told. The write lock
// covers decision and visibility but not the sync, so that concurrent changes
// share one.
func (s *Store) change(by apikey.Origin, decide func() (*apikey.Key, apikey.Change, error)) (apikey.Change, error) {
	if err := s.use(); err != nil {
		return apikey.Change{}, err
	}
	defer s.life.RUnlock()
	if err := s.checkRoom(); err != nil {
		return apikey.Change{}, err
	}
	batch := s.db.NewBatch()
	defer batch.Close()

	before, c, err := s.apply(batch, by, decide)
	switch {
	case errors.Is(err, apikey.ErrNotLive) && before != nil, errors.Is(err, apikey.ErrExists), errors.Is(err, errNothingNew):
		// "It has been revoked" is an answer about an earlier change, which is
		// visible and may not be on disk yet.
		s.settle()
	}
	if err != nil {
		return apikey.Change{}, err
	}
	if err := batch.SyncWait(); err != nil {
		// The change is visible and may not be on disk. ApplyNoSyncWait leaves
		// it to us to end the process over that.
		s.logger.Fatalf("sync change: %v", err)
	}
	return c, nil
}

// settle returns once all changes that are visible are on disk. A sync of the log
// covers all that was written to it before.
func (s *Store) settle() {
	if err := s.db.LogData(nil, pebble.Sync); err != nil {
		s.logger.Fatalf("sync log: %v", err)
	}
}

// apply decides on a change and makes it visible. With an error of decide it
// returns the key that was decided on.
func (s *Store) apply(batch *pebble.Batch, by apikey.Origin, decide func() (*apikey.Key, apikey.Change, error)) (*apikey.Key, apikey.Change, error) {
	s.write.Lock()
	defer s.write.Unlock()
	before, c, err := decide()
	if err != nil {
		return before, apikey.Change{}, err
	}
	w := s.writerTo(batch)
	w.revision = s.revision + 1
	for i := range c.Keys {
		old := before
		if i > 0 || before == nil {
			old = nil
			if err := w.checkNew(&c.Keys[i]); err != nil {
				return nil, apikey.Change{}, err
			}
		}
		action := c.Action
		if old == nil {
			action = apikey.ActionCreated
		}
		w.put(old, &c.Keys[i])
		w.audit(by, action, uint32(i), old, &c.Keys[i])
	}
	if err := w.putBeside(before, &c, by.At); err != nil {
		return nil, apikey.Change{}, err
	}
	if err := w.putCounts(); err != nil {
		return nil, apikey.Change{}, err
	}
	if w.err != nil {
		return nil, apikey.Change{}, fmt.Errorf("build batch: %w", w.err)
	}
	if before != nil {
		// Until the change is visible, and not until it is on disk: another call may
		// find the change and answer for it, see settle.
		s.watcher.Changing(&before.Digest)
		defer s.watcher.Changed(&before.Digest)
	}
	if err := s.db.ApplyNoSyncWait(batch, pebble.Sync); err != nil {
		return nil, apikey.Change{}, fmt.Errorf("apply change: %w", err)
	}
	s.revision++
	if before != nil {
		s.damaged.forget(&before.Digest)
	}
	return before, c, nil
}

// checkRoom refuses changes while the disk is nearly full. What is held back is
// what compactions need to free space.
func (s *Store) checkRoom() error {
	if err := s.disk.room(); err != nil {
		return err
	}
	return s.disk.tables()
}

// A writer collects the rows of one change. It keeps the first error.
type writer struct {
	store  *Store
	batch  *pebble.Batch
	counts map[string]int // change in the length of each list, by the row that keeps it
	seen   map[any]bool   // the IDs and digests of the new keys so far
	err    error

	revision uint64 // of the change
	staged   bool   // rows are kept apart; see staging
}

func (s *Store) newWriter() *writer { return s.writerTo(s.db.NewBatch()) }

func (s *Store) writerTo(batch *pebble.Batch) *writer {
	return &writer{store: s, batch: batch, counts: map[string]int{}, seen: map[any]bool{}}
}

// putBeside writes what a change keeps beside the keys.
func (w *writer) putBeside(before *apikey.Key, c *apikey.Change, now time.Time) error {
	last := &c.Keys[len(c.Keys)-1]
	if c.Delivery != nil {
		w.putDelivery(c.Delivery)
	}
	if c.WebhookSecret != "" {
		w.putWebhookSecret(last, c.WebhookSecret)
	}
	if before != nil && before.Rotation.WebhookURL != "" && len(c.Keys) > 1 {
		w.passWebhookSecret(before, last)
	}
	if c.Receipt != nil {
		return w.putReceipt(c.Receipt, now)
	}
	return nil
}

// checkNew reports a key that is already in the store or earlier in the change.
func (w *writer) checkNew(k *apikey.Key) error {
	if w.seen[k.Digest] {
		return fmt.Errorf("key %s: digest: %w", k.ID, apikey.ErrExists)
	}
	if w.seen[k.ID] {
		return fmt.Errorf("key %s: %w", k.ID, apikey.ErrExists)
	}
	if w.store.filter.mayHave(&k.Digest) {
		if err := w.absent(appendDigestKey(nil, &k.Digest)); err != nil {
			return fmt.Errorf("key %s: digest: %w", k.ID, err)
		}
	}
	if err := w.absent(recordKey(k.ID)); err != nil {
		return fmt.Errorf("key %s: %w", k.ID, err)
	}
	w.seen[k.Digest], w.seen[k.ID] = true, true
	return nil
}

// absent gives apikey.ErrExists if the row is there, or is about to be because
// an import under way has it.
func (w *writer) absent(key []byte) error {
	err := absent(w.store.db, key)
	if err == nil && w.store.staging.Load() {
		err = absent(w.store.db, staged(key))
	}
	return err
}

func absent(r pebble.Reader, key []byte) error {
	row, err := get(r, key)
	switch {
	case errors.Is(err, apikey.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	row.close()
	return apikey.ErrExists
}

// put writes the key and everything derived from it, in place of before.
func (w *writer) put(before, k *apikey.Key) {
	if before == nil {
		// Before the key can be found, so that the filter never rules it out.
		w.store.filter.add(&k.Digest)
	}
	fields := appendKey(nil, k)
	w.set(recordKey(k.ID), append(k.Digest[:], fields...))
	w.set(appendDigestKey(nil, &k.Digest), append(k.ID[:], fields...))
	if before == nil || before.Live() != k.Live() {
		w.set(listKey(k), nil)
		w.counts[string(listPrefix(familyCount, k.Tenant, stateOf(k.Live())))]++
	}
	if before != nil && before.Live() != k.Live() {
		w.delete(listKey(before))
		w.counts[string(listPrefix(familyCount, before.Tenant, stateOf(before.Live())))]--
	}
	w.putDue(DueEnd, before, k, (*apikey.Key).EndsAt)
	w.putDue(DueRotation, before, k, nextRotation)
	if before != nil {
		w.followRotation(before, k)
	}
}

// nextRotation returns when a key's rotation is to begin, the zero time if it
// is not, or has begun.
func nextRotation(k *apikey.Key) (at time.Time) {
	if !k.Live() || !k.Rotation.Pending.IsZero() {
		return at
	}
	return k.Rotation.NextAt
}

func (w *writer) putDue(kind DueKind, before, k *apikey.Key, due func(*apikey.Key) time.Time) {
	at := due(k)
	if before != nil {
		was := due(before)
		if was.Equal(at) {
			return
		}
		if !was.IsZero() {
			w.delete(dueKey(kind, was, k.ID))
		}
	}
	if !at.IsZero() {
		w.set(dueKey(kind, at, k.ID), nil)
	}
}

// audit writes the event and the rows by which it is found.
func (w *writer) audit(by apikey.Origin, action apikey.Action, ordinal uint32, before, k *apikey.Key) {
	e := apikey.Event{Place: apikey.Place{Revision: w.revision, Ordinal: ordinal}, Origin: by, Action: action, Key: k.ID, Tenant: k.Tenant}
	if before != nil {
		e.Fields = apikey.Diff(before, k)
	}
	w.set(auditKey(e.Revision, ordinal), appendEvent(nil, &e))
	w.set(keyAuditKey(k.ID, e.Revision, ordinal), nil)
	w.set(tenantAuditKey(k.Tenant, e.Revision, ordinal), nil)
}

// putCounts writes the new lengths of the lists. Changes are ordered, so
// reading, adding and writing back loses none.
func (w *writer) putCounts() error {
	for key, delta := range w.counts {
		if delta == 0 {
			continue
		}
		n := 0
		row, err := get(w.store.db, []byte(key))
		if err == nil {
			n, err = countOf(row.value)
			row.close()
		} else if errors.Is(err, apikey.ErrNotFound) {
			err = nil
		}
		if err != nil {
			return err
		}
		w.set([]byte(key), binary.BigEndian.AppendUint64(nil, uint64(n+delta)))
	}
	return nil
}

func (w *writer) set(key, value []byte) {
	if w.staged {
		key = staged(key)
	}
	w.fail(w.batch.Set(key, value, nil))
}

func (w *writer) delete(key []byte) { w.fail(w.batch.Delete(key, nil)) }

func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}
