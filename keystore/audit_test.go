package keystore

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"latchkey/apikey"
)

// AuditOf returns the audit log of one key, oldest first.
func (s *Store) AuditOf(id apikey.ID) ([]apikey.Event, error) {
	events, err := s.Audit(apikey.AuditQuery{Tenant: apikey.AnyTenant, Key: id, Limit: math.MaxInt})
	slices.Reverse(events)
	if len(events) == 0 {
		events = nil
	}
	return events, err
}

func TestAudit(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	at := func(minutes int) apikey.Origin {
		o := ops
		o.At = epoch.Add(time.Duration(minutes) * time.Minute)
		return o
	}
	a, b := testKey("acme", 1), testKey("globex", 2)
	steps := []func() error{
		func() error { return s.Create(at(1), created(a)) },
		func() error { return s.Create(at(2), created(b)) },
		func() error { _, err := s.Change(at(3), "acme", a.ID, revokeAt(epoch.Add(time.Hour))); return err },
		func() error { _, err := s.Change(at(0), "globex", b.ID, revokeAt(epoch.Add(time.Hour))); return err }, // the clock was set back
	}
	for _, step := range steps {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name string
		q    apikey.AuditQuery
		want []uint64
	}{
		{"all, newest first", apikey.AuditQuery{Tenant: "*", Limit: 10}, []uint64{4, 3, 2, 1}},
		{"no more than asked for", apikey.AuditQuery{Tenant: "*", Limit: 2}, []uint64{4, 3}},
		{"those before a revision", apikey.AuditQuery{Tenant: "*", Before: apikey.Place{Revision: 3}, Limit: 10}, []uint64{2, 1}},
		{"of a tenant", apikey.AuditQuery{Tenant: "acme", Limit: 10}, []uint64{3, 1}},
		{"of a tenant before a revision", apikey.AuditQuery{Tenant: "acme", Before: apikey.Place{Revision: 3}, Limit: 10}, []uint64{1}},
		{"of a key", apikey.AuditQuery{Tenant: "*", Key: b.ID, Limit: 10}, []uint64{4, 2}},
		{"of a key of another tenant", apikey.AuditQuery{Tenant: "acme", Key: b.ID, Limit: 10}, nil},
		{"since a time, whatever the clock did", apikey.AuditQuery{Tenant: "*", Since: epoch.Add(2 * time.Minute), Limit: 10}, []uint64{3, 2}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			events, err := s.Audit(tc.q)
			if err != nil {
				t.Fatal(err)
			}
			var got []uint64
			for _, e := range events {
				got = append(got, e.Revision)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("revisions (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAuditSinceALongImport has a key revoked while an import goes on that began before:
// who asks for what happened since then is told of it, whatever stands behind it.
func TestAuditSinceALongImport(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	victim := testKey("acme", 1)
	mustCreate(t, s, victim)
	began := ops
	began.At = epoch.Add(time.Hour)
	revoked := ops
	revoked.At = began.At.Add(10 * time.Second)
	if _, err := s.Change(revoked, "acme", victim.ID, revokeAt(revoked.At)); err != nil {
		t.Fatal(err)
	}
	for n := range 12 {
		if _, err := s.Import(began, manyKeys("acme", 1000+256*n, 256)); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range []apikey.AuditQuery{{Tenant: apikey.AnyTenant}, {Tenant: "acme"}, {Tenant: apikey.AnyTenant, Key: victim.ID}} {
		q.Since, q.Limit = revoked.At, 1000
		events, err := s.Audit(q)
		if err != nil || len(events) != 1 || events[0].Key != victim.ID || events[0].Action != apikey.ActionRevoked {
			t.Errorf("%+v: %d events, %v; want the revocation", q, len(events), err)
		}
	}
}
