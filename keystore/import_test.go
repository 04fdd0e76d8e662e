package keystore

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"latchkey/apikey"
	"latchkey/internal/nettest"
)

// existing reports which of the errors say that a key is there already, and
// fails on any other.
func existing(t *testing.T, refused []error) (places []int) {
	t.Helper()
	for i, err := range refused {
		if errors.Is(err, apikey.ErrExists) {
			places = append(places, i)
		} else if err != nil {
			t.Errorf("key %d: %v", i, err)
		}
	}
	return places
}

func TestImportTakesWhatIsNew(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	old := testKey("acme", 1)
	mustCreate(t, s, old)
	sameDigest, sameID, twice := testKey("acme", 2), testKey("acme", 3), testKey("globex", 4)
	sameDigest.Digest, sameID.ID = old.Digest, old.ID
	again := testKey("globex", 5)
	again.Digest = twice.Digest
	refused, err := s.Import(ops, []apikey.Key{sameDigest, testKey("acme", 6), sameID, twice, again})
	if err != nil {
		t.Fatal(err)
	}
	if got := existing(t, refused); !slices.Equal(got, []int{0, 2, 4}) {
		t.Errorf("the keys %v are said to be there already, want 0, 2 and 4", got)
	}
	wantKey(t, s, old)
	wantKey(t, s, testKey("acme", 6))
	wantKey(t, s, twice)
	wantConsistent(t, s)
	before := rows(t, s)
	if refused, err = s.Import(ops, []apikey.Key{sameID, twice}); err != nil || len(existing(t, refused)) != 2 {
		t.Errorf("a second import of what is there: %v, %v", refused, err)
	}
	wantRows(t, s, before)
}

func stage(t *testing.T, s *Store, keys ...apikey.Key) *staging {
	t.Helper()
	st, err := s.stage(ops)
	if err != nil {
		t.Fatal(err)
	}
	for chunk := range slices.Chunk(keys, 7) {
		if refused, err := st.add(chunk); err != nil || existing(t, refused) != nil {
			t.Fatalf("add: %v, %v", refused, err)
		}
	}
	return st
}

func TestStagedKeysComeAllAtOnce(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := openStore(t, disk)
	mustCreate(t, s, manyKeys("acme", 0, 10)...)
	st := stage(t, s, append(manyKeys("acme", 10, 100), manyKeys("globex", 110, 50)...)...)
	if _, err := s.ByDigest(&manyKeys("acme", 10, 1)[0].Digest); !errors.Is(err, apikey.ErrNotFound) {
		t.Errorf("a staged key can be found: %v", err)
	}
	if page, err := s.List(apikey.Query{Tenant: "globex", Limit: 10}); err != nil || page.Total != 0 {
		t.Errorf("staged keys are listed: %+v, %v", page, err)
	}
	if _, err := s.stage(ops); !errors.Is(err, apikey.ErrImporting) {
		t.Errorf("a second import at the same time: %v", err)
	}
	// Others go on meanwhile, but cannot take what is staged.
	mustCreate(t, s, testKey("acme", 500))
	taken := testKey("acme", 501)
	taken.Digest = testKey("globex", 120).Digest
	if err := s.Create(ops, created(taken)); !errors.Is(err, apikey.ErrExists) {
		t.Errorf("creating a key that is staged: %v", err)
	}
	if err := st.commit(); err != nil {
		t.Fatal(err)
	}
	st.end()
	check := func(s *Store) {
		t.Helper()
		for _, k := range slices.Concat(manyKeys("acme", 0, 110), manyKeys("globex", 110, 50), []apikey.Key{testKey("acme", 500)}) {
			wantKey(t, s, k)
		}
		if page, err := s.List(apikey.Query{Tenant: "acme", Limit: 10}); err != nil || page.Total != 111 {
			t.Errorf("acme has %d keys, %v; want 111", page.Total, err)
		}
		wantConsistent(t, s)
	}
	check(s)
	if _, err := s.Import(ops, []apikey.Key{testKey("acme", 600)}); err != nil {
		t.Errorf("an import after it: %v", err)
	}
	mustChange(t, s, testKey("globex", 120), revokeAt(epoch))
	crashed := reopen(t, disk, vfs.CrashCloneCfg{})
	wantKey(t, crashed, testKey("globex", 159))
	wantConsistent(t, crashed)
}

