// Package bench measures the gateway as a whole. Its benchmarks need some
// seconds of preparation and state what they found as metrics:
//
//	go test ./bench -run '^$' -bench . -benchtime 1x -keys 1000000
package main

import (
	"bufio"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"latchkey/apikey"
	"latchkey/cache"
	"latchkey/internal/freeport"
	"latchkey/keystore"
	"latchkey/proxy/gate"
)

var (
	keyCount = flag.Int("keys", 100_000, "keys in the store")
	requests = flag.Int("requests", 300_000, "requests sent by BenchmarkServe")
	crashes  = flag.Int("crashes", 20, "how often BenchmarkCrash kills the gateway")
)

// built is the store that the benchmarks share, made by the first of them.
var built struct {
	once sync.Once
	path string
	err  error
}

// storePath makes a store of keyCount keys and returns its directory.
func storePath(b *testing.B) string {
	b.Helper()
	built.once.Do(func() {
		if built.path, built.err = os.MkdirTemp("", "latchkey-bench-"); built.err == nil {
			built.err = buildStore(filepath.Join(built.path, "store"), *keyCount, 0)
		}
	})
	if built.err != nil {
		b.Fatal(built.err)
	}
	return filepath.Join(built.path, "store")
}

// TestMain removes the store.
func TestMain(m *testing.M) {
	flag.Parse()
	status := m.Run()
	if built.path != "" {
		os.RemoveAll(built.path)
	}
	os.Exit(status)
}

