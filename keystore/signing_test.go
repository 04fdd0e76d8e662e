package keystore

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"latchkey/apikey"
)

func TestSigningKeys(t *testing.T) {
	disk := vfs.NewMem()
	s := openStore(t, disk)
	if got, err := s.SigningKeys(); err != nil || len(got) != 0 {
		t.Errorf("a new store has %v, %v, want no signing keys", got, err)
	}
	first := apikey.SigningKey{ID: "kid-z", Seed: [32]byte{1, 31: 9}, CreatedAt: epoch}
	second := apikey.SigningKey{ID: "kid", Seed: [32]byte{}, CreatedAt: epoch.Add(time.Minute)}
	third := apikey.SigningKey{ID: "kid-a", Seed: [32]byte{3}, CreatedAt: epoch.Add(time.Hour)}
	for _, k := range []apikey.SigningKey{first, second, third} {
		if err := s.AddSigningKey(k); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddSigningKey(apikey.SigningKey{ID: "kid", Seed: [32]byte{99}, CreatedAt: epoch.Add(2 * time.Hour)}); !errors.Is(err, apikey.ErrExists) {
		t.Errorf("an ID that is there gave %v, want ErrExists", err)
	}
	if err := s.AddSigningKey(apikey.SigningKey{}); err == nil {
		t.Error("a signing key without ID was added")
	}
	first.RetiredAt, second.RetiredAt = second.CreatedAt, third.CreatedAt // each when the next took over
	want := []apikey.SigningKey{first, second, third}
	for _, when := range []string{"at once", "after a reopening"} {
		got, err := s.SigningKeys()
		if err != nil {
			t.Fatal(err)
		}
		if !cmp.Equal(want, got) { // never printed: a diff would show seeds
			t.Errorf("%s the keys are %v, want %v", when, got, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, disk)
	}
}

func TestDamagedSigningKey(t *testing.T) {
	good := apikey.SigningKey{ID: "kid", Seed: [32]byte{1}, CreatedAt: epoch}
	row := appendSigningKey(nil, &good)
	for _, tc := range []struct {
		name string
		row  []byte
	}{
		{"no fields", nil},
		{"cut short", row[:len(row)-1]},
		{"a seed cut short", appendField(nil, tagSigningSeed, make([]byte, 31))},
		{"no seed", appendTime(nil, tagSigningCreatedAt, epoch)},
		{"a field of a later version", append(row[:len(row):len(row)], 9, 1, 1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openStore(t, vfs.NewMem())
			if err := s.db.Set(signingKey("kid"), tc.row, pebble.Sync); err != nil {
				t.Fatal(err)
			}
			if _, err := s.SigningKeys(); !errors.Is(err, errCorrupt) {
				t.Errorf("SigningKeys gave %v, want errCorrupt", err)
			}
		})
	}
}

func TestSigningKeyNeverShowsItsSeed(t *testing.T) {
	k := apikey.SigningKey{ID: "kid-1", CreatedAt: epoch}
	copy(k.Seed[:], "canary seed canary seed canary!!")
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T%v"} {
		fmt.Fprintf(&out, verb+" ", k)
		fmt.Fprintf(&out, verb+" ", &k)
		fmt.Fprintf(&out, verb+" ", []apikey.SigningKey{k})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("signing", "key", k, "pointer", &k)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("signing", "key", k, "pointer", &k)
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	for name, canary := range map[string]string{
		"as text": "canary", "in hexadecimal": hex.EncodeToString([]byte("canary")),
		"in upper-case hexadecimal": strings.ToUpper(hex.EncodeToString([]byte("canary"))),
		"in decimal":                "99 97 110 97 114 121", "as a Go literal": "0x63, 0x61", "as JSON": "99,97,110",
	} {
		if strings.Contains(out.String(), canary) {
			t.Errorf("the seed shows %s", name)
		}
	}
	if !strings.Contains(out.String(), "kid-1") {
		t.Error("the ID does not show")
	}
}
