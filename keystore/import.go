package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"latchkey/apikey"
)

// Import commits those of the new keys that can be, in one change, and returns
// for each what keeps it out: apikey.ErrExists where its ID or digest is there
// already. The second error is a fault, and then none was committed.
func (s *Store) Import(by apikey.Origin, keys []apikey.Key) ([]error, error) {
	refused := make([]error, len(keys))
	_, err := s.change(by, func() (*apikey.Key, apikey.Change, error) {
		c := apikey.Change{Action: apikey.ActionCreated}
		check := s.writerTo(nil)
		for i := range keys {
			refused[i] = check.checkNew(&keys[i])
			switch {
			case refused[i] == nil:
				c.Keys = append(c.Keys, keys[i])
			case !errors.Is(refused[i], apikey.ErrExists):
				return nil, apikey.Change{}, refused[i]
			}
		}
		if len(c.Keys) == 0 {
			return nil, apikey.Change{}, errNothingNew
		}
		return nil, c, nil
	})
	if errors.Is(err, errNothingNew) {
		err = nil
	}
	return refused, err
}

// errNothingNew ends an import of which nothing is left.
var errNothingNew = errors.New("nothing new to import")

// A staging is an import that is all or nothing. Its rows are kept apart from
// the others, where no reader looks, until commit has Pebble take them in as
// finished tables, at one instant.
type staging struct {
	store    *Store
	by       apikey.Origin
	revision uint64 // set aside for it, so that the audit rows can be written in advance
	keys     uint32
	counts   map[string]int
	refused  bool // a key, for another that may not be on disk yet
}

// ImportAll imports any number of new keys in constant memory, all or none. It
// calls fill, which adds them: add returns for each key what keeps it out, as
// Import does, and an error after which the import is lost. If fill returns nil
// the keys become part of the store, at one instant, and ImportAll returns once
// that is on disk; else nothing is left of them. There is one such import at a
// time; a second is apikey.ErrImporting.
func (s *Store) ImportAll(by apikey.Origin, fill func(add func([]apikey.Key) ([]error, error)) error) error {
	st, err := s.stage(by)
	if err != nil {
		return err
	}
	defer st.end()
	err = fill(st.add)
	if st.refused {
		if err := s.checkRoom(); err != nil { // it would wait for room
			return err
		}
		if err := s.use(); err != nil {
			return err
		}
		s.settle() // that there is such a key is a promise, as where one is refused by itself
		s.life.RUnlock()
	}
	if err != nil {
		return err
	}
	return st.commit()
}

func (s *Store) stage(by apikey.Origin) (*staging, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()
	if !s.staging.CompareAndSwap(false, true) {
		return nil, apikey.ErrImporting
	}
	if err := s.dropStaged(); err != nil { // what an import before could not clean up
		s.staging.Store(false)
		return nil, fmt.Errorf("drop staged rows: %w", err)
	}
	s.write.Lock()
	s.revision++
	revision := s.revision
	s.write.Unlock()
	return &staging{store: s, by: by, revision: revision, counts: map[string]int{}}, nil
}

// add stages keys. The second error is a fault.
func (st *staging) add(keys []apikey.Key) ([]error, error) {
	s := st.store
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()
	if err := s.checkRoom(); err != nil {
		return nil, err
	}
	refused := make([]error, len(keys))
	w := st.writer()
	defer w.batch.Close()
	// With the lock, whoever comes second finds what the first has taken: a key
	// is either staged or created by someone else.
	s.write.Lock()
	defer s.write.Unlock()
	for i := range keys {
		refused[i] = w.checkNew(&keys[i])
		if refused[i] == nil {
			w.put(nil, &keys[i])
			w.audit(st.by, apikey.ActionCreated, st.keys, nil, &keys[i])
			st.keys++
		} else if !errors.Is(refused[i], apikey.ErrExists) {
			return nil, refused[i]
		} else {
			st.refused = true
		}
	}
	if err := errors.Join(w.err, w.batch.Commit(pebble.NoSync)); err != nil {
		return nil, fmt.Errorf("stage keys: %w", err)
	}
	return refused, nil
}

// writer returns a writer whose rows are staged.
func (st *staging) writer() *writer {
	w := st.store.newWriter()
	w.staged, w.revision, w.counts = true, st.revision, st.counts
	return w
}

