package main

import (
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
	archive := filepath.Join(dir, "archive.tar")
	func() {
		r, err := s.Backup("test", now)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		text, err := io.ReadAll(r)
		if err == nil {
			err = os.WriteFile(archive, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
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
