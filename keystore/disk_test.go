package keystore

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"latchkey/apikey"
	"latchkey/internal/nettest"
)

var flips = flag.Int("flips", 60, "how many bits TestFlippedBits flips, one at a time")

// A fullness makes some operations on the database fail for want of room while it
// is on, and counts them.
type fullness struct {
	lacks func(errorfs.Op) bool
	on    atomic.Bool
	hits  atomic.Int64
}

func (f *fullness) MaybeError(op errorfs.Op) error {
	if f.on.Load() && f.lacks(op) {
		f.hits.Add(1)
		return &os.PathError{Op: "write", Path: op.Path, Err: syscall.ENOSPC}
	}
	return nil
}

func (f *fullness) String() string { return "full" }

func writes(op errorfs.Op, kinds ...errorfs.OpKind) bool {
	for _, k := range kinds {
		if op.Kind == k {
			return true
		}
	}
	return false
}

// The disk fills behind the look that a change takes. Whatever Pebble writes just
// then waits, and is done when there is room again; meanwhile further changes are
// refused and reads go on.
func TestDiskFillsBehindTheLook(t *testing.T) {
	create := func(s *Store) error { return s.Create(ops, created(testKey("acme", 2))) }
	flush := func(s *Store) error { return s.db.Flush() }
	for _, tc := range []struct {
		name  string
		lacks func(errorfs.Op) bool
		call  func(*Store) error
	}{
		{"the log cannot be written", func(op errorfs.Op) bool {
			return path.Ext(op.Path) == ".log" && writes(op, errorfs.OpFileWrite)
		}, create},
		{"a new log cannot be made", func(op errorfs.Op) bool {
			return path.Ext(op.Path) == ".log" && writes(op, errorfs.OpCreate, errorfs.OpReuseForWrite)
		}, flush},
		{"the MANIFEST cannot be written", func(op errorfs.Op) bool {
			return strings.HasPrefix(path.Base(op.Path), "MANIFEST-") && writes(op, errorfs.OpFileWrite)
		}, flush},
		{"the marks cannot be written", func(op errorfs.Op) bool {
			return path.Base(op.Path) == syncedFile && writes(op, errorfs.OpFileWriteAt)
		}, create},
	} {
		t.Run(tc.name, func(t *testing.T) {
			full := &fullness{lacks: tc.lacks}
			s := openWith(t, storeAt, Options{FS: errorfs.Wrap(vfs.NewMem(), full), retry: time.Millisecond,
				OnFatal: func(err error) { panic(err) }})
			k := testKey("acme", 1)
			mustCreate(t, s, k)
			full.on.Store(true)
			done := make(chan error, 1)
			go func() { done <- tc.call(s) }()
			nettest.Until(t, "the write was tried again", func() bool { return full.hits.Load() > 2 })
			select {
			case err := <-done:
				t.Fatalf("the call ended while the disk was full, with %v", err)
			default:
			}
			if err := s.Create(ops, created(testKey("acme", 3))); !errors.Is(err, apikey.ErrStoreFull) {
				t.Errorf("another change gave %v, want ErrStoreFull", err)
			}
			wantKey(t, s, k)
			p, err := s.List(apikey.Query{Tenant: "acme", Limit: 5})
			if want := s.disk.stuck(); !errors.Is(err, want) || want == nil && len(p.Keys) == 0 {
				t.Errorf("List gave %d keys, %v; want some, or %v", len(p.Keys), err, want)
			}
			registry := prometheus.NewRegistry()
			registry.MustRegister(s)
			if got := gather(t, registry)["latchkey_store_full"]; got != 1 {
				t.Errorf("latchkey_store_full is %g, want 1", got)
			}
			full.on.Store(false)
			if err := <-done; err != nil {
				t.Errorf("with room again the call gave %v", err)
			}
			nettest.Until(t, "changes are taken again", func() bool { return s.checkRoom() == nil })
			mustCreate(t, s, testKey("acme", 4))
		})
	}
}

