package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metricsql"
	"github.com/goccy/go-yaml"

	"latchkey/config"
)

// An alert is a rule of deploy/prometheus/alerts.yaml.
type alert struct {
	Alert       string
	Expr        string
	Labels      struct{ Severity string }
	Annotations struct{ Summary, Runbook string }
}

// readYAML decodes the first document of a file.
func readYAML(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func readAlerts(t *testing.T) (alerts []alert) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	readYAML(t, "../../deploy/prometheus/alerts.yaml", &file)
	for _, g := range file.Groups {
		alerts = append(alerts, g.Rules...)
	}
	if len(alerts) < 10 {
		t.Fatalf("%d alerts; is this the file?", len(alerts))
	}
	return alerts
}

// TestTheAlertsAskForWhatThereIs does for the alerts what
// TestTheDashboardAsksForWhatThereIs does for the dashboard.
func TestTheAlertsAskForWhatThereIs(t *testing.T) {
	golden, err := os.ReadFile("testdata/metrics.golden")
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, upstreamOK(t).URL)
	cfg.Proxy.TLS, _ = certificateFiles(t, t.TempDir()) // for the jobs that take up certificates
	cfg.Tracing = config.Tracing{Endpoint: "http://127.0.0.1:1", Insecure: true, ServiceName: "latchkey"}
	d := dashboard{t: t, shown: startGateway(t, cfg).all(), golden: string(golden), asked: map[string]bool{}}
	for _, a := range readAlerts(t) {
		parsed, err := metricsql.Parse(a.Expr)
		if err != nil {
			t.Errorf("%s: %v", a.Alert, err)
			continue
		}
		if found := d.expression(a.Alert+": "+a.Expr, parsed); len(found) == 0 {
			t.Errorf("%s asks for no metric", a.Alert)
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, a.Labels.Severity) {
			t.Errorf("%s has the severity %q", a.Alert, a.Labels.Severity)
		}
	}
}

// TestEveryAlertHasARunbook holds the alerts, what is to be done about them and
// their unit tests against each other.
func TestEveryAlertHasARunbook(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## Alerts\n")
	if !found {
		t.Fatal("docs/operations.md has no section Alerts")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	runbooks := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^### (\w+)\n\n\S`).FindAllStringSubmatch(section, -1) {
		runbooks[m[1]] = true
	}
	var unit struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string
				ExpAlerts []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	readYAML(t, "../../deploy/prometheus/alerts_test.yaml", &unit)
	quiet, fires := map[string]bool{}, map[string]bool{}
	for _, test := range unit.Tests {
		for _, at := range test.AlertRuleTest {
			quiet[at.Alertname] = quiet[at.Alertname] || len(at.ExpAlerts) == 0
			fires[at.Alertname] = fires[at.Alertname] || len(at.ExpAlerts) > 0
		}
	}
	for _, a := range readAlerts(t) {
		if !runbooks[a.Alert] {
			t.Errorf("docs/operations.md does not say what to do about %s", a.Alert)
		}
		delete(runbooks, a.Alert)
		if want := "docs/operations.md#" + strings.ToLower(a.Alert); a.Annotations.Runbook != want {
			t.Errorf("the runbook of %s is %q, want %q", a.Alert, a.Annotations.Runbook, want)
		}
		if a.Annotations.Summary == "" {
			t.Errorf("%s has no summary", a.Alert)
		}
		if !quiet[a.Alert] || !fires[a.Alert] {
			t.Errorf("the unit tests of the rules do not show %s both quiet and called", a.Alert)
		}
	}
	for name := range runbooks {
		t.Errorf("docs/operations.md has a runbook for %s, which is no alert", name)
	}
}
