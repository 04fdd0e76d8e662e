package result

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"golang.org/x/perf/benchmath"
)

// Diff writes how a system of b differs from one of a, for every scenario that both
// have: medians, and the change where it is one by a Mann-Whitney U test at 0.05. A
// change that may be chance is shown as ~.
func Diff(w io.Writer, a File, aSystem string, b File, bSystem string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	found := false
	for _, scenario := range a.Scenarios() {
		old, changed := a.Of(scenario, aSystem), b.Of(scenario, bSystem)
		if len(old) == 0 || len(changed) == 0 {
			continue
		}
		found = true
		fmt.Fprintf(t, "%s\told\tnew\tchange\t\n", scenario)
		for _, m := range Measures() {
			x, y := Values(old, m.Of), Values(changed, m.Of)
			if len(x) == 0 || len(y) == 0 {
				continue
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", m.Name, cell(m, x), cell(m, y), change(x, y, m.Lower))
		}
	}
	if !found {
		return fmt.Errorf("no scenario has samples of both %s and %s", aSystem, bSystem)
	}
	return t.Flush()
}

// change says by how much and with which probability of chance.
func change(x, y []float64, lower bool) string {
	c := benchmath.AssumeNothing.Compare(
		benchmath.NewSample(x, &benchmath.DefaultThresholds), benchmath.NewSample(y, &benchmath.DefaultThresholds))
	chance := fmt.Sprintf("(p=%.3f n=%d+%d)", c.P, c.N1, c.N2)
	for _, warning := range c.Warnings {
		if strings.Contains(warning.Error(), "all samples are equal") {
			return "equal\t" + chance
		}
	}
	if c.P > c.Alpha {
		return "~\t" + chance
	}
	from, to := Median(x), Median(y)
	verdict := "worse"
	if (to < from) == lower {
		verdict = "better"
	}
	if from == 0 {
		return verdict + "\t" + chance
	}
	return fmt.Sprintf("%+.1f%% %s\t%s", 100*(to-from)/from, verdict, chance)
}
