package keystore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"latchkey/apikey"
)

// holdEnv names the store that a child process of the tests is to hold open.
const holdEnv = "LATCHKEY_TEST_HOLD_STORE"

func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		holdOpen(path)
		return
	}
	if at := os.Getenv(breakEnv); at != "" {
		changeOnBrokenDisk(at)
		return
	}
	flag.Parse()
	code := m.Run()
	removeBench()
	os.Exit(code)
}

// holdOpen keeps the store open until its standard input ends.
func holdOpen(path string) {
	s, err := Open(path, Options{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = s.Close()
}

// storeAt is where the tests keep their store in an in-memory file system.
const storeAt = "store"

// epoch is when the tests' time begins.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)

// netipValues lets cmp compare addresses, which hide their fields.
var netipValues = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func openStore(t testing.TB, fsys vfs.FS) *Store {
	t.Helper()
	return openWith(t, storeAt, Options{FS: fsys})
}

func openWith(t testing.TB, path string, o Options) *Store {
	t.Helper()
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// testKey returns the n-th test key of a tenant, live and without an end.
func testKey(tenant string, n int) apikey.Key {
	var entropy [8]byte
	binary.BigEndian.PutUint64(entropy[:], uint64(n))
	at := epoch.Add(time.Duration(n) * time.Millisecond)
	return apikey.Key{
		ID: apikey.NewID(at, entropy), Digest: apikey.DigestOf(fmt.Appendf(nil, "secret %d", n)),
		Hint: apikey.Hint{Head: "lk_live_Ab3d", Tail: "9xYz"}, Tenant: tenant, Subject: "user-123456",
		Name: fmt.Sprintf("key %d", n), Scopes: []string{"orders:read", "orders:write"}, CreatedAt: at, UpdatedAt: at,
	}
}

func created(keys ...apikey.Key) apikey.Change {
	return apikey.Change{Action: apikey.ActionCreated, Keys: keys}
}

// ops is the operator behind the tests' changes.
var ops = apikey.Origin{At: epoch, Actor: "ops", Address: netip.MustParseAddr("10.0.0.1"), RequestID: "req-1"}

func revokeAt(at time.Time) func(apikey.Key) (apikey.Change, error) {
	return func(k apikey.Key) (apikey.Change, error) { return k.Revoke(at) }
}

func mustCreate(t testing.TB, s *Store, keys ...apikey.Key) {
	t.Helper()
	if err := s.Create(ops, created(keys...)); err != nil {
		t.Fatalf("Create: %v", err)
	}
}

func mustChange(t testing.TB, s *Store, k apikey.Key, decide func(apikey.Key) (apikey.Change, error)) apikey.Change {
	t.Helper()
	c, err := s.Change(ops, k.Tenant, k.ID, decide)
	if err != nil {
		t.Fatalf("Change: %v", err)
	}
	return c
}

func wantKey(t testing.TB, s *Store, want apikey.Key) {
	t.Helper()
	got, err := s.ByDigest(&want.Digest)
	if err != nil {
		t.Errorf("ByDigest(%s): %v", want.Name, err)
		return
	}
	if diff := cmp.Diff(want, *got, netipValues); diff != "" {
		t.Errorf("ByDigest(%s) (-want +got):\n%s", want.Name, diff)
	}
}

func TestOpenRefuses(t *testing.T) {
	write := func(name, text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	const notStore = "has files in it but is not a latchkey store; name an empty or missing directory"
	for _, tc := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		at      string // below the directory
		is      error
		want    string
	}{
		{"a newer schema", write("FORMAT", "latchkey store 2\n"), "", ErrNewer,
			"has schema 2, this version knows up to 1: it was written by a newer version of latchkey; run that version, or restore a backup made by this one"},
		{"a directory of other files", write("notes.txt", "shopping"), "", ErrNotStore, notStore},
		{"a format file of something else", write("FORMAT", "leveldb 1\n"), "", ErrNotStore, notStore},
		{"an empty format file", write("FORMAT", ""), "", ErrNotStore, notStore},
		{"a format file without a number", write("FORMAT", "latchkey store x\n"), "", ErrNotStore, notStore},
		{"a format file with number zero", write("FORMAT", "latchkey store 0\n"), "", ErrNotStore, notStore},
		{"a format file with more than a number", write("FORMAT", "latchkey store 1 and more\n"), "", ErrNotStore, notStore},
		{"a path that is a file", write("keys", "x"), "keys", syscall.ENOTDIR, "not a directory"},
		{"a path below a file", write("keys", "x"), "keys/store", syscall.ENOTDIR, "not a directory"},
		{"a directory in place of the format file",
			func(t *testing.T, dir string) {
				if err := os.Mkdir(filepath.Join(dir, "FORMAT"), 0o700); err != nil {
					t.Fatal(err)
				}
			}, "", syscall.EISDIR, "is a directory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			tc.prepare(t, dir)
			before := contents(t, dir)
			path := filepath.Join(dir, tc.at)
			_, err := Open(path, Options{})
			if want := "key store " + path + ": " + tc.want; err == nil || err.Error() != want {
				t.Fatalf("Open gave %v, want %s", err, want)
			}
			if !errors.Is(err, tc.is) {
				t.Errorf("Open gave %v, which is not %v", err, tc.is)
			}
			if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
				t.Errorf("Open wrote (-before +after):\n%s", diff)
			}
		})
	}
}

// A store that a newer version has used is left exactly as it is.
func TestOpenNewerWritesNothing(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	mustCreate(t, s, testKey("acme", 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "FORMAT"), []byte("latchkey store 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	if len(before) < 4 {
		t.Fatalf("the store has only %d files", len(before))
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrNewer) {
		t.Fatalf("Open gave %v, want ErrNewer", err)
	}
	if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
		t.Errorf("Open wrote (-before +after):\n%s", diff)
	}
}

// contents returns the bytes and time of change of every file below dir.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		files[path] = info.ModTime().String() + " " + string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestOpenReportsUnreadableDirectory(t *testing.T) {
	for _, tc := range []struct {
		name string
		kind errorfs.OpKind
		path string
	}{
		{"the format file cannot be opened", errorfs.OpOpen, storeAt + "/FORMAT"},
		{"the format file cannot be read", errorfs.OpFileRead, storeAt + "/FORMAT"},
		{"the database cannot be listed", errorfs.OpList, storeAt + "/db"},
		{"the lock cannot be taken", errorfs.OpLock, storeAt + "/db/LOCK"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mem := vfs.NewMem()
			s, err := Open(storeAt, Options{FS: mem})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			denied := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == tc.kind && op.Path == tc.path {
					return &fs.PathError{Op: "open", Path: op.Path, Err: syscall.EACCES}
				}
				return nil
			}))
			_, err = Open(storeAt, Options{FS: denied})
			if !errors.Is(err, fs.ErrPermission) {
				t.Fatalf("Open gave %v, want permission denied", err)
			}
			if text := err.Error(); !strings.HasPrefix(text, "key store store: ") || strings.Contains(text, "\n") {
				t.Errorf("Open gave %q, want one line about the store", text)
			}
		})
	}
}

