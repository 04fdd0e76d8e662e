package keystore

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"latchkey/apikey"
)

// The benchmarks run over one store on a real disk, built once per process:
//
//	go test ./keystore -run '^$' -bench . -keys 1000000
var (
	benchKeys  = flag.Int("keys", 100_000, "keys in the store of the benchmarks")
	benchCache = flag.Int64("cache-mib", 64, "block cache of the benchmarks")
)

// bench is the store all benchmarks share.
var bench struct {
	once      sync.Once
	err       error
	dir       string
	digests   []apikey.Digest
	ids       []apikey.ID
	built     time.Duration
	settled   int64 // bytes on disk after Close
	syncs     atomic.Int64
	keysSoFar atomic.Int64
}

// benchKey returns a realistic key; entropy makes it unique.
func benchKey(rng *rand.Rand, now time.Time) (apikey.Key, error) {
	var entropy [40]byte
	for i := range 5 {
		binary.BigEndian.PutUint64(entropy[8*i:], rng.Uint64())
	}
	c, err := apikey.Issue(apikey.Spec{Tenant: "acme", Subject: "user-123456", Name: "ci deploy key",
		Scopes: []string{"orders:read", "orders:write"}},
		apikey.NewCredentials(apikey.NewSecretFormat("lk"), "live", now, entropy), now)
	if err != nil {
		return apikey.Key{}, err
	}
	return c.Keys[0], nil
}

func benchOptions() Options {
	return Options{BlockCacheBytes: *benchCache << 20, FS: errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if isLogSync(op) {
			bench.syncs.Add(1)
		}
		return nil
	}))}
}

func buildBench() error {
	began := time.Now()
	var err error
	if bench.dir, err = os.MkdirTemp("", "latchkey-bench-"); err != nil {
		return err
	}
	s, err := Open(bench.dir, benchOptions())
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(7, 8))
	for made := 0; made < *benchKeys; {
		var change apikey.Change
		for ; len(change.Keys) < 1000 && made < *benchKeys; made++ {
			k, err := benchKey(rng, epoch.Add(time.Duration(made)*time.Millisecond))
			if err != nil {
				return errors.Join(err, s.Close())
			}
			change.Keys = append(change.Keys, k)
			bench.digests, bench.ids = append(bench.digests, k.Digest), append(bench.ids, k.ID)
		}
		if err := s.Create(ops, change); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	bench.keysSoFar.Store(int64(*benchKeys))
	if err := s.Close(); err != nil {
		return err
	}
	bench.built = time.Since(began)
	bench.settled, err = sizeOnDisk(bench.dir)
	return err
}

func sizeOnDisk(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		total += info.Size()
		return err
	})
	return total, err
}

func removeBench() {
	if bench.dir != "" {
		_ = os.RemoveAll(bench.dir)
	}
}

// openBench opens the shared store, with the filter filled.
func openBench(b *testing.B) *Store {
	b.Helper()
	bench.once.Do(func() { bench.err = buildBench() })
	if bench.err != nil {
		b.Fatal(bench.err)
	}
	s := openWith(b, bench.dir, benchOptions())
	s.scan.Wait()
	return s
}

// times gathers how long calls take.
type times []time.Duration

func (t times) report(b *testing.B, suffix string) {
	b.Helper()
	if len(t) == 0 {
		return
	}
	var sum time.Duration
	for _, d := range t {
		sum += d
	}
	slices.Sort(t)
	b.ReportMetric(float64(t[len(t)/2]), "p50-ns"+suffix)
	b.ReportMetric(float64(t[len(t)*99/100]), "p99-ns"+suffix)
	b.ReportMetric(float64(sum)/float64(len(t)), "mean-ns"+suffix)
}

