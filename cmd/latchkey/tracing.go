package main

import (
	"context"
	"log/slog"
	"time"

	"latchkey/config"
	"latchkey/trace"
)

// traceFlush is how long a stopping gateway waits for the collector to take the
// last spans. They are not worth a delayed restart.
const traceFlush = 3 * time.Second

// newTracer returns nil where no traces are wanted.
func newTracer(c config.Tracing, logger *slog.Logger) (*trace.Tracer, error) {
	if c.Endpoint == "" {
		return nil, nil
	}
	return trace.New(trace.Options{Endpoint: c.Endpoint, Sample: c.Sample, Service: c.ServiceName, Version: version(), Logger: logger})
}

// flushTraces exports the last spans.
func (a *App) flushTraces() {
	if a.tracer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), traceFlush)
	defer cancel()
	if err := a.tracer.Shutdown(ctx); err != nil {
		a.logger.Warn("the last spans may be lost", "error", err)
	}
}