func TestStagedKeysGoAllAtOnce(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(*testing.T, *vfs.MemFS, *Store, *staging) *Store
	}{
		{"discarded", func(_ *testing.T, _ *vfs.MemFS, s *Store, st *staging) *Store { st.end(); return s }},
		{"by a crash before the commit", func(t *testing.T, disk *vfs.MemFS, _ *Store, _ *staging) *Store {
			return reopen(t, disk, vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
		}},
		{"by a crash with tables left over", func(t *testing.T, disk *vfs.MemFS, s *Store, _ *staging) *Store {
			if _, err := s.buildTables("import-1", []byte{familyStaged}, after([]byte{familyStaged})); err != nil {
				t.Fatal(err)
			}
			return reopen(t, disk, vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			s := openStore(t, disk)
			mustCreate(t, s, manyKeys("acme", 0, 3)...)
			before := rows(t, s)
			st := stage(t, s, manyKeys("acme", 10, 50)...)
			s = tc.end(t, disk, s, st)
			wantRows(t, s, before)
			files, err := s.fs.List(storeAt)
			if err != nil || slices.ContainsFunc(files, func(f string) bool { return strings.HasSuffix(f, ".sst") }) {
				t.Errorf("left over: %v, %v", files, err)
			}
			if err := s.ImportAll(ops, func(add func([]apikey.Key) ([]error, error)) error {
				refused, err := add(manyKeys("acme", 10, 50))
				if existing(t, refused) != nil {
					t.Error("the same import again finds keys there already")
				}
				return err
			}); err != nil {
				t.Errorf("the same import again: %v", err)
			}
			wantConsistent(t, s)
		})
	}
}

func TestScanWalksEveryKey(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	acme, globex := manyKeys("acme", 0, 25), manyKeys("globex", 25, 5)
	mustCreate(t, s, slices.Concat(acme, globex)...)
	mustChange(t, s, acme[3], revokeAt(epoch))
	for tenant, want := range map[string]int{"acme": 25, "globex": 5, apikey.AnyTenant: 30, "nobody": 0} {
		var last apikey.ID
		seen := 0
		for {
			keys, err := s.Scan(tenant, last, 4)
			if err != nil {
				t.Fatal(err)
			}
			if len(keys) == 0 {
				break
			}
			for _, k := range keys {
				if !last.IsZero() && string(k.ID[:]) >= string(last[:]) {
					t.Errorf("%s: key %s comes after %s", tenant, k.ID, last)
				}
				last = k.ID
				seen++
			}
		}
		if seen != want {
			t.Errorf("%s: %d keys, want %d", tenant, seen, want)
		}
	}
}

// TestARefusalOfAnImportWaitsForTheDisk refuses an import for a key that is there and not
// yet on disk: nobody is told that it is there before a crash can no longer take it away.
func TestARefusalOfAnImportWaitsForTheDisk(t *testing.T) {
	s, held, release := syncsHeld(t)
	k := testKey("acme", 1)
	s.settle() // what Open wrote is in the log
	held.Store(true)
	created1, refused := make(chan error, 1), make(chan error, 1)
	go func() { created1 <- s.Create(ops, created(k)) }()
	nettest.Until(t, "the key is seen", func() bool { _, err := s.ByID("acme", k.ID); return err == nil })
	go func() {
		refused <- s.ImportAll(ops, func(add func([]apikey.Key) ([]error, error)) error {
			refusals, err := add([]apikey.Key{k})
			return errors.Join(err, refusals[0])
		})
	}()
	select {
	case err := <-refused:
		t.Errorf("the import is refused before the key is on disk: %v", err)
		refused <- err
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-refused; !errors.Is(err, apikey.ErrExists) {
		t.Errorf("the import gave %v, want apikey.ErrExists", err)
	}
	if err := <-created1; err != nil {
		t.Error(err)
	}
}

// TestARefusalOfAnImportOnAFullDisk has the disk fill up behind a refusal: it cannot be
// waited for, so it is not told.
func TestARefusalOfAnImportOnAFullDisk(t *testing.T) {
	disk := &roomFS{FS: vfs.NewMem()}
	disk.room.Store(64 << 20)
	s := openStore(t, disk)
	k := testKey("acme", 1)
	mustCreate(t, s, k)
	err := s.ImportAll(ops, func(add func([]apikey.Key) ([]error, error)) error {
		refused, err := add([]apikey.Key{k})
		disk.room.Store(1 << 20)
		return errors.Join(err, refused[0])
	})
	if !errors.Is(err, apikey.ErrStoreFull) || errors.Is(err, apikey.ErrExists) {
		t.Errorf("the import gave %v, want apikey.ErrStoreFull alone", err)
	}
}
