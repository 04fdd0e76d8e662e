package main

import (
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"latchkey/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

// An exposition is what /metrics showed of Latchkey's own metrics, in
// Prometheus's text format.
type exposition struct {
	metrics string            // a line for each metric: its name, type and help
	series  map[string]string // the value of each, by its name and labels
}

var (
	metricLine = regexp.MustCompile(`^# (HELP|TYPE) (latchkey_\S+) (.*)$`)
	seriesLine = regexp.MustCompile(`^(latchkey_[^ {]+(?:\{.*\})?) (\S+)$`)
	labelName  = regexp.MustCompile(`[{,]([a-zA-Z_][a-zA-Z0-9_]*)="`)
)

// scrape reads /metrics as a Prometheus server would, with an operator's token.
func (g *gateway) scrape() exposition {
	g.t.Helper()
	res, err := call(http.DefaultClient, "GET", g.admin+"/metrics", "")
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		g.t.Fatalf("/metrics answered %s, %v", res.Status, err)
	}
	help, kind, series := map[string]string{}, map[string]string{}, map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if m := metricLine.FindStringSubmatch(line); m != nil {
			map[string]map[string]string{"HELP": help, "TYPE": kind}[m[1]][m[2]] = m[3]
		} else if m := seriesLine.FindStringSubmatch(line); m != nil {
			series[m[1]] = m[2]
		} else if strings.Contains(line, "latchkey_") {
			g.t.Fatalf("/metrics has a line that is not understood: %q", line)
		}
	}
	e := exposition{series: series}
	for _, name := range slices.Sorted(maps.Keys(kind)) {
		e.metrics += fmt.Sprintf("%s %s %s\n", name, kind[name], help[name])
	}
	return e
}

// startMetered starts a gateway with a route that asks for a key and one that
// does not.
func startMetered(t *testing.T) *gateway {
	t.Helper()
	cfg := testConfig(t, upstreamOK(t).URL)
	open := cfg.Routes[0]
	open.Name, open.Path, open.Auth = "open", "/open/{rest:*}", config.AuthNone
	cfg.Routes = append(cfg.Routes, open)
	// For the metrics of traces, of which none is recorded.
	cfg.Tracing = config.Tracing{Endpoint: "http://127.0.0.1:1", Insecure: true, ServiceName: "latchkey"}
	return startGateway(t, cfg)
}

// TestMetricsGolden compares names, types and help texts with the golden file:
// dashboards and alerts hang on them.
func TestMetricsGolden(t *testing.T) {
	got := startMetered(t).scrape().metrics
	golden := filepath.Join("testdata", "metrics.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("metrics differ from %s; if that is meant, run go test ./cmd/latchkey -run TestMetricsGolden -update (-want +got):\n%s", golden, diff)
	}
}

func TestMetricsLabels(t *testing.T) {
	closed := []string{"route", "verdict", "upstream", "target", "code", "result", "job", "listener", "state", "version", "goversion"}
	seen := map[string]bool{}
	for s := range startMetered(t).scrape().series {
		for _, m := range labelName.FindAllStringSubmatch(s, -1) {
			seen[m[1]] = true
			// le is how the text format spells a histogram's buckets.
			bucket := m[1] == "le" && strings.Contains(s, "_bucket{")
			if !bucket && !slices.Contains(closed, m[1]) {
				t.Errorf("series %s has the label %s, which is not one of %v", s, m[1], closed)
			}
		}
	}
	for _, name := range closed {
		if !seen[name] {
			t.Errorf("no series has the label %s; take it off the list, or find out where it went", name)
		}
	}
}

// TestMetricsStayBounded sends what a client may make up. The series a scrape
// shows are those from before the first request, whatever was sent.
func TestMetricsStayBounded(t *testing.T) {
	g := startMetered(t)
	before := g.scrape()
	k, err := issue(http.DefaultClient, g.admin)
	if err != nil {
		t.Fatal(err)
	}
	marks := sendMadeUp(g, k.Key)
	after := g.scrape()
	for s := range after.series {
		if _, was := before.series[s]; !was {
			t.Errorf("series %s came to be by requests", s)
		}
		for _, mark := range append(marks, k.Key, k.ID) {
			if strings.Contains(strings.ToLower(s), strings.ToLower(mark)) {
				t.Errorf("series %s shows %q, which a client sent", s, mark)
			}
		}
	}
	if len(after.series) != len(before.series) {
		t.Errorf("%d series after the requests, want %d as before", len(after.series), len(before.series))
	}
	const counted = `latchkey_requests_total{route="open",verdict="public"}`
	if got, want := after.series[counted], fmt.Sprint(len(marks)); got != want {
		t.Errorf("%s is %q, want %q", counted, got, want)
	}
	if diff := cmp.Diff(before.metrics, after.metrics); diff != "" {
		t.Errorf("requests changed the metrics (-before +after):\n%s", diff)
	}
}

// sendMadeUp sends requests that each have something random in them, to both
// planes, and returns what was random.
func sendMadeUp(g *gateway, key string) (marks []string) {
	g.t.Helper()
	send := func(method, url, host, key string) {
		g.t.Helper()
		req, err := http.NewRequest(method, url, nil)
		if err != nil {
			g.t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("X-API-Key", key)
		req.Header.Set("X-Request-Id", marks[len(marks)-1])
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			g.t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			g.t.Fatal(err)
		}
	}
	for range 20 {
		mark := rand.Text()
		marks = append(marks, mark)
		for _, plane := range []string{g.proxy, g.admin} {
			send("GET", plane+"/"+mark, "", key)                      // a path
			send("GET", plane+"/open/"+mark+"?q="+mark, "", "")       // of a public route
			send("GET", plane+"/"+mark+"/%2e%2e/", "", key)           // that is refused
			send("GET", plane+"/", mark+".example", key)              // a host
			send("GET", plane+"/", "", mark)                          // a key
			send("GET", plane+"/", "", "lk_live_"+mark+mark[:23])     // that looks like one of ours
			send("GET", plane+"/", "", key[:len(key)-1]+mark[:1]+"x") // or nearly is one
			send(mark, plane+"/", "", key)                            // a method
		}
	}
	return marks
}
