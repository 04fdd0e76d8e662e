// Package trace records requests as OpenTelemetry spans and exports them by OTLP
// over HTTP.
//
// It decides which requests are recorded, what a span is called and which
// attributes it has. When spans begin and end, and what is known of a request, is
// the data plane's affair (proxy.Tracer). Recording waits for nothing: spans that
// a slow collector has no room for are dropped and counted.
package trace

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	otel "go.opentelemetry.io/otel/trace"

	"latchkey/proxy"
)

const (
	queueSize     = 2048 // spans that wait for the collector, or are on their way to it
	batchSize     = 512
	batchEvery    = 5 * time.Second
	exportTimeout = 10 * time.Second
	defaultPath   = "/v1/traces" // OTLP specification, "OTLP/HTTP Request"
)

// Options configures New.
type Options struct {
	Endpoint string       // URL of the collector; without a path, /v1/traces is asked for
	Sample   float64      // the share of requests that are recorded where the client does not say, 0 to 1
	Service  string       // the resource's service.name
	Version  string       // its service.version
	Logger   *slog.Logger // for failures of the collector; nil discards
}

// A Tracer records requests. It is a proxy.Tracer and a prometheus.Collector.
type Tracer struct {
	provider   *sdk.TracerProvider
	spans      otel.Tracer
	propagator propagation.TraceContext
	pipe       *pipe
}

var _ proxy.Tracer = (*Tracer)(nil)

// New returns a Tracer, which Shutdown must end. It asks the collector nothing
// yet. The environment is not heeded, except for OTEL_EXPORTER_OTLP_HEADERS and
// the like, which is where a token for the collector belongs.
func New(o Options) (*Tracer, error) {
	endpoint, err := url.Parse(o.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("trace: endpoint: %w", err)
	}
	if endpoint.Path == "" || endpoint.Path == "/" {
		endpoint.Path = defaultPath
	}
	exporter, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(endpoint.String()),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression), otlptracehttp.WithTimeout(exportTimeout))
	if err != nil {
		return nil, fmt.Errorf("trace: exporter: %w", err)
	}
	p := newPipe(exporter, o.Logger)
	p.SpanProcessor = sdk.NewBatchSpanProcessor(p.exporter(), sdk.WithMaxQueueSize(queueSize), sdk.WithMaxExportBatchSize(batchSize),
		sdk.WithBatchTimeout(batchEvery), sdk.WithExportTimeout(exportTimeout))
	provider := sdk.NewTracerProvider(
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(o.Sample))),
		sdk.WithResource(resource.NewSchemaless(semconv.ServiceName(o.Service), semconv.ServiceVersion(o.Version),
			attribute.String("telemetry.sdk.language", "go"), attribute.String("telemetry.sdk.name", "opentelemetry"))),
		sdk.WithSpanProcessor(p),
	)
	return &Tracer{provider: provider, spans: provider.Tracer("latchkey"), pipe: p}, nil
}

// Begin implements proxy.Tracer. What is not a valid traceparent begins a trace of
// its own, and a tracestate counts only with a valid traceparent (W3C Trace
// Context, section 3.2 and 3.3).
func (t *Tracer) Begin(parent, state string, at time.Time) proxy.Span {
	ctx := context.Background()
	if parent != "" {
		ctx = t.propagator.Extract(ctx, propagation.MapCarrier{"traceparent": parent, "tracestate": state})
	}
	ctx, server := t.spans.Start(ctx, unnamed, otel.WithSpanKind(otel.SpanKindServer), otel.WithTimestamp(at))
	return &span{tracer: t, ctx: ctx, server: server}
}

// Shutdown exports what is recorded, and gives up when ctx ends. No request may be
// traced any more.
func (t *Tracer) Shutdown(ctx context.Context) error {
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("export the last spans: %w", err)
	}
	return nil
}

// Describe implements prometheus.Collector.
func (t *Tracer) Describe(ch chan<- *prometheus.Desc) { t.pipe.counts.Describe(ch) }

// Collect implements prometheus.Collector.
func (t *Tracer) Collect(ch chan<- prometheus.Metric) { t.pipe.counts.Collect(ch) }