// BenchmarkDecide times single verdicts on a store of keyCount keys whose block
// cache holds all of it, and reports medians.
func BenchmarkDecide(b *testing.B) {
	store, err := keystore.Open(storePath(b), keystore.Options{BlockCacheBytes: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	for _, bc := range []struct {
		name       string
		cacheBytes int64
		next       func(i int) int // the key that the i-th verdict is about
		want       apikey.Verdict
	}{
		{"hit", 64 << 20, func(i int) int { return i % 10_000 % *keyCount }, apikey.Allowed},
		{"miss", 1 << 20, func(int) int { return rand.IntN(*keyCount) }, apikey.Allowed},
		{"made-up", 1 << 20, func(i int) int { return *keyCount + i }, apikey.InvalidKey},
	} {
		b.Run(bc.name, func(b *testing.B) {
			keys, err := cache.New(store, bc.cacheBytes)
			if err != nil {
				b.Fatal(err)
			}
			defer keys.Close()
			g := gate.New(keys, format())
			r := gate.Request{Demand: &apikey.Demand{Scopes: []string{"orders:read"}}, Client: netip.MustParseAddr("127.0.0.1"), Now: time.Now()}
			const calls = 200_000
			decide := func(i int) time.Duration {
				r.Secret = secret(bc.next(i))
				began := time.Now()
				got, _, err := g.Decide(&r)
				took := time.Since(began)
				if got != bc.want || err != nil {
					b.Fatalf("Decide = %s, %v, want %s", got, err, bc.want)
				}
				return took
			}
			for i := range calls { // warms the block cache, and fills the key cache
				decide(i)
			}
			for b.Loop() {
				times := make([]time.Duration, calls)
				for i := range times {
					times[i] = decide(i)
				}
				slices.Sort(times)
				b.ReportMetric(float64(clockCost()), "clock-ns") // which every time includes
				b.ReportMetric(float64(times[calls/2]), "p50-ns")
				b.ReportMetric(float64(times[calls*99/100]), "p99-ns")
			}
		})
	}
}

// clockCost returns the median time that taking a time takes.
func clockCost() time.Duration {
	times := make([]time.Duration, 10_001)
	for i := range times {
		began := time.Now()
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return times[len(times)/2]
}

// BenchmarkServe runs the real binary over the store: how long from its start
// until it is ready, and how much memory it takes while it serves keys drawn
// from all of them and a tenth as many made-up ones.
func BenchmarkServe(b *testing.B) {
	store := storePath(b)
	for b.Loop() {
		b.ReportMetric(diskBytes(b, store)/float64(*keyCount), "disk-B/key")
		g := startGateway(b, store)
		b.ReportMetric(float64(g.ready.Milliseconds()), "ready-ms")
		b.ReportMetric(residentMiB(b, g.Process.Pid, "VmRSS"), "rss-ready-MiB")
		drive(b, g.proxy)
		b.ReportMetric(residentMiB(b, g.Process.Pid, "VmRSS"), "rss-serving-MiB")
		b.ReportMetric(residentMiB(b, g.Process.Pid, "VmHWM"), "rss-peak-MiB")
		g.stop(b)
	}
}

// BenchmarkCrash kills the real binary with SIGKILL under 16 clients that change
// keys, each time after another number of changes, and reports how long from exec
// until it is ready again: the log to replay is as long as what the store keeps in
// memory.
func BenchmarkCrash(b *testing.B) {
	store := filepath.Join(b.TempDir(), "store")
	if err := copyStore(store, storePath(b)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		g := startGateway(b, store)
		ids := sampleIDs(b, g.admin)
		times, spent := make([]time.Duration, *crashes), make([]float64, *crashes)
		for i := range times {
			if err := g.crash(ids, rand.IntN(8_000)); err != nil {
				b.Fatal(err)
			}
			g.launch(b)
			u, err := usage(g.Process.Pid)
			if err != nil {
				b.Fatal(err)
			}
			times[i], spent[i] = g.ready, u.user+u.system
			b.Logf("ready after %s, %.2f s of them on a processor", g.ready.Round(time.Millisecond), spent[i])
		}
		slices.Sort(times)
		slices.Sort(spent)
		b.ReportMetric(milliseconds(times[len(times)/2]), "ready-p50-ms")
		b.ReportMetric(milliseconds(times[len(times)-1]), "ready-worst-ms")
		b.ReportMetric(spent[len(spent)/2]*1000, "ready-p50-CPU-ms") // which other work of the machine stretches less
		g.stop(b)
	}
}

// crash kills the gateway once so many changes of keys were answered, with others
// under way.
func (g *gateway) crash(ids []string, changes int) error {
	var answered atomic.Int64
	var clients sync.WaitGroup
	enough := make(chan struct{})
	failed := make(chan error, 16)
	for range 16 {
		clients.Go(func() {
			// The first error is the kill's doing, unless it comes before that.
			failed <- g.change(ids, func() {
				if answered.Add(1) == int64(changes)+1 {
					close(enough)
				}
			})
		})
	}
	select {
	case <-enough:
	case err := <-failed:
		return err
	}
	if err := g.Process.Kill(); err != nil {
		return err
	}
	clients.Wait()
	_ = g.Wait() // says that it was killed
	return nil
}

// change changes keys until a call fails.
func (g *gateway) change(ids []string, answered func()) error {
	c, err := net.Dial("tcp", g.admin)
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		body := fmt.Sprintf(`{"apiVersion": "2024-05-22", "description": "changed %x"}`, rand.Uint64())
		fmt.Fprintf(c, "PUT /api/keys/%s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nX-Latchkey-Tenant: acme\r\nContent-Length: %d\r\n\r\n%s",
			ids[rand.IntN(len(ids))], operatorToken, len(body), body)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return err
		}
		if res.StatusCode != 200 {
			return fmt.Errorf("a change was answered %s", res.Status)
		}
		answered()
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// A gateway is the real binary, serving in front of a small upstream.
type gateway struct {
	*exec.Cmd
	proxy, admin string
	ready        time.Duration // from exec until ready
}

// startGateway builds and starts a gateway over the store.
func startGateway(b *testing.B, store string) *gateway {
	b.Helper()
	dir := b.TempDir()
	binary := filepath.Join(dir, "latchkey")
	if err := buildGateway(binary); err != nil {
		b.Fatal(err)
	}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
	b.Cleanup(backend.Close)
	g := &gateway{}
	addrs, err := freeport.Addrs(2)
	if err != nil {
		b.Fatal(err)
	}
	g.proxy, g.admin = addrs[0], addrs[1]
	config := filepath.Join(dir, "latchkey.yaml")
	text := fmt.Sprintf(`
proxy: {listen: [%q], access_log: {enabled: false}}
routes: [{name: all, path: "/{rest:*}", upstream: up}]
upstreams: {up: {targets: [%q]}}
store: {path: %q}
admin: {listen: %q, operators: [{name: bench, role: admin, tenant: "*", token_sha256: "%x"}]}
`, g.proxy, backend.URL, store, g.admin, sha256.Sum256([]byte(operatorToken)))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	g.Cmd = exec.Command(binary, "serve", "--config", config)
	g.launch(b)
	return g
}

// launch starts the gateway, again if it has ended, and waits until it is ready.
func (g *gateway) launch(b *testing.B) {
	b.Helper()
	g.Cmd = exec.Command(g.Path, g.Args[1:]...)
	if testing.Verbose() {
		g.Stderr = os.Stderr
	}
	began := time.Now()
	if err := g.Start(); err != nil {
		b.Fatal(err)
	}
	for {
		res, err := http.Get("http://" + g.admin + "/readyz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == 200 {
				break
			}
		}
		if time.Since(began) > 30*time.Second {
			g.Process.Kill()
			b.Fatal("the gateway did not become ready")
		}
		time.Sleep(time.Millisecond)
	}
	g.ready = time.Since(began)
}

func (g *gateway) stop(b *testing.B) {
	b.Helper()
	if err := g.Process.Signal(os.Interrupt); err != nil {
		b.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

// drive sends the requests on 16 connections.
func drive(b *testing.B, addr string) {
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			for i := range *requests / 16 {
				n, want := rand.IntN(*keyCount), 200
				if i%11 == 10 {
					n, want = *keyCount+rand.IntN(1<<40), 401
				}
				fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: bench\r\nX-API-Key: %s\r\n\r\n", secret(n))
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, res.Body)
				if res.StatusCode != want {
					b.Errorf("answered %s, want %d", res.Status, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

// residentMiB reads a figure from /proc; where there is none it skips.
func residentMiB(b *testing.B, pid int, field string) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Skipf("memory is read from /proc, which this system lacks: %v", err)
	}
	for line := range strings.Lines(string(status)) {
		if name, value, _ := strings.Cut(line, ":"); name == field {
			kib, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	b.Fatalf("/proc has no %s", field)
	return 0
}

func diskBytes(b *testing.B, dir string) (total float64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += float64(info.Size())
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return total
}
