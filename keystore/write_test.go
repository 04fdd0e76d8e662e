package keystore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"

	"latchkey/apikey"
)

// rows returns every row of the store.
func rows(t testing.TB, s *Store) map[string]string {
	t.Helper()
	it, err := s.db.NewIter(&pebble.IterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for it.First(); it.Valid(); it.Next() {
		all[string(it.Key())] = string(it.Value())
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

func wantRows(t testing.TB, s *Store, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, rows(t, s)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// reopen opens what a crash would have left of the disk.
func reopen(t testing.TB, disk *vfs.MemFS, cfg vfs.CrashCloneCfg) *Store {
	t.Helper()
	return openStore(t, disk.CrashClone(cfg))
}

// A forgetfulFS acknowledges syncs of the write-ahead log it never does.
type forgetfulFS struct{ vfs.FS }

func (f forgetfulFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	if err == nil && path.Ext(name) == ".log" {
		return forgetfulFile{file}, nil
	}
	return file, err
}

type forgetfulFile struct{ vfs.File }

func (forgetfulFile) Sync() error                { return nil }
func (forgetfulFile) SyncData() error            { return nil }
func (forgetfulFile) SyncTo(int64) (bool, error) { return true, nil }

// What was acknowledged is there after a crash in the very next moment; and
// without the sync it would not be, so the test can tell.
func TestAcknowledgedIsDurable(t *testing.T) {
	k := testKey("acme", 1)
	k.ExpiresAt = epoch.Add(time.Hour)
	name := "renamed"
	heir := apikey.Credentials{ID: testKey("acme", 2).ID, Secret: "the secret of the replacement, long"}
	newKey := testKey("acme", 3)
	signer := apikey.NewSigningKey("kid-1", [32]byte{1, 2, 3}, epoch)
	for _, change := range []struct {
		name string
		call func(t *testing.T, s *Store) (changed []apikey.Key)
	}{
		{"a new key", func(t *testing.T, s *Store) []apikey.Key {
			mustCreate(t, s, newKey)
			return []apikey.Key{newKey}
		}},
		{"an update", func(t *testing.T, s *Store) []apikey.Key {
			return mustChange(t, s, k, func(k apikey.Key) (apikey.Change, error) {
				return k.Update(apikey.Edit{Name: &name}, epoch.Add(time.Minute))
			}).Keys
		}},
		{"a revocation", func(t *testing.T, s *Store) []apikey.Key {
			return mustChange(t, s, k, revokeAt(epoch.Add(time.Minute))).Keys
		}},
		{"a rotation", func(t *testing.T, s *Store) []apikey.Key {
			return mustChange(t, s, k, func(k apikey.Key) (apikey.Change, error) {
				return k.Rotate(heir, time.Minute, epoch.Add(time.Minute))
			}).Keys
		}},
		{"a sweep", func(t *testing.T, s *Store) []apikey.Key {
			return mustChange(t, s, k, func(k apikey.Key) (apikey.Change, error) {
				c, _ := k.Sweep(epoch.Add(2 * time.Hour))
				return c, nil
			}).Keys
		}},
		{"a signing key", func(t *testing.T, s *Store) []apikey.Key {
			if err := s.AddSigningKey(ops, signer); err != nil {
				t.Fatal(err)
			}
			return nil
		}},
	} {
		for _, disk := range []struct {
			name   string
			forget bool
			kept   int
			want   bool
		}{
			{"on a disk that syncs", false, 0, true},
			{"on a disk that syncs and keeps half of the rest", false, 50, true},
			{"on a disk that does not sync", true, 0, false},
		} {
			t.Run(change.name+" "+disk.name, func(t *testing.T) {
				mem := vfs.NewCrashableMem()
				s := openStore(t, mem)
				mustCreate(t, s, k)
				if err := s.db.Flush(); err != nil { // so that it is there whatever becomes of the log
					t.Fatal(err)
				}
				if disk.forget {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = openStore(t, forgetfulFS{mem})
				}
				before := rows(t, s)
				changed := change.call(t, s)
				crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: disk.kept, RNG: rand.New(rand.NewPCG(1, 2))})
				after := rows(t, s)

				again := openStore(t, crashed)
				if !disk.want {
					wantRows(t, again, before)
					return
				}
				wantRows(t, again, after)
				for _, k := range changed {
					wantKey(t, again, k)
				}
			})
		}
	}
}

// Crashes at any moment under concurrent writers lose nothing acknowledged.
func TestCrashesUnderWritersLoseNothing(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s := openStore(t, mem)
	const writers, perWriter, crashes = 8, 60, 12
	var mu sync.Mutex
	acknowledged := map[apikey.ID]apikey.Key{}
	var done sync.WaitGroup
	var count atomic.Int64
	for w := range writers {
		done.Add(1)
		go func() {
			defer done.Done()
			for n := range perWriter {
				k := testKey("acme", w*1000+n)
				err := s.Create(ops, created(k))
				record := func(k apikey.Key) {
					mu.Lock()
					defer mu.Unlock()
					acknowledged[k.ID] = k
				}
				record(k)
				if err == nil && n%2 == 0 {
					var c apikey.Change
					if c, err = s.Change(ops, "acme", k.ID, revokeAt(k.CreatedAt.Add(time.Hour))); err == nil {
						record(c.Keys[0])
					}
				}
				if err != nil {
					t.Error(err)
				}
				count.Add(1)
			}
		}()
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range crashes {
		for count.Load() < int64(i*writers*perWriter/crashes) {
			runtime.Gosched()
		}
		mu.Lock()
		want := make(map[apikey.ID]apikey.Key, len(acknowledged))
		for id, k := range acknowledged {
			want[id] = k
		}
		mu.Unlock()
		again := reopen(t, mem, vfs.CrashCloneCfg{UnsyncedDataPercent: i % 3 * 50, RNG: rng})
		for id, k := range want {
			got, err := again.ByDigest(&k.Digest)
			if err != nil {
				t.Fatalf("key %s was acknowledged and is gone: %v", id, err)
			}
			if !k.Live() && got.Live() {
				t.Fatalf("key %s was revoked and is live again", id)
			}
		}
		wantConsistent(t, again)
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	done.Wait()
}

func TestRefusedChangesWriteNothing(t *testing.T) {
	there, other, fresh := testKey("acme", 1), testKey("beta", 2), testKey("acme", 3)
	errDecided := errors.New("decided against it")
	sameDigest, sameID := fresh, fresh
	sameDigest.Digest, sameID.ID = there.Digest, there.ID
	twin, namesake := testKey("acme", 4), testKey("acme", 4)
	twin.Digest, namesake.ID = fresh.Digest, fresh.ID
	edited := func(edit func(*apikey.Key)) func(apikey.Key) (apikey.Change, error) {
		return func(k apikey.Key) (apikey.Change, error) {
			edit(&k)
			return apikey.Change{Action: apikey.ActionUpdated, Keys: []apikey.Key{k}}, nil
		}
	}
	withNew := func(k apikey.Key) func(apikey.Key) (apikey.Change, error) {
		return func(before apikey.Key) (apikey.Change, error) {
			return apikey.Change{Action: apikey.ActionRotated, Keys: []apikey.Key{before, k}}, nil
		}
	}
	create := func(keys ...apikey.Key) func(*Store) error {
		return func(s *Store) error { return s.Create(ops, created(keys...)) }
	}
	change := func(tenant string, id apikey.ID, decide func(apikey.Key) (apikey.Change, error)) func(*Store) error {
		return func(s *Store) error { _, err := s.Change(ops, tenant, id, decide); return err }
	}
	for _, tc := range []struct {
		name string
		call func(*Store) error
		want error // nil means any
	}{
		{"a digest that is there", create(sameDigest), apikey.ErrExists},
		{"an ID that is there", create(sameID), apikey.ErrExists},
		{"a key that is there", create(there), apikey.ErrExists},
		{"a digest that is another tenant's", create(func() apikey.Key { k := fresh; k.Digest = other.Digest; return k }()), apikey.ErrExists},
		{"the second of two keys is there", create(fresh, there), apikey.ErrExists},
		{"two keys with one digest", create(fresh, twin), apikey.ErrExists},
		{"two keys with one ID", create(fresh, namesake), apikey.ErrExists},
		{"a replacement with the old key's digest", change("acme", there.ID, withNew(sameDigest)), apikey.ErrExists},
		{"a replacement with the old key's ID", change("acme", there.ID, withNew(sameID)), apikey.ErrExists},
		{"a replacement that is there", change("acme", there.ID, withNew(other)), apikey.ErrExists},
		{"an unknown ID", change("acme", fresh.ID, revokeAt(epoch)), apikey.ErrNotFound},
		{"another tenant's ID", change("acme", other.ID, revokeAt(epoch)), apikey.ErrNotFound},
		{"no tenant", change("", there.ID, revokeAt(epoch)), apikey.ErrNotFound},
		{"decide's error", change("acme", there.ID, func(k apikey.Key) (apikey.Change, error) { return apikey.Change{}, errDecided }), errDecided},
		{"a change of another key", change("acme", there.ID, func(apikey.Key) (apikey.Change, error) { return other.Revoke(epoch) }), nil},
		{"a change of no key", change("acme", there.ID, func(apikey.Key) (apikey.Change, error) { return apikey.Change{}, nil }), nil},
		{"a change of a key's digest", change("acme", there.ID, edited(func(k *apikey.Key) { k.Digest = fresh.Digest })), nil},
		{"a change of a key's tenant", change("acme", there.ID, edited(func(k *apikey.Key) { k.Tenant = "beta" })), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openStore(t, vfs.NewMem())
			mustCreate(t, s, there, other)
			before := rows(t, s)
			var told int
			s.Notify(toldOf(func(*apikey.Digest) { told++ }))
			err := tc.call(s)
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("gave %v, want %v", err, tc.want)
			}
			if tc.want == errDecided && err != errDecided {
				t.Errorf("decide's error came back as %v", err)
			}
			wantRows(t, s, before)
			if told != 0 {
				t.Errorf("the caches were told %d times of a change that was not made", told)
			}
			// What was refused along with another key can still be created.
			mustCreate(t, s, fresh)
			wantKey(t, s, fresh)
			wantConsistent(t, s)
		})
	}
}

func TestChangeOfAnyTenant(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	k := testKey("acme", 1)
	mustCreate(t, s, k)
	c, err := s.Change(ops, apikey.AnyTenant, k.ID, revokeAt(epoch.Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	wantKey(t, s, c.Keys[0])
}

// A watcher is a Watcher of two functions.
type watcher struct{ changing, changed func(*apikey.Digest) }

func (w watcher) Changing(d *apikey.Digest) { w.changing(d) }
func (w watcher) Changed(d *apikey.Digest)  { w.changed(d) }

// toldOf is told of what has changed.
func toldOf(changed func(*apikey.Digest)) Watcher {
	return watcher{func(*apikey.Digest) {}, changed}
}

// Caches are told of what a change replaces, before it is visible, and again once it
// is and before anyone is answered on it; of new keys there is nothing to tell.
func TestNotify(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	var told, begun []apikey.Digest
	var answered bool
	var look func(*apikey.Digest)
	changing := func(d *apikey.Digest) {
		if k, err := s.ByDigest(d); err != nil || !k.Live() || !k.Rotation.ReplacedBy.IsZero() {
			t.Errorf("told that a change is to come when it was visible: %v", err)
		}
		begun = append(begun, *d)
	}
	s.Notify(watcher{changing, func(d *apikey.Digest) {
		if answered {
			t.Error("told after the answer")
		}
		told = append(told, *d)
		if diff := cmp.Diff(begun, told); diff != "" {
			t.Errorf("told that changes are to come, and have come (-to come +have come):\n%s", diff)
		}
		look(d)
	}})
	look = func(*apikey.Digest) {}
	a, b := testKey("acme", 1), testKey("acme", 2)
	mustCreate(t, s, a, b)
	if len(told) != 0 {
		t.Errorf("told of %d new keys, want none", len(told))
	}

	look = func(d *apikey.Digest) {
		if k, err := s.ByDigest(d); err != nil || k.Live() {
			t.Errorf("told before the revocation is visible: %v", err)
		}
	}
	mustChange(t, s, a, revokeAt(epoch.Add(time.Hour)))
	answered = true
	if diff := cmp.Diff([]apikey.Digest{a.Digest}, told); diff != "" {
		t.Errorf("told of (-want +got):\n%s", diff)
	}

	told, begun, answered, look = nil, nil, false, func(d *apikey.Digest) {
		if k, err := s.ByDigest(d); err != nil || k.Rotation.ReplacedBy.IsZero() {
			t.Errorf("told before the rotation is visible: %v", err)
		}
	}
	mustChange(t, s, b, func(k apikey.Key) (apikey.Change, error) {
		return k.Rotate(apikey.Credentials{ID: testKey("acme", 3).ID, Secret: "the replacement"}, 0, epoch.Add(time.Hour))
	})
	answered = true
	if diff := cmp.Diff([]apikey.Digest{b.Digest}, told); diff != "" {
		t.Errorf("told of (-want +got):\n%s", diff)
	}
}

func TestConcurrentWritersLoseNoCount(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	const writers, keysEach, revokedEach = 64, 6, 2
	var done sync.WaitGroup
	for w := range writers {
		done.Add(1)
		go func() {
			defer done.Done()
			for n := range keysEach {
				k := testKey("acme", w*100+n)
				if err := s.Create(ops, created(k)); err != nil {
					t.Error(err)
				}
				if n < revokedEach {
					if _, err := s.Change(ops, "acme", k.ID, revokeAt(k.CreatedAt.Add(time.Hour))); err != nil {
						t.Error(err)
					}
				}
			}
		}()
	}
	done.Wait()
	for _, tc := range []struct {
		which apikey.Which
		want  int
	}{{apikey.WhichLive, writers * (keysEach - revokedEach)}, {apikey.WhichEnded, writers * revokedEach}} {
		p, err := s.List(apikey.Query{Tenant: "acme", Which: tc.which, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if p.Total != tc.want || len(p.Keys) != tc.want {
			t.Errorf("which=%d: total %d and %d keys, want %d", tc.which, p.Total, len(p.Keys), tc.want)
		}
	}
	wantConsistent(t, s)
}

// Of concurrent changes of one key each sees what the one before left.
func TestConcurrentChangesOfOneKey(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	k := testKey("acme", 1)
	mustCreate(t, s, k)
	var done sync.WaitGroup
	var revoked atomic.Int64
	for range 64 {
		done.Add(1)
		go func() {
			defer done.Done()
			switch _, err := s.Change(ops, "acme", k.ID, revokeAt(epoch.Add(time.Hour))); {
			case err == nil:
				revoked.Add(1)
			case !errors.Is(err, apikey.ErrNotLive):
				t.Error(err)
			}
		}()
	}
	done.Wait()
	if got := revoked.Load(); got != 1 {
		t.Errorf("the key was revoked %d times, want once", got)
	}
	wantConsistent(t, s)
}

// While one sync is under way, the changes that come in meanwhile gather and
// share the next; none is answered before its sync is done.
func TestGroupCommit(t *testing.T) {
	var syncs, answered atomic.Int64
	var held atomic.Bool
	release := make(chan struct{})
	disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if held.Load() && isLogSync(op) {
			syncs.Add(1)
			<-release
		}
		return nil
	}))
	s := openStore(t, disk)
	held.Store(true)
	const writers = 32
	var done sync.WaitGroup
	for n := range writers {
		done.Add(1)
		go func() {
			defer done.Done()
			if err := s.Create(ops, created(testKey("acme", n))); err != nil {
				t.Error(err)
			}
			answered.Add(1)
		}()
	}
	giveUp := time.Now().Add(20 * time.Second)
	for visible := 0; visible < writers && !t.Failed(); runtime.Gosched() {
		p, err := s.List(apikey.Query{Tenant: "acme", Limit: 1})
		if err != nil {
			t.Error(err)
		}
		if visible = p.Total; time.Now().After(giveUp) {
			t.Errorf("only %d of %d changes got as far as the sync under way", visible, writers)
		}
	}
	if got := answered.Load(); got != 0 {
		t.Errorf("%d changes were answered before any sync was done", got)
	}
	close(release)
	done.Wait()
	// One that was held, one for all the others; a third if the log's buffer
	// was handed over in between.
	if got := syncs.Load(); got < 1 || got > 3 {
		t.Errorf("%d changes took %d syncs, want at most 3", writers, got)
	}
}

// syncsHeld returns a store whose log is not synced while held is set and release is open.
func syncsHeld(t *testing.T) (s *Store, held *atomic.Bool, release chan struct{}) {
	t.Helper()
	held, release = new(atomic.Bool), make(chan struct{})
	return openStore(t, errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if held.Load() && isLogSync(op) {
			<-release
		}
		return nil
	}))), held, release
}

