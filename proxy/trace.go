package proxy

import (
	"bytes"
	"net/netip"
	"strings"
	"time"
)

// A Tracer follows requests from service to service (W3C Trace Context). Its
// methods, and those of its spans, wait for nothing.
type Tracer interface {
	// Begin begins the span of a request. parent and state are what the client
	// sent as traceparent and tracestate, which may be anything; "" is nothing.
	Begin(parent, state string, at time.Time) Span
}

// A Span is one request's part of a trace. It is for one goroutine at a time.
type Span interface {
	// TraceID returns the trace's ID in hexadecimal, "" if it is not recorded.
	TraceID() string
	// Forward begins the upstream's part, once at most, and returns the
	// traceparent and tracestate that the upstream gets. An empty state is none.
	Forward(at time.Time) (parent, state string)
	// End ends the span, and the upstream's part if that was begun.
	End(*Traced)
}

// Traced is what a span says of its request: nothing that a key could be in, so
// neither the query nor any field of the head.
type Traced struct {
	Route, Pattern string // "" where no route was found
	Method, Path   string
	Scheme, Host   string
	Minor          byte // of the version, HTTP/1.x
	Client         netip.Addr
	RequestID      string
	Outcome        string // the verdict or fault
	Status         int    // zero if there was no answer
	Key, Tenant    string // "" without a key
	Ended          time.Time

	Target         string // of the upstream; "" if none was chosen
	UpstreamPath   string // what it was asked for, without the query
	UpstreamStatus int    // zero if it did not answer
	Failure        string // the fault in which the exchange with it ended, or ""
	UpstreamEnded  time.Time
}

// tracing is a request's span and what is known for it. Exchanges have one only
// while there is a Tracer.
type tracing struct {
	span    Span
	verdict string // what had become of the request when it was sent on
	Traced
}

// beginTrace begins the span of a request whose head has been read.
func (x *exchange) beginTrace() {
	if x.set.Tracer == nil {
		return
	}
	parent := ""
	if v := x.head.values("Traceparent"); len(v) == 1 { // of several, none is to be believed
		parent = v[0]
	}
	x.tracing = &tracing{span: x.set.Tracer.Begin(parent, strings.Join(x.head.values("Tracestate"), ","), x.start)}
}

// isTrace reports whether a field is the Tracer's to write. Without one it is a
// field like any other.
func (x *exchange) isTrace(name []byte) bool {
	return x.tracing != nil && len(name) >= len("tracestate") && (sameField(name, "traceparent") || sameField(name, "tracestate"))
}

// appendTrace begins the upstream's part and says in which trace it is, unless the
// route's edits say otherwise.
func (x *exchange) appendTrace(b []byte) []byte {
	if x.tracing == nil {
		return b
	}
	x.tracing.verdict = x.outcome
	parent, state := x.tracing.span.Forward(x.set.Now())
	if edits := &x.route.RequestEdits; edits.drops([]byte("traceparent")) {
		return b
	} else if edits.drops([]byte("tracestate")) {
		state = ""
	}
	b = appendField(b, []byte("traceparent"), []byte(parent))
	if state != "" {
		b = appendField(b, []byte("tracestate"), []byte(state))
	}
	return b
}

// traceUpstream notes how the exchange with the upstream ended, which did not
// answer if the status is zero.
func (x *exchange) traceUpstream(status int) {
	t := x.tracing
	if t == nil || t.span.TraceID() == "" {
		return
	}
	t.Target, t.UpstreamStatus, t.UpstreamEnded = x.target, status, x.set.Now()
	if x.outcome != t.verdict {
		t.Failure = x.outcome
	}
	_, target, _ := bytes.Cut(x.requestHead, []byte(" "))
	t.UpstreamPath = x.shownPath(target[:bytes.IndexAny(target, " ?")])
}

// endTrace ends the span of a request that is over.
func (x *exchange) endTrace(ended time.Time) {
	t := x.tracing
	if t == nil {
		return
	}
	if t.span.TraceID() != "" {
		if x.route != nil {
			t.Route, t.Pattern = x.route.Name, x.route.Path
		}
		t.Method, t.Path, t.Host, t.Minor = methodName(x.head.method), x.shownPath(x.head.path), string(x.head.host), x.head.minor
		t.Scheme = "http"
		if x.conn.tls {
			t.Scheme = "https"
		}
		t.Client, t.RequestID, t.Outcome, t.Status, t.Ended = x.peer, string(x.id), x.outcome, x.status, ended
		if x.gate.Client.IsValid() {
			t.Client = x.gate.Client
		}
		if x.key != nil {
			t.Key, t.Tenant = x.key.ID.String(), x.key.Tenant
		}
	}
	t.span.End(&t.Traced)
	x.tracing = nil
}
