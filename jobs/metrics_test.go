package jobs

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetricsSayHowPassesWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		n := 0
		pass := func(context.Context, time.Time) error {
			n++
			switch n {
			case 1:
				return errors.New("disk on fire")
			case 2:
				panic("on purpose")
			case 3:
				time.Sleep(2 * time.Second) // the clock is synctest's
				return nil
			}
			stop()
			return ctx.Err()
		}
		r := NewRunner(slog.New(slog.DiscardHandler), Job{"a", time.Second, pass})
		began := time.Now()
		r.Run(ctx)
		registry := prometheus.NewRegistry()
		registry.MustRegister(r)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			m := f.Metric[0]
			got[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
		}
		for name, want := range map[string]float64{
			"latchkey_job_errors_total":                   2, // the error and the panic; what ended the run is none
			"latchkey_job_duration_seconds":               2,
			"latchkey_job_last_success_timestamp_seconds": float64(began.Add(5 * time.Second).Unix()),
		} {
			if got[name] != want {
				t.Errorf("%s = %v, want %v", name, got[name], want)
			}
		}
	})
}
