package keystore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"latchkey/apikey"
)

// A model is what the store should hold, kept in plain maps.
type model struct {
	keys     map[apikey.ID]apikey.Key
	events   map[apikey.ID][]apikey.Event
	revision uint64

	webhooks   map[apikey.ID]apikey.Secret
	deliveries map[apikey.ID]apikey.Delivery
	receipts   map[apikey.ReceiptName]apikey.Receipt
}

func newModel() *model {
	return &model{keys: map[apikey.ID]apikey.Key{}, events: map[apikey.ID][]apikey.Event{},
		webhooks: map[apikey.ID]apikey.Secret{}, deliveries: map[apikey.ID]apikey.Delivery{}, receipts: map[apikey.ReceiptName]apikey.Receipt{}}
}

// apply makes a change that the store has acknowledged.
func (m *model) apply(by apikey.Origin, c apikey.Change) {
	m.revision++
	for i, k := range c.Keys {
		e := apikey.Event{Place: apikey.Place{Revision: m.revision, Ordinal: uint32(i)}, Origin: by, Action: apikey.ActionCreated, Key: k.ID, Tenant: k.Tenant}
		if before, ok := m.keys[k.ID]; ok {
			e.Action, e.Fields = c.Action, apikey.Diff(&before, &k)
		}
		m.keys[k.ID] = k
		m.events[k.ID] = append(m.events[k.ID], e)
		if k.Rotation.Pending.IsZero() {
			delete(m.deliveries, k.ID)
		}
	}
	first, last := c.Keys[0].ID, c.Keys[len(c.Keys)-1].ID
	if secret, ok := m.webhooks[first]; ok && c.Action == apikey.ActionRotated {
		m.webhooks[last] = secret
		delete(m.webhooks, first)
	}
	if !c.Keys[0].Live() {
		delete(m.webhooks, first)
	}
	if c.WebhookSecret != "" {
		m.webhooks[last] = c.WebhookSecret
	}
	if c.Delivery != nil {
		m.deliveries[first] = *c.Delivery
	}
	if c.Receipt != nil {
		m.receipts[c.Receipt.Name] = *c.Receipt
	}
}

// list returns a tenant's keys, newest first.
func (m *model) list(tenant string, which apikey.Which) []apikey.Key {
	var out []apikey.Key
	for _, k := range m.keys {
		if k.Tenant == tenant && (which == apikey.WhichAll || k.Live() == (which == apikey.WhichLive)) {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b apikey.Key) int { return bytes.Compare(b.ID[:], a.ID[:]) })
	return out
}

// due returns what fell due, the longest due first.
func (m *model) due(kind DueKind, now time.Time) []apikey.ID {
	type due struct {
		at time.Time
		id apikey.ID
	}
	var all []due
	for _, k := range m.keys {
		at := k.EndsAt()
		if kind == DueRotation {
			if at = k.Rotation.NextAt; !k.Live() || !k.Rotation.Pending.IsZero() {
				continue
			}
		}
		if kind == DueDelivery {
			at = m.deliveries[k.ID].NextAt
		}
		if !at.IsZero() && !at.After(now) {
			all = append(all, due{at, k.ID})
		}
	}
	slices.SortFunc(all, func(a, b due) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return bytes.Compare(a.id[:], b.id[:])
	})
	ids := make([]apikey.ID, len(all))
	for i, d := range all {
		ids[i] = d.id
	}
	return ids
}

// modelTenants are chosen so that each name begins the next.
var modelTenants = []string{"a", "ab", "ab+"}

// A driver makes random changes to a store and its model alike.
type driver struct {
	t     *testing.T
	s     *Store
	m     *model
	rng   *rand.Rand
	now   time.Time
	ids   []apikey.ID
	count map[apikey.Action]int
}

