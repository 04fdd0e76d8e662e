package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"latchkey/bench/soak"
	"latchkey/keystore"
)

var (
	soakFor    = flag.Duration("soak", 3*time.Second, "for how long TestSoak loads the gateway")
	soakRate   = flag.Int("soak-rate", 150, "how many requests a second TestSoak makes")
	soakSeries = flag.String("soak-series", "", "the `file` for TestSoak's series, a JSON object a line; none if it is empty")
)

// soakSite has a route that says which version of it is in force. Nothing in it is in
// a hurry: a machine that is busy with other things may stand still for a minute.
func soakSite(version int, target, further string) string {
	return fmt.Sprintf(`
proxy: {listen: ["PROXY"], access_log: {enabled: false}}
routes:
  - {name: all, path: "/{rest:*}", upstream: up, timeout: 5m}
  - {name: version, path: /version, upstream: up, auth: none, response_headers: {set: {X-Version: "%d"}}}
upstreams: {up: {targets: [%q], connections: {connect_timeout: 2m, wait: 2m}}}
`, version, target) + further
}

// TestSoak is an ordinary day of the gateway, in a child process: requests at a
// constant rate, a tenth of them with made-up keys, while keys are issued, changed,
// rotated and revoked, the configuration is reloaded every minute, every second time
// with one that is broken, and the upstream is restarted every five minutes. Every
// answer is the one that is due, but for those of an upstream that is being
// restarted; and after a long run no more memory, goroutines and descriptors are in
// use than after a quarter of it. In a short run a minute is a twelfth of it.
//
//	go test ./cmd/latchkey -run TestSoak -v -timeout 0 -soak 2h -soak-series soak.jsonl
func TestSoak(t *testing.T) {
	s := newSoakRun(t)
	child, out := s.start()
	t.Logf("the gateway is process %d", child.Process.Pid)
	t.Cleanup(func() {
		if child.ProcessState == nil { // the test has given up: what is the gateway doing?
			_ = child.Process.Signal(syscall.SIGQUIT)
			_ = child.Wait()
			text, _ := os.ReadFile(out.Name())
			t.Logf("%.50000s", text)
		}
	})
	s.fill(200)
	series := s.live(child)
	if err := child.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err != nil {
		t.Errorf("the gateway, stopped: %v", err)
	}
	_, err := keystore.Verify(filepath.Join(filepath.Dir(s.config), "store"), keystore.Options{}, func(problem string) { t.Error(problem) })
	if err != nil {
		t.Error(err)
	}
	var summary strings.Builder
	if err := soak.WriteSummary(&summary, series); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", &summary)
	var sum soak.Sample
	for _, one := range series {
		sum.Requests += one.Requests
		sum.Changes += one.Changes
		sum.Reloads += one.Reloads
		sum.Restarts += one.Restarts
	}
	if sum.Requests < int(soakFor.Seconds())**soakRate/2 || sum.Changes == 0 || sum.Reloads == 0 || sum.Restarts == 0 {
		t.Errorf("too little has happened for the soak to mean much")
	}
	if *soakFor >= 20*time.Minute { // a short run is over before it is warm
		for _, line := range soak.Grown(series) {
			t.Error(line)
		}
	}
}

// live has everything go on for as long as the flag says.
func (s *soakRun) live(child *exec.Cmd) (series []soak.Sample) {
	out := io.Writer(io.Discard)
	if *soakSeries != "" {
		f, err := os.Create(*soakSeries)
		if err != nil {
			s.t.Fatal(err)
		}
		defer f.Close()
		out = f
	}
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() { s.requests(stop) })
	load.Go(func() { s.changes(stop) })
	minute := min(time.Minute, *soakFor/12)
	begun := time.Now()
	for step := 1; ; step++ { // six a minute
		at := time.Duration(step) * minute / 6
		if at > *soakFor {
			break
		}
		<-time.After(time.Until(begun.Add(at)))
		if step%6 == 0 {
			s.reload(child.Process.Pid, step/6)
		}
		if step%30 == 15 {
			s.restart(minute / 60)
		}
		one := s.sample(child.Process.Pid, time.Since(begun))
		series = append(series, one)
		if err := json.NewEncoder(out).Encode(one); err != nil {
			s.t.Fatal(err)
		}
	}
	close(stop)
	load.Wait()
	return series
}

// reload has the configuration read again, by signal and by call in turn.
func (s *soakRun) reload(pid, n int) {
	target := "http://" + s.up.addr
	var broken, names string
	if n%2 == 0 {
		b := brokenConfigs[n/2%len(brokenConfigs)]
		broken, names = b.further, b.names
	} else {
		s.version = n
	}
	s.write(soakSite(n, target, broken))
	if n/2%2 == 0 {
		s.reloadByCall(names)
	} else {
		s.reloadBySignal(pid, broken == "")
	}
	if got := s.crashSite.version(s.t); got != strconv.Itoa(s.version) {
		s.t.Errorf("after reload %d version %s is in force, want %d", n, got, s.version)
	}
	s.note(func() { s.now.Reloads++ })
}

// restart kills the upstream and brings it back after a while.
func (s *soakRun) restart(after time.Duration) {
	s.note(func() { s.down, s.back = time.Now(), time.Time{} })
	s.kill()
	<-time.After(after)
	s.kill = s.up.live()
	s.note(func() { s.back = time.Now(); s.now.Restarts++ })
}

// sample looks at the gateway, and begins to count anew.
func (s *soakRun) sample(pid int, at time.Duration) soak.Sample {
	s.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		s.t.Fatal(err)
	}
	rss, _ := memory(s.t, pid)
	goroutines, err := strconv.Atoi(s.metrics()["go_goroutines"])
	if err != nil {
		s.t.Fatal(err)
	}
	var out soak.Sample
	var took []time.Duration
	s.note(func() {
		out, took = s.now, s.took
		s.now, s.took = blankSample(), nil
	})
	out.Seconds, out.RSS, out.Descriptors = at.Seconds(), rss, len(fds)
	out.Goroutines, out.StoreBytes = goroutines, s.storeBytes()
	out.Requests = len(took)
	slices.Sort(took)
	if n := len(took) - 1; n >= 0 {
		out.Median, out.P99, out.Longest = milliseconds(took[n/2]), milliseconds(took[n*99/100]), milliseconds(took[n])
	}
	return out
}

// storeBytes returns the size of the store's files.
func (s *soakRun) storeBytes() (n int64) {
	_ = filepath.WalkDir(filepath.Join(filepath.Dir(s.config), "store"), func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil { // else it was deleted meanwhile
				n += info.Size()
			}
		}
		return nil
	})
	return n
}
