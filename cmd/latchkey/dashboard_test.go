package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metricsql"
)

// A panel is a part of a Grafana dashboard that asks Prometheus.
type panel struct {
	Title   string
	Panels  []panel // of a row
	Targets []struct{ Expr string }
}

// series are the label sets of a metric's series.
type series []map[string]string

// dashboardLabel returns what a gateway calls a label of Prometheus, "" if it is
// Prometheus's own. Prometheus puts exported_ before a label that it has itself.
func dashboardLabel(name string) string {
	if name == "instance" {
		return ""
	}
	return strings.TrimPrefix(name, "exported_")
}

// TestTheDashboardAsksForWhatThereIs parses every expression of the dashboard, and
// holds each metric, label and value in it against what a gateway shows. Metrics of
// our own are in metrics.golden besides.
func TestTheDashboardAsksForWhatThereIs(t *testing.T) {
	text, err := os.ReadFile("../../docs/grafana/latchkey.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels     []panel
		Templating struct{ List []struct{ Query string } }
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile("testdata/metrics.golden")
	if err != nil {
		t.Fatal(err)
	}
	d := dashboard{t: t, shown: startMetered(t).all(), golden: string(golden), asked: map[string]bool{}}
	for _, p := range board.Panels {
		d.check(p)
	}
	for _, v := range board.Templating.List {
		if m := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`).FindStringSubmatch(v.Query); m != nil {
			d.metric(v.Query, m[1])
			d.label(v.Query, m[1], m[2], func(string) bool { return true })
		}
	}
	for line := range strings.Lines(d.golden) {
		if name, _, _ := strings.Cut(line, " "); !d.asked[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// all returns every series of /metrics by its metric's name.
func (g *gateway) all() map[string]series {
	g.t.Helper()
	res, err := call(http.DefaultClient, "GET", g.admin+"/metrics", "")
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	line, label := regexp.MustCompile(`^([a-z_]\w*)(?:\{(.*)\})? \S+$`), regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
	out := map[string]series{}
	for l := range strings.Lines(string(text)) {
		m := line.FindStringSubmatch(strings.TrimSuffix(l, "\n"))
		if m == nil {
			continue
		}
		set := map[string]string{}
		for _, pair := range label.FindAllStringSubmatch(m[2], -1) {
			set[pair[1]] = pair[2]
		}
		out[m[1]] = append(out[m[1]], set)
	}
	return out
}

// dashboard holds expressions against what there is.
type dashboard struct {
	t      *testing.T
	shown  map[string]series
	golden string
	asked  map[string]bool
}

func (d *dashboard) check(p panel) {
	for _, inner := range p.Panels {
		d.check(inner)
	}
	for _, target := range p.Targets {
		// What Grafana puts in for its variables.
		expr := regexp.MustCompile(`\$(__rate_interval|\w+)`).ReplaceAllStringFunc(target.Expr, func(v string) string {
			return map[bool]string{true: "5m", false: ".*"}[v == "$__rate_interval"]
		})
		parsed, err := metricsql.Parse(expr)
		if err != nil {
			d.t.Errorf("%s: %s: %v", p.Title, expr, err)
			continue
		}
		if found := d.expression(expr, parsed); len(found) == 0 {
			d.t.Errorf("%s: %s asks for no metric", p.Title, expr)
		}
	}
}

// expression checks an expression and returns the metrics in it.
func (d *dashboard) expression(text string, e metricsql.Expr) (metrics []string) {
	metricsql.VisitAll(e, func(e metricsql.Expr) {
		m, ok := e.(*metricsql.MetricExpr)
		if !ok {
			return
		}
		for _, filters := range m.LabelFilterss {
			name := filters[0].Value // of __name__, which comes first
			metrics = append(metrics, name)
			d.metric(text, name)
			for _, f := range filters[1:] {
				d.label(text, name, f.Label, func(value string) bool {
					if f.IsRegexp {
						return regexp.MustCompile("^(?:"+f.Value+")$").MatchString(value) != f.IsNegative
					}
					return (f.Value == value) != f.IsNegative
				})
			}
		}
	})
	metricsql.VisitAll(e, func(inner metricsql.Expr) {
		if sum, ok := inner.(*metricsql.AggrFuncExpr); ok && sum != e {
			d.grouping(text, sum)
		}
	})
	if sum, ok := e.(*metricsql.AggrFuncExpr); ok {
		d.grouping(text, sum)
	}
	return metrics
}

// grouping holds the labels of "by" against every metric that is grouped.
func (d *dashboard) grouping(text string, sum *metricsql.AggrFuncExpr) {
	for _, arg := range sum.Args {
		metricsql.VisitAll(arg, func(e metricsql.Expr) {
			if m, ok := e.(*metricsql.MetricExpr); ok {
				for _, label := range sum.Modifier.Args {
					d.label(text, m.LabelFilterss[0][0].Value, label, func(string) bool { return true })
				}
			}
		})
	}
}

// metric reports a metric that there is not.
func (d *dashboard) metric(text, name string) {
	base := name
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if s, ok := strings.CutSuffix(name, suffix); ok && d.shown[s+"_bucket"] != nil {
			base = s
		}
	}
	d.asked[base] = true
	if name == "up" { // which Prometheus makes
		return
	}
	if d.shown[name] == nil {
		d.t.Errorf("%s: there is no metric %s", text, name)
	}
	if strings.HasPrefix(base, "latchkey_") && !strings.Contains(d.golden, base+" ") {
		d.t.Errorf("%s: %s is not in metrics.golden", text, base)
	}
}

// label reports a label that a metric does not have, or has no fitting value of.
func (d *dashboard) label(text, metric, label string, fits func(string) bool) {
	own := dashboardLabel(label)
	if own == "" || metric == "up" && label != "job" {
		return
	}
	if label == "job" { // Prometheus's own, and that of the scrape in deploy
		if !fits("latchkey") {
			d.t.Errorf("%s: the job is called latchkey", text)
		}
		return
	}
	if !slices.ContainsFunc(d.shown[metric], func(set map[string]string) bool { v, ok := set[own]; return ok && fits(v) }) {
		d.t.Errorf("%s: no series of %s has the label %s with such a value", text, metric, label)
	}
}
