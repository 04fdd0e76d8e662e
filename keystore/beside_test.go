package keystore

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"latchkey/apikey"
)

// scheduled is the change that creates a key whose rotation is due a day later.
func scheduled(t testing.TB) apikey.Change {
	t.Helper()
	c, err := apikey.Issue(apikey.Spec{Tenant: "acme", RotateEveryDays: 1, WebhookURL: "https://hooks.example/",
		WebhookSecret: "whsec_canary"}, apikey.Credentials{ID: testKey("acme", 1).ID, Secret: "first secret"}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestUsesAreKeptApart(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := openStore(t, disk)
	k := testKey("acme", 1)
	mustCreate(t, s, k)
	told := 0
	s.Notify(toldOf(func(*apikey.Digest) { told++ }))
	before := rows(t, s)
	want := apikey.Use{Key: k.ID, At: epoch.Add(time.Hour), Address: netip.MustParseAddr("2001:db8::1"), Route: "orders"}
	for _, u := range []apikey.Use{{Key: k.ID, At: epoch}, want} {
		if err := s.PutUses([]apikey.Use{u}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutUses(nil); err != nil {
		t.Error(err)
	}
	crashed := reopen(t, disk, vfs.CrashCloneCfg{})
	for _, s := range []*Store{s, crashed} {
		got, err := s.Uses([]apikey.ID{testKey("acme", 2).ID, k.ID})
		if err != nil || !slices.Equal(got, []apikey.Use{{}, want}) {
			t.Errorf("Uses() = %+v, %v, want none and %+v", got, err, want)
		}
	}
	after := rows(t, s)
	delete(after, string(useKey(k.ID)))
	if len(after) != len(before) || told != 0 {
		t.Errorf("a use changed other rows than its own, or was told to caches (%d times)", told)
	}
}

// TestSecretsAreSealed looks for secrets in every file of the store.
func TestSecretsAreSealed(t *testing.T) {
	dir := t.TempDir()
	s := openWith(t, dir, Options{})
	c := scheduled(t)
	c.Receipt = &apikey.Receipt{Name: apikey.NameReceipt("ops", "acme", "1"), Until: epoch.Add(time.Hour), Status: 201, Answer: "answer canary"}
	if err := s.Create(ops, c); err != nil {
		t.Fatal(err)
	}
	mustChange(t, s, c.Keys[0], func(k apikey.Key) (apikey.Change, error) {
		return k.BeginRotation(apikey.Credentials{ID: testKey("acme", 2).ID, Secret: "pending canary"}, k.Rotation.NextAt)
	})
	for _, seed := range []string{"first seed canary, of 32 bytes ..", "other seed canary, of 32 bytes .."} {
		if err := s.AddSigningKey(ops, apikey.NewSigningKey(seed[:5], [32]byte([]byte(seed)), epoch)); err != nil {
			t.Fatal(err)
		}
	}
	for _, flushed := range []bool{false, true} {
		if flushed {
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		for name, text := range contents(t, dir) {
			if strings.Contains(text, "canary") {
				t.Errorf("%s shows a secret (flushed: %t)", name, flushed)
			}
		}
	}
	due, err := s.Deliveries(epoch.Add(25*time.Hour), 9)
	if err != nil || len(due) != 1 || due[0].Heir.Secret != "pending canary" {
		t.Errorf("Deliveries() = %v, %v", due, err)
	}
}

func TestSealedRowsAreBoundToTheirPlace(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	a, b := webhookKey(testKey("acme", 1).ID), webhookKey(testKey("acme", 2).ID)
	sealed := s.sealer.seal(a, "secret")
	if got, err := s.sealer.open(a, sealed); err != nil || got != "secret" {
		t.Errorf("open() = %q, %v", string(got), err)
	}
	if _, err := s.sealer.open(b, sealed); !errors.Is(err, errCorrupt) {
		t.Errorf("in another row: %v", err)
	}
	for i := range sealed {
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 1
		if _, err := s.sealer.open(a, damaged); !errors.Is(err, errCorrupt) {
			t.Errorf("with byte %d changed: %v", i, err)
		}
		if _, err := s.sealer.open(a, sealed[:i]); !errors.Is(err, errCorrupt) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	if bytes.Equal(sealed, s.sealer.seal(a, "secret")) {
		t.Error("sealing twice gives the same bytes")
	}
}

func TestTheSealingKeyOutlivesAReopen(t *testing.T) {
	disk := vfs.NewMem()
	s := openStore(t, disk)
	if err := s.Create(ops, scheduled(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, disk)
	if got, err := s.WebhookSecret(testKey("acme", 1).ID); err != nil || got != "whsec_canary" {
		t.Errorf("WebhookSecret() = %q, %v", string(got), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := disk.Create(disk.PathJoin(storeAt, sealFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "not a key\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(storeAt, Options{FS: disk}); !errors.Is(err, errSealKey) {
		t.Errorf("with a damaged sealing key: %v", err)
	}
}

// TestALostSealingKeyIsNotMadeAnew has stores in which one thing alone is sealed.
func TestALostSealingKeyIsNotMadeAnew(t *testing.T) {
	receipt := created(testKey("acme", 1))
	receipt.Receipt = &apikey.Receipt{Name: apikey.NameReceipt("ops", "acme", "1"), Until: epoch.Add(time.Hour), Status: 201, Answer: "answer"}
	for _, tc := range []struct {
		name string
		do   func(*Store) error
		lost bool // what cannot be done without
	}{
		{"nothing", func(*Store) error { return nil }, false},
		{"a key", func(s *Store) error { return s.Create(ops, created(testKey("acme", 1))) }, false},
		{"a receipt", func(s *Store) error { return s.Create(ops, receipt) }, true},
		{"a webhook's secret", func(s *Store) error { return s.Create(ops, scheduled(t)) }, true},
		{"a signing key", func(s *Store) error { return s.AddSigningKey(ops, apikey.NewSigningKey("a", [32]byte{1}, epoch)) }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			disk := vfs.NewMem()
			s := openStore(t, disk)
			if err := errors.Join(tc.do(s), s.Close(), disk.Remove(disk.PathJoin(storeAt, sealFile))); err != nil {
				t.Fatal(err)
			}
			s, err := Open(storeAt, Options{FS: disk})
			if lost := errors.Is(err, errSealKey); lost != tc.lost || !lost && err != nil {
				t.Errorf("Open gave %v; want errSealKey: %t", err, tc.lost)
			}
			if err == nil {
				s.Close()
			}
		})
	}
}

func FuzzDecodeDelivery(f *testing.F) {
	f.Add(appendDelivery(nil, &apikey.Delivery{Heir: apikey.Credentials{ID: testKey("a", 1).ID}, BegunAt: epoch, NextAt: epoch, Attempts: 3}, []byte("sealed")))
	f.Fuzz(func(t *testing.T, row []byte) {
		var sealed []byte
		d, err := decodeDelivery(row, apikey.ID{1}, func(b []byte) (apikey.Secret, error) { sealed = b; return "", nil })
		if err == nil && !bytes.Equal(appendDelivery(nil, &d, sealed), row) {
			t.Errorf("%x is read as %+v, which is written otherwise", row, d)
		}
	})
}

func FuzzDecodeReceipt(f *testing.F) {
	f.Add(appendReceipt(nil, &apikey.Receipt{Until: epoch, Status: 201}, []byte("sealed")))
	f.Fuzz(func(t *testing.T, row []byte) {
		var sealed []byte
		r, err := decodeReceipt(row, apikey.ReceiptName{1}, func(b []byte) (apikey.Secret, error) { sealed = b; return "", nil })
		if err == nil && !bytes.Equal(appendReceipt(nil, &r, sealed), row) {
			t.Errorf("%x is read as %+v, which is written otherwise", row, r)
		}
	})
}

func FuzzDecodeUse(f *testing.F) {
	f.Add(appendUse(nil, &apikey.Use{At: epoch, Address: netip.MustParseAddr("192.0.2.1"), Route: "orders"}))
	f.Fuzz(func(t *testing.T, row []byte) {
		if u, err := decodeUse(row, apikey.ID{1}); err == nil && !bytes.Equal(appendUse(nil, &u), row) {
			t.Errorf("%x is read as %+v, which is written otherwise", row, u)
		}
	})
}