// Pebble tries a table that cannot be written again at once, for ever. Here it
// waits, for as long as the disk is full, and goes on by itself.
func TestTablesWaitForRoom(t *testing.T) {
	full := &fullness{lacks: func(op errorfs.Op) bool { return isTable(op.Path) && writes(op, errorfs.OpCreate) }}
	disk := &roomFS{FS: errorfs.Wrap(vfs.NewMem(), full)}
	disk.room.Store(1 << 30)
	s := openWith(t, storeAt, Options{FS: disk, retry: time.Millisecond})
	k := testKey("acme", 1)
	mustCreate(t, s, k)
	full.on.Store(true)
	disk.room.Store(63 << 20)
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		t.Fatal(err)
	}
	nettest.Until(t, "a table was tried", func() bool { return s.events.backgroundErrors.Load() > 0 })
	for range 1000 {
		wantKey(t, s, k)
		runtime.Gosched()
	}
	if n := full.hits.Load(); n != 1 {
		t.Errorf("the table was tried %d times on a full disk, want once", n)
	}
	full.on.Store(false)
	disk.room.Store(1 << 30)
	<-flushed
	mustCreate(t, s, testKey("acme", 2))
}

// TestChangesAreRefusedWhereTablesCannotBeWritten has the disk say that it has room, and
// write no table: a change is refused before Pebble would have it wait, with it everything
// behind it, and keys are read all the while.
func TestChangesAreRefusedWhereTablesCannotBeWritten(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault error
		want  error
	}{{"a quota", syscall.EDQUOT, apikey.ErrStoreFull}, {"a fault", syscall.EIO, errTables}} {
		t.Run(tc.name, func(t *testing.T) {
			var broken atomic.Bool
			s, err := Open(storeAt, Options{retry: 50 * time.Millisecond, FS: errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if broken.Load() && isTable(op.Path) && writes(op, errorfs.OpFileWrite) {
					return tc.fault
				}
				return nil
			}))})
			if err != nil {
				t.Fatal(err)
			}
			k := testKey("globex", 1)
			mustCreate(t, s, k)
			broken.Store(true)
			made := 0
			for ; err == nil && made < 2000; made++ { // fewer fill the memory for what is in no table
				err = s.Create(ops, created(manyKeys("acme", 1000*(made+1), 200)...))
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("change %d gave %v, want %v", made, err, tc.want)
			}
			wantKey(t, s, k)
			broken.Store(false)
			nettest.Until(t, "changes are taken again", func() bool {
				_, err := s.Change(ops, "globex", k.ID, revokeAt(epoch))
				return err == nil
			})
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestChangesGoOnWhereTablesAreNotCompacted has only tables fail that bring others in
// order: a change does not need them, not for long.
func TestChangesGoOnWhereTablesAreNotCompacted(t *testing.T) {
	disk := &uncompacted{FS: vfs.NewMem()}
	s, err := Open(storeAt, Options{retry: 10 * time.Millisecond, FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	disk.broken.Store(true)
	for n := 0; disk.failed.Load() < 20; n++ {
		if n == 2000 {
			t.Fatal("nothing was compacted")
		}
		if err := s.Create(ops, created(manyKeys("acme", 1000*(n+1), 200)...)); err != nil {
			t.Fatalf("change %d, behind %d tables that could not be written: %v", n, disk.failed.Load(), err)
		}
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
		if n > 6 { // sublevels enough to be compacted, and not too many
			time.Sleep(20 * time.Millisecond)
		}
	}
	disk.broken.Store(false)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// uncompacted is a disk on which compactions fail while it is broken.
type uncompacted struct {
	vfs.FS
	broken atomic.Bool
	failed atomic.Int64
}

func (d *uncompacted) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if d.broken.Load() && c == "pebble-compaction" {
		d.failed.Add(1)
		return nil, syscall.EIO
	}
	return d.FS.Create(name, c)
}

// A table that cannot be written for another reason is tried again in a while.
func TestTablesThatFailAreNotTriedAtOnce(t *testing.T) {
	var tries atomic.Int64
	s, err := Open(storeAt, Options{retry: time.Hour, FS: errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if isTable(op.Path) && writes(op, errorfs.OpFileWrite) {
			tries.Add(1)
			return syscall.EIO
		}
		return nil
	}))})
	if err != nil {
		t.Fatal(err)
	}
	k := testKey("acme", 1)
	mustCreate(t, s, k)
	if _, err := s.db.AsyncFlush(); err != nil {
		t.Fatal(err)
	}
	nettest.Until(t, "a table failed", func() bool { return s.events.backgroundErrors.Load() > 0 })
	first := tries.Load()
	for range 1000 {
		wantKey(t, s, k)
		runtime.Gosched()
	}
	if n := tries.Load(); n != first {
		t.Errorf("%d writes of tables were tried after the first failed, want none within the hour", n-first)
	}
	if err := s.Close(); err != nil { // which does not wait for the hour
		t.Error(err)
	}
}

