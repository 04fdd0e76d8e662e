package result

import (
	"errors"
	"io"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"latchkey/bench/soak"
)

// soakPanels are drawn below one another, over one time.
func soakPanels() []soakPanel {
	return []soakPanel{
		{"MiB resident", false, []soakLine{{"", func(s soak.Sample) float64 { return float64(s.RSS) / (1 << 20) }}}},
		{"goroutines", false, []soakLine{{"", func(s soak.Sample) float64 { return float64(s.Goroutines) }}}},
		{"descriptors", false, []soakLine{{"", func(s soak.Sample) float64 { return float64(s.Descriptors) }}}},
		{"ms", true, []soakLine{
			{"99th percentile", func(s soak.Sample) float64 { return s.P99 }},
			{"median", func(s soak.Sample) float64 { return s.Median }}}},
	}
}

type soakPanel struct {
	label       string
	logarithmic bool // or from zero
	lines       []soakLine
}

type soakLine struct {
	name string
	of   func(soak.Sample) float64
}

// WriteSoakChart draws a series as one SVG image.
func WriteSoakChart(w io.Writer, series []soak.Sample) error {
	if len(series) < 2 {
		return errors.New("a chart takes two samples or more")
	}
	var panels [][]*plot.Plot
	for _, panel := range soakPanels() {
		p, err := panel.plot(series)
		if err != nil {
			return err
		}
		panels = append(panels, []*plot.Plot{p})
	}
	panels[0][0].Title.Text = "soak"
	panels[len(panels)-1][0].X.Label.Text = "minutes"
	canvas := vgsvg.New(18*vg.Centimeter, 22*vg.Centimeter)
	tiles := draw.Tiles{Rows: len(panels), Cols: 1, PadX: 4 * vg.Millimeter, PadY: 4 * vg.Millimeter}
	for i, row := range plot.Align(panels, tiles, draw.New(canvas)) {
		panels[i][0].Draw(row[0])
	}
	_, err := canvas.WriteTo(w)
	return err
}

func (panel soakPanel) plot(series []soak.Sample) (*plot.Plot, error) {
	p := plot.New()
	p.Y.Label.Text = panel.label
	for i, l := range panel.lines {
		points := make(plotter.XYs, len(series))
		for j, s := range series {
			points[j] = plotter.XY{X: s.Seconds / 60, Y: max(l.of(s), 1e-3)}
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		line.Color = plotutil.Color(i)
		p.Add(line)
		if l.name != "" {
			p.Legend.Add(l.name, line)
		}
	}
	p.Legend.Top = true
	if panel.logarithmic {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		p.Y.Min, p.Y.Max = p.Y.Min/2, p.Y.Max*2 // the axis needs a length
	} else {
		p.Y.Min, p.Y.Max = 0, p.Y.Max*1.1
	}
	return p, nil
}