// "It is revoked already" says that a revocation is in force, so it waits until
// the one that it speaks of is on disk.
func TestARefusalWaitsForWhatItRestsOn(t *testing.T) {
	s, held, release := syncsHeld(t)
	k := testKey("acme", 1)
	mustCreate(t, s, k)
	held.Store(true)
	revoke := func() chan error {
		done := make(chan error, 1)
		go func() {
			_, err := s.Change(ops, "acme", k.ID, revokeAt(epoch.Add(time.Hour)))
			done <- err
		}()
		return done
	}
	first := revoke()
	for visible := false; !visible; runtime.Gosched() {
		got, err := s.ByID("acme", k.ID)
		if err != nil {
			t.Fatal(err)
		}
		visible = !got.RevokedAt.IsZero()
	}
	second := revoke()
	for range 1000 {
		runtime.Gosched() // time enough to be wrong
	}
	select {
	case err := <-second:
		close(release)
		t.Fatalf("the second revocation was answered %v while the first was not on disk", err)
	default:
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := <-second; !errors.Is(err, apikey.ErrNotLive) {
		t.Errorf("the second revocation: %v, want ErrNotLive", err)
	}
}

// An answer that was kept says what a call did, so it is not given again before
// that is on disk, and not before the cache knows of it.
func TestAReceiptWaitsForWhatItRestsOn(t *testing.T) {
	s, held, release := syncsHeld(t)
	var told atomic.Int64
	s.Notify(toldOf(func(*apikey.Digest) { told.Add(1) }))
	k, name := testKey("acme", 1), apikey.NameReceipt("ops", "acme", "call")
	mustCreate(t, s, k)
	held.Store(true)
	first := make(chan error, 1)
	go func() {
		_, err := s.Change(ops, "acme", k.ID, func(k apikey.Key) (apikey.Change, error) {
			c, err := k.Rotate(apikey.Credentials{ID: testKey("acme", 2).ID, Secret: "the replacement"}, 0, epoch.Add(time.Hour))
			c.Receipt = &apikey.Receipt{Name: name, Until: epoch.Add(48 * time.Hour), Status: 201, Answer: "answer"}
			return c, err
		})
		first <- err
	}()
	for visible := false; !visible; runtime.Gosched() {
		_, err := s.receiptHead(name)
		visible = err == nil
	}
	second := make(chan error, 1)
	go func() {
		_, err := s.Receipt(name)
		if told.Load() == 0 {
			t.Error("the answer is given again before the cache knows what the call did")
		}
		second <- err
	}()
	for range 1000 {
		runtime.Gosched() // time enough to be wrong
	}
	select {
	case err := <-second:
		close(release)
		t.Fatalf("the answer was given again (%v) while what it says was not on disk", err)
	default:
	}
	close(release)
	if err := errors.Join(<-first, <-second); err != nil {
		t.Error(err)
	}
}

// Revisions go on where they were, so that the audit log keeps its order.
func TestRevisionsSurviveReopen(t *testing.T) {
	mem := vfs.NewMem()
	k := testKey("acme", 1)
	for n, want := range []string{"[1:created]", "[1:created 2:updated]", "[1:created 2:updated 3:updated]"} {
		s := openStore(t, mem)
		if n == 0 {
			mustCreate(t, s, k)
		} else {
			mustChange(t, s, k, func(k apikey.Key) (apikey.Change, error) {
				return k.Update(apikey.Edit{}, epoch.Add(time.Minute))
			})
		}
		events, err := s.AuditOf(k.ID)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range events {
			got = append(got, fmt.Sprintf("%d:%s", e.Revision, e.Action))
		}
		if fmt.Sprint(got) != want {
			t.Errorf("after %d reopenings the log is %v, want %s", n, got, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAuditOfIDsAtTheEdgeOfAByte(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	for n, end := range [][2]byte{{0xfe, 0xfe}, {0xfe, 0xff}, {0xff, 0xff}, {0, 0}} {
		k := testKey("acme", n)
		k.ID[14], k.ID[15] = end[0], end[1]
		mustCreate(t, s, k)
		events, err := s.AuditOf(k.ID)
		if err != nil || len(events) != 1 || events[0].Key != k.ID {
			t.Errorf("AuditOf(%s) gave %d events, %v, want the one of its creation", k.ID, len(events), err)
		}
	}
}
