// Package admin is the admin plane: the listener where operators manage keys.
//
// It decides who may call (default deny), mounts the dialects, and serves
// metrics, health and the dialects' OpenAPI documents. What the calls mean is
// in the dialects' packages; see wire.
package admin

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"

	"latchkey/admin/wire"
	"latchkey/apikey"
	"latchkey/throttle"
)

// Options configures New. Keys, Auditor and Gatherer are required.
type Options struct {
	Callers  Callers
	Mounts   []Mount
	Keys     *wire.KeyService
	Auditor  Auditor
	Importer Importer                                   // nil where keys are not imported
	Scanner  Scanner                                    // nil where keys are not exported
	SpoolDir string                                     // where long answers wait to be sent; "" means the system's directory for such files
	Tokens   TokenVerifier                              // verifies tokens of an identity provider; nil means none count
	Finder   Finder                                     // finds keys that call the plane themselves; nil means none can
	Signer   Signer                                     // nil where no dialect signs
	Gatherer prometheus.Gatherer                        // what /metrics shows
	Metrics  *prometheus.CounterVec                     // made by NewMetrics; nil means not shown
	Reload   func() error                               // reads the configuration again; nil where there is no file
	Backup   func(now time.Time) (io.ReadCloser, error) // copies the store; nil where it cannot be
	Ready    func() error                               // nil while the gateway takes traffic; a nil func means always
	Logger   *slog.Logger                               // nil discards
	Now      func() time.Time                           // nil means time.Now
	Explain  func(Question) (Explanation, error)        // asks the data plane; nil where there is none
}

// Callers are who is known by a token that does not change by itself.
type Callers struct {
	Operators []StaticOperator
	Certs     *StaticOperator // who presents the CERTS-TOKEN; nil means nobody can
}

// A Finder finds a key by the digest of its secret. An unknown digest gives
// apikey.ErrNotFound.
type Finder interface {
	Lookup(*apikey.Digest) (*apikey.Grant, error)
}

// A Signer signs tokens, with a key that can be replaced.
type Signer interface {
	KeySet() []byte // public keys, as a JWK Set
	Rotate(by apikey.Origin) error
	Withdraw(by apikey.Origin, id string) error // takes a retired key out of the set
}

// A Mount is a dialect and the host it answers on; empty means any host that
// no other mount names.
type Mount struct {
	Host    string
	Dialect *wire.Dialect
}

// A Plane serves the admin plane.
type Plane struct {
	options Options
	server  *fasthttp.Server
	open    *fasthttp.Server // metrics and health without credentials
	limit   *throttle.Failures
	callers atomic.Pointer[Callers]
}

// SetCallers makes the plane know others from now on.
func (p *Plane) SetCallers(c Callers) { p.callers.Store(&c) }

// New returns an admin plane that is not yet listening. Two dialects that own
// the same path on the same host are an error that names both.
func New(o Options) (*Plane, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Ready == nil {
		o.Ready = func() error { return nil }
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	p := &Plane{options: o, limit: throttle.NewFailures()}
	p.SetCallers(o.Callers)
	handler, err := p.routes()
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	p.server = newServer(p.guard(handler))
	open := p.openRoutes()
	only(open, "GET", "/metrics", p.metrics())
	p.open = newServer(p.guard(open.Handler))
	return p, nil
}

// routes returns the handler of the admin listener.
func (p *Plane) routes() (fasthttp.RequestHandler, error) {
	shared, hosts, err := p.routers()
	if err != nil {
		return nil, err
	}
	return func(ctx *fasthttp.RequestCtx) {
		if r := hosts[hostOf(ctx)]; r != nil {
			r.Handler(ctx)
			return
		}
		shared.Handler(ctx)
	}, nil
}

// maxFailures is how often an address may fail to say who calls, in a minute.
const maxFailures = 20

// caller returns who makes the call, and turns away an address from which too
// many have failed to say: also one with the right credentials, or guessing
// could go on.
func (p *Plane) caller(ctx *fasthttp.RequestCtx, now time.Time, certs bool, fields []string) (wire.Operator, error) {
	addr := clientAddr(ctx)
	if wait := p.limit.Wait(addr, maxFailures, now); wait > 0 {
		ctx.Response.Header.Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
		return wire.Operator{}, &wire.Error{Status: 429, Message: "too many failed authentications from this address; wait"}
	}
	var operator wire.Operator
	var err error
	if certs {
		operator, err = authenticateCerts(ctx, p.callers.Load().Certs, fields)
	} else {
		operator, err = p.authenticate(ctx, now, fields)
	}
	ctx.SetUserValue(operatorName, operator.Name)
	if refused := (*wire.Error)(nil); errors.As(err, &refused) && refused.Status == 401 {
		p.limit.Add(addr, p.options.Now()) // not when it began: to ask an identity provider takes time
	}
	return operator, err
}

// operatorsOnly asks for the credentials of an operator with the access.
func (p *Plane) operatorsOnly(access wire.Access, next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		if _, err := p.operator(ctx, access); err != nil {
			p.fail(ctx, writeError, wire.AsError(err, nil))
			return
		}
		next(ctx)
	}
}

