package main

import (
	"errors"
	"flag"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"latchkey/apikey"
	"latchkey/cache"
	"latchkey/keystore"
	"latchkey/proxy/gate"
)

var histories = flag.Int("histories", 60, "how many histories the tests of races record and check")

// recorded is how many histories a test is to record.
func recorded() int {
	if testing.Short() {
		return min(*histories, 20)
	}
	return *histories
}

// hesitate lets others run between two steps, or not.
func hesitate() {
	for range rand.IntN(6) {
		runtime.Gosched()
	}
}

// errBroken is what a store says that cannot be read.
var errBroken = errors.New("input/output error")

// An unsteadySource is a store whose reads take their time, and fail now and then.
type unsteadySource struct{ store *keystore.Store }

func (s unsteadySource) ByDigest(d *apikey.Digest) (*apikey.Key, error) {
	hesitate()
	defer hesitate()
	if rand.IntN(50) == 0 {
		return nil, errBroken
	}
	return s.store.ByDigest(d)
}

// unsteadyDisk is a disk that is full now and then.
type unsteadyDisk struct {
	vfs.FS
	filling *atomic.Bool
}

func (d unsteadyDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	if d.filling.Load() && rand.IntN(30) == 0 {
		return vfs.DiskUsage{}, nil
	}
	return vfs.DiskUsage{AvailBytes: 1 << 40}, nil
}

// planes are the gate, cache and store of a gateway without its listeners.
type planes struct {
	t     testing.TB
	store *keystore.Store
	keys  *cache.Keys
	gate  *gate.Gate
	full  atomic.Bool // now and then

	answersFirst bool // answers changes before they are made, as no gateway may
	late         sync.WaitGroup

	others []string // secrets of keys that push each other out of the cache
}

// connection makes the store's changes known to the cache.
type connection func(*keystore.Store, *cache.Keys)

var secretFormat = apikey.NewSecretFormat("lk")

func newPlanes(t testing.TB, connect connection) *planes {
	t.Helper()
	p := &planes{t: t}
	var err error
	if p.store, err = keystore.Open("store", keystore.Options{FS: unsteadyDisk{vfs.NewMem(), &p.full}}); err != nil {
		t.Fatal(err)
	}
	// Room for about eight keys, so that they come and go.
	if p.keys, err = cache.New(unsteadySource{p.store}, 5<<10); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.late.Wait()
		p.keys.Close()
		if err := p.store.Close(); err != nil {
			t.Error(err)
		}
	})
	connect(p.store, p.keys)
	p.gate = gate.New(p.keys, secretFormat)
	for range 30 {
		c := newCredentials()
		if err := p.create(c, hour(0)); err != nil {
			t.Fatal(err)
		}
		p.others = append(p.others, c.Secret)
	}
	p.full.Store(true)
	return p
}

// hour is a time by the clock of histories.
func hour(n int) time.Time {
	return time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Hour)
}

func newCredentials() apikey.Credentials {
	var entropy [40]byte
	for i := range entropy {
		entropy[i] = byte(rand.Uint32())
	}
	return apikey.NewCredentials(secretFormat, apikey.EnvironmentLive, hour(0), entropy)
}

func (p *planes) create(c apikey.Credentials, at time.Time) error {
	change, err := apikey.Issue(apikey.Spec{Tenant: "acme"}, c, at)
	if err != nil {
		return err
	}
	return p.store.Create(apikey.Origin{At: at, Actor: "ops"}, change)
}

// change makes a change, or says that it has, as the planes are meant to.
func (p *planes) change(id apikey.ID, at time.Time, decide func(apikey.Key) (apikey.Change, error)) error {
	write := func() error {
		_, err := p.store.Change(apikey.Origin{At: at, Actor: "ops"}, "acme", id, decide)
		return err
	}
	if !p.answersFirst {
		return write()
	}
	k, err := p.store.ByID("acme", id)
	if err == nil {
		_, err = decide(k)
	}
	if err == nil {
		p.late.Go(func() { _ = write() })
	}
	return err
}

// pinned is how an edit of the value shows in a key, and what it was.
func pinned(value int) string { return hour(24 * value).Format(time.DateOnly) }

func valueOf(version string) int {
	at, err := time.Parse(time.DateOnly, version)
	if err != nil {
		return 0
	}
	return int(at.Sub(hour(0).Truncate(24*time.Hour)) / (24 * time.Hour))
}

// address is where a use with that number comes from.
func address(from int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(from)}) }

