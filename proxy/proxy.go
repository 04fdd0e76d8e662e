// Package proxy is the data plane: it takes requests from clients, has package
// gate decide whether they may pass, and sends those on to an upstream.
//
// A request goes through conn.go (its head is read), handler.go (the order of
// steps), head.go and screen.go (is it unambiguous?), routes.go (which rule is for it?), credential.go and trust.go
// (who asks, from where?), and then deny.go or forward.go and relay.go. Everything
// up to the verdict uses the request's head alone: a request that is refused gets
// no 100 Continue, and its body is not read.
package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"latchkey/apikey"
	"latchkey/proxy/gate"
	"latchkey/proxy/upstream"
	"latchkey/throttle"
)

// Upstream sends a request on. Its errors wrap those of package upstream.
type Upstream interface {
	Do(*upstream.Request) (*upstream.Response, error)
}

// Uses remembers when keys were used.
type Uses interface {
	Record(apikey.Use)
}

// Options configures New. Gate is required; durations and limits of zero mean none.
type Options struct {
	Gate        *gate.Gate
	Routes      []*Route
	Credentials []Credential
	Trusted     []netip.Prefix // peers whose X-Forwarded-* headers are believed
	Forwarded   bool           // also send Forwarded (RFC 7239)
	LoosePaths  bool           // let ambiguous spellings of a path pass

	ReadHeader time.Duration // for a request's head, from its first byte
	Idle       time.Duration // between requests of a connection
	BodyIdle   time.Duration // between two pieces of a body, either way
	TunnelIdle time.Duration // without a word in a tunnel, either way

	HeaderBytes   int   // the longest request head; zero means 16 KiB
	BodyBytes     int64 // the longest request body
	FailuresPerIP int   // requests with unknown keys in a minute from one address

	Tracer       Tracer // nil means that requests are not traced
	Uses         Uses   // told of every use of a key; nil means nobody is
	ServerTiming bool   // answers say how long gateway and upstream took

	Metrics   *Metrics         // nil means none are kept
	AccessLog *slog.Logger     // nil means none is written
	LogSample float64          // the share of requests in the access log, 0 to 1
	Logger    *slog.Logger     // for faults; nil discards
	Now       func() time.Time // nil means time.Now
}

// settings are what a request is served by: all options, and what follows from
// them. They are never changed, only replaced.
type settings struct {
	Options
	routes  *table
	noRoute *routeMetrics
	places  string // where a key may be, for those who sent none
}

func newSettings(o Options) (*settings, error) {
	if o.Gate == nil {
		return nil, errors.New("proxy: a gate is required")
	}
	routes, err := newTable(o.Routes)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	if o.HeaderBytes == 0 {
		o.HeaderBytes = 16 << 10
	}
	return &settings{Options: o, routes: routes, noRoute: o.Metrics.bind(o.Routes), places: describe(o.Credentials)}, nil
}

// sampled reports whether a request goes into the access log.
func (s *settings) sampled() bool {
	return s.AccessLog != nil && (s.LogSample >= 1 || rand.Float64() < s.LogSample)
}

// A Proxy serves the data plane.
type Proxy struct {
	current atomic.Pointer[settings]
	server  *fasthttp.Server

	draining  atomic.Bool
	conns     conns
	watcher   *watcher
	inputs    buffers
	outputs   buffers
	exchanges sync.Pool
	failures  *throttle.Failures // requests with unknown keys
	date      dateClock
	crlf      []byte
}

// New returns a proxy that is not yet listening. It must be ended by Shutdown.
func New(o Options) (*Proxy, error) {
	s, err := newSettings(o)
	if err != nil {
		return nil, err
	}
	p := &Proxy{inputs: buffers{size: inputSize}, outputs: buffers{size: outputSize}, crlf: []byte("\r\n"), failures: throttle.NewFailures()}
	p.current.Store(s)
	if p.watcher, err = newWatcher(&p.conns); err != nil {
		return nil, fmt.Errorf("proxy: watch clients: %w", err)
	}
	p.server = p.newServer()
	return p, nil
}

// Reload serves all requests that come from now on by other options. Those under
// way end by those that they began with. With an error nothing changes.
func (p *Proxy) Reload(o Options) error {
	s, err := newSettings(o)
	if err != nil {
		return err
	}
	p.current.Store(s)
	return nil
}
