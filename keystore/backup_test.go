package keystore

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"latchkey/apikey"
)

// backUp returns the archive of a store.
func backUp(t *testing.T, s *Store) []byte {
	t.Helper()
	a, err := s.Backup("test", epoch)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(a)
	if err = errors.Join(err, a.Close()); err != nil {
		t.Fatal(err)
	}
	return text
}

func TestBackupIsTheStoreAsItStands(t *testing.T) {
	s, _ := everyKind(t, vfs.NewMem())
	t.Cleanup(func() { s.Close() })
	before := rows(t, s)
	if _, err := s.stage(ops); err != nil { // an import under way is not in it
		t.Fatal(err)
	}
	text := backUp(t, s)
	mustCreate(t, s, testKey("acme", 50)) // nor is what comes later
	dir := t.TempDir()
	m, err := ReadArchive(bytes.NewReader(text), dir)
	if err != nil {
		t.Fatal(err)
	}
	if m.Keys != 3 || m.Revision != 5 || m.Version != "test" || !m.MadeAt.Equal(epoch) {
		t.Errorf("manifest %+v", m)
	}
	if again, err := ReadBackup(dir, ""); err != nil || len(again.Files) != len(m.Files) {
		t.Errorf("ReadBackup() = %+v, %v", again, err)
	}
	if got, err := Verify(dir, Options{}, func(p string) { t.Error(p) }); err != nil || got.Keys() != 3 {
		t.Errorf("Verify() = %+v, %v", got, err)
	}
	if again, err := ReadBackup(dir, ""); err != nil {
		t.Errorf("after it was verified: %+v, %v", again, err)
	}
	if err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && path != dir && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v: others can read it", path, info.Mode())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := ForgetBackup(dir); err != nil {
		t.Fatal(err)
	}
	copied := openWith(t, dir, Options{})
	wantRows(t, copied, before)
	if secret, err := copied.WebhookSecret(testKey("acme", 1).ID); err != nil || secret != "whsec_canary" {
		t.Errorf("the copy cannot open what is sealed: %v", err)
	}
}

// A backup under load has every change that was answered before it began, and is
// sound whatever it has of the others.
func TestBackupUnderWriters(t *testing.T) {
	s := openWith(t, t.TempDir(), Options{})
	stop, done := make(chan struct{}), make(chan struct{})
	answered := make(chan int, 1)
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.Create(ops, created(testKey("acme", n))); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-answered:
			default:
			}
			answered <- n + 1
		}
	}()
	for range 5 {
		atLeast := <-answered
		text, dir := backUp(t, s), t.TempDir()
		m, err := ReadArchive(bytes.NewReader(text), dir)
		if err != nil || m.Keys < atLeast {
			t.Fatalf("%d keys in the backup, %v; %d were answered before", m.Keys, err, atLeast)
		}
		if got, err := Verify(dir, Options{}, func(p string) { t.Error(p) }); err != nil || got.Keys() != m.Keys || got.Revision != m.Revision {
			t.Errorf("Verify() = %+v, %v; the manifest says %d keys, revision %d", got, err, m.Keys, m.Revision)
		}
	}
	close(stop)
	<-done
}