// begin returns what performs the calls of a history, on keys of its own.
func (p *planes) begin() func(keyCall) keyAnswer {
	// Written before anyone is told of them; again, where a broken gateway rotates a key twice.
	var made [generations]atomic.Pointer[apikey.Credentials]
	first := newCredentials()
	made[0].Store(&first)
	return func(c keyCall) keyAnswer {
		at, key := hour(c.hour), made[c.generation].Load()
		id := key.ID
		switch c.what {
		case doUse:
			for range rand.IntN(3) {
				p.decide(p.others[rand.IntN(len(p.others))], address(1), at)
			}
			return p.decide(key.Secret, address(c.from), at)
		case doRead:
			k, err := p.store.ByID("acme", id)
			if err != nil {
				return told(err)
			}
			switch k.State(at) {
			case apikey.StateActive:
				return keyAnswer{allowed, valueOf(k.Pin.Version)}
			case apikey.StateRotated:
				return keyAnswer{result: rotatedKey}
			}
			return keyAnswer{result: revokedKey}
		case doIssue:
			for { // until there is room on the disk: a history of no key shows nothing
				if err := p.create(*key, at); !errors.Is(err, apikey.ErrStoreFull) {
					return told(err)
				}
			}
		case doEdit:
			pin := pinned(c.value)
			list := apikey.Allowlist{{Block: netip.PrefixFrom(address(listed(c.value)), 32), Single: true}}
			return told(p.change(id, at, func(k apikey.Key) (apikey.Change, error) {
				return k.Update(apikey.Edit{APIVersion: &pin, AllowedIPs: &list, DowngradeWindow: 1000 * time.Hour}, at)
			}))
		case doRotate:
			heir := newCredentials()
			err := p.change(id, at, func(k apikey.Key) (apikey.Change, error) {
				return k.Rotate(heir, time.Duration(c.grace)*time.Hour, at)
			})
			if err == nil {
				made[c.generation+1].Store(&heir)
			}
			return told(err)
		}
		return told(p.change(id, at, func(k apikey.Key) (apikey.Change, error) { return k.Revoke(at) }))
	}
}

// decide asks the gate, as the data plane does for each request.
func (p *planes) decide(secret string, from netip.Addr, at time.Time) keyAnswer {
	verdict, k, err := p.gate.Decide(&gate.Request{Secret: []byte(secret), Client: from, Now: at, Demand: &apikey.Demand{}})
	switch {
	case err != nil:
		return told(err)
	case verdict == apikey.Allowed:
		return keyAnswer{allowed, valueOf(k.Version)}
	}
	return keyAnswer{result: verdict.String()}
}

// told is what an error says of a key.
func told(err error) keyAnswer {
	switch {
	case err == nil:
		return keyAnswer{result: done}
	case errors.Is(err, apikey.ErrNotLive):
		return keyAnswer{result: notLive}
	case errors.Is(err, apikey.ErrNotFound):
		return keyAnswer{result: invalid}
	case errors.Is(err, apikey.ErrStoreFull), errors.Is(err, errBroken):
		return keyAnswer{result: fault}
	}
	return keyAnswer{result: err.Error()} // which no law explains
}

// wired is how the gateway connects the two, with pauses between the steps.
func wired(s *keystore.Store, c *cache.Keys) { s.Notify(hesitant{c}) }

// A hesitant watcher takes its time.
type hesitant struct{ keystore.Watcher }

func (h hesitant) Changing(d *apikey.Digest) { h.Watcher.Changing(d); hesitate() }
func (h hesitant) Changed(d *apikey.Digest)  { hesitate(); h.Watcher.Changed(d) }

// late is told of changes when they are visible, and not before.
type late struct{ keystore.Watcher }

func (late) Changing(*apikey.Digest) {}
func (l late) Changed(d *apikey.Digest) {
	hesitate()
	l.Watcher.Changing(d)
	l.Watcher.Changed(d)
}

// TestKeysAreRegisters has clients issue, use, read, edit, rotate and revoke keys, all
// at once, over a cache that is too small and a store that fails now and then. Each key
// is as if every call on it had happened at one instant.
func TestKeysAreRegisters(t *testing.T) {
	p := newPlanes(t, wired)
	calls, results := 0, map[string]int{}
	for seed := range recorded() {
		history := keyLoad{seed: uint64(seed), clients: 6, calls: 20, hours: 2}.run(p.begin())
		if !lawful(t, history) {
			t.Fatalf("history %d has no order that explains it:\n%s", seed, described(history))
		}
		for _, c := range history {
			results[c.Input.(keyCall).what+": "+c.Output.(keyAnswer).result]++
		}
		calls += len(history)
	}
	counts := p.keys.Counts()
	t.Logf("%d histories, %d calls; the cache: %d hits, %d misses, %d unknown, %d failed; %v", recorded(), calls,
		counts.Hits.Load(), counts.Misses.Load(), counts.Unknown.Load(), counts.Failed.Load(), results)
	for _, want := range []string{"use: " + allowed, "use: " + revokedKey, "use: " + rotatedKey, "use: " + notHere, "use: " + fault,
		"read: " + allowed, "edit: " + done, "edit: " + fault, "rotate: " + done, "revoke: " + done, "revoke: " + notLive} {
		if results[want] == 0 && recorded() >= 20 {
			t.Errorf("no history has a call that ends as %q; they show too little", want)
		}
	}
}

// TestTheHistoriesCatchABrokenGateway breaks a law at a time, and holds the check
// against it.
func TestTheHistoriesCatchABrokenGateway(t *testing.T) {
	for _, tc := range []struct {
		name    string
		connect connection
		first   bool
	}{
		{"the cache is told of no change", func(s *keystore.Store, c *cache.Keys) {}, false},
		{"the cache is told of changes only when they are visible", func(s *keystore.Store, c *cache.Keys) { s.Notify(late{c}) }, false},
		{"changes are answered before they are made", wired, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPlanes(t, tc.connect)
			p.answersFirst = tc.first
			for seed := range 5000 {
				if !lawful(t, keyLoad{seed: uint64(seed), clients: 6, calls: 20, hours: 2}.run(p.begin())) {
					t.Logf("history %d was rejected", seed)
					return
				}
				p.late.Wait()
			}
			t.Error("5,000 histories were accepted; they prove nothing")
		})
	}
}