// A store that is closed while a change waits for room gives the change up: the
// process ends without having answered it.
func TestClosingOnAFullDisk(t *testing.T) {
	full := &fullness{lacks: func(op errorfs.Op) bool {
		return path.Ext(op.Path) == ".log" && writes(op, errorfs.OpFileWrite)
	}}
	fatal := make(chan error, 1)
	// Not closed in the end: after OnFatal there is no process to close it in.
	s, err := Open(storeAt, Options{FS: errorfs.Wrap(vfs.NewMem(), full), retry: time.Hour, OnFatal: func(err error) { fatal <- err }})
	if err != nil {
		t.Fatal(err)
	}
	s.settle() // what Open wrote is in the log
	full.on.Store(true)
	var answered atomic.Bool
	go func() {
		_ = s.Create(ops, created(testKey("acme", 1)))
		answered.Store(true)
	}()
	nettest.Until(t, "the change waits", func() bool { return s.disk.waiting.Load() > 0 })
	go s.Close()
	if err := <-fatal; !lacksRoom(err) && !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		t.Errorf("OnFatal was told %v, want that there is no room", err)
	}
	if answered.Load() {
		t.Error("the change was answered, though it is not on disk")
	}
}

func TestOpenOnAFullDisk(t *testing.T) {
	disk := &roomFS{FS: vfs.NewMem()}
	disk.room.Store(1<<20 - 1)
	_, err := Open(storeAt, Options{FS: disk})
	const want = "key store store: key store is out of disk space: 1023 KiB are left on its disk; free some and start again"
	if !errors.Is(err, apikey.ErrStoreFull) || err.Error() != want {
		t.Errorf("Open gave %v, want %s", err, want)
	}
}

// breakEnv names the store of a child process of the tests, whose disk breaks.
const breakEnv = "LATCHKEY_TEST_BREAK_DISK"

// changeOnBrokenDisk makes a change whose sync fails, and says so if it is
// answered.
func changeOnBrokenDisk(at string) {
	var broken atomic.Bool
	s, err := Open(at, Options{Logger: slog.New(slog.NewJSONHandler(os.Stderr, nil)), FS: errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && isLogSync(op) {
			return &os.PathError{Op: "sync", Path: op.Path, Err: syscall.EIO}
		}
		return nil
	}))})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = s.Create(ops, created(testKey("acme", 1)))
	fmt.Println("answered")
	broken.Store(true)
	err = s.Create(ops, created(testKey("acme", 2)))
	fmt.Println("answered on a broken disk:", err)
}

// A process whose log cannot be synced ends with a status that is not zero and
// one line that says why, and does not answer.
func TestABrokenLogEndsTheProcess(t *testing.T) {
	at := filepath.Join(t.TempDir(), "store")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), breakEnv+"="+at)
	var out, complaint bytes.Buffer
	child.Stdout, child.Stderr = &out, &complaint
	err := child.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("the process ended with %v, want exit status 1", err)
	}
	if out.String() != "answered\n" {
		t.Errorf("output %q, want one answer", out.String())
	}
	if got := complaint.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, ".log: input/output error") {
		t.Errorf("standard error %q, want one line that names the log and its error", got)
	}
	s := openWith(t, at, Options{})
	wantKey(t, s, testKey("acme", 1))
}