// operator returns who makes a call that is no dialect's, if they have the
// access.
func (p *Plane) operator(ctx *fasthttp.RequestCtx, access wire.Access) (wire.Operator, error) {
	operator, err := p.caller(ctx, p.options.Now(), false, nil)
	if err == nil && !operator.Role.May(access) {
		needed := string(wire.RoleAdmin)
		if access == wire.Write {
			needed = string(wire.RoleIssuer) + " or " + needed
		}
		err = wire.Forbidden("this operator may not do that; it takes the role " + needed)
	}
	return operator, err
}

// administrator returns who makes a call that is about all tenants at once: an
// administrator of one of them may not make it.
func (p *Plane) administrator(ctx *fasthttp.RequestCtx) (wire.Operator, error) {
	operator, err := p.operator(ctx, wire.Administer)
	if err == nil && operator.Tenant != apikey.AnyTenant {
		err = wire.Forbidden("this is about all tenants, and this operator acts for one")
	}
	return operator, err
}

// reload has the configuration read again. What is wrong with it is for the
// administrator who asks.
func (p *Plane) reload(ctx *fasthttp.RequestCtx) {
	_, err := p.administrator(ctx)
	if err == nil {
		if err = p.options.Reload(); err != nil {
			err = &wire.Error{Status: 422, Message: "nothing has changed: " + err.Error()}
		}
	}
	if err != nil {
		p.fail(ctx, writeError, wire.AsError(err, nil))
		return
	}
	ctx.SetStatusCode(204)
}

// challenge is the WWW-Authenticate of every 401 (RFC 9110, section 11.6.1).
const challenge = `Bearer realm="latchkey admin"`

// fail answers a call that did not succeed.
func (p *Plane) fail(ctx *fasthttp.RequestCtx, write func(*fasthttp.RequestCtx, *wire.Error), e *wire.Error) {
	switch {
	case e.Status == 401:
		ctx.Response.Header.Set("WWW-Authenticate", challenge)
	case e.Status == 503:
		ctx.Response.Header.Set("Retry-After", "1")
	}
	if e.Status >= 500 && !errors.Is(e, apikey.ErrStoreFull) { // which the store has logged, once
		p.options.Logger.Error("admin call failed", "request_id", wire.RequestID(ctx),
			"status", e.Status, "error", e.Unwrap())
	}
	ctx.Response.ResetBody()
	write(ctx, e)
}

func (p *Plane) metrics() fasthttp.RequestHandler {
	return fasthttpadaptor.NewFastHTTPHandler(promhttp.HandlerFor(p.options.Gatherer, promhttp.HandlerOpts{}))
}

// writeError answers a failed call that is no dialect's, in the form of RFC 9457.
func writeError(ctx *fasthttp.RequestCtx, e *wire.Error) {
	wire.WriteJSON(ctx, e.Status, struct {
		Type      string `json:"type"`
		Title     string `json:"title"`
		Status    int    `json:"status"`
		Detail    string `json:"detail"`
		RequestID string `json:"request_id"`
	}{"about:blank", fasthttp.StatusMessage(e.Status), e.Status, e.Error(), wire.RequestID(ctx)})
	ctx.SetContentType("application/problem+json")
}
