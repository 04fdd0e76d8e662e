package main

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// newSite returns the site of a gateway that runs in a child process, by the
// configuration that the text and an admin plane make.
func newSite(t *testing.T, text string) *crashSite {
	t.Helper()
	dir := t.TempDir()
	ports := freePorts(t, 2)
	s := &crashSite{t: t, config: filepath.Join(dir, "latchkey.yaml"), proxy: "http://" + ports[0], admin: "http://" + ports[1],
		client: &http.Client{Timeout: 10 * time.Second}}
	s.write(text)
	return s
}

// write makes the text the site's configuration, at one instant. It may say PROXY
// for the address of the data plane.
func (s *crashSite) write(text string) {
	s.t.Helper()
	text = strings.ReplaceAll(text, "PROXY", strings.TrimPrefix(s.proxy, "http://")) + fmt.Sprintf(`
store: {path: %q%s}
admin: {listen: %q, operators: [{name: test, role: admin, tenant: "*", token_sha256: "%x"}]}
`, filepath.Join(filepath.Dir(s.config), "store"), s.store, strings.TrimPrefix(s.admin, "http://"), sha256.Sum256([]byte(testToken)))
	if err := os.WriteFile(s.config+".new", []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.config+".new", s.config); err != nil {
		s.t.Fatal(err)
	}
}

// notes are written by several goroutines.
type notes struct{ mu sync.Mutex }

func (n *notes) note(write func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	write()
}

// memory returns the resident memory of a process, now and at its highest, in
// bytes. A system that does not say skips the test.
func memory(t *testing.T, pid int) (now, peak int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("the memory of a process cannot be read here: %v", err)
	}
	for line := range strings.Lines(string(text)) {
		for name, to := range map[string]*int64{"VmRSS:": &now, "VmHWM:": &peak} {
			if f := strings.Fields(line); len(f) == 3 && f[0] == name {
				if *to, err = strconv.ParseInt(f[1], 10, 64); err != nil {
					t.Fatal(err)
				}
				*to <<= 10
			}
		}
	}
	return now, peak
}

// mebibytes is for people.
func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
