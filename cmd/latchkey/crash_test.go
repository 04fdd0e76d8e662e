package main

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"latchkey/keystore"
)

var kills = flag.Int("kills", 50, "how often TestKill kills the gateway")

// A crashSite is a gateway in a child process that is killed again and again,
// and what it has acknowledged so far.
type crashSite struct {
	t            *testing.T
	config       string
	proxy, admin string
	client       *http.Client

	mu      sync.Mutex
	keys    map[string]issued // acknowledged, by ID
	revoked map[string]bool   // acknowledged
	unsure  map[string]bool   // a revocation was asked for and not answered
}

// TestKill kills a serving gateway with SIGKILL at random moments of a mixed
// load. After each restart every acknowledged key works and every acknowledged
// revocation holds; in the end the store is sound in every row.
func TestKill(t *testing.T) {
	n := *kills
	if testing.Short() {
		n = 5
	}
	s := newCrashSite(t)
	for range n {
		child, out := s.start()
		s.verify(200)
		stop := make(chan struct{})
		var load sync.WaitGroup
		for range 8 {
			load.Go(func() { s.load(stop) })
		}
		time.Sleep(time.Duration(20+rand.IntN(100)) * time.Millisecond) // any moment will do
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		close(stop)
		load.Wait()
		if err := child.Wait(); err == nil {
			t.Fatalf("the child ended before it was killed; its output is in %s", out.Name())
		}
		out.Close()
	}
	child, _ := s.start()
	s.verify(len(s.keys))
	if err := child.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err != nil {
		t.Errorf("the last child, interrupted: %v", err)
	}
	found, err := keystore.Verify(filepath.Join(filepath.Dir(s.config), "store"), keystore.Options{}, func(problem string) { t.Error(problem) })
	if err != nil || found.Keys() < len(s.keys) {
		t.Errorf("%d keys in the store, %v; %d were acknowledged", found.Keys(), err, len(s.keys))
	}
	t.Logf("%d kills, %d keys and %d revocations acknowledged", n, len(s.keys), len(s.revoked))
	if len(s.keys) < 10*n || len(s.revoked) < n {
		t.Errorf("too little was acknowledged for the kills to mean much")
	}
}

func newCrashSite(t *testing.T) *crashSite {
	dir := t.TempDir()
	ports := freePorts(t, 2)
	s := &crashSite{t: t, config: filepath.Join(dir, "latchkey.yaml"),
		proxy: "http://" + ports[0], admin: "http://" + ports[1],
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}},
		keys:   map[string]issued{}, revoked: map[string]bool{}, unsure: map[string]bool{}}
	text := fmt.Sprintf(`
proxy: {listen: [%q], access_log: {enabled: false}}
routes: [{name: all, path: "/{rest:*}", upstream: up}]
upstreams: {up: {targets: [%q]}}
store: {path: %q}
admin: {listen: %q, operators: [{name: test, role: admin, tenant: "*", token_sha256: "%x"}]}
`, ports[0], upstreamOK(t).URL, filepath.Join(dir, "store"), ports[1], sha256.Sum256([]byte(testToken)))
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// freePorts returns addresses nobody listens on.
func freePorts(t *testing.T, n int) (addrs []string) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// start runs the gateway in a child and waits until it is ready.
func (s *crashSite) start() (*exec.Cmd, *os.File) {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(filepath.Dir(s.config), "output"))
	if err != nil {
		s.t.Fatal(err)
	}
	// TestMain runs latchkey where the binary is called by that name.
	child := &exec.Cmd{Path: self, Args: []string{"latchkey", "serve", "--config", s.config}, Stdout: out, Stderr: out}
	if err := child.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = child.Process.Kill() }) // does nothing to one that has ended
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		res, err := s.client.Get(s.admin + "/readyz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == 200 {
				return child, out
			}
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(out.Name())
			s.t.Fatalf("the gateway did not become ready: %v\n%s", err, text)
		}
	}
}

// load issues and revokes keys until the gateway is gone.
func (s *crashSite) load(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		k, err := issue(s.client, s.admin)
		if err != nil {
			return
		}
		s.note(func() { s.keys[k.ID] = k })
		if rand.IntN(2) == 0 {
			continue
		}
		victim := s.chooseVictim()
		if err := revoke(s.client, s.admin, victim); err != nil {
			return
		}
		s.note(func() { s.revoked[victim] = true })
	}
}

func (s *crashSite) note(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// chooseVictim returns the ID of a key nobody has tried to revoke, and notes that
// someone will.
func (s *crashSite) chooseVictim() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.keys { // in random order
		if !s.unsure[id] {
			s.unsure[id] = true
			return id
		}
	}
	return ""
}

// verify uses up to n acknowledged keys, picked at random.
func (s *crashSite) verify(n int) {
	s.t.Helper()
	for id, k := range maps.All(s.keys) {
		if n--; n < 0 {
			return
		}
		status, code, err := use(s.client, s.proxy, k.Key)
		switch {
		case err != nil:
			s.t.Fatal(err)
		case s.revoked[id] && (status != 401 || code != "revoked_api_key"):
			s.t.Errorf("key %s: its revocation was acknowledged, and it gets %d %s", id, status, code)
		case !s.unsure[id] && status != 200:
			s.t.Errorf("key %s: its creation was acknowledged, and it gets %d %s", id, status, code)
		}
	}
}