func BenchmarkByDigestPresent(b *testing.B) {
	s := openBench(b)
	for i := range bench.digests { // warm the block cache
		if _, err := s.ByDigest(&bench.digests[i]); err != nil {
			b.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var took times
	b.ReportAllocs()
	for b.Loop() {
		d := &bench.digests[rng.IntN(len(bench.digests))]
		began := time.Now()
		_, err := s.ByDigest(d)
		took = append(took, time.Since(began))
		if err != nil {
			b.Fatal(err)
		}
	}
	took.report(b, "")
	m := s.db.Metrics().BlockCache
	b.ReportMetric(100*float64(m.Hits)/float64(m.Hits+m.Misses), "%cache-hits")
}

func BenchmarkByDigestAbsent(b *testing.B) {
	for _, filter := range []bool{true, false} {
		b.Run(fmt.Sprintf("filter=%t", filter), func(b *testing.B) {
			s := openBench(b)
			s.filter.ready.Store(filter)
			rng := rand.New(rand.NewPCG(2, 2))
			absent := make([]apikey.Digest, 1<<16)
			for i := range absent {
				k, err := benchKey(rng, epoch)
				if err != nil {
					b.Fatal(err)
				}
				absent[i] = k.Digest
			}
			var took times
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				d := &absent[n%len(absent)]
				n++
				began := time.Now()
				_, err := s.ByDigest(d)
				took = append(took, time.Since(began))
				if !errors.Is(err, apikey.ErrNotFound) {
					b.Fatal(err)
				}
			}
			took.report(b, "")
		})
	}
}

func BenchmarkListPage100(b *testing.B) {
	for _, place := range []string{"newest", "anywhere"} {
		b.Run(place, func(b *testing.B) {
			s := openBench(b)
			rng := rand.New(rand.NewPCG(3, 3))
			var took times
			b.ReportAllocs()
			for b.Loop() {
				q := apikey.Query{Tenant: "acme", Limit: 100}
				if place == "anywhere" {
					q.After = bench.ids[100+rng.IntN(len(bench.ids)-100)]
				}
				began := time.Now()
				page, err := s.List(q)
				took = append(took, time.Since(began))
				if err != nil || len(page.Keys) != 100 {
					b.Fatalf("%d keys, %v", len(page.Keys), err)
				}
			}
			took.report(b, "")
		})
	}
}

func BenchmarkCreate(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := openBench(b)
			keys := make([]apikey.Key, b.N)
			rng := rand.New(rand.NewPCG(uint64(writers), uint64(time.Now().UnixNano())))
			for i := range keys {
				var err error
				if keys[i], err = benchKey(rng, time.Now()); err != nil {
					b.Fatal(err)
				}
			}
			took := make(times, b.N)
			before := bench.syncs.Load()
			var next atomic.Int64
			var done sync.WaitGroup
			b.ResetTimer()
			for range writers {
				done.Add(1)
				go func() {
					defer done.Done()
					for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
						began := time.Now()
						if err := s.Create(ops, created(keys[i])); err != nil {
							b.Error(err)
						}
						took[i] = time.Since(began)
					}
				}()
			}
			done.Wait()
			b.StopTimer()
			bench.keysSoFar.Add(int64(b.N))
			took.report(b, "")
			b.ReportMetric(float64(bench.syncs.Load()-before)/float64(b.N), "syncs/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
		})
	}
}

// BenchmarkOpen measures until the store serves, and until the filter does.
func BenchmarkOpen(b *testing.B) {
	if err := openBench(b).Close(); err != nil { // replays the log of what came before
		b.Fatal(err)
	}
	var opened, filled time.Duration
	n := 0
	for b.Loop() {
		n++
		began := time.Now()
		s, err := Open(bench.dir, benchOptions())
		if err != nil {
			b.Fatal(err)
		}
		opened += time.Since(began)
		s.scan.Wait()
		filled += time.Since(began)
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(opened.Milliseconds())/float64(n), "open-ms")
	b.ReportMetric(float64(filled.Milliseconds())/float64(n), "filter-ready-ms")
}

// BenchmarkDisk reports what a key takes on disk: as the store was left after
// it was built, and after everything is compacted. It comes last.
func BenchmarkDisk(b *testing.B) {
	s := openBench(b)
	for b.Loop() {
		if err := s.db.Compact(b.Context(), []byte{0}, []byte{0xff}, true); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	compacted, err := sizeOnDisk(bench.dir)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(bench.settled)/float64(*benchKeys), "B/key-as-left")
	b.ReportMetric(float64(compacted)/float64(bench.keysSoFar.Load()), "B/key-compacted")
	b.ReportMetric(bench.built.Seconds(), "build-s")
}
