package keystore

import (
	"errors"
	"path"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"latchkey/apikey"
)

// isLogSync reports whether the operation makes the write-ahead log durable.
func isLogSync(op errorfs.Op) bool {
	return path.Ext(op.Path) == ".log" && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData)
}

// isTableRead reports whether the operation reads keys from disk.
func isTableRead(op errorfs.Op) bool {
	return path.Ext(op.Path) == ".sst" && op.Kind.ReadOrWrite() == errorfs.OpIsRead
}

// noBlockCache is too little memory to keep a block in.
const noBlockCache = 1

// settledStore returns a store whose keys all lie in tables on disk, with
// nothing of them in memory; inject sees every operation on its files.
func settledStore(t *testing.T, inject errorfs.InjectorFunc, keys ...apikey.Key) *Store {
	t.Helper()
	mem := vfs.NewMem()
	s, err := Open(storeAt, Options{FS: mem})
	if err != nil {
		t.Fatal(err)
	}
	mustCreate(t, s, keys...)
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openWith(t, storeAt, Options{FS: errorfs.Wrap(mem, inject), BlockCacheBytes: noBlockCache})
	s.scan.Wait()
	// Pebble reads the tables by itself after Open, to gather statistics.
	for !s.db.Metrics().Table.InitialStatsCollectionComplete {
		runtime.Gosched()
	}
	return s
}

func manyKeys(tenant string, from, n int) []apikey.Key {
	keys := make([]apikey.Key, n)
	for i := range keys {
		keys[i] = testKey(tenant, from+i)
	}
	return keys
}

// A disk that cannot be read is a fault of ours, not news about a key.
func TestReadFaultIsNotARefusal(t *testing.T) {
	var broken atomic.Bool
	keys := manyKeys("acme", 0, 500)
	keys[7].ExpiresAt = epoch.Add(time.Hour)
	s := settledStore(t, func(op errorfs.Op) error {
		if broken.Load() && isTableRead(op) {
			return syscall.EIO
		}
		return nil
	}, keys...)
	k, signer := keys[7], apikey.NewSigningKey("a", [32]byte{1}, epoch)
	calls := map[string]func() error{
		"ByDigest":       func() error { _, err := s.ByDigest(&k.Digest); return err },
		"ByID":           func() error { _, err := s.ByID("acme", k.ID); return err },
		"ByID, unknown":  func() error { _, err := s.ByID("acme", testKey("acme", 250_000).ID); return err },
		"List":           func() error { _, err := s.List(apikey.Query{Tenant: "acme", Limit: 5}); return err },
		"List, a cursor": func() error { _, err := s.List(apikey.Query{Tenant: "acme", Limit: 5, After: k.ID}); return err },
		"Due":            func() error { _, err := s.Due(DueEnd, epoch.Add(2*time.Hour), 5); return err },
		"AuditOf":        func() error { _, err := s.AuditOf(k.ID); return err },
		"Create, again":  func() error { return s.Create(ops, created(k)) },
		"Change": func() error {
			_, err := s.Change(ops, "acme", k.ID, revokeAt(epoch.Add(time.Hour)))
			return err
		},
		"AddSigningKey": func() error { return s.AddSigningKey(ops, signer) },
		"SigningKeys":   func() error { _, err := s.SigningKeys(); return err },
	}
	broken.Store(true)
	for name, call := range calls {
		switch err := call(); {
		case err == nil:
			// The rows around the signing keys tell that there are none.
			if name != "SigningKeys" && name != "AddSigningKey" {
				t.Errorf("%s succeeded on a broken disk", name)
			}
		case !errors.Is(err, syscall.EIO) || errors.Is(err, apikey.ErrNotFound) || errors.Is(err, apikey.ErrExists):
			t.Errorf("%s gave %v, want EIO and no verdict on a key", name, err)
		}
	}
	broken.Store(false)
	wantKey(t, s, k)
}

// While the filter cannot be filled, digests are looked up on disk.
func TestFilterStaysOffAfterReadFault(t *testing.T) {
	var broken atomic.Bool
	keys := manyKeys("acme", 0, 500)
	s := settledStore(t, func(op errorfs.Op) error {
		if broken.Load() && isTableRead(op) {
			return syscall.EIO
		}
		return nil
	}, keys...)
	s.filter = newDigestFilter(0)
	broken.Store(true)
	if err := s.fillFilter(); !errors.Is(err, syscall.EIO) {
		t.Errorf("fillFilter gave %v, want EIO", err)
	}
	broken.Store(false)
	for _, k := range keys {
		wantKey(t, s, k)
	}
}

