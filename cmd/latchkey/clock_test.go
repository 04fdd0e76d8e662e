package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"latchkey/admin"
	"latchkey/admin/strait"
	"latchkey/admin/truvera"
	"latchkey/admin/wire"
	"latchkey/apikey"
	"latchkey/cache"
	"latchkey/jobs"
	"latchkey/keystore"
	"latchkey/proxy/gate"
)

var clockRuns = flag.Int("clocks", 20, "how many random runs TestClocks makes")

// A wildClock steps by up to an hour, back or forth, whenever it is read. The time
// around which it does so only goes forth.
type wildClock struct {
	mu   sync.Mutex
	rng  *rand.Rand
	time time.Time
	read time.Time // what it last said
}

const (
	mostStep = time.Hour
	hookURL  = "https://hook-%d.example.com/"
)

func (c *wildClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = c.time.Add(time.Duration(c.rng.Int64N(int64(2*mostStep))) - mostStep)
	return c.read
}

// last returns what the clock said last.
func (c *wildClock) last() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read
}

// pass lets time go by.
func (c *wildClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time = c.time.Add(d)
}

// A clockKey is a key as it must stand after what was done with it, whatever the
// clock said since.
type clockKey struct {
	issued
	standing
	born  time.Time             // by the time that only goes forth
	ended string                // the code of its end, once the sweep or a rotation has recorded it
	every bool                  // it is rotated every day
	next  time.Time             // when that is due
	begun time.Time             // since when a replacement is pending, if one is
	had   map[apikey.Action]int // what the audit log has of it
}

// active reports whether operators and jobs may change the key at a time.
func (k *clockKey) active(at time.Time) bool {
	v := k.verdict(at)
	return v == "" || v == "ip_not_allowed"
}

// live reports whether the key is listed among those in use.
func (k *clockKey) live() bool { return !k.revoked && k.ended == "" }

// A clockReceipt is an order that was carried out.
type clockReceipt struct {
	order
	key     *clockKey
	until   time.Time // when it is forgotten
	gone    bool      // it was
	expires time.Time // of the key
}

// verdict returns the code with which a request is refused at a time, "" if it is
// admitted.
func (k *clockKey) verdict(at time.Time) string {
	if !k.revoked && k.ended != "" {
		return k.ended
	}
	return k.standing.verdict(at)
}

// A clockRun is the gateway's rooms by a wild clock, and what must be true of them.
type clockRun struct {
	*crashSite
	rng      *rand.Rand
	clock    *wildClock
	disk     *vfs.MemFS
	store    *keystore.Store
	gate     *gate.Gate
	passes   map[string]jobs.Job
	close    func()
	keys     []*clockKey
	byID     map[string]*clockKey
	receipts []*clockReceipt

	mu       sync.Mutex
	away     int                       // of the webhooks, a share: one in so many takes nothing
	messages map[string][]jobs.Message // that they have taken, by the key they are about
}

// TestClocks runs random sequences of what operators, jobs and clients do by a
// clock that steps by up to an hour, back or forth, at every reading. What is
// revoked, or expired and recorded as such, stays so; everything ends once; and of
// keys that are rotated daily every rotation is made, and once.
//
//	go test ./cmd/latchkey -run TestClocks -v -args -clocks 2000
func TestClocks(t *testing.T) {
	did := map[string]int{}
	for seed := range uint64(*clockRuns) {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := newClockRun(t, seed)
			for range 150 {
				r.step(did)
			}
			r.settle(did)
			r.audit()
		}) {
			break
		}
	}
	t.Logf("%d runs: %v", *clockRuns, did)
	for _, what := range []string{"issued", "revoked", "rotated", "ended", "begun", "delivered", "abandoned", "replayed", "ordered anew", "reopened", "refused to change"} {
		if did[what] == 0 {
			t.Errorf("nothing was %s", what)
		}
	}
}

