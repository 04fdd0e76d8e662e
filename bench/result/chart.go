package result

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// WriteCharts writes, for each scenario, the latency by percentile, and bars of
// throughput and CPU, as SVG files into dir. It returns their names.
func (f File) WriteCharts(dir string) (names []string, err error) {
	for _, scenario := range f.Scenarios() {
		for _, c := range []struct {
			name string
			draw func(string) (*plot.Plot, error)
		}{
			{"latency", f.latencyChart},
			{"throughput", func(s string) (*plot.Plot, error) { return f.barChart(s, "requests/s", Sample.Rate) }},
			{"cpu", func(s string) (*plot.Plot, error) {
				return f.barChart(s, "CPU seconds per million requests", Sample.CPU)
			}},
		} {
			p, err := c.draw(scenario)
			if err != nil {
				return nil, fmt.Errorf("chart of %s: %w", scenario, err)
			}
			if p == nil {
				continue
			}
			name := scenario + "-" + c.name + ".svg"
			if err := p.Save(14*vg.Centimeter, 9*vg.Centimeter, filepath.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("chart of %s: %w", scenario, err)
			}
			names = append(names, name)
		}
	}
	return names, nil
}

// latencyChart draws the medians over the rounds. Both axes are logarithmic: along
// the one, each step halves what is above it.
func (f File) latencyChart(scenario string) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = scenario + ": latency"
	p.X.Label.Text, p.Y.Label.Text = "percentile", "ms"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	var ticks plot.ConstantTicks
	for _, named := range []float64{0, 50, 90, 99, 99.9, 99.99, 99.999} {
		ticks = append(ticks, plot.Tick{Value: nines(named), Label: strings.TrimSuffix(fmt.Sprintf("%g", named), ".0")})
	}
	p.X.Tick.Marker = ticks
	least, most := math.Inf(1), 0.0
	for i, system := range f.Systems(scenario) {
		points := f.latencies(scenario, system)
		for _, point := range points {
			least, most = min(least, point.Y), max(most, point.Y)
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = plotutil.Color(i), vg.Points(1.5)
		p.Add(line)
		p.Legend.Add(system, line)
	}
	p.Y.Min, p.Y.Max = least/2, most*2 // a logarithmic axis needs a length
	p.Legend.Top, p.Legend.Left = true, true
	return p, nil
}

// latencies returns the points that a run is long enough to have.
func (f File) latencies(scenario, system string) (out plotter.XYs) {
	samples := f.Of(scenario, system)
	for i, point := range samples[0].Load.Latency {
		above := float64(samples[0].Load.Requests) * (1 - point.Percentile/100)
		if above < 10 || point.Percentile == 100 {
			break
		}
		ms := Median(Values(samples, func(s Sample) float64 {
			if i >= len(s.Load.Latency) {
				return math.NaN()
			}
			return s.Load.Latency[i].Microseconds / 1000
		}))
		out = append(out, plotter.XY{X: nines(point.Percentile), Y: max(ms, 1e-3)})
	}
	if len(out) == 0 {
		out = plotter.XYs{{X: 0, Y: 1e-3}}
	}
	return out
}

func nines(percentile float64) float64 { return -math.Log10(1 - percentile/100) }

// barChart draws a measure's medians, or returns nil where no system has it.
func (f File) barChart(scenario, name string, of func(Sample) float64) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.Y.Label.Text, p.Y.Min = scenario, name, 0
	var values plotter.Values
	var names []string
	for _, system := range f.Systems(scenario) {
		if v := Median(Values(f.Of(scenario, system), of)); !math.IsNaN(v) {
			values, names = append(values, v), append(names, system)
		}
	}
	if len(values) == 0 {
		return nil, nil
	}
	bars, err := plotter.NewBarChart(values, vg.Points(28))
	if err != nil {
		return nil, err
	}
	bars.Color, bars.LineStyle.Width = plotutil.Color(2), 0
	p.Add(bars)
	p.NominalX(names...)
	return p, nil
}
