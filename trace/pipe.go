package trace

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// quiet is how long failures of the collector stay out of the log after one.
const quiet = time.Minute

// A pipe is the way of spans to the collector. It lets no more in than the queue
// has room for, so that the SDK drops none unseen, and keeps failures to itself,
// which the SDK would report to a handler of the whole process.
type pipe struct {
	sdk.SpanProcessor // with the queue, and the goroutine that empties it
	collector         sdk.SpanExporter
	logger            *slog.Logger
	pending           atomic.Int64 // spans in the queue or on their way
	lastLogged        time.Time    // the SDK makes one export at a time

	counts                    *prometheus.CounterVec
	exported, failed, dropped prometheus.Counter
}

func newPipe(collector sdk.SpanExporter, logger *slog.Logger) *pipe {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	p := &pipe{collector: collector, logger: logger, counts: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "latchkey_trace_spans_total",
		Help: "Recorded spans by what became of them: exported, failed (the collector did not take them), or dropped because too many waited.",
	}, []string{"result"})}
	p.exported, p.failed, p.dropped = p.counts.WithLabelValues("exported"), p.counts.WithLabelValues("failed"), p.counts.WithLabelValues("dropped")
	return p
}

// OnEnd lets a span in if there is room.
func (p *pipe) OnEnd(s sdk.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if p.pending.Add(1) > queueSize {
		p.pending.Add(-1)
		p.dropped.Inc()
		return
	}
	p.SpanProcessor.OnEnd(s)
}

func (p *pipe) exporter() sdk.SpanExporter { return exporter{p} }

// An exporter is the far end of a pipe.
type exporter struct{ *pipe }

// ExportSpans hands spans to the collector, and counts what it does not take.
func (e exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.collector.ExportSpans(ctx, spans)
	e.pending.Add(-int64(len(spans)))
	if err == nil {
		e.exported.Add(float64(len(spans)))
		return nil
	}
	e.failed.Add(float64(len(spans)))
	if now := time.Now(); now.Sub(e.lastLogged) >= quiet {
		e.lastLogged = now
		e.logger.Warn("spans were not exported; no more of that for a minute", "spans", len(spans), "error", err)
	}
	return nil
}

// Shutdown ends the connection to the collector.
func (e exporter) Shutdown(ctx context.Context) error { return e.collector.Shutdown(ctx) }