func newClockRun(t *testing.T, seed uint64) *clockRun {
	rng := rand.New(rand.NewPCG(seed, 1))
	r := &clockRun{crashSite: &crashSite{t: t, client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}}, rng: rng,
		clock: &wildClock{rng: rand.New(rand.NewPCG(seed, 2)), time: time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)},
		disk:  vfs.NewMem(), away: 4, byID: map[string]*clockKey{}, messages: map[string][]jobs.Message{}}
	r.open()
	t.Cleanup(func() { r.close() })
	return r
}

// open wires the rooms as App does, but for the clock, the disk and the webhooks.
func (r *clockRun) open() {
	r.t.Helper()
	var err error
	if r.store, err = keystore.Open("store", keystore.Options{FS: r.disk}); err != nil {
		r.t.Fatal(err)
	}
	keys, err := cache.New(r.store, 1<<20)
	if err != nil {
		r.t.Fatal(err)
	}
	r.store.Notify(keys)
	format := apikey.NewSecretFormat("lk")
	r.gate = gate.New(keys, format)
	r.passes = map[string]jobs.Job{}
	for _, j := range []jobs.Job{jobs.Sweep(r.store), jobs.Rotate(r.store, format), jobs.Forget(r.store),
		jobs.NewCourier(r.store, r.store, r, slog.New(slog.DiscardHandler)).Deliver()} {
		r.passes[j.Name] = j
	}
	plane, err := admin.New(admin.Options{
		Callers: admin.Callers{Operators: []admin.StaticOperator{{TokenDigest: sha256.Sum256([]byte(testToken)),
			Operator: wire.Operator{Name: "test", Role: wire.RoleAdmin, Tenant: apikey.AnyTenant}}}},
		Mounts: []admin.Mount{{Dialect: strait.New(strait.Options{})}, {Dialect: truvera.New(truvera.Options{})}},
		Keys:   &wire.KeyService{Reader: r.store, Writer: r.store, Receipts: r.store, Format: format},
		Finder: keys, Auditor: r.store, Gatherer: prometheus.NewRegistry(), Now: r.clock.now,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- plane.Serve(l) }()
	r.crashSite.admin = "http://" + l.Addr().String()
	r.close = func() {
		r.client.CloseIdleConnections()
		err := plane.Shutdown(context.Background())
		_ = l.Close() // Shutdown does not know a listener that Serve had not got to yet
		<-served
		err = errors.Join(err, r.store.Close())
		keys.Close()
		if err != nil {
			r.t.Errorf("close: %v", err)
		}
	}
}

// Post implements jobs.Poster.
func (r *clockRun) Post(_ context.Context, url string, m jobs.Message) error {
	var host int
	if _, err := fmt.Sscanf(url, hookURL, &host); err != nil {
		return err
	}
	var about struct {
		ID string `json:"old_key_id"`
	}
	if err := json.Unmarshal(m.Body, &about); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away > 0 && host%r.away == 0 {
		return errors.New("the webhook is away")
	}
	r.messages[about.ID] = append(r.messages[about.ID], m)
	return nil
}

// step does something.
func (r *clockRun) step(did map[string]int) {
	r.clock.pass(time.Duration(r.rng.Int64N(int64(2 * time.Hour))))
	switch n := r.rng.IntN(40); {
	case n < 5:
		r.issue(did)
	case n < 8:
		r.reorder(did)
	case n < 11:
		r.rotate(did)
	case n < 13:
		r.revoke(did)
	case n < 16:
		r.patch(did)
	case n < 21:
		r.sweep(did)
	case n < 26:
		r.begin(did)
	case n < 31:
		r.deliver(did)
	case n < 33:
		r.forget()
	case n == 33:
		r.close()
		r.open()
		did["reopened"]++
	}
	r.admissions()
}

// add notes a new key.
func (r *clockRun) add(k *clockKey, now time.Time) {
	k.born, k.had = r.clock.time, map[apikey.Action]int{apikey.ActionCreated: 1}
	if k.every {
		k.next = now.Truncate(time.Microsecond).AddDate(0, 0, 1)
	}
	r.keys = append(r.keys, k)
	r.byID[k.ID] = k
}

// any returns a key, nil if there is none. Those of the last days are where things
// happen.
func (r *clockRun) any() *clockKey {
	if len(r.keys) == 0 {
		return nil
	}
	return r.keys[len(r.keys)-1-r.rng.IntN(min(len(r.keys), 12))]
}

// issue makes a key by an order: half of them end by themselves, half are rotated
// every day.
func (r *clockRun) issue(did map[string]int) {
	n := len(r.receipts)
	o := clockReceipt{order: order{name: fmt.Sprintf("order-%d", n), body: fmt.Sprintf(`{"name": "order %d"`, n)}}
	if r.rng.IntN(2) == 0 {
		o.expires = r.clock.time.Add(mostStep + time.Duration(1+r.rng.Int64N(int64(30*time.Hour)))).Truncate(time.Microsecond)
		o.body += fmt.Sprintf(`, "expires_at": %q`, o.expires.Format(time.RFC3339Nano))
	}
	if r.rng.IntN(2) == 0 {
		o.body += fmt.Sprintf(`, "rotation_interval_days": 1, "rotation_webhook_url": %q`, fmt.Sprintf(hookURL, n))
	}
	o.body += "}"
	r.receipts = append(r.receipts, &o)
	r.send(&o, did)
	did["issued"]++
}

// send makes an order, for the first time or again. It is answered as it was before
// until its receipt is over by the clock, and carried out otherwise.
func (r *clockRun) send(o *clockReceipt, did map[string]int) {
	r.t.Helper()
	var k struct {
		issued
		Name      string
		ExpiresAt time.Time `json:"expires_at"`
		Every     int       `json:"rotation_interval_days"`
	}
	h, err := r.ask("POST", "/v1/api-keys", o.body, o.name, &k)
	now := r.clock.last()
	switch {
	case o.key != nil && !o.gone && now.Before(o.until):
		if did["replayed"]++; err != nil || h.Get("Idempotent-Replayed") == "" || k.issued != o.key.issued {
			r.t.Fatalf("%s, answered before with key %s: %v, key %s", o.name, o.key.ID, err, k.ID)
		}
	case !o.expires.IsZero() && !o.expires.After(now):
		r.wantRefused(err, "an order whose key would be over")
	case err != nil || h.Get("Idempotent-Replayed") != "":
		r.t.Fatalf("%s, answered before: %t: %v, %v", o.name, o.key != nil, err, h)
	default:
		if o.key != nil {
			did["ordered anew"]++
		}
		o.key = &clockKey{issued: k.issued, standing: standing{name: k.Name, expires: k.ExpiresAt}, every: k.Every > 0}
		o.until, o.gone = now.Add(apikey.ReceiptLife).Truncate(time.Microsecond), false
		r.add(o.key, now)
	}
}

func (r *clockRun) wantRefused(err error, what string) {
	r.t.Helper()
	if answer := (*refused)(nil); !errors.As(err, &answer) || answer.status < 400 || answer.status >= 500 {
		r.t.Fatalf("%s: %v, want it refused", what, err)
	}
}

// reorder makes an order again.
func (r *clockRun) reorder(did map[string]int) {
	if n := len(r.receipts); n > 0 {
		r.send(r.receipts[n-1-r.rng.IntN(min(n, 8))], did)
	}
}

// rotate replaces a key, with or without a grace.
func (r *clockRun) rotate(did map[string]int) {
	k := r.any()
	if k == nil {
		return
	}
	minutes := []int{0, 30, 150}[r.rng.IntN(3)]
	var heir struct {
		ID        string `json:"new_key_id"`
		Key, Name string
	}
	_, err := r.ask("POST", "/v1/api-keys/"+k.ID+"/rotate", fmt.Sprintf(`{"grace_period_minutes": %d}`, minutes), "", &heir)
	now := r.clock.last()
	if !k.active(now) || k.replaced {
		r.wantRefused(err, "rotate a key that is over")
		did["refused to change"]++
		return
	}
	if err != nil {
		r.t.Fatalf("rotate key %s, %s, at %s: %v", k.ID, k.standing, now, err)
	}
	r.replaced(k, issued{heir.ID, heir.Key}, heir.Name, time.Duration(minutes)*time.Minute, now)
	did["rotated"]++
}

// replaced notes that a key was replaced.
func (r *clockRun) replaced(k *clockKey, by issued, name string, grace time.Duration, now time.Time) *clockKey {
	heir := &clockKey{issued: by, standing: standing{name: name, ips: k.ips, expires: k.expires}, every: k.every}
	k.standing.replaced, k.begun, k.next = true, time.Time{}, time.Time{}
	k.grace = now.Add(grace).Truncate(time.Microsecond)
	if k.had[apikey.ActionRotated]++; grace == 0 {
		k.ended = "rotated_api_key"
	}
	r.add(heir, now)
	return heir
}

func (r *clockRun) revoke(did map[string]int) {
	k := r.any()
	if k == nil {
		return
	}
	if _, err := r.ask("DELETE", "/v1/api-keys/"+k.ID, "", "", nil); err != nil {
		r.t.Fatal(err)
	}
	if !k.revoked {
		k.revoked, k.begun = true, time.Time{}
		k.had[apikey.ActionRevoked]++
		did["revoked"]++
	}
}

func (r *clockRun) patch(did map[string]int) {
	k := r.any()
	if k == nil {
		return
	}
	ips := []string{"127.0.0.0/8", "10.0.0.0/8"}[r.rng.IntN(2)]
	_, err := r.ask("PATCH", "/keys/"+k.ID, fmt.Sprintf(`{"ips": [%q]}`, ips), "", nil)
	if now := r.clock.last(); !k.active(now) {
		r.wantRefused(err, "change a key that is over")
		did["refused to change"]++
		return
	}
	if err != nil {
		r.t.Fatal(err)
	}
	k.ips = ips
	k.had[apikey.ActionUpdated]++
}

// pass runs a pass of a job and returns at which time.
func (r *clockRun) pass(job string) time.Time {
	r.t.Helper()
	now := r.clock.now()
	if err := r.passes[job].Pass(context.Background(), now); err != nil {
		r.t.Fatalf("%s: %v", job, err)
	}
	return now
}

func (r *clockRun) sweep(did map[string]int) {
	now := r.pass("sweep")
	for _, k := range r.keys {
		if end := k.ends(); k.live() && !end.IsZero() && !now.Before(end) {
			k.ended, k.begun = k.verdict(now), time.Time{}
			k.had[apikey.ActionEnded]++
			did["ended"]++
		}
	}
}

// begin begins the rotations that are due.
func (r *clockRun) begin(did map[string]int) {
	now := r.pass("rotate")
	for _, k := range r.keys {
		due := k.every && !k.replaced && k.begun.IsZero() && k.active(now) && !now.Before(k.next)
		if due {
			k.begun = now
			k.had[apikey.ActionRotationBegun]++
			did["begun"]++
		}
		if is := r.read(k); is.Rotation.Pending.IsZero() != k.begun.IsZero() {
			r.t.Fatalf("at %s the rotation of key %s, due %s, has begun: %t; want %t", now, k.ID, k.next, k.begun.IsZero(), due)
		}
	}
}

// deliver tries what is due to be delivered. What the webhook has taken has replaced
// its key; each is taken once.
func (r *clockRun) deliver(did map[string]int) {
	taken := map[string]int{}
	for id, m := range r.messages {
		taken[id] = len(m)
	}
	now := r.pass("deliver")
	for _, k := range r.keys {
		is := r.read(k)
		switch m := r.messages[k.ID]; {
		case len(m) > taken[k.ID]:
			var heir struct {
				ID  string `json:"new_key_id"`
				Key string `json:"new_key"`
			}
			if err := json.Unmarshal(m[len(m)-1].Body, &heir); err != nil {
				r.t.Fatal(err)
			}
			if len(m) > 1 || k.begun.IsZero() || !k.active(now) || is.Rotation.ReplacedBy.String() != heir.ID {
				r.t.Fatalf("at %s the webhook of key %s, %s, took its message %d; the key is %+v", now, k.ID, k.standing, len(m), is.Rotation)
			}
			// By the time that only goes forth no day was shorter, but for the clock's steps.
			if lived := r.clock.time.Sub(k.born); lived < 24*time.Hour-2*mostStep {
				r.t.Errorf("key %s was rotated after %s", k.ID, lived)
			}
			r.replaced(k, issued{heir.ID, heir.Key}, k.name+" (rotated)", apikey.ScheduledGrace, now)
			did["delivered"]++
		case !k.begun.IsZero() && is.Rotation.Pending.IsZero():
			if now.Sub(k.begun) < apikey.DeliveryPatience {
				r.t.Fatalf("at %s the rotation of key %s, begun at %s, is off", now, k.ID, k.begun)
			}
			k.begun, k.next = time.Time{}, now.AddDate(0, 0, 1)
			k.had[apikey.ActionRotationAbandoned]++
			did["abandoned"]++
		}
	}
}

// forget erases receipts that are over.
func (r *clockRun) forget() {
	now := r.pass("forget")
	for _, o := range r.receipts {
		o.gone = o.gone || !now.Before(o.until)
	}
}

// read returns a key as it is in the store.
func (r *clockRun) read(k *clockKey) apikey.Key {
	r.t.Helper()
	id, err := apikey.ParseID(k.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	is, err := r.store.ByID(apikey.AnyTenant, id)
	if err != nil {
		r.t.Fatal(err)
	}
	return is
}

// admissions uses every key, each at another time.
func (r *clockRun) admissions() {
	for _, k := range r.keys {
		now := r.clock.now()
		got, _, err := r.gate.Decide(&gate.Request{Secret: []byte(k.Key), Client: netip.MustParseAddr("127.0.0.1"), Now: now, Demand: new(apikey.Demand)})
		if want := cmp.Or(k.verdict(now), "allowed"); err != nil || got.String() != want {
			r.t.Fatalf("at %s key %s, %s, ended %q, gets %s, %v; want %s", now, k.ID, k.standing, k.ended, got, err, want)
		}
	}
}

// settle has the jobs do what is left to do, with webhooks that take everything.
// Then no rotation is behind.
func (r *clockRun) settle(did map[string]int) {
	r.away = 0
	for range 4 { // what was put off is due again within an hour and its fifth, by a clock that is off by two
		r.clock.pass(4 * time.Hour)
		r.sweep(did)
		r.begin(did)
		r.deliver(did)
		r.admissions()
	}
	for _, k := range r.keys {
		due := cmp.Or(k.begun, k.next)
		if k.every && k.live() && !k.replaced && r.clock.time.Sub(due) > 4*time.Hour+2*mostStep {
			r.t.Errorf("at %s key %s was not rotated, though due since %s", r.clock.time, k.ID, due)
		}
	}
}

// audit requires that the store has recorded what was done, once each, and is sound.
func (r *clockRun) audit() {
	live, all := 0, 0
	for _, k := range r.keys {
		if all++; k.live() {
			live++
		}
		events, err := r.store.Audit(apikey.AuditQuery{Tenant: apikey.AnyTenant, Key: r.read(k).ID, Limit: 1000})
		if err != nil {
			r.t.Fatal(err)
		}
		had := map[apikey.Action]int{}
		for _, e := range events {
			had[e.Action]++
		}
		if !maps.Equal(had, k.had) {
			r.t.Errorf("the audit log has of key %s %v, want %v", k.ID, had, k.had)
		}
	}
	for which, want := range map[apikey.Which]int{apikey.WhichLive: live, apikey.WhichAll: all} {
		if page, err := r.store.List(apikey.Query{Tenant: apikey.DefaultTenant, Which: which, Limit: 1}); err != nil || page.Total != want {
			r.t.Errorf("list %d has %d keys, %v, want %d", which, page.Total, err, want)
		}
	}
	if err := r.store.Close(); err != nil { // again at the end, which does nothing
		r.t.Fatal(err)
	}
	if _, err := keystore.Verify("store", keystore.Options{FS: r.disk}, func(problem string) { r.t.Error(problem) }); err != nil {
		r.t.Fatal(err)
	}
}
