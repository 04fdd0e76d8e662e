package trace

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	otel "go.opentelemetry.io/otel/trace"

	"latchkey/proxy"
)

// unnamed is the name of spans of requests without a route. No part of a request
// is: names of spans are to be few.
const unnamed = "no route"

// A span is a request's span and, once it was sent on, that of the exchange with
// the upstream.
type span struct {
	tracer *Tracer
	ctx    context.Context // with server
	server otel.Span
	client otel.Span // nil until Forward
}

// TraceID implements proxy.Span.
func (s *span) TraceID() string {
	if !s.server.IsRecording() {
		return ""
	}
	return s.server.SpanContext().TraceID().String()
}

// Forward implements proxy.Span. A trace that is not recorded is passed on as
// well: the services behind are to know that, or they would each decide anew.
func (s *span) Forward(at time.Time) (parent, state string) {
	ctx, client := s.tracer.spans.Start(s.ctx, unnamed, otel.WithSpanKind(otel.SpanKindClient), otel.WithTimestamp(at))
	s.client = client
	fields := propagation.MapCarrier{}
	s.tracer.propagator.Inject(ctx, fields)
	return fields["traceparent"], fields["tracestate"]
}

// End implements proxy.Span.
func (s *span) End(t *proxy.Traced) {
	if !s.server.IsRecording() {
		return
	}
	if s.client != nil {
		s.endClient(t)
	}
	if t.Route != "" {
		s.server.SetName(t.Route)
	}
	attributes := []attribute.KeyValue{
		method(t.Method), semconv.URLPath(t.Path), semconv.URLScheme(t.Scheme), semconv.NetworkProtocolName("http"),
		semconv.NetworkProtocolVersion("1." + strconv.Itoa(int(t.Minor))),
		attribute.String("latchkey.verdict", t.Outcome), attribute.String("latchkey.request_id", t.RequestID),
	}
	for _, a := range []struct{ key, value string }{
		{"latchkey.route", t.Route}, {string(semconv.HTTPRouteKey), t.Pattern}, {string(semconv.ServerAddressKey), t.Host},
		{"latchkey.key_id", t.Key}, {"latchkey.tenant", t.Tenant},
	} {
		if a.value != "" {
			attributes = append(attributes, attribute.String(a.key, a.value))
		}
	}
	if t.Client.IsValid() {
		attributes = append(attributes, semconv.ClientAddress(t.Client.String()))
	}
	if t.Status != 0 {
		attributes = append(attributes, semconv.HTTPResponseStatusCode(t.Status))
	}
	if kind := serverError(t); kind != "" {
		attributes = append(attributes, semconv.ErrorTypeKey.String(kind))
		s.server.SetStatus(codes.Error, "")
	}
	s.server.SetAttributes(attributes...)
	s.server.End(otel.WithTimestamp(t.Ended))
}

// serverError returns what is wrong with the answer, "" if nothing is. A client's
// mistake is no error of the server (semantic conventions, "HTTP spans", "Status").
func serverError(t *proxy.Traced) string {
	switch cut := t.Failure != "" && t.Status < 400; {
	case t.Status != 0 && t.Status < 500 && !cut:
		return ""
	case t.Failure == "" && t.UpstreamStatus != 0 && t.UpstreamStatus == t.Status:
		return strconv.Itoa(t.Status)
	}
	return t.Outcome
}

// endClient ends the span of the exchange with the upstream.
func (s *span) endClient(t *proxy.Traced) {
	name := method(t.Method)
	attributes := []attribute.KeyValue{name, semconv.NetworkProtocolName("http"), semconv.NetworkProtocolVersion("1.1")}
	s.client.SetName(name.Value.AsString())
	if u, err := url.Parse(t.Target); err == nil && t.Target != "" {
		attributes = append(attributes, semconv.URLFull(u.Scheme+"://"+u.Host+t.UpstreamPath), semconv.ServerAddress(u.Hostname()),
			attribute.String("latchkey.target", t.Target))
		if port, err := strconv.Atoi(u.Port()); err == nil {
			attributes = append(attributes, semconv.ServerPort(port))
		} else {
			attributes = append(attributes, semconv.ServerPort(map[string]int{"http": 80, "https": 443}[u.Scheme]))
		}
	}
	kind := t.Failure
	if t.UpstreamStatus != 0 {
		attributes = append(attributes, semconv.HTTPResponseStatusCode(t.UpstreamStatus))
		if kind == "" && t.UpstreamStatus >= 400 {
			kind = strconv.Itoa(t.UpstreamStatus)
		}
	}
	if kind != "" {
		attributes = append(attributes, semconv.ErrorTypeKey.String(kind))
		s.client.SetStatus(codes.Error, "")
	}
	s.client.SetAttributes(attributes...)
	ended := t.UpstreamEnded
	if ended.IsZero() { // a panic in between
		ended = t.Ended
	}
	s.client.End(otel.WithTimestamp(ended))
}

// method returns the attribute of a request's method. Those that are not known
// are one (semantic conventions, "HTTP spans").
func method(name string) attribute.KeyValue {
	switch name {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE":
		return semconv.HTTPRequestMethodKey.String(name)
	}
	return semconv.HTTPRequestMethodKey.String("_OTHER")
}
