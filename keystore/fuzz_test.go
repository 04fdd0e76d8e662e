package keystore

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"latchkey/apikey"
)

func FuzzDecodeSigningKey(f *testing.F) {
	good := apikey.NewSigningKey("sig", [32]byte{1, 31: 9}, epoch)
	retired := good.Retire(epoch)
	f.Add(appendSigningKey(nil, &good, good.Seed[:]))
	f.Add(appendSigningKey(nil, &retired, nil))
	f.Add(appendField(nil, tagSigningSeed, make([]byte, 31)))
	clear := func(sealed []byte) (apikey.Secret, error) { return apikey.Secret(sealed), nil }
	f.Fuzz(func(t *testing.T, row []byte) {
		k, err := decodeSigningKey(row, "sig", clear)
		if err != nil {
			if !errors.Is(err, errCorrupt) || k != (apikey.SigningKey{}) {
				t.Fatalf("gave %v", err)
			}
			return
		}
		if again := appendSigningKey(nil, &k, k.Seed[:]); !bytes.Equal(again, row) {
			t.Fatalf("%x is read as what is written as %x", row, again)
		}
	})
}

// FuzzVerifyRow puts a row into a sound store, of everything that verify reads. One
// that the store would not have written is reported; only where a value may be
// another as well, as the actor of an event may, must it do no more than be readable.
func FuzzVerifyRow(f *testing.F) {
	s, _ := everyKind(f, vfs.NewMem())
	f.Cleanup(func() { s.Close() })
	sound := rows(f, s)
	for key, value := range sound {
		f.Add([]byte(key), []byte(value))
	}
	f.Add([]byte{}, []byte{})
	f.Add([]byte{0xff}, []byte{})
	f.Add(auditKey(9, 0), appendEvent(nil, &apikey.Event{Origin: ops, Action: apikey.ActionSigningKeyAdded, Tenant: apikey.AnyTenant, SigningKey: "sig"}))
	nine := testKey("acme", 9)
	another := apikey.NewSigningKey("another", [32]byte{}, epoch).Retire(epoch)
	f.Add(signingKey("another"), appendSigningKey(nil, &another, nil))
	f.Add(recordKey(nine.ID), append(nine.Digest[:], appendKey(nil, &nine)...))
	f.Add(listPrefix(familyCount, "initech", stateLive), make([]byte, 8))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		batch := s.db.NewIndexedBatch()
		defer batch.Close()
		if err := batch.Set(key, value, nil); err != nil {
			t.Fatal(err)
		}
		var problems []string
		v := &verifier{r: batch, open: s.sealer.open, report: func(p string) { problems = append(problems, p) }}
		v.rows()
		if old, there := sound[string(key)]; there && (old == string(value) || key[0] != familyRecord && key[0] != familyDigest) {
			if old == string(value) && problems != nil {
				t.Errorf("the store as it was: %q", problems)
			}
			return
		}
		if problems == nil && !mayBe(s, key, value) {
			t.Errorf("nothing is wrong with the row %q: %q", key, value)
		}
	})
}

// mayBe reports whether a row may be in the store beside those that are there.
func mayBe(s *Store, key, value []byte) bool {
	if len(key) == 0 {
		return false
	}
	switch key[0] {
	case familyStaged:
		return true
	case familySigning:
		_, err := decodeSigningKey(value, string(key[1:]), nil)
		return err == nil
	case familyCount:
		return len(value) == 8 && binary.BigEndian.Uint64(value) == 0
	case familyUse:
		if len(key) != 1+idLength {
			return false
		}
		_, err := decodeUse(value, apikey.ID{1})
		_, absent := byID(s.db, apikey.AnyTenant, idAtEnd(key))
		return err == nil && absent == nil
	}
	return false
}

// FuzzFormat holds the reading of the file FORMAT to the one spelling that is
// written, with white space around it. No more than 64 bytes are read.
func FuzzFormat(f *testing.F) {
	for _, text := range []string{"latchkey store 1\n", "latchkey store 01\n", "latchkey store +1", "latchkey store 2", "latchkey store 99999999999999999999", "latchkey store -1",
		" latchkey store 1", "latchkey store 1\x00", "latchkey store latchkey store 1", "latchkey store 1" + strings.Repeat(" ", 64) + "x", ""} {
		f.Add(text)
	}
	spelling := regexp.MustCompile(`^latchkey store ([1-9][0-9]*)$`)
	f.Fuzz(func(t *testing.T, text string) {
		disk := vfs.NewMem()
		writeAll(t, disk, formatFile, []byte(text))
		err := readFormat("", disk)
		want := ErrNotStore
		if m := spelling.FindStringSubmatch(strings.TrimSpace(text[:min(len(text), 64)])); m != nil {
			switch n, bad := strconv.Atoi(m[1]); {
			case bad == nil && n == schema:
				want = nil
			case bad == nil:
				want = ErrNewer
			}
		}
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	})
}