func TestOpenTwice(t *testing.T) {
	const want = "is open in another process; stop that one first"
	refused := func(t *testing.T, path string, o Options) {
		t.Helper()
		_, err := Open(path, o)
		if !errors.Is(err, ErrLocked) || err.Error() != "key store "+path+": "+want {
			t.Errorf("second Open gave %v, want ErrLocked in one line", err)
		}
	}
	t.Run("by the same process", func(t *testing.T) {
		dir := t.TempDir()
		openWith(t, dir, Options{})
		refused(t, dir, Options{})
	})
	t.Run("by the same process, in memory", func(t *testing.T) {
		mem := vfs.NewMem()
		openStore(t, mem)
		refused(t, storeAt, Options{FS: mem})
	})
	t.Run("by another process, until it ends", func(t *testing.T) {
		dir := t.TempDir()
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), holdEnv+"="+dir)
		stdin, err := child.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "open\n" {
			t.Fatalf("child said %q, %v", line, err)
		}
		refused(t, dir, Options{})
		if err := errors.Join(stdin.Close(), child.Wait()); err != nil {
			t.Fatal(err)
		}
		openWith(t, dir, Options{})
	})
}

func TestOpenMakesPrivateDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "store")
	openWith(t, path, Options{})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode().Perm(), fs.FileMode(0o700); got != want {
		t.Errorf("mode of the directory is %v, want %v", got, want)
	}
}

