// Package proxy is the data plane: it takes requests from clients, has package
// gate decide whether they may pass, and sends those on to an upstream.
//
// A request goes through handler.go (the order of steps), screen.go (is it
// unambiguous?), routes.go (which rule is for it?), credential.go and trust.go
// (who asks, from where?), and then deny.go or forward.go. Everything up to the
// verdict uses the request's head alone: a request that is refused gets no 100
// Continue, and its body is not read (fasthttp has taken the first byte of it).
package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/valyala/fasthttp"

	"latchkey/apikey"
	"latchkey/proxy/gate"
	"latchkey/proxy/upstream"
)

// Upstream sends a request on. Its errors wrap those of package upstream.
type Upstream interface {
	Do(*upstream.Request) (*upstream.Response, error)
}

// Uses remembers when keys were used.
type Uses interface {
	Record(apikey.Use)
}

// Options configures New. Gate and at least one route are required; durations
// and limits of zero mean none.
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

	HeaderBytes int   // the longest request head; zero means 16 KiB
	BodyBytes   int64 // the longest request body

	Uses      Uses             // told of every use of a key; nil means nobody is
	Metrics   *Metrics         // nil means none are kept
	AccessLog *slog.Logger     // nil means none is written
	LogSample float64          // the share of requests in the access log, 0 to 1
	Logger    *slog.Logger     // for faults; nil discards
	Now       func() time.Time // nil means time.Now
}

// A Proxy serves the data plane.
type Proxy struct {
	options Options
	routes  *table
	places  string // where a key may be, for those who sent none
	server  *fasthttp.Server
}

// New returns a proxy that is not yet listening.
func New(o Options) (*Proxy, error) {
	if o.Gate == nil || len(o.Routes) == 0 {
		return nil, errors.New("proxy: a gate and at least one route are required")
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
		o.Metrics = NewMetrics(o.Routes)
	}
	if o.HeaderBytes == 0 {
		o.HeaderBytes = 16 << 10
	}
	p := &Proxy{options: o, routes: routes, places: describe(o.Credentials)}
	p.server = p.newServer()
	return p, nil
}

// sampled reports whether a request goes into the access log.
func (p *Proxy) sampled() bool {
	return p.options.AccessLog != nil && (p.options.LogSample >= 1 || rand.Float64() < p.options.LogSample)
}