func TestAbsentDigestNeedsNoDisk(t *testing.T) {
	var reads atomic.Int64
	keys := manyKeys("acme", 0, 500)
	s := settledStore(t, func(op errorfs.Op) error {
		if isTableRead(op) {
			reads.Add(1)
		}
		return nil
	}, keys...)
	ask := func(want error, digests ...apikey.Key) int64 {
		t.Helper()
		reads.Store(0)
		for _, k := range digests {
			if _, err := s.ByDigest(&k.Digest); !errors.Is(err, want) {
				t.Fatalf("ByDigest gave %v, want %v", err, want)
			}
		}
		return reads.Load()
	}
	absent := manyKeys("acme", 10_000, 500)
	if got := ask(apikey.ErrNotFound, absent...); got != 0 {
		t.Errorf("500 absent digests took %d reads, want 0", got)
	}
	// The same questions do reach the disk where the filter cannot help.
	if got := ask(nil, keys...); got == 0 {
		t.Error("500 present digests took no read: the test cannot tell")
	}
	s.filter.ready.Store(false)
	if got := ask(apikey.ErrNotFound, absent...); got == 0 {
		t.Error("500 absent digests took no read without the filter: the test cannot tell")
	}
}

// A row that cannot be read is a fault of ours, not news about a key.
func TestDamagedRow(t *testing.T) {
	k := testKey("acme", 1)
	k.ExpiresAt = epoch.Add(time.Hour)
	digestKey := appendDigestKey(nil, &k.Digest)
	byID := func(s *Store) error { _, err := s.ByID("acme", k.ID); return err }
	byDigest := func(s *Store) error { _, err := s.ByDigest(&k.Digest); return err }
	list := func(s *Store) error { _, err := s.List(apikey.Query{Tenant: "acme", Limit: 5}); return err }
	cursor := func(s *Store) error {
		_, err := s.List(apikey.Query{Tenant: "acme", Limit: 5, Before: k.ID})
		return err
	}
	change := func(s *Store) error { _, err := s.Change(ops, "acme", k.ID, revokeAt(epoch)); return err }
	audit := func(s *Store) error { _, err := s.AuditOf(k.ID); return err }
	create := func(s *Store) error { return s.Create(ops, created(testKey("acme", 2))) }
	for _, tc := range []struct {
		name   string
		row    []byte
		damage func(old []byte) []byte // nil deletes the row
		calls  map[string]func(*Store) error
	}{
		{"a record cut short", recordKey(k.ID), func(old []byte) []byte { return old[:len(old)-1] },
			map[string]func(*Store) error{"ByID": byID, "List": list, "List, a cursor": cursor, "Change": change}},
		{"a record shorter than its digest", recordKey(k.ID), func([]byte) []byte { return []byte("short") },
			map[string]func(*Store) error{"ByID": byID, "List": list, "Change": change}},
		{"a record with a field of a later version", recordKey(k.ID), func(old []byte) []byte { return append(old, 200, 1, 1) },
			map[string]func(*Store) error{"ByID": byID, "List": list, "Change": change}},
		{"a listed key without a record", recordKey(k.ID), nil,
			map[string]func(*Store) error{"List": list}},
		{"a digest row cut short", digestKey, func(old []byte) []byte { return old[:len(old)-1] },
			map[string]func(*Store) error{"ByDigest": byDigest}},
		{"a digest row shorter than its ID", digestKey, func([]byte) []byte { return nil },
			map[string]func(*Store) error{"ByDigest": byDigest}},
		{"an audit event cut short", auditKey(1, 0), func(old []byte) []byte { return old[:len(old)-1] },
			map[string]func(*Store) error{"AuditOf": audit}},
		{"an indexed audit event that is not there", auditKey(1, 0), nil,
			map[string]func(*Store) error{"AuditOf": audit}},
		{"a count of the wrong length", listPrefix(familyCount, "acme", stateLive), func([]byte) []byte { return []byte("7") },
			map[string]func(*Store) error{"List": list, "Create": create, "Change": change}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openStore(t, vfs.NewMem())
			mustCreate(t, s, k)
			row, err := get(s.db, tc.row)
			if err != nil {
				t.Fatal(err)
			}
			old := append([]byte(nil), row.value...)
			row.close()
			if tc.damage == nil {
				err = s.db.Delete(tc.row, pebble.Sync)
			} else {
				err = s.db.Set(tc.row, tc.damage(old), pebble.Sync)
			}
			if err != nil {
				t.Fatal(err)
			}
			for name, call := range tc.calls {
				if err := call(s); !errors.Is(err, errCorrupt) || errors.Is(err, apikey.ErrNotFound) {
					t.Errorf("%s gave %v, want errCorrupt and not ErrNotFound", name, err)
				}
			}
		})
	}
}

