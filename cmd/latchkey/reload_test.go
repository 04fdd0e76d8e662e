package main

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"latchkey/config"
	"latchkey/internal/nettest"
)

// reloadSite is a configuration whose answers say which version of it is in
// force. The further text changes with the version.
func reloadSite(version int, target, further string) string {
	text := fmt.Sprintf(`
proxy: {listen: ["PROXY"], access_log: {enabled: false}}
routes:
  - {name: all, path: "/{rest:*}", upstream: up, auth: none, response_headers: {set: {X-Version: "%d"}}}
`, version)
	if version%3 == 1 { // a route and an upstream more
		return text + fmt.Sprintf(`  - {name: more, path: "/more/{rest:*}", upstream: more, auth: none}
upstreams: {up: {targets: [%q]}, more: {targets: [%q]}}
`, target, target) + further
	}
	return text + fmt.Sprintf("upstreams: {up: {targets: [%q], connections: {max: %d}}}\n", target, 100+version%3) + further
}

// brokenConfigs are wrong in different ways; what POST /reload answers names the
// problem.
var brokenConfigs = []struct{ further, names string }{
	{"rooutes: []\n", "rooutes"},
	{"keys: {prefix: other}\n", "changes of keys take a restart"},
	{"reload: {on_change: true}\n", "changes of reload take a restart"},
	{"jwt: [\n", "latchkey.yaml"},
}

// TestReloadUnderLoad reloads the configuration, by signal and by call in turn and
// every second time one that is broken, under clients at full speed. No request
// fails, each good version comes into force and no broken one, and connections to
// a target that stays are not made anew.
//
//	go test ./cmd/latchkey -run TestReloadUnderLoad -v
func TestReloadUnderLoad(t *testing.T) {
	reloads := 100
	if testing.Short() {
		reloads = 12
	}
	target := echo(t)
	s := newSite(t, reloadSite(0, target, ""))
	child, _ := s.start()
	clients := newSwarm(t, s.proxy)
	for range 4 {
		clients.keepAlive()
		clients.once()
	}
	clients.await(200)
	before := s.connects(t)
	version := 0
	for i := range reloads {
		var broken, names string
		if i%2 == 1 {
			b := brokenConfigs[i/2%len(brokenConfigs)]
			broken, names = b.further, b.names
		}
		s.write(reloadSite(i, target, broken))
		if i/2%2 == 0 {
			s.reloadByCall(names)
		} else {
			s.reloadBySignal(child.Process.Pid, broken == "")
		}
		if broken == "" {
			version = i
		}
		if got := s.version(t); got != strconv.Itoa(version) {
			t.Fatalf("after reload %d version %s is in force, want %d", i, got, version)
		}
		clients.await(20)
	}
	after := s.connects(t)
	clients.end()
	t.Logf("%d reloads, %d requests, %d failed; connections to the target: %d, then %d",
		reloads, clients.answered.Load(), clients.failed.Load(), before, after)
	if after > 16 { // no more than clients at once, and their look at the version
		t.Errorf("%d connections were made to a target that stayed, want at most 16", after)
	}
	if err := child.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
}

// reloadByCall calls POST /reload, and expects it to name a problem if there is
// to be one.
func (s *crashSite) reloadByCall(names string) {
	s.t.Helper()
	res, err := call(s.client, "POST", s.admin+"/reload", "")
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if names == "" && res.StatusCode != 204 || names != "" && (res.StatusCode != 422 || !strings.Contains(string(body), names)) {
		s.t.Fatalf("POST /reload answered %s %s; the problem is %q", res.Status, body, names)
	}
	s.wantLastReload(names == "")
}

// reloadBySignal sends SIGHUP, and waits until the metrics say that there was a
// reload, and how it went.
func (s *crashSite) reloadBySignal(pid int, good bool) {
	s.t.Helper()
	const at = "latchkey_config_last_reload_timestamp_seconds"
	before := s.metrics()[at]
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
	nettest.Until(s.t, "SIGHUP reloads", func() bool { return s.metrics()[at] != before })
	s.wantLastReload(good)
}

func (s *crashSite) wantLastReload(good bool) {
	s.t.Helper()
	want := map[bool]string{true: "1", false: "0"}[good]
	// The time is set before the result is.
	nettest.Until(s.t, "latchkey_config_last_reload_success is "+want, func() bool {
		return s.metrics()["latchkey_config_last_reload_success"] == want
	})
}

// metrics reads all series.
func (s *crashSite) metrics() map[string]string {
	s.t.Helper()
	res, err := call(s.client, "GET", s.admin+"/metrics", "")
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		s.t.Fatalf("metrics: %s, %v", res.Status, err)
	}
	series := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			series[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	return series
}

