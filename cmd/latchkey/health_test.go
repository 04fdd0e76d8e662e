package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"latchkey/config"
	"latchkey/internal/nettest"
)

func TestHealthURL(t *testing.T) {
	encrypted := config.TLS{CertFile: "c", KeyFile: "k"}
	for _, tc := range []struct {
		name  string
		admin config.Admin
		want  string // empty means an error
	}{
		{"the admin plane", config.Admin{Listen: "127.0.0.1:8081"}, "http://127.0.0.1:8081/readyz"},
		{"with TLS", config.Admin{Listen: "127.0.0.1:8081", TLS: encrypted}, "https://127.0.0.1:8081/readyz"},
		{"the metrics listener comes first, and has no TLS", config.Admin{Listen: ":8081", TLS: encrypted, MetricsListen: "10.0.0.1:9090"}, "http://10.0.0.1:9090/readyz"},
		{"all interfaces", config.Admin{Listen: ":8081"}, "http://127.0.0.1:8081/readyz"},
		{"all of IPv4", config.Admin{Listen: "0.0.0.0:8081"}, "http://127.0.0.1:8081/readyz"},
		{"all of IPv6", config.Admin{Listen: "[::]:8081"}, "http://[::1]:8081/readyz"},
		{"a name", config.Admin{Listen: "localhost:8081"}, "http://localhost:8081/readyz"},
		{"with certificates of clients", config.Admin{Listen: "127.0.0.1:8081", TLS: config.TLS{CertFile: "c", KeyFile: "k", ClientCAFile: "a"}}, ""},
		{"a port that is new each time", config.Admin{Listen: "127.0.0.1:0"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := healthURL(tc.admin); got != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("healthURL() = %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

// health runs the subcommand and returns its status and what it said.
func health(target string) (status int, stdout, stderr string) {
	var out, problems bytes.Buffer
	status = run(context.Background(), []string{"health", "--url", target}, &out, &problems)
	return status, out.String(), problems.String()
}

func TestHealth(t *testing.T) {
	cfg := testConfig(t, upstreamOK(t).URL)
	cfg.Admin.MetricsListen = "127.0.0.1:0"
	cfg.Admin.TLS, _ = certificateFiles(t, t.TempDir())
	g := startGateway(t, cfg)
	open := "http://" + g.app.Addrs()[2].String() + "/readyz"
	nettest.Until(t, "the gateway is ready", func() bool { return g.app.readiness() == nil })
	for _, target := range []string{open, "https://" + g.app.Addrs()[1].String() + "/readyz"} {
		if status, out, problem := health(target); status != exitOK || out != "ok\n" {
			t.Errorf("health --url %s: %d %q %q, want 0 and ok", target, status, out, problem)
		}
	}

	g.app.ready.Store(false)
	status, out, problem := health(open)
	if want := "answers 503 Service Unavailable: not serving: starting or draining\n"; status != exitFailure || out != "" || !strings.HasSuffix(problem, want) {
		t.Errorf("health of a gateway that drains: %d %q %q, want 1 and %q", status, out, problem, want)
	}
	g.app.ready.Store(true)

	for name, target := range map[string]string{
		"a path that is not there": strings.Replace(open, "/readyz", "/nothing", 1),
		"nobody":                   "http://" + freePorts(t, 1)[0] + "/readyz",
		"plain HTTP where TLS is":  "http://" + g.app.Addrs()[1].String() + "/readyz",
	} {
		if status, _, problem := health(target); status != exitFailure || strings.Count(problem, "\n") != 1 {
			t.Errorf("health of %s: %d %q, want 1 and one line", name, status, problem)
		}
	}
}

// TestHealthFollowsNobody keeps a gateway that sends its callers elsewhere from
// passing for a good one.
func TestHealthFollowsNobody(t *testing.T) {
	good := upstreamOK(t)
	elsewhere := httptest.NewServer(http.RedirectHandler(good.URL, http.StatusFound))
	defer elsewhere.Close()
	if status, _, problem := health(elsewhere.URL); status != exitFailure {
		t.Errorf("health of a redirect: %d %q, want 1", status, problem)
	}
}
