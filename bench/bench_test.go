package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"latchkey/apikey"
	"latchkey/keystore"
)

func TestFind(t *testing.T) {
	for _, tc := range []struct {
		names []string
		want  int
	}{
		{[]string{"hit"}, 1}, {[]string{"body-"}, 4}, {[]string{"connections-"}, 4}, {[]string{"hit", "tls"}, 2}, {[]string{"all"}, len(scenarios())},
	} {
		if got, err := find(tc.names); err != nil || len(got) != tc.want {
			t.Errorf("%v: %d scenarios, %v, want %d", tc.names, len(got), err, tc.want)
		}
	}
	for _, name := range []string{"", "hits", "-", "connections"} {
		if got, err := find([]string{name}); err == nil {
			t.Errorf("%q: found %d scenarios, want an error", name, len(got))
		}
	}
}

// TestEveryPlanCanBeRun: no scenario is one that the load refuses.
func TestEveryPlanCanBeRun(t *testing.T) {
	for _, s := range scenarios() {
		p := shape{connections: 64, duration: 1}.apply(s).plan
		if err := p.Problems(); err != nil || p.Method == "" || len(p.Want) == 0 {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

func TestCores(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0,2-3": 3, "1-1": 1} {
		if set, err := parseCores(list); err != nil || set.Count() != want {
			t.Errorf("%q: %d cores, %v, want %d", list, set.Count(), err, want)
		}
	}
	for _, list := range []string{"", "a", "1-", "3-1", "-1", "0,,1", "5000"} {
		if _, err := parseCores(list); err == nil {
			t.Errorf("%q is taken for a list of cores", list)
		}
	}
}

func TestFlagsAreRefusedAtOnce(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"run hit --rounds 0 --duration 0s --load-cores x", "--rounds: must be at least 1\n--duration: must be above zero\n--load-cores: cores \"x\""},
		{"run nothing", `scenario "nothing": there is none of that name`},
		{"run hit --rate -1", "--rate: must be 0 or more"},
		{"diff absent.json", "absent.json: no such file"},
		{"soak absent.jsonl", "absent.jsonl: no such file"},
		{"report absent.json --into absent.md", "--into: open absent.md: no such file"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			t.Chdir(t.TempDir())
			root := rootCommand()
			root.SetArgs(strings.Fields(tc.args))
			if err := root.Execute(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if left, _ := os.ReadDir("."); len(left) != 0 {
				t.Errorf("left %v behind", left)
			}
		})
	}
}

// TestTheBedIsAsTheScenarioSays makes stores and files of keys, and reads them back.
func TestTheBedIsAsTheScenarioSays(t *testing.T) {
	s := &site{dir: t.TempDir(), say: func(string) {}}
	sc := scenario{keys: 50, blocks: 64, revoked: true}
	path, err := s.store(sc)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.store(sc)
	if err != nil || again != path {
		t.Fatalf("asked again: %s, %v, want %s", again, err, path)
	}
	store, err := keystore.Open(path, keystore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	known := func(drawn string) (found, wellFormed int) {
		name, err := s.keyFile(sc.keys, drawn)
		if err != nil {
			t.Fatal(err)
		}
		all, err := lines(name)
		if err != nil || len(all) != sc.keys {
			t.Fatalf("%d keys, %v, want %d", len(all), err, sc.keys)
		}
		for _, secret := range all {
			if format().Screen([]byte(secret)) == apikey.ScreenValid {
				wellFormed++
			}
			digest := apikey.DigestOf([]byte(secret))
			k, err := store.ByDigest(&digest)
			if errors.Is(err, apikey.ErrNotFound) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if found++; k.RevokedAt.IsZero() || len(k.AllowedIPs) != 64 || k.AllowedIPs[63].String() != "127.0.0.0/8" {
				t.Errorf("%+v is not as the scenario says", k)
			}
		}
		return found, wellFormed
	}
	for drawn, want := range map[string][2]int{"": {50, 50}, madeUp: {0, 25}, mixed: {25, 50}} {
		if found, wellFormed := known(drawn); [2]int{found, wellFormed} != want {
			t.Errorf("drawn %q: %d issued, %d well-formed, want %v", drawn, found, wellFormed, want)
		}
	}
}

// TestConfigurationsAreWritten for every system, with the keys that it needs.
func TestConfigurationsAreWritten(t *testing.T) {
	s := &site{dir: t.TempDir(), say: func(string) {}}
	keys, err := s.keyFile(3, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, sys := range append(peers(), gatewayOf("latchkey", "/bin/latchkey")) {
		if sys.direct {
			continue
		}
		b := bed{scenario: scenario{keys: 3}, Dir: t.TempDir(), Listen: "127.0.0.1:1", Admin: "127.0.0.1:2", Target: "127.0.0.1:3", Keys: keys, Threads: 1}
		command, err := sys.write(b)
		if err != nil || len(command) < 2 {
			t.Fatalf("%s: %v, %v", sys.name, command, err)
		}
		var text string
		for _, name := range []string{sys.configure, "map." + sys.name} {
			data, _ := os.ReadFile(filepath.Join(b.Dir, name))
			text += string(data)
		}
		text += strings.Join(command, " ")
		for _, want := range []string{":" + b.Port(), b.Target} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is missing in\n%s", sys.name, want, text)
			}
		}
		if issued := strings.Count(text, "lk_live_"); sys.configure != "" && !sys.gateway && issued != 3 {
			t.Errorf("%s: %d keys in its map, want 3", sys.name, issued)
		}
	}
}

func TestReportPutsResultsIntoThePage(t *testing.T) {
	dir := t.TempDir()
	name, into := filepath.Join(dir, "hit.json"), filepath.Join(dir, "page.md")
	if err := os.WriteFile(name, []byte(`{"Command": "go run ./bench run hit", "Samples": [{"Scenario": "hit", "System": "latchkey", "Round": 1, "Load": {"Requests": 1000, "Seconds": 1, "Latency": [{"Percentile": 50, "Microseconds": 100}, {"Percentile": 100, "Microseconds": 200}]}, "UserSeconds": 0.01}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	page := "before\n<!-- bench hit -->\nold\n<!-- end -->\nafter\n"
	got, err := report([]byte(page), into, name)
	if err != nil {
		t.Fatal(err)
	}
	text := string(got)
	if !strings.HasPrefix(text, "before\n<!-- bench hit -->\n") || !strings.HasSuffix(text, "<!-- end -->\nafter\n") || strings.Contains(text, "old") {
		t.Errorf("the page is now\n%s", text)
	}
	for _, want := range []string{"| latchkey | 1000 |", "![hit-latency](hit/hit-latency.svg)", "go run ./bench run hit"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if again, err := report(got, into, name); err != nil || string(again) != text {
		t.Errorf("a second report changes the page: %v", err)
	}
	for _, bad := range []string{"nothing\n", "<!-- bench hit -->\nno end\n"} {
		if _, err := report([]byte(bad), into, name); err == nil || !strings.Contains(err.Error(), "has no line") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestUsageSeesThisProcess(t *testing.T) {
	u, err := usage(os.Getpid())
	if err != nil || u.rss <= 0 || u.peak < u.rss {
		t.Errorf("usage() = %+v, %v", u, err)
	}
}

func TestWithoutDirectories(t *testing.T) {
	got := withoutDirectories([]string{"run", "hit", "--out", "x", "--rounds", "3", "--work=/y", "--out=z", "--rate", "5", "--work"})
	if want := []string{"run", "hit", "--rounds", "3", "--rate", "5"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