// commit makes the keys part of the store. With an error none is there.
func (st *staging) commit() error {
	s := st.store
	if err := s.use(); err != nil {
		return err
	}
	defer s.life.RUnlock()
	if st.keys == 0 {
		return nil
	}
	// Families in order: audit log, counts, all others. Only the counts depend
	// on what else is written, so only they wait for the lock.
	before, err := s.buildTables("import-1", staged([]byte{familyAudit}), staged([]byte{familyCount}))
	if err != nil {
		return err
	}
	behind, err := s.buildTables("import-3", staged([]byte{familyCount + 1}), after([]byte{familyStaged}))
	if err != nil {
		return err
	}
	s.write.Lock()
	defer s.write.Unlock()
	if err := st.stageCounts(); err != nil {
		return err
	}
	counts, err := s.buildTables("import-2", staged([]byte{familyCount}), staged([]byte{familyCount + 1}))
	if err != nil {
		return err
	}
	if err := s.db.Ingest(context.Background(), slices.Concat(before, counts, behind)); err != nil {
		return fmt.Errorf("take in imported keys: %w", full(err))
	}
	return nil
}

// end drops the staged rows. What a failure leaves is dropped when the store is
// opened next.
func (st *staging) end() {
	s := st.store
	if s.use() == nil {
		if err := s.dropStaged(); err != nil {
			s.logger.Errorf("drop staged import: %v", err)
		}
		s.life.RUnlock()
	}
	s.staging.Store(false)
}

// dropStaged removes whatever is left of an import that is over.
func (s *Store) dropStaged() error {
	files, err := s.fs.List(s.path)
	if err != nil {
		return err
	}
	// The files first: they free the room that the rest needs.
	for _, f := range files {
		if strings.HasPrefix(f, "import-") && strings.HasSuffix(f, ".sst") {
			err = errors.Join(err, s.fs.Remove(s.fs.PathJoin(s.path, f)))
		}
	}
	return errors.Join(err, s.db.DeleteRange([]byte{familyStaged}, after([]byte{familyStaged}), pebble.NoSync))
}

// stageCounts stages the lengths that the lists have with the new keys.
func (st *staging) stageCounts() error {
	w := st.writer()
	defer w.batch.Close()
	if err := w.putCounts(); err != nil {
		return err
	}
	return errors.Join(w.err, w.batch.Commit(pebble.NoSync))
}

// tableBytes is about how large a table of imported rows becomes. While it is
// written it takes memory for its filter and index.
const tableBytes = 64 << 20

// buildTables writes the staged rows from lower to upper as tables, under the
// keys they are to have.
func (s *Store) buildTables(name string, lower, upper []byte) (paths []string, err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("read staged rows: %w", err)
	}
	for it.First(); it.Valid() && err == nil; {
		path := s.fs.PathJoin(s.path, fmt.Sprintf("%s-%d.sst", name, len(paths)))
		paths = append(paths, path)
		err = s.buildTable(path, it)
	}
	if err := errors.Join(err, it.Close()); err != nil {
		return nil, fmt.Errorf("make tables of imported keys: %w", full(err))
	}
	return paths, nil
}

// buildTable writes rows as a table until it is large enough.
func (s *Store) buildTable(path string, it *pebble.Iterator) (err error) {
	f, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	t := sstable.NewWriter(objstorageprovider.NewFileWritable(f), s.options.MakeWriterOptions(0, s.db.TableFormat()))
	for n := 0; it.Valid() && err == nil; n++ {
		if n%4096 == 0 {
			if t.Raw().EstimatedSize() >= tableBytes {
				break
			}
			err = s.checkRoom()
		}
		if err == nil {
			err = t.Set(it.Key()[1:], it.Value())
			it.Next()
		}
	}
	return errors.Join(err, t.Close())
}

// staged returns where a row stands until its import is over.
func staged(key []byte) []byte { return append([]byte{familyStaged}, key...) }

// Scan returns up to limit keys older than the one with the ID, newest first;
// from the newest if the ID is zero. apikey.AnyTenant means all tenants' keys.
func (s *Store) Scan(tenant string, before apikey.ID, limit int) ([]apikey.Key, error) {
	if tenant != apikey.AnyTenant {
		page, err := s.List(apikey.Query{Tenant: tenant, Which: apikey.WhichAll, After: before, Limit: limit})
		return page.Keys, err
	}
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()
	it, err := s.iter([]byte{familyRecord})
	if err != nil {
		return nil, err
	}
	ok := false
	if before.IsZero() {
		ok = it.Last()
	} else {
		ok = it.SeekLT(recordKey(before))
	}
	var keys []apikey.Key
	for ; ok && len(keys) < limit && err == nil; ok = it.Prev() {
		var digest, fields []byte
		var k *apikey.Key
		if digest, fields, err = (storedRow{value: it.Value()}).split(len(apikey.Digest{})); err == nil {
			k, err = decodeKey(fields, idAtEnd(it.Key()), apikey.Digest(digest))
		}
		if err == nil {
			keys = append(keys, *k)
		}
	}
	if err := errors.Join(err, it.Close()); err != nil {
		return nil, fmt.Errorf("scan keys: %w", err)
	}
	return keys, nil
}