// connects returns how many connections were made to the targets of "up".
func (s *crashSite) connects(t *testing.T) int {
	t.Helper()
	for name, value := range s.metrics() {
		if strings.HasPrefix(name, `latchkey_upstream_connects_total{target="`) && strings.Contains(name, `upstream="up"`) {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
	}
	t.Fatal("the metrics do not say how many connections were made")
	return 0
}

// version asks which version of reloadSite is in force.
func (s *crashSite) version(t *testing.T) string {
	t.Helper()
	res, err := s.client.Get(s.proxy + "/version")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.Header.Get("X-Version")
}

// startFrom starts a gateway with the site's file, which it can reload.
func startFrom(t *testing.T, s *crashSite) *gateway {
	t.Helper()
	g := startGateway(t, loadSite(t, s))
	g.app.reloading.path = s.config
	return g
}

func loadSite(t *testing.T, s *crashSite) *config.Config {
	t.Helper()
	cfg, err := config.Load(s.config)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestAChangedFileIsReloaded runs passes of the job that looks at the file.
func TestAChangedFileIsReloaded(t *testing.T) {
	target := echo(t)
	s := newSite(t, reloadSite(0, target, ""))
	g := startFrom(t, s) // without on_change, so that the passes below are the only ones
	watch := g.app.watchConfig()
	for i, tc := range []struct {
		name, text       string
		version, success string
	}{
		{"seen for the first time", reloadSite(0, target, ""), "0", "1"},
		{"nothing has changed", reloadSite(0, target, ""), "0", "1"},
		{"a route and an upstream more", reloadSite(1, target, ""), "1", "1"},
		{"a broken file", reloadSite(2, target, "rooutes: []\n"), "1", "0"},
		{"the same broken file", reloadSite(2, target, "rooutes: []\n"), "1", "0"},
		{"mended", reloadSite(2, target, ""), "2", "1"},
	} {
		s.write(tc.text)
		pass(t, watch)
		if got := s.version(t); got != tc.version {
			t.Errorf("%s: version %s is in force, want %s", tc.name, got, tc.version)
		}
		s.wantLastReload(tc.success == "1")
		if at := s.metrics()["latchkey_config_last_reload_timestamp_seconds"]; (at == "0") != (i < 2) {
			t.Errorf("%s: the last reload was at %s", tc.name, at)
		}
	}
}

// TestReloadsAddUpToNothing gives routes, upstreams and targets other names at each
// reload, and counts the series of the metrics.
func TestReloadsAddUpToNothing(t *testing.T) {
	site := func(n int) string {
		return fmt.Sprintf(`
proxy: {listen: ["PROXY"]}
routes: [{name: r%d, path: "/{rest:*}", upstream: u%d, auth: none}, {name: s, path: /s, upstream: s, auth: none}]
upstreams: {u%d: {targets: ["http://127.0.0.1:9"]}, s: {targets: ["http://127.0.0.1:%d"]}}
`, n, n, n, 100+n)
	}
	s := newSite(t, site(0))
	g := startFrom(t, s)
	series := func() int {
		use(s.client, s.proxy, "")
		n := 0
		for name := range s.metrics() {
			if strings.HasPrefix(name, "latchkey_") {
				n++
			}
		}
		return n
	}
	want := series()
	for i := range 5 {
		s.write(site(i + 1))
		if err := g.app.Reload(); err != nil {
			t.Fatal(err)
		}
		if got := series(); got != want {
			t.Fatalf("after reload %d there are %d series, want the %d of before", i+1, got, want)
		}
	}
}

// TestAReloadReachesTheDoors has PROXY headers get less time than before.
func TestAReloadReachesTheDoors(t *testing.T) {
	site := func(readHeader string) string {
		return fmt.Sprintf(`
proxy: {listen: ["PROXY"], proxy_protocol: true, trusted_proxies: ["127.0.0.0/8"], timeouts: {read_header: %s}}
routes: [{name: all, path: "/{rest:*}", upstream: up, auth: none}]
upstreams: {up: {targets: ["http://127.0.0.1:9"]}}
`, readHeader)
	}
	s := newSite(t, site("1h"))
	g := startFrom(t, s)
	s.write(site("100ms"))
	if err := g.app.Reload(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", strings.TrimPrefix(s.proxy, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a client that sends no PROXY header is told %v, want the end of the connection", err)
	}
}

// TestAFileThatChangesDuringTheStart is loaded, though nobody looked at it before.
func TestAFileThatChangesDuringTheStart(t *testing.T) {
	target := echo(t)
	s := newSite(t, reloadSite(0, target, ""))
	cfg := loadSite(t, s)
	s.write(reloadSite(1, target, ""))
	g := startGateway(t, cfg)
	g.app.reloading.path = s.config
	pass(t, g.app.watchConfig())
	if got := s.version(t); got != "1" {
		t.Errorf("version %s is in force, want 1", got)
	}
}

// TestOnChangeWatchesTheFile has the program itself see a change.
func TestOnChangeWatchesTheFile(t *testing.T) {
	const onChange = "reload: {on_change: true}\n"
	target := echo(t)
	s := newSite(t, reloadSite(0, target, onChange))
	child, _ := s.start()
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	changed := false
	for end := time.Now().Add(20 * time.Second); s.version(t) != "1"; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a changed file was not loaded within 20 s")
		}
		if !changed && time.Until(end) < 16*time.Second { // after the first pass, which remembers the file
			s.write(reloadSite(1, target, onChange))
			changed = true
		}
	}
}