func TestOneBackupAtATime(t *testing.T) {
	disk := vfs.NewMem()
	s := openStore(t, disk)
	mustCreate(t, s, testKey("acme", 1))
	a, err := s.Backup("test", epoch)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Backup("test", epoch); !errors.Is(err, apikey.ErrBackingUp) {
		t.Errorf("a second backup: %v", err)
	}
	if _, err := a.Read(make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if err := a.Close(); err != nil { // given up half-way
		t.Error(err)
	}
	if _, err := disk.Stat(disk.PathJoin(storeAt, backupAt)); err == nil {
		t.Error("the copy is still there")
	}
	backUp(t, s)
}

func TestACopyLeftOverIsSweptAtOpen(t *testing.T) {
	disk := vfs.NewMem()
	s, err := Open(storeAt, Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.checkpoint(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	left := disk.PathJoin(storeAt, backupAt)
	if _, err := disk.Stat(left); err != nil {
		t.Fatal("there is nothing left over: the test cannot tell")
	}
	openStore(t, disk)
	if _, err := disk.Stat(left); err == nil {
		t.Error("the copy is still there")
	}
}

// TestDamagedArchives cuts an archive everywhere and changes it.
func TestDamagedArchives(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	mustCreate(t, s, testKey("acme", 1))
	text := backUp(t, s)
	for n := 0; n <= bytes.LastIndexByte(text, '}'); n += 50 { // what follows is padding
		if _, err := ReadArchive(bytes.NewReader(text[:n]), ""); err == nil {
			t.Fatalf("cut to %d of %d bytes it is taken for whole", n, len(text))
		}
	}
	rewrite := func(change func(h *tar.Header, body []byte) (keep bool, more []tar.Header)) []byte {
		var out bytes.Buffer
		in, w := tar.NewReader(bytes.NewReader(text)), tar.NewWriter(&out)
		for {
			h, err := in.Next()
			if err == io.EOF {
				break
			}
			body, readErr := io.ReadAll(in)
			if err := errors.Join(err, readErr); err != nil {
				t.Fatal(err)
			}
			keep, more := change(h, body)
			for _, extra := range more {
				if err := w.WriteHeader(&extra); err != nil {
					t.Fatal(err)
				}
			}
			if !keep {
				continue
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(body); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	named := func(name string) func(*tar.Header, []byte) (bool, []tar.Header) {
		return func(h *tar.Header, _ []byte) (bool, []tar.Header) {
			if h.Name == formatFile {
				return true, []tar.Header{{Typeflag: tar.TypeReg, Name: name}}
			}
			return true, nil
		}
	}
	for _, tc := range []struct {
		name   string
		change func(h *tar.Header, body []byte) (bool, []tar.Header)
		want   string
	}{
		{"a file is missing", func(h *tar.Header, _ []byte) (bool, []tar.Header) { return h.Name != sealFile, nil }, "backup lacks the file SEAL"},
		{"a byte is wrong", func(h *tar.Header, b []byte) (bool, []tar.Header) {
			if h.Name == sealFile {
				b[3] ^= 1
			}
			return true, nil
		}, "file SEAL of the backup is not as it was"},
		{"the manifest is missing", func(h *tar.Header, _ []byte) (bool, []tar.Header) { return h.Name != manifestFile, nil }, "backup is cut short"},
		{"there is a file too many", named("db/999999.sst"), "backup has the file db/999999.sst"},
		{"a name leaves the directory", named("../escaped"), `backup has the file "../escaped"`},
		{"a name leaves the database", named("db/../../escaped"), `backup has the file "db/../../escaped"`},
		{"a name is absolute", named("/tmp/escaped"), `backup has the file "/tmp/escaped"`},
		{"an entry is a link", func(h *tar.Header, _ []byte) (bool, []tar.Header) {
			return true, []tar.Header{{Typeflag: tar.TypeSymlink, Name: "db/000001.log", Linkname: "/etc/passwd"}}
		}, `backup has the file "db/000001.log"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := ReadArchive(bytes.NewReader(rewrite(tc.change)), t.TempDir()); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("ReadArchive() = %v, want %s", err, tc.want)
			}
		})
	}
	same := rewrite(func(*tar.Header, []byte) (bool, []tar.Header) { return true, nil })
	if _, err := ReadArchive(bytes.NewReader(same), ""); err != nil {
		t.Errorf("the archive, written again: %v", err)
	}
}

func TestBackupNeedsRoom(t *testing.T) {
	disk := &roomFS{FS: vfs.NewMem()}
	disk.room.Store(1 << 30)
	s := openStore(t, disk)
	disk.room.Store(1)
	if _, err := s.Backup("test", time.Now()); !errors.Is(err, apikey.ErrStoreFull) {
		t.Errorf("on a full disk: %v", err)
	}
	disk.room.Store(1 << 30)
	backUp(t, s)
}
