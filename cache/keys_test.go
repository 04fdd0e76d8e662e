package cache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/ristretto/v2"

	"latchkey/apikey"
	"latchkey/internal/nettest"
)

// memory is a Source in memory that counts its reads.
type memory struct {
	mu    sync.Mutex
	keys  map[apikey.Digest]*apikey.Key
	err   error
	reads atomic.Int64
}

func (m *memory) ByDigest(d *apikey.Digest) (*apikey.Key, error) {
	m.reads.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil, m.err
	}
	if k, ok := m.keys[*d]; ok {
		return k, nil
	}
	return nil, apikey.ErrNotFound
}

func (m *memory) put(k *apikey.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys == nil {
		m.keys = map[apikey.Digest]*apikey.Key{}
	}
	m.keys[k.Digest] = k
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// keyNumber returns a key with a digest of its own.
func keyNumber(n int) *apikey.Key {
	return &apikey.Key{Digest: apikey.DigestOf(fmt.Append(nil, n)), Tenant: "acme", Name: "ci deploy key",
		Scopes: []string{"orders:read", "orders:write"}}
}

func revoked(k *apikey.Key) *apikey.Key {
	r := *k
	r.RevokedAt = time.Unix(1, 0)
	return &r
}

func newCache(t testing.TB, m *memory, bytes int64) *Keys {
	t.Helper()
	c, err := New(m, bytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// of reports whether a grant is the key's.
func of(g *apikey.Grant, k *apikey.Key) bool { return reflect.DeepEqual(g, k.Grant()) }

// gone reports whether a grant is of a key that was revoked.
func gone(g *apikey.Grant) bool { return g.State(time.Time{}) == apikey.StateRevoked }

// settle makes ristretto apply what it has buffered.
func (c *Keys) settle() { c.cached.Wait() }

func TestLookupReadsOnceAndThenHits(t *testing.T) {
	m := &memory{}
	k := keyNumber(1)
	m.put(k)
	c := newCache(t, m, 1<<20)
	for range 10 {
		got, err := c.Lookup(&k.Digest)
		if err != nil || !of(got, k) {
			t.Fatalf("Lookup = %v, %v, want the key", got, err)
		}
		c.settle()
	}
	if got := m.reads.Load(); got != 1 {
		t.Errorf("the source was read %d times, want 1", got)
	}
}

func TestUnknownDigestsAreNotKept(t *testing.T) {
	m := &memory{}
	c := newCache(t, m, 1<<20)
	d := apikey.Digest{1}
	for i := range 3 {
		if _, err := c.Lookup(&d); !errors.Is(err, apikey.ErrNotFound) {
			t.Fatalf("Lookup = %v, want ErrNotFound", err)
		}
		c.settle()
		if got := m.reads.Load(); got != int64(i+1) {
			t.Errorf("after %d look-ups the source was read %d times", i+1, got)
		}
	}
	k := &apikey.Key{Digest: d}
	m.put(k)
	if got, err := c.Lookup(&d); !of(got, k) || err != nil {
		t.Errorf("after it was issued, Lookup = %v, %v", got, err)
	}
}

func TestAFloodOfUnknownKeysEvictsNoGoodOne(t *testing.T) {
	m := &memory{}
	c := newCache(t, m, 1<<20)
	const good = 500
	for n := range good {
		m.put(keyNumber(n))
	}
	lookupAll := func() {
		for n := range good {
			if _, err := c.Lookup(&keyNumber(n).Digest); err != nil {
				t.Fatal(err)
			}
		}
		c.settle()
	}
	lookupAll()
	lookupAll()
	for n := range 200_000 {
		d := apikey.DigestOf(fmt.Append(nil, "made up", n))
		c.Lookup(&d)
	}
	c.settle()
	before := c.Counts().Hits.Load()
	lookupAll()
	if got := c.Counts().Hits.Load() - before; got != good {
		t.Errorf("after the flood %d of %d good keys were hits", got, good)
	}
}

func TestFaultsArePassedOnAndNotKept(t *testing.T) {
	m := &memory{}
	k := keyNumber(1)
	m.put(k)
	c := newCache(t, m, 1<<20)
	fault := errors.New("disk on fire")
	m.fail(fault)
	if _, err := c.Lookup(&k.Digest); !errors.Is(err, fault) {
		t.Errorf("Lookup = %v, want the fault", err)
	}
	m.fail(nil)
	if got, err := c.Lookup(&k.Digest); !of(got, k) || err != nil {
		t.Errorf("once the source is back, Lookup = %v, %v, want the key", got, err)
	}
}

func TestTheWholeDigestIsCompared(t *testing.T) {
	m := &memory{}
	a := &apikey.Key{Digest: apikey.Digest{0: 1, 15: 1, 31: 1}}
	b := &apikey.Key{Digest: apikey.Digest{0: 1, 15: 1, 31: 2}} // the same 16 bytes, the same shard
	m.put(a)
	m.put(b)
	c := newCache(t, m, 1<<20)
	for range 3 {
		for _, k := range []*apikey.Key{a, b} {
			if got, err := c.Lookup(&k.Digest); !of(got, k) || err != nil {
				t.Errorf("Lookup(%s) = %v, %v, want its own key", k.Digest, got, err)
			}
			c.settle()
		}
	}
}

// A lookuper is what the race below can be run against.
type lookuper interface {
	Lookup(*apikey.Digest) (*apikey.Grant, error)
	Changing(*apikey.Digest)
	Changed(*apikey.Digest)
	settle()
}

// A steppedReader looks a key up and stops before each of its steps until it is
// let go on.
type steppedReader struct {
	arrived, proceed chan struct{}
	done             chan struct{}
}

func startReader(lookup func(stop func())) *steppedReader {
	r := &steppedReader{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	go func() {
		defer close(r.done)
		lookup(func() {
			r.arrived <- struct{}{}
			<-r.proceed
		})
	}()
	return r
}

// step lets the reader run to its next stop, or to its end.
func (r *steppedReader) step() {
	select {
	case <-r.arrived:
	case <-r.done:
		return
	}
}

func (r *steppedReader) resume() {
	select {
	case r.proceed <- struct{}{}:
	case <-r.done:
	}
}

// stops is where a fill is stopped: before and after the read of the store, and
// after the insertion.
const stops = 3

// served counts, over every interleaving of one slow reader with a writer that
// makes a change visible, tells the cache, and answers, how often a look-up that
// started after the answer was served the old key. The writer's three steps each
// happen at some stop of the reader, in order.
func served(t *testing.T, build func(*memory) (lookuper, *hooks)) (old int) {
	t.Helper()
	for visible := range stops + 1 {
		for told := visible; told <= stops; told++ {
			for answered := told; answered <= stops; answered++ {
				m := &memory{}
				k := keyNumber(7)
				m.put(k)
				c, h := build(m)
				reader := startReader(func(stop func()) {
					h.noted, h.read, h.stored = stop, stop, stop
					if _, err := c.Lookup(&k.Digest); err != nil {
						t.Error(err)
					}
				})
				late := 0
				for at := range stops + 1 {
					if at < stops {
						reader.step()
					}
					if at == visible {
						c.Changing(&k.Digest)
						m.put(revoked(k))
					}
					if at == told {
						c.Changed(&k.Digest)
					}
					if at == answered {
						// The look-ups from here on started after the answer. They
						// must not run into the hooks of the reader that stands still.
						late++
					}
					if late > 0 && at < stops && at >= answered {
						saved := *h
						nop := func() {}
						*h = hooks{nop, nop, nop}
						if got, err := c.Lookup(&k.Digest); err != nil || !gone(got) {
							old++
						}
						*h = saved
					}
					if at < stops {
						reader.resume()
					}
				}
				<-reader.done
				*h = hooks{func() {}, func() {}, func() {}}
				for range 3 {
					c.settle()
					if got, err := c.Lookup(&k.Digest); err != nil || !gone(got) {
						old++
					}
				}
			}
		}
	}
	return old
}

func TestRevokedIsRevokedWhateverTheInterleaving(t *testing.T) {
	old := served(t, func(m *memory) (lookuper, *hooks) {
		c := newCache(t, m, 1<<20)
		return c, &c.hooks
	})
	if old != 0 {
		t.Errorf("%d look-ups that started after the change was answered got the old key, want 0", old)
	}
}

// naive is what the cache would be without revisions: ristretto, and a Del when
// a key changes.
type naive struct {
	m *memory
	c *ristretto.Cache[[]byte, *apikey.Grant]
	h hooks
}

func (n *naive) Lookup(d *apikey.Digest) (*apikey.Grant, error) {
	if k, ok := n.c.Get(d[:]); ok {
		return k, nil
	}
	n.h.noted()
	k, err := n.m.ByDigest(d)
	n.h.read()
	if err != nil {
		return nil, err
	}
	n.c.Set(d[:], k.Grant(), 1)
	n.h.stored()
	return k.Grant(), nil
}

func (n *naive) Changing(*apikey.Digest)  {}
func (n *naive) Changed(d *apikey.Digest) { n.c.Del(d[:]) }
func (n *naive) settle()                  { n.c.Wait() }

// TestTheInterleavingsCatchACacheWithoutRevisions shows that the test above can
// fail: Del alone leaves revoked keys admitted.
func TestTheInterleavingsCatchACacheWithoutRevisions(t *testing.T) {
	old := served(t, func(m *memory) (lookuper, *hooks) {
		c, err := ristretto.NewCache(&ristretto.Config[[]byte, *apikey.Grant]{NumCounters: 1 << 10, MaxCost: 1 << 20, BufferItems: 64})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		n := &naive{m: m, c: c}
		return n, &n.h
	})
	if old == 0 {
		t.Error("a cache that only deletes passed; the interleavings prove nothing")
	}
	t.Logf("a cache that only deletes served the old key %d times", old)
}

// TestNoLookUpGoesBack: once a look-up was answered with the new key, though its change
// is under way, no later one gets the old key, which a slow reader has read and keeps.
func TestNoLookUpGoesBack(t *testing.T) {
	m := &memory{}
	k := keyNumber(7)
	m.put(k)
	c := newCache(t, m, 1<<20)
	slow := startReader(func(stop func()) {
		c.hooks.read = stop
		if _, err := c.Lookup(&k.Digest); err != nil {
			t.Error(err)
		}
	})
	slow.step() // it has read the old key
	c.Changing(&k.Digest)
	if got, err := c.Lookup(&k.Digest); err != nil || gone(got) {
		t.Errorf("before the change is visible: %v, %v", got, err)
	}
	c.Changing(&k.Digest) // of another key of the shard, say
	m.put(revoked(k))
	wantRevoked := func(when string) {
		t.Helper()
		if got, err := c.Lookup(&k.Digest); err != nil || !gone(got) {
			t.Errorf("%s: %v, %v, want the new key", when, got, err)
		}
	}
	wantRevoked("once it is visible")
	slow.resume()
	<-slow.done
	c.settle()
	c.hooks.read = func() {}
	wantRevoked("once the slow reader has kept what it read")
	c.Changed(&k.Digest)
	wantRevoked("once one of two changes is over")
	if hits := c.Counts().Hits.Load(); hits != 0 {
		t.Errorf("%d look-ups were answered from memory during the change, want none", hits)
	}
	c.Changed(&k.Digest)
	for range 2 {
		wantRevoked("once both are over")
		c.settle()
	}
	if hits := c.Counts().Hits.Load(); hits != 1 {
		t.Errorf("%d look-ups of two were answered from memory after the changes, want one", hits)
	}
}

// TestRevokedIsRevokedUnderLoad lets readers and writers run free, with small
// random delays at every step of a fill.
func TestRevokedIsRevokedUnderLoad(t *testing.T) {
	m := &memory{}
	c := newCache(t, m, 64<<10) // small, so that keys are evicted too
	jitter := func() {
		for range rand.IntN(4) {
			runtime.Gosched()
		}
	}
	c.hooks = hooks{jitter, jitter, jitter}
	const keys, rounds = 64, 300
	for round := range rounds {
		var answered [keys]atomic.Bool
		all := make([]*apikey.Key, keys)
		for i := range all {
			all[i] = keyNumber(round*keys + i)
			m.put(all[i])
		}
		var readers, writers sync.WaitGroup
		var stop atomic.Bool
		for range 4 {
			readers.Go(func() {
				for !stop.Load() {
					i := rand.IntN(keys)
					mustBeRevoked := answered[i].Load() // before the look-up starts
					k, err := c.Lookup(&all[i].Digest)
					if err != nil {
						t.Error(err)
					} else if mustBeRevoked && !gone(k) {
						t.Errorf("round %d: key %d served after its revocation was answered", round, i)
					}
				}
			})
		}
		for w := range 2 {
			writers.Go(func() {
				for i := w; i < keys; i += 2 {
					c.Changing(&all[i].Digest)
					jitter()
					m.put(revoked(all[i]))
					jitter()
					c.Changed(&all[i].Digest)
					answered[i].Store(true)
				}
			})
		}
		writers.Wait()
		runtime.Gosched()
		stop.Store(true)
		readers.Wait()
		for i := range all {
			if k, err := c.Lookup(&all[i].Digest); err != nil || !gone(k) {
				t.Errorf("round %d: key %d served after everything came to rest", round, i)
			}
		}
	}
}

func TestLookupsOfOneKeyShareARead(t *testing.T) {
	m := &memory{}
	k := keyNumber(1)
	m.put(k)
	c := newCache(t, m, 1<<20)
	const together = 8
	hold, entered := make(chan struct{}), make(chan struct{}, together)
	c.hooks.noted = func() {
		entered <- struct{}{}
		<-hold
	}
	var wg sync.WaitGroup
	for range together {
		wg.Go(func() {
			if got, err := c.Lookup(&k.Digest); !of(got, k) || err != nil {
				t.Errorf("Lookup = %v, %v", got, err)
			}
		})
	}
	<-entered
	nettest.Until(t, "the others wait for the one that reads", func() bool {
		stacks := make([]byte, 1<<20)
		return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "singleflight.(*Group).Do(") == together
	})
	close(hold)
	wg.Wait()
	c.settle()
	c.Lookup(&k.Digest)
	if got := m.reads.Load(); got != 1 {
		t.Errorf("%d look-ups at once read the source %d times", together, got)
	}
}

func TestHitAllocs(t *testing.T) {
	m := &memory{}
	k := keyNumber(1)
	m.put(k)
	c := newCache(t, m, 1<<20)
	c.Lookup(&k.Digest)
	c.settle()
	if n := testing.AllocsPerRun(1000, func() { c.Lookup(&k.Digest) }); n != 0 {
		t.Errorf("a hit allocates %v times, want 0", n)
	}
}

func BenchmarkHit(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := &memory{}
			digests := make([]apikey.Digest, n)
			for i := range digests {
				k := keyNumber(i)
				m.put(k)
				digests[i] = k.Digest
			}
			c := newCache(b, m, 256<<20)
			for pass := 0; pass < 3; pass++ {
				for i := range digests {
					c.Lookup(&digests[i])
					if i%1000 == 0 {
						c.settle()
					}
				}
				c.settle()
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.Lookup(&digests[rand.IntN(n)])
			}
			b.ReportMetric(float64(c.Counts().Hits.Load())/float64(c.Counts().Hits.Load()+c.Counts().Misses.Load()), "hit-ratio")
		})
	}
}

// BenchmarkEntryBytes measures what a cached key takes on the heap, against
// what cost says it does.
func BenchmarkEntryBytes(b *testing.B) {
	const n = 100_000
	for b.Loop() {
		var before, after runtime.MemStats
		c, err := New(fresh{}, 1<<30)
		if err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range n {
			d := apikey.DigestOf(fmt.Append(nil, i))
			c.Lookup(&d)
			if i%1000 == 0 {
				c.settle()
			}
		}
		c.settle()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(int64(after.HeapAlloc-before.HeapAlloc))/n, "heap-B/key")
		b.ReportMetric(float64(cost(keyNumber(1).Grant())), "cost-B/key")
		c.Close()
	}
}

// fresh is a Source that makes every key anew, as a decoder does.
type fresh struct{}

func (fresh) ByDigest(d *apikey.Digest) (*apikey.Key, error) {
	return &apikey.Key{Digest: *d, Tenant: string([]byte("acme")), Name: string([]byte("ci deploy key")),
		Scopes: []string{string([]byte("orders:read")), string([]byte("orders:write"))}}, nil
}