// roomFS is a file system with as much room as it is told.
type roomFS struct {
	vfs.FS
	room atomic.Uint64
}

func (f *roomFS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: f.room.Load()}, nil
}

func TestFullDisk(t *testing.T) {
	disk := &roomFS{FS: vfs.NewMem()}
	disk.room.Store(64 << 20)
	s := openStore(t, disk)
	k := testKey("acme", 1)
	mustCreate(t, s, k)
	before := rows(t, s)

	disk.room.Store(64<<20 - 1)
	const want = "key store is out of disk space: 63 MiB are left, 64 MiB are kept in reserve"
	for name, call := range map[string]func() error{
		"Create":        func() error { return s.Create(ops, created(testKey("acme", 2))) },
		"Change":        func() error { _, err := s.Change(ops, "acme", k.ID, revokeAt(epoch)); return err },
		"AddSigningKey": func() error { return s.AddSigningKey(ops, apikey.NewSigningKey("a", [32]byte{1}, epoch)) },
	} {
		if err := call(); !errors.Is(err, apikey.ErrStoreFull) || err.Error() != want {
			t.Errorf("%s on a full disk gave %v, want %s", name, err, want)
		}
	}
	wantRows(t, s, before)
	wantKey(t, s, k)
	if p, err := s.List(apikey.Query{Tenant: "acme", Limit: 5}); err != nil || p.Total != 1 {
		t.Errorf("List on a full disk gave %d keys, %v", p.Total, err)
	}

	disk.room.Store(64 << 20)
	mustCreate(t, s, testKey("acme", 2))
	mustChange(t, s, k, revokeAt(epoch.Add(time.Hour)))
}

// Once the log cannot be made durable the process ends: nothing more is
// acknowledged, nor served from memory what the disk does not have.
func TestLogFaultIsFatal(t *testing.T) {
	for _, tc := range []struct {
		name   string
		faulty func(errorfs.Op) bool
	}{
		{"the log cannot be synced", isLogSync},
		{"the log cannot be written", func(op errorfs.Op) bool {
			return path.Ext(op.Path) == ".log" && op.Kind == errorfs.OpFileWrite
		}},
		{"a new log cannot be made", func(op errorfs.Op) bool {
			return path.Ext(op.Path) == ".log" && op.Kind == errorfs.OpCreate
		}},
		{"a new log cannot be made to last", func(op errorfs.Op) bool {
			return path.Base(op.Path) == databaseAt && op.Kind == errorfs.OpFileSync
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, change := range []struct {
				name string
				call func(*Store, apikey.Key) error
			}{
				{"Create", func(s *Store, k apikey.Key) error { return s.Create(ops, created(testKey("acme", 2))) }},
				{"Change", func(s *Store, k apikey.Key) error {
					_, err := s.Change(ops, "acme", k.ID, revokeAt(epoch))
					return err
				}},
				// As a change does for which memory has no more room.
				{"Flush", func(s *Store, _ apikey.Key) error { return s.db.Flush() }},
			} {
				if strings.HasPrefix(tc.name, "a new log") && change.name != "Flush" {
					continue
				}
				t.Run(change.name, func(t *testing.T) {
					var broken, answered atomic.Bool
					fatal := make(chan error, 1)
					disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
						if broken.Load() && tc.faulty(op) {
							return syscall.EIO
						}
						return nil
					}))
					// Never closed: after OnFatal there is no process to close it in.
					s, err := Open(storeAt, Options{FS: disk, OnFatal: func(err error) { fatal <- err }})
					if err != nil {
						t.Fatal(err)
					}
					k := testKey("acme", 1)
					mustCreate(t, s, k)
					broken.Store(true)
					go func() {
						_ = change.call(s, k)
						answered.Store(true)
					}()
					if err := <-fatal; !strings.Contains(err.Error(), syscall.EIO.Error()) {
						t.Errorf("OnFatal was told %v, want the disk's error", err)
					}
					if answered.Load() {
						t.Fatal("the change was answered, though it may not be on disk")
					}
				})
			}
		})
	}
}

// A disk that takes more than five seconds over a write shows in the metrics.
func TestSlowDiskIsCounted(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the five seconds after which Pebble calls a disk slow")
	}
	t.Parallel()
	var s *Store
	var slow atomic.Bool
	disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if isLogSync(op) && slow.Swap(false) {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for n := 0; n < 300 && s.events.slowDisk.Load() == 0; n++ {
				<-tick.C
			}
		}
		return nil
	}))
	s = openStore(t, disk)
	slow.Store(true)
	mustCreate(t, s, testKey("acme", 1))
	if s.events.slowDisk.Load() == 0 {
		t.Error("a sync of 15 s was not counted as a slow disk")
	}
}