// FuzzSeal holds the reading of the file SEAL to its form, and what it is read as to
// the key that is in it: what one sealer seals the other opens.
func FuzzSeal(f *testing.F) {
	good := strings.Repeat("0f", 32)
	for _, text := range []string{good + "\n", strings.ToUpper(good), good[:63] + "g", good[:62], good + " more", ""} {
		f.Add(text, []byte("row"), "secret")
	}
	f.Fuzz(func(t *testing.T, text string, row []byte, secret string) {
		disk := vfs.NewMem()
		writeAll(t, disk, sealFile, []byte(text))
		s, err := readSealer("", disk)
		if len(text) < 64 || strings.Trim(text[:64], "0123456789abcdefABCDEF") != "" {
			if !errors.Is(err, errSealKey) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		var key [32]byte
		for i := range key {
			n, _ := strconv.ParseUint(text[2*i:2*i+2], 16, 8)
			key[i] = byte(n)
		}
		other, otherErr := newSealer(key[:])
		if err != nil || otherErr != nil {
			t.Fatal(err, otherErr)
		}
		if got, err := other.open(row, s.seal(row, apikey.Secret(secret))); err != nil || string(got) != secret {
			t.Errorf("%q: %q is opened as %q, %v", text, secret, string(got), err)
		}
		if _, err := other.open(append(row, 0), s.seal(row, apikey.Secret(secret))); !errors.Is(err, errCorrupt) {
			t.Errorf("in another row: %v", err)
		}
	})
}

// FuzzReadArchive makes an archive of files with any names and content, changes a
// byte of it, and reads it. What is taken is unpacked as what it was made of, byte for
// byte, with nothing beside it and nothing outside of its directory.
func FuzzReadArchive(f *testing.F) {
	f.Add("FORMAT\nSEAL\ndb/000001.log\ndb/MANIFEST-000001", []byte("0123456789"), uint32(0), byte(0))
	f.Add("FORMAT\ndb/x", []byte("0123456789"), uint32(512), byte(1)) // the content of the first file
	f.Add("db/../../x", []byte("a"), uint32(0), byte(0))
	f.Add("../x\n/tmp/x", []byte("a"), uint32(0), byte(0))
	f.Add("db/x\ndb/x", []byte("ab"), uint32(0), byte(0))
	f.Add("db/a/b\ndb/.\ndb/..\ndb/\nBACKUP.json", []byte{}, uint32(0), byte(0))
	f.Add("db/x", []byte("a"), uint32(1030), byte(0x20)) // in the manifest
	plain := regexp.MustCompile(`^(FORMAT|SEAL|db/[0-9A-Za-z-]{1,40})$`)
	f.Fuzz(func(t *testing.T, names string, content []byte, at uint32, change byte) {
		made, text, ok := fuzzArchive(t, strings.Split(names, "\n"), content)
		if !ok {
			return // tar has no way to write it
		}
		text[int(at)%len(text)] ^= change
		parent := t.TempDir()
		dir := filepath.Join(parent, "to")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		m, err := ReadArchive(bytes.NewReader(text), dir)
		if again, againErr := ReadArchive(bytes.NewReader(text), ""); err == nil && (againErr != nil || len(again.Files) != len(m.Files)) {
			t.Errorf("%q is unpacked, but not found whole: %v", names, againErr)
		}
		if err != nil {
			good := change == 0
			for name := range made {
				good = good && plain.MatchString(name)
			}
			if good && len(made) == strings.Count(names, "\n")+1 {
				t.Errorf("%q is refused: %v", names, err)
			}
		}
		found := filesBelow(t, parent)
		if err != nil {
			return // the caller removes what was written so far, which is its directory's
		}
		if len(found) != len(made)+1 || found["to/"+manifestFile] == "" {
			t.Errorf("%q is unpacked as %d files", names, len(found))
		}
		for name, want := range made {
			if got, there := found["to/"+name]; !there || got != want {
				t.Errorf("%q: %s is unpacked as %q, %t, want %q", names, name, got, there, want)
			}
		}
		unpacked, err := ReadBackup(dir, "")
		if err != nil || len(unpacked.Files) != len(m.Files) {
			t.Errorf("%q, unpacked, is refused: %v", names, err)
		}
	})
}

// fuzzArchive writes an archive as Backup does, with the content cut into as many
// pieces as there are names.
func fuzzArchive(t *testing.T, names []string, content []byte) (made map[string]string, text []byte, ok bool) {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	m := Manifest{Format: manifestFormat, Version: "fuzz", MadeAt: epoch}
	made = map[string]string{}
	for i, name := range names {
		piece := content[i*len(content)/len(names) : (i+1)*len(content)/len(names)]
		if w.WriteHeader(header(name, int64(len(piece)), epoch)) != nil {
			return nil, nil, false
		}
		if _, err := w.Write(piece); err != nil {
			return nil, nil, false // a directory, by its name
		}
		sum := sha256.Sum256(piece)
		m.Files = append(m.Files, BackupFile{Name: name, Bytes: int64(len(piece)), SHA256: hex.EncodeToString(sum[:])})
		made[name] = string(piece)
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteHeader(header(manifestFile, int64(len(manifest)), epoch)); err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(manifest)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return made, out.Bytes(), true
}

// filesBelow returns the content of every file below a directory.
func filesBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, relErr := filepath.Rel(dir, path)
		out[filepath.ToSlash(name)] = string(text)
		return errors.Join(err, relErr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
