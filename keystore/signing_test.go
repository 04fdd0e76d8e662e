package keystore

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
	first := apikey.NewSigningKey("kid-z", [32]byte{1, 31: 9}, epoch)
	second := apikey.NewSigningKey("kid", [32]byte{}, epoch.Add(time.Minute))
	third := apikey.NewSigningKey("kid-a", [32]byte{3}, epoch.Add(time.Hour))
	for _, k := range []apikey.SigningKey{first, second, third} {
		if err := s.AddSigningKey(ops, k); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddSigningKey(ops, apikey.NewSigningKey("kid", [32]byte{99}, epoch.Add(2*time.Hour))); !errors.Is(err, apikey.ErrExists) {
		t.Errorf("an ID that is there gave %v, want ErrExists", err)
	}
	if s.AddSigningKey(ops, apikey.NewSigningKey("", [32]byte{}, epoch)) == nil || s.AddSigningKey(ops, apikey.NewSigningKey("b", [32]byte{}, time.Time{})) == nil {
		t.Error("a signing key without ID or time was added")
	}
	if first.Public == second.Public || first.Seed == second.Seed {
		t.Fatal("two seeds have one key")
	}
	// Each was retired when the next took over, and its private half went.
	first, second = first.Retire(second.CreatedAt), second.Retire(third.CreatedAt)
	if first.Seed != [32]byte{} || first.Signs() || !third.Signs() {
		t.Fatal("a retired key has its private half")
	}
	same := func(when string, want ...apikey.SigningKey) {
		t.Helper()
		for range 2 {
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
			s, when = openStore(t, disk), when+" and a reopening"
		}
	}
	same("at first", first, second, third)
	if err := s.RemoveSigningKey(ops, "kid-a"); !errors.Is(err, apikey.ErrSigns) {
		t.Errorf("to remove the key that signs gave %v, want ErrSigns", err)
	}
	if err := s.RemoveSigningKey(ops, "kid-b"); !errors.Is(err, apikey.ErrNotFound) {
		t.Errorf("to remove a key that is not there gave %v, want ErrNotFound", err)
	}
	if err := s.RemoveSigningKey(ops, "kid"); err != nil {
		t.Error(err)
	}
	same("after a removal", first, third)

	// Each change is told of, and what was refused is not. No tenant is told.
	events, err := s.Audit(apikey.AuditQuery{Tenant: apikey.AnyTenant, Limit: 10})
	var told []string
	for _, e := range events {
		told = append(told, fmt.Sprintf("%s %s %s %s", e.Place, e.Actor, e.Action, e.SigningKey))
		if e.Origin != ops || !e.Key.IsZero() || e.Tenant != apikey.AnyTenant {
			t.Errorf("event %+v, want one of no key, by %+v", e, ops)
		}
	}
	want := []string{"4.0 ops signing_key_withdrawn kid", "3.0 ops signing_key_added kid-a", "2.0 ops signing_key_added kid", "1.0 ops signing_key_added kid-z"}
	if !slices.Equal(told, want) || err != nil {
		t.Errorf("the audit log has %q, %v, want %q", told, err, want)
	}
	if events, err := s.Audit(apikey.AuditQuery{Tenant: "acme", Limit: 10}); len(events) != 0 || err != nil {
		t.Errorf("a tenant's audit log has %v, %v, want nothing", events, err)
	}
}

func TestDamagedSigningKey(t *testing.T) {
	good := apikey.NewSigningKey("kid", [32]byte{1}, epoch)
	retired := good.Retire(epoch.Add(time.Hour))
	another := apikey.NewSigningKey("kid", [32]byte{2}, epoch)
	for _, tc := range []struct {
		name string
		row  func(seal func([]byte) []byte) []byte
	}{
		{"no fields", func(func([]byte) []byte) []byte { return nil }},
		{"cut short", func(seal func([]byte) []byte) []byte {
			row := appendSigningKey(nil, &good, seal(good.Seed[:]))
			return row[:len(row)-1]
		}},
		{"a public half cut short", func(seal func([]byte) []byte) []byte {
			return appendTime(appendField(appendField(nil, tagSigningPublic, good.Public[:31]), tagSigningSeed, seal(good.Seed[:])), tagSigningCreatedAt, epoch)
		}},
		{"a seed cut short", func(seal func([]byte) []byte) []byte { return appendSigningKey(nil, &good, seal(good.Seed[:31])) }},
		{"a seed in clear", func(func([]byte) []byte) []byte { return appendSigningKey(nil, &good, good.Seed[:]) }},
		{"another key's seed", func(seal func([]byte) []byte) []byte { return appendSigningKey(nil, &good, seal(another.Seed[:])) }},
		{"no seed", func(func([]byte) []byte) []byte {
			return appendTime(appendField(nil, tagSigningPublic, good.Public[:]), tagSigningCreatedAt, epoch)
		}},
		{"retired, and with its seed", func(seal func([]byte) []byte) []byte {
			return appendTime(appendSigningKey(nil, &good, seal(good.Seed[:])), tagSigningRetiredAt, epoch)
		}},
		{"no time", func(seal func([]byte) []byte) []byte {
			return appendField(appendField(nil, tagSigningPublic, good.Public[:]), tagSigningSeed, seal(good.Seed[:]))
		}},
		{"a field of a later version", func(func([]byte) []byte) []byte { return append(appendSigningKey(nil, &retired, nil), 9, 1, 1) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openStore(t, vfs.NewMem())
			key := signingKey("kid")
			row := tc.row(func(seed []byte) []byte { return s.sealer.seal(key, apikey.Secret(seed)) })
			if err := s.db.Set(key, row, pebble.Sync); err != nil {
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
