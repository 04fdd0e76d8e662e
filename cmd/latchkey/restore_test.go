package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/admin/jwt"
	"latchkey/apikey"
	"latchkey/keystore"
)

// archived closes a store and returns the path of a backup of it.
func archived(t *testing.T, s *keystore.Store) string {
	t.Helper()
	r, err := s.Backup("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	path := filepath.Join(t.TempDir(), "archive.tar")
	if err := errors.Join(err, os.WriteFile(path, text, 0o600), r.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDamageThatFilesDoNotShow changes what a manifest tells of the store, by which a
// restore goes, and adds a file of which it does not tell.
func TestDamageThatFilesDoNotShow(t *testing.T) {
	dir := t.TempDir()
	s, err := keystore.Open(filepath.Join(dir, "store"), keystore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	by := apikey.Origin{At: apikey.Instant(time.Now()), Actor: "ops"}
	k := apikey.Key{ID: apikey.ID{1}, Digest: apikey.Digest{1}, Tenant: "acme", CreatedAt: by.At, UpdatedAt: by.At}
	if err := s.Create(by, apikey.Change{Action: apikey.ActionCreated, Keys: []apikey.Key{k}}); err != nil {
		t.Fatal(err)
	}
	archive := archived(t, s)
	for name, tc := range map[string]struct {
		old, new string // in the manifest
		extra    string // a file
		want     string
	}{
		"another revision":       {`"revision": 1`, `"revision": 9`, "", "tells of 1 keys and revision 9, and the store has 1 and 1; take another backup"},
		"another number of keys": {`"keys": 1`, `"keys": 5`, "", "tells of 5 keys and revision 1, and the store has 1 and 1; take another backup"},
		"a file more":            {"", "", "db/999999.sst", "has the file db/999999.sst, of which its manifest does not know"},
		"nothing":                {"", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			backup, to := filepath.Join(dir, "backup"), filepath.Join(dir, "to")
			if err := os.Mkdir(backup, 0o700); err != nil {
				t.Fatal(err)
			}
			if _, err := readBackup(archive, backup); err != nil {
				t.Fatal(err)
			}
			manifest := filepath.Join(backup, "BACKUP.json")
			text, err := os.ReadFile(manifest)
			if err != nil || !strings.Contains(string(text), tc.old) {
				t.Fatalf("%s, %v", text, err)
			}
			if err := os.WriteFile(manifest, []byte(strings.Replace(string(text), tc.old, tc.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			if tc.extra != "" {
				if err := os.WriteFile(filepath.Join(backup, tc.extra), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var out strings.Builder
			for what, err := range map[string]error{"verify": verify(backup, &out), "restore": restore(backup, to, "", time.Now(), &out)} {
				if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%s: %v, want %q", what, err, tc.want)
				}
			}
			if entries, err := os.ReadDir(dir); err != nil || (len(entries) == 1) != (tc.want != "") {
				t.Errorf("the restore left %v, %v", entries, err)
			}
		})
	}
}

// TestALogThatOverlaps has a revocation in two pages of the log.
func TestALogThatOverlaps(t *testing.T) {
	s, err := keystore.Open(filepath.Join(t.TempDir(), "store"), keystore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	by := apikey.Origin{At: apikey.Instant(time.Now()), Actor: "ops"}
	k := apikey.Key{ID: apikey.ID{1}, Digest: apikey.Digest{1}, Tenant: "acme", CreatedAt: by.At, UpdatedAt: by.At}
	if err := s.Create(by, apikey.Change{Action: apikey.ActionCreated, Keys: []apikey.Key{k}}); err != nil {
		t.Fatal(err)
	}
	archive, dir := archived(t, s), t.TempDir()
	audit := filepath.Join(dir, "audit.json")
	event := fmt.Sprintf(`[{"revision":2,"at":"2026-03-01T12:00:00Z","actor":"ops","action":"revoked","key_id":%q,"tenant":"acme","fields":[]}]`, k.ID.String())
	if err := os.WriteFile(audit, []byte(event+event), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := restore(archive, filepath.Join(dir, "to"), audit, time.Now(), &out); err != nil ||
		!strings.Contains(out.String(), "revoked again by the audit log: 1; revoked in the backup already: 0;") {
		t.Errorf("%v: %s", err, out.String())
	}
}

// TestSigningKeysOfABackup restores a backup of two signing keys, with logs of what
// happened to them since. What was replaced signs nothing, what was withdrawn is gone.
func TestSigningKeysOfABackup(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	by := apikey.Origin{At: apikey.Instant(now), Actor: "ops"}
	s, err := keystore.Open(filepath.Join(dir, "store"), keystore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jwt.NewSigner(s, by)
	if err == nil {
		err = signer.Rotate(by)
	}
	if err != nil {
		t.Fatal(err)
	}
	keys, err := s.SigningKeys()
	if err != nil || len(keys) != 2 {
		t.Fatalf("signing keys: %v, %v", keys, err)
	}
	slices.SortFunc(keys, func(a, b apikey.SigningKey) int { return strings.Compare(fmt.Sprint(a.Signs()), fmt.Sprint(b.Signs())) })
	retired, signing := keys[0].ID, keys[1].ID
	archive := archived(t, s)
	event := func(revision int, action, id string) string {
		return fmt.Sprintf(`{"revision":%d,"at":"2026-03-01T12:00:00Z","actor":"ops","action":%q,"signing_key_id":%q,"tenant":"*","fields":[]}`, revision, action, id)
	}
	const added, withdrawn = "signing_key_added", "signing_key_withdrawn"
	for _, tc := range []struct {
		name  string
		log   []string // newest first
		there []string // of the backup's keys
		signs bool     // the key that signed in the backup does
		says  string
	}{
		{"no log", nil, []string{retired, signing}, true, "is the one of the backup"},
		{"what the backup has", []string{event(2, added, signing), event(1, added, retired)}, []string{retired, signing}, true, "is the one of the backup"},
		{"a rotation", []string{event(3, added, "new")}, []string{retired, signing}, false, "is a new one, since the log has the one of the backup replaced; withdrawn again: 0"},
		{"a withdrawal", []string{event(3, withdrawn, retired)}, []string{signing}, true, "is the one of the backup, and the log has no rotation of it; withdrawn again: 1"},
		{"a rotation and withdrawals", []string{event(6, withdrawn, "new"), event(5, withdrawn, signing), event(4, added, "newest"), event(3, added, "new")},
			[]string{retired}, false, "withdrawn again: 1"},
		{"a withdrawal whose rotation is lost", []string{event(4, withdrawn, signing)}, []string{retired}, false, "withdrawn again: 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, audit := t.TempDir(), ""
			if tc.log != nil {
				audit = filepath.Join(dir, "audit.json")
				if err := os.WriteFile(audit, []byte("["+strings.Join(tc.log, ",")+"]"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var out strings.Builder
			to := filepath.Join(dir, "restored")
			if err := restore(archive, to, audit, now, &out); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), tc.says) {
				t.Errorf("restore says\n%s, want %q", out.String(), tc.says)
			}
			if _, err := inspect(to, &out); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			s, err := keystore.Open(to, keystore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			keys, err := s.SigningKeys()
			var there []string
			signs := 0
			for _, k := range keys {
				if k.ID == retired || k.ID == signing {
					there = append(there, k.ID)
				}
				if k.Signs() {
					signs++
					if (k.ID == signing) != tc.signs || k.ID == retired {
						t.Errorf("%v signs; of the backup's: %v", k, tc.signs)
					}
				}
			}
			slices.Sort(there)
			slices.Sort(tc.there)
			if !slices.Equal(there, tc.there) || signs != 1 || err != nil {
				t.Errorf("of the backup's keys %q are there and %d keys sign, %v, want %q and one", there, signs, err, tc.there)
			}
		})
	}
}

func TestRevisionsThatALogLacks(t *testing.T) {
	for _, tc := range []struct {
		backup uint64
		log    []uint64
		want   string
	}{
		{3, nil, ""},
		{3, []uint64{6, 5, 4}, ""},
		{3, []uint64{6, 5, 4, 4, 5}, ""}, // saved twice
		{3, []uint64{6, 5}, "4"},
		{3, []uint64{9, 4}, "5 to 8"},
		{0, []uint64{3, 9, 5, 6}, "1 to 2, 4, 7 to 8"},
		{0, []uint64{2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24}, "1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 2 more places"},
	} {
		r := replay{backup: tc.backup, revisions: tc.log}
		if got := r.missing(); got != tc.want {
			t.Errorf("backup at %d, log of %d: %q is missing, want %q", tc.backup, tc.log, got, tc.want)
		}
	}
}
