package main

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"latchkey/internal/freeport"
	"latchkey/internal/nettest"
	"latchkey/keystore"
)

var kills = flag.Int("kills", 10, "how often TestKill kills the gateway")

// A crashSite is a gateway in a child process, which may be killed.
type crashSite struct {
	t            *testing.T
	config       string
	store        string // further settings of the store, in YAML's flow style; see write
	proxy, admin string
	client       *http.Client
}

// TestKill kills a serving gateway with SIGKILL at random moments while clients
// issue, change, rotate and revoke keys, some of which expire. After each restart
// every acknowledged change holds, and a change that was not answered was made as a
// whole or not at all; the store is sound in every row, and its audit log has every
// acknowledged change once.
//
//	go test ./cmd/latchkey -run TestKill -v -args -kills 250
func TestKill(t *testing.T) {
	n := *kills
	if testing.Short() {
		n = 5
	}
	s := newCrashSite(t)
	l := newLedger(s)
	for i := range n {
		child, out := s.start()
		l.check(100)
		stop := make(chan struct{})
		var load sync.WaitGroup
		for range 8 {
			load.Go(func() { l.load(stop) })
		}
		enough := l.answered.Load() + rand.Int64N(100)
		nettest.Until(t, "some changes are acknowledged", func() bool { return l.answered.Load() > enough })
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		close(stop)
		load.Wait()
		if err := child.Wait(); err == nil {
			t.Fatalf("the child ended before it was killed; its output is in %s", out.Name())
		}
		out.Close()
		if i%25 == 0 {
			s.verifyStore()
		}
	}
	l.swept = time.Now()
	child, _ := s.start()
	l.check(5000)
	nettest.Until(t, "what is over is swept", func() bool {
		return s.metrics()[`latchkey_job_last_success_timestamp_seconds{job="sweep"}`] > "0"
	})
	if err := child.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err != nil {
		t.Errorf("the last child, interrupted: %v", err)
	}
	if found := s.verifyStore(); found.Keys() < len(l.accounts) {
		t.Errorf("%d keys in the store; %d were acknowledged", found.Keys(), len(l.accounts))
	}
	l.audit()
	l.requireLoad(n)
}

// storePath returns where the gateway's store is.
func (s *crashSite) storePath() string { return filepath.Join(filepath.Dir(s.config), "store") }

// verifyStore requires that the store, which nobody has open, is sound in every row.
func (s *crashSite) verifyStore() keystore.Summary {
	s.t.Helper()
	found, err := keystore.Verify(s.storePath(), keystore.Options{}, func(problem string) { s.t.Error(problem) })
	if err != nil {
		s.t.Fatal(err)
	}
	return found
}

func newCrashSite(t *testing.T) *crashSite {
	dir := t.TempDir()
	ports := freePorts(t, 2)
	s := &crashSite{t: t, config: filepath.Join(dir, "latchkey.yaml"),
		proxy: "http://" + ports[0], admin: "http://" + ports[1],
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
	text := fmt.Sprintf(`
proxy: {listen: [%q], access_log: {enabled: false}}
routes: [{name: all, path: "/{rest:*}", upstream: up}]
upstreams: {up: {targets: [%q]}}
store: {path: %q}
admin: {listen: %q, operators: [{name: test, role: admin, tenant: "*", token_sha256: "%x"}]}
`, ports[0], upstreamOK(t).URL, s.storePath(), ports[1], sha256.Sum256([]byte(testToken)))
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// freePorts returns addresses nobody listens on.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	addrs, err := freeport.Addrs(n)
	if err != nil {
		t.Fatal(err)
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