func (d *driver) credentials() apikey.Credentials {
	var entropy [40]byte
	for i := range 5 {
		binary.BigEndian.PutUint64(entropy[8*i:], d.rng.Uint64())
	}
	return apikey.NewCredentials(apikey.NewSecretFormat("lk"), "live", d.now, entropy)
}

func (d *driver) spec() apikey.Spec {
	spec := apikey.Spec{Tenant: modelTenants[d.rng.IntN(len(modelTenants))], Subject: "user-1", Name: fmt.Sprintf("key %d ☃", len(d.ids))}
	if d.rng.IntN(2) == 0 {
		spec.ExpiresAt = d.now.Add(time.Duration(1+d.rng.IntN(7200)) * time.Second)
	}
	if d.rng.IntN(3) == 0 {
		spec.AllowedIPs, _ = apikey.ParseAllowlist([]string{"10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "2001:db8::1", "0.0.0.0/0"})
		spec.Environment = "test"
	}
	if d.rng.IntN(3) == 0 {
		spec.Scopes, spec.APIVersion = []string{"a", "b:c"}, "2026-01-01"
	}
	return spec
}

// step makes one random change.
func (d *driver) step() {
	d.now = d.now.Add(time.Duration(d.rng.IntN(60_000_000)) * time.Microsecond)
	by := apikey.Origin{At: apikey.Instant(d.now), Actor: "ops", RequestID: fmt.Sprint(d.m.revision)}
	if len(d.ids) < 10 || d.rng.IntN(100) < 35 {
		d.issue(by)
		return
	}
	id := d.ids[d.rng.IntN(len(d.ids))]
	var decide func(apikey.Key) (apikey.Change, error)
	switch n := d.rng.IntN(100); {
	case n < 25:
		name, version := fmt.Sprintf("renamed at %d", d.m.revision), "2026-02-01"
		edit := apikey.Edit{Name: &name}
		if n < 10 {
			edit = apikey.Edit{APIVersion: &version, AllowedIPs: new(apikey.Allowlist), DowngradeWindow: time.Hour}
		}
		decide = func(k apikey.Key) (apikey.Change, error) { return k.Update(edit, d.now) }
	case n < 45:
		d.rotateOnSchedule(by, n)
		return
	case n < 55:
		decide = revokeAt(d.now)
	case n < 75:
		c, grace := d.credentials(), time.Duration(d.rng.IntN(3))*20*time.Minute
		decide = func(k apikey.Key) (apikey.Change, error) { return k.Rotate(c, grace, d.now) }
	default:
		due, err := d.s.DueEnds(d.now, 1)
		if err != nil {
			d.t.Fatal(err)
		}
		if len(due) == 0 {
			return
		}
		id = due[0]
		decide = func(k apikey.Key) (apikey.Change, error) {
			c, ok := k.Sweep(d.now)
			if !ok {
				d.t.Fatalf("key %s is due but has not ended", id)
			}
			return c, nil
		}
	}
	d.change(by, id, decide)
}

// rotateOnSchedule takes one of the steps of a scheduled rotation, with a key
// that has come to it.
func (d *driver) rotateOnSchedule(by apikey.Origin, n int) {
	kind := DueDelivery
	if n < 33 {
		kind = DueRotation
	}
	due := d.m.due(kind, d.now.Add(36*time.Hour))
	if len(due) == 0 {
		return
	}
	id := due[d.rng.IntN(len(due))]
	waiting := d.m.deliveries[id]
	switch {
	case n < 33:
		c, at := d.credentials(), d.m.keys[id].Rotation.NextAt
		d.change(by, id, func(k apikey.Key) (apikey.Change, error) { return k.BeginRotation(c, at) })
	case n < 37:
		d.change(by, id, func(k apikey.Key) (apikey.Change, error) { return k.CompleteRotation(waiting.Heir, d.now) })
	case n < 40:
		d.change(by, id, func(k apikey.Key) (apikey.Change, error) { return k.AbandonRotation(waiting.Heir.ID, d.now) })
	default:
		waiting.Attempts++
		waiting.NextAt = apikey.Instant(d.now.Add(time.Minute))
		if err := d.s.Postpone(waiting); err != nil {
			d.t.Fatal(err)
		}
		d.m.deliveries[id] = waiting
		d.count["postponed"]++
	}
}

// sometimesKeep makes a receipt of a change, under one of few names.
func (d *driver) sometimesKeep(c *apikey.Change) {
	if d.rng.IntN(3) > 0 {
		return
	}
	name := apikey.NameReceipt("ops", "acme", fmt.Sprint(d.rng.IntN(20)))
	if before, ok := d.m.receipts[name]; ok && !before.Over(d.now) {
		c.Receipt = &before
		if err := d.s.Create(apikey.Origin{At: d.now}, *c); !errors.Is(err, apikey.ErrAnswered) {
			d.t.Fatalf("a call that was answered before gives %v", err)
		}
		c.Receipt = nil
		return
	}
	c.Receipt = &apikey.Receipt{Name: name, Call: apikey.DigestOf([]byte("call")), Until: apikey.Instant(d.now.Add(5 * time.Minute)),
		Status: 201, Answer: apikey.Secret(fmt.Sprint("answer ", d.m.revision))}
}

func (d *driver) issue(by apikey.Origin) {
	var all apikey.Change
	if d.rng.IntN(4) == 0 {
		spec := d.spec()
		spec.RotateEveryDays, spec.WebhookURL = 1+d.rng.IntN(2), "https://hooks.example/rotated"
		spec.WebhookSecret = apikey.NewWebhookSecret([32]byte{byte(len(d.ids))})
		c, err := apikey.Issue(spec, d.credentials(), d.now)
		if err != nil {
			d.t.Fatal(err)
		}
		d.ids = append(d.ids, c.Keys[0].ID)
		d.create(by, c)
		return
	}
	for range 1 + d.rng.IntN(3) {
		c, err := apikey.Issue(d.spec(), d.credentials(), d.now)
		if err != nil {
			d.t.Fatal(err)
		}
		all.Action, all.Keys = c.Action, append(all.Keys, c.Keys...)
		d.ids = append(d.ids, c.Keys[0].ID)
	}
	d.create(by, all)
}

func (d *driver) create(by apikey.Origin, c apikey.Change) {
	d.sometimesKeep(&c)
	if err := d.s.Create(by, c); err != nil {
		d.t.Fatal(err)
	}
	d.m.apply(by, c)
	d.count[c.Action]++
}

func (d *driver) change(by apikey.Origin, id apikey.ID, decide func(apikey.Key) (apikey.Change, error)) {
	before := d.m.keys[id]
	want, wantErr := decide(before)
	got, err := d.s.Change(by, before.Tenant, id, decide)
	if !errors.Is(err, wantErr) {
		d.t.Fatalf("Change gave %v, the model %v", err, wantErr)
	}
	if diff := cmp.Diff(want, got, netipValues); diff != "" {
		d.t.Fatalf("Change (-model +store):\n%s", diff)
	}
	if err != nil {
		d.count["refused"]++
		return
	}
	if len(want.Keys) == 2 {
		d.ids = append(d.ids, want.Keys[1].ID)
	}
	d.m.apply(by, want)
	d.count[want.Action]++
}

func TestStoreEqualsModel(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine: nothing for the race detector, which it keeps busy for minutes")
	}
	disk := vfs.NewMem()
	d := &driver{t: t, s: openStore(t, disk), m: newModel(), rng: rand.New(rand.NewPCG(5, 6)), now: epoch, count: map[apikey.Action]int{}}
	for n := range 2000 {
		d.step()
		if n%400 == 399 {
			d.compare()
		}
		if n%700 == 699 {
			if err := d.s.db.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := d.s.Close(); err != nil {
				t.Fatal(err)
			}
			d.s = openStore(t, disk)
			d.compare()
		}
	}
	for _, action := range []apikey.Action{apikey.ActionCreated, apikey.ActionUpdated, apikey.ActionRevoked, apikey.ActionRotated, apikey.ActionEnded,
		apikey.ActionRotationBegun, apikey.ActionRotationAbandoned, "postponed", "refused"} {
		if d.count[action] < 20 {
			t.Errorf("only %d changes were %s; the test shows little", d.count[action], action)
		}
	}
}

// compare asks the store everything the model knows.
func (d *driver) compare() {
	d.t.Helper()
	for id, want := range d.m.keys {
		wantKey(d.t, d.s, want)
		got, err := d.s.ByID(want.Tenant, id)
		if diff := cmp.Diff(want, got, netipValues); err != nil || diff != "" {
			d.t.Errorf("ByID: %v (-want +got):\n%s", err, diff)
		}
		events, err := d.s.AuditOf(id)
		if diff := cmp.Diff(d.m.events[id], events, netipValues); err != nil || diff != "" {
			d.t.Errorf("AuditOf: %v (-want +got):\n%s", err, diff)
		}
	}
	d.compareBeside()
	for _, tenant := range modelTenants {
		for _, which := range []apikey.Which{apikey.WhichLive, apikey.WhichEnded, apikey.WhichAll} {
			wantPages(d.t, d.s, tenant, which, d.m.list(tenant, which), 1+d.rng.IntN(40))
		}
	}
	for _, kind := range []DueKind{DueEnd, DueRotation, DueDelivery} {
		for _, now := range []time.Time{d.now, d.now.Add(30 * time.Minute), d.now.Add(24 * time.Hour)} {
			want := d.m.due(kind, now)
			got, err := d.s.Due(kind, now, len(want)+1)
			if diff := cmp.Diff(want, append([]apikey.ID{}, got...)); err != nil || diff != "" {
				d.t.Errorf("Due(%c): %v (-want +got):\n%s", kind, err, diff)
			}
			if got, err = d.s.Due(kind, now, 3); err != nil || len(got) != min(3, len(want)) {
				d.t.Errorf("Due(%c) up to 3 gave %d of %d, %v", kind, len(got), len(want), err)
			}
		}
	}
	wantConsistent(d.t, d.s)
	if d.t.Failed() {
		d.t.FailNow()
	}
}

// compareBeside asks for what is kept beside the keys.
func (d *driver) compareBeside() {
	d.t.Helper()
	for id := range d.m.keys {
		secret, err := d.s.WebhookSecret(id)
		if want, ok := d.m.webhooks[id]; ok != (err == nil) || secret != want {
			d.t.Errorf("the webhook secret of key %s is there: %t, want %t (%v)", id, err == nil, ok, err)
		}
	}
	far := d.now.Add(48 * time.Hour)
	got, err := d.s.Deliveries(far, len(d.m.keys))
	var want []apikey.Delivery
	for _, id := range d.m.due(DueDelivery, far) {
		want = append(want, d.m.deliveries[id])
	}
	if !slices.Equal(want, got) || err != nil {
		d.t.Errorf("Deliveries: %v\n got %+v\nwant %+v", err, got, want)
	}
	if _, err := d.s.DropReceipts(d.now, 100); err != nil {
		d.t.Error(err)
	}
	for name, want := range d.m.receipts {
		got, err := d.s.Receipt(name)
		if over := want.Over(d.now); over != errors.Is(err, apikey.ErrNotFound) || !over && got != want {
			d.t.Errorf("Receipt: %+v, %v, want %+v", got, err, want)
		}
	}
}

// wantConsistent requires that the rows of the store are those that follow
// from its records and its audit log, no more and no fewer.
func wantConsistent(t testing.TB, s *Store) {
	t.Helper()
	snap := s.db.NewSnapshot()
	defer snap.Close()
	v := &verifier{r: snap, open: s.sealer.open, report: func(problem string) { t.Error(problem) }}
	v.rows()
}