// Making a store can be cut short anywhere; the next Open goes on from there.
func TestOpenSurvivesCrashWhileMakingStore(t *testing.T) {
	// Not some of the unsynced directory entries at random: no file system
	// reorders them so, and Pebble itself does not stand it while it begins.
	for _, kept := range []int{0, 100} {
		t.Run(fmt.Sprintf("%d percent of unsynced data kept", kept), func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			rng := rand.New(rand.NewPCG(1, uint64(kept)))
			var mu sync.Mutex
			var crashes []*vfs.MemFS
			var before []string
			watch := errorfs.InjectorFunc(func(op errorfs.Op) error {
				mu.Lock()
				defer mu.Unlock()
				if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
					crashes = append(crashes, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: rng}))
					before = append(before, fmt.Sprintf("operation %d on %s", op.Kind, op.Path))
				}
				return nil
			})
			s, err := Open("srv/store", Options{FS: errorfs.Wrap(mem, watch)})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if len(crashes) < 10 {
				t.Fatalf("only %d places to crash at", len(crashes))
			}
			for i, crashed := range crashes {
				s, err := Open("srv/store", Options{FS: crashed})
				if err != nil {
					t.Errorf("Open after a crash before %s: %v", before[i], err)
					continue
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestClosedStoreAnswersErrClosed(t *testing.T) {
	s, err := Open(storeAt, Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	k := testKey("acme", 1)
	mustCreate(t, s, k)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"ByDigest": func() error { _, err := s.ByDigest(&k.Digest); return err },
		"ByID":     func() error { _, err := s.ByID("acme", k.ID); return err },
		"List":     func() error { _, err := s.List(apikey.Query{Tenant: "acme", Limit: 1}); return err },
		"Due":      func() error { _, err := s.Due(DueEnd, epoch, 1); return err },
		"DueEnds":  func() error { _, err := s.DueEnds(epoch, 1); return err },
		"AuditOf":  func() error { _, err := s.AuditOf(k.ID); return err },
		"Create":   func() error { return s.Create(ops, created(testKey("acme", 2))) },
		"Change": func() error {
			_, err := s.Change(ops, "acme", k.ID, revokeAt(epoch))
			return err
		},
		"AddSigningKey":    func() error { return s.AddSigningKey(ops, apikey.NewSigningKey("a", [32]byte{1}, epoch)) },
		"RemoveSigningKey": func() error { return s.RemoveSigningKey(ops, "a") },
		"SigningKeys":      func() error { _, err := s.SigningKeys(); return err },
	} {
		if err := call(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close gave %v, want ErrClosed", name, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close gave %v, want nil", err)
	}
}

// Close waits for the calls under way; the ones after it find it closed.
func TestCloseDuringUse(t *testing.T) {
	s, err := Open(storeAt, Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	k := testKey("acme", 0)
	mustCreate(t, s, k)
	var all, begun sync.WaitGroup
	for g := range 8 {
		all.Add(1)
		begun.Add(1)
		go func() {
			defer all.Done()
			for n := 0; ; n++ {
				_, readErr := s.ByDigest(&k.Digest)
				writeErr := s.Create(ops, created(testKey("acme", 1+g*1_000_000+n)))
				if n == 0 {
					begun.Done()
				}
				for _, err := range []error{readErr, writeErr} {
					if err != nil && !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
				}
				if readErr != nil || writeErr != nil {
					return
				}
			}
		}()
	}
	begun.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
}