// A damagedStore is the files of a store whose process was killed: some keys lie
// in tables, some in the log, and many are revoked.
func damagedStore(t *testing.T) (files map[string][]byte, keys []apikey.Key) {
	t.Helper()
	mem := vfs.NewMem()
	s, err := Open(storeAt, Options{FS: mem})
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range manyKeys("acme", 0, 120) {
		if i == 60 {
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
				t.Fatal(err)
			}
		}
		if i == 90 {
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		mustCreate(t, s, k)
		keys = append(keys, k)
		if i%2 == 1 { // the last change of all is a revocation
			c := mustChange(t, s, keys[i/2], revokeAt(epoch.Add(time.Hour)))
			keys[i/2] = c.Keys[0]
		}
	}
	s.scan.Wait()
	files = map[string][]byte{}
	for _, dir := range []string{storeAt, storeAt + "/" + databaseAt} {
		names, err := mem.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if info, err := mem.Stat(dir + "/" + name); err == nil && !info.IsDir() {
				files[dir+"/"+name] = readAll(t, mem, dir+"/"+name)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return files, keys
}

func putFiles(t *testing.T, files map[string][]byte) *vfs.MemFS {
	t.Helper()
	mem := vfs.NewMem()
	if err := mem.MkdirAll(storeAt+"/"+databaseAt, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		writeAll(t, mem, name, bytes.Clone(text)) // a write may change what it is given
	}
	return mem
}

// One flipped bit, wherever it is, takes back no revocation and no key: either the
// store does not open and says why, or a look-up is as before or fails.
func TestFlippedBits(t *testing.T) {
	files, keys := damagedStore(t)
	var kinds []string // all files that may be damaged, each as likely as another
	for name, text := range files {
		if len(text) > 0 && path.Base(name) != formatFile && path.Base(name) != sealFile {
			kinds = append(kinds, name)
		}
	}
	seed := time.Now().UnixNano()
	rng := rand.New(rand.NewPCG(uint64(seed), 0))
	var refused, faults, same int
	n := *flips
	if testing.Short() {
		n = min(n, 10) // with the race detector each takes a second
	}
	for range n {
		name := kinds[rng.IntN(len(kinds))]
		at, bit := rng.IntN(len(files[name])), rng.IntN(8)
		where := fmt.Sprintf("%s, byte %d, bit %d", name, at, bit)
		damaged := map[string][]byte{}
		for n, text := range files {
			damaged[n] = bytes.Clone(text)
		}
		damaged[name][at] ^= 1 << bit
		found := problems(putFiles(t, damaged))
		if isTable(name) && found == 0 {
			t.Errorf("%s: verify finds nothing", where)
		}
		s, err := Open(storeAt, Options{FS: putFiles(t, damaged), OnFatal: func(err error) { panic(err) }})
		if err != nil {
			refused++
			continue
		}
		s.scan.Wait()
		failed := 0
		for _, want := range keys {
			got, err := s.ByDigest(&want.Digest)
			switch {
			case errors.Is(err, apikey.ErrNotFound):
				t.Errorf("%s: %s is gone, and nothing says so", where, want.Name)
			case err != nil:
				failed++
			case !cmp.Equal(want, *got, netipValues):
				t.Errorf("%s: %s is not what it was", where, want.Name)
			}
		}
		if failed > 0 {
			faults++
			if s.events.damaged.Load() == 0 {
				t.Errorf("%s: %d look-ups failed, and no damage was counted", where, failed)
			}
		} else {
			same++
		}
		if err := s.Close(); err != nil {
			t.Logf("%s: Close: %v", where, err)
		}
	}
	t.Logf("%d bits flipped (seed %d): %d stores did not open, %d had look-ups that failed, %d were as before", n, seed, refused, faults, same)
}

// A key in a damaged block is a fault that ends no process, is not looked for
// again at each request, and is over when the key is written anew.
func TestADamagedBlock(t *testing.T) {
	files, keys := damagedStore(t)
	for name, text := range files {
		if !isTable(name) {
			continue
		}
		for at := 0; at < len(text); at += 1024 { // until a block is hit that has rows by digest
			damaged := map[string][]byte{}
			for n, text := range files {
				damaged[n] = text
			}
			damaged[name] = bytes.Clone(text)
			damaged[name][at] ^= 1
			if damagedBlock(t, putFiles(t, damaged), keys) {
				return
			}
		}
	}
	t.Error("no look-up failed: the test damages nothing")
}

// damagedBlock reports whether a live key's look-up fails, though not that of its
// record, and then tests how.
func damagedBlock(t *testing.T, mem vfs.FS, keys []apikey.Key) bool {
	t.Helper()
	s, err := Open(storeAt, Options{FS: mem, OnFatal: func(err error) { panic(err) }})
	if err != nil {
		return false
	}
	defer s.Close()
	s.scan.Wait()
	for _, k := range keys {
		_, err := s.ByDigest(&k.Digest)
		if _, recordErr := s.ByID("acme", k.ID); err == nil || recordErr != nil || !k.Live() {
			continue
		}
		before := s.events.damaged.Load()
		for range 10 {
			if _, err := s.ByDigest(&k.Digest); !pebble.IsCorruptionError(err) {
				t.Fatalf("ByDigest(%s) gave %v, want what it gave before", k.Name, err)
			}
		}
		if n := s.events.damaged.Load() - before; before == 0 || n != 0 {
			t.Errorf("%d damaged blocks read for the first look-ups and %d for further ones, want none for those", before, n)
		}
		wantKey(t, s, mustChange(t, s, k, revokeAt(epoch.Add(time.Hour))).Keys[0])
		return true
	}
	return false
}

// problems returns how many things verify finds, one at the least if it cannot
// read the store.
func problems(mem vfs.FS) (n int) {
	_, err := Verify(storeAt, Options{FS: mem}, func(string) { n++ })
	if err != nil {
		n++
	}
	return n
}

// The last change before a kill is damaged: Pebble alone takes it for torn, and
// the revoked key would be good again.
func TestADamagedEndIsNoTornEnd(t *testing.T) {
	files, _ := damagedStore(t)
	dir := storeAt + "/" + databaseAt + "/"
	marks := decodeMarks(files[dir+syncedFile])
	if len(marks) != 2 {
		t.Fatalf("marks %v, want a log and a MANIFEST", marks)
	}
	for name, m := range marks {
		t.Run(name, func(t *testing.T) {
			damaged, last := map[string][]byte{}, dir+name
			for n, text := range files {
				damaged[n] = bytes.Clone(text)
			}
			damaged[last][m.bytes-1] ^= 1
			if _, err := Open(storeAt, Options{FS: putFiles(t, damaged)}); err == nil || !strings.Contains(err.Error(), path.Base(last)+" is damaged: its first ") {
				t.Errorf("Open gave %v, want that %s is damaged", err, path.Base(last))
			}
			if problems(putFiles(t, damaged)) == 0 {
				t.Error("verify finds nothing")
			}
			// What was written and not synced may be torn by a crash.
			torn := map[string][]byte{}
			for n, text := range files {
				torn[n] = text
			}
			torn[last] = append(bytes.Clone(files[last][:m.bytes]), 1, 2, 3)
			s, err := Open(storeAt, Options{FS: putFiles(t, torn)})
			if err != nil {
				t.Fatalf("a torn end: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMarksOneSector(t *testing.T) {
	marks := map[string]mark{"000012.log": {1 << 40, 7}, "MANIFEST-000001": {1 << 40, 1 << 31}, "MANIFEST-1000002": {0, 0}}
	b := encodeMarks(marks)
	if len(b) != syncedBytes {
		t.Errorf("%d bytes, want %d", len(b), syncedBytes)
	}
	if diff := cmp.Diff(marks, decodeMarks(b), cmp.AllowUnexported(mark{})); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	for i := range bytes.TrimRight(b, "\x00") {
		b[i] ^= 4
		if got := decodeMarks(b); len(got) != 0 {
			t.Errorf("with byte %d damaged it says %v, want nothing", i, got)
		}
		b[i] ^= 4
	}
}
