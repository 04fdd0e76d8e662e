package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"latchkey/admin"
	"latchkey/admin/jwt"
	"latchkey/admin/oidc"
	"latchkey/admin/peach"
	"latchkey/admin/strait"
	"latchkey/admin/truvera"
	"latchkey/admin/wire"
	"latchkey/apikey"
	"latchkey/cache"
	"latchkey/config"
	"latchkey/jobs"
	"latchkey/keystore"
	"latchkey/listen"
	"latchkey/proxy"
	"latchkey/proxy/gate"
	"latchkey/proxy/upstream"
)

// An App is the whole gateway, wired up. New opens everything, Run serves until
// its context ends, Close closes the store last.
type App struct {
	cfg    *config.Config
	logger *slog.Logger

	store *keystore.Store
	keys  *cache.Keys
	proxy *proxy.Proxy
	admin *admin.Plane
	pools map[string]*upstream.Pool
	uses  *jobs.Uses
	jobs  *jobs.Runner

	listeners    []listener
	counted      map[string]*listen.Counters // by the listener's name in metrics
	certificates []jobs.Job                  // that take up changed files
	ready        atomic.Bool
}

// New opens the store and the listeners. Where it returns an error nothing is
// left open.
func New(cfg *config.Config, logger *slog.Logger) (*App, error) {
	a := &App{cfg: cfg, logger: logger, pools: map[string]*upstream.Pool{},
		counted: map[string]*listen.Counters{}, uses: new(jobs.Uses)}
	if err := a.open(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// open listens before it opens the store, so that a port in use leaves no
// store behind.
func (a *App) open() (err error) {
	if err := a.listen(); err != nil {
		return err
	}
	// Whatever the store writes is for this user alone.
	syscall.Umask(0o077)
	a.store, err = keystore.Open(a.cfg.Store.Path, keystore.Options{
		BlockCacheBytes: int64(a.cfg.Store.BlockCacheBytes),
		Logger:          a.logger,
	})
	if err != nil {
		return err
	}
	if a.keys, err = cache.New(a.store, int64(a.cfg.Store.CacheBytes)); err != nil {
		return err
	}
	a.store.Notify(a.keys.Changed)
	format := apikey.NewSecretFormat(a.cfg.Keys.Prefix)
	registry := prometheus.NewRegistry()
	courier := jobs.NewCourier(a.store, a.store,
		jobs.NewWebhooks(jobs.WebhookOptions{AllowPrivate: a.cfg.Admin.AllowPrivateWebhooks}), a.logger)
	a.jobs = jobs.NewRunner(a.logger, append(a.certificates, jobs.Sweep(a.store), jobs.Rotate(a.store, format),
		courier.Deliver(), jobs.Forget(a.store), a.uses.Flush(a.store))...)
	registry.MustRegister(a.jobs, courier.Metrics(), a.uses.Dropped())
	registry.MustRegister(connectionMetrics(a.counted)...)
	if a.proxy, err = a.newProxy(format, registry); err != nil {
		return err
	}
	a.admin, err = a.newAdmin(format, registry)
	return err
}

func (a *App) newProxy(format apikey.SecretFormat, registry *prometheus.Registry) (*proxy.Proxy, error) {
	for name, u := range a.cfg.Upstreams {
		target, err := url.Parse(u.Targets[0])
		if err != nil {
			return nil, fmt.Errorf("upstreams.%s.targets[0]: %w", name, err)
		}
		a.pools[name] = upstream.New(upstream.Options{
			Target:         target,
			MaxConns:       u.Connections.Max,
			MaxIdle:        u.Connections.Idle,
			IdleTimeout:    u.Connections.IdleTimeout,
			ConnectTimeout: u.Connections.ConnectTimeout,
		})
	}
	upstreamMetrics := proxy.NewUpstreamMetrics()
	var routes []*proxy.Route
	for _, r := range a.cfg.Routes {
		pool := a.pools[r.Upstream]
		routes = append(routes, &proxy.Route{
			Name: r.Name, Hosts: r.Hosts, Methods: r.Methods, Path: r.Path,
			Public:            r.Auth == config.AuthNone,
			Demand:            apikey.Demand{Scopes: r.Scopes, Tenants: r.Tenants, Environments: r.Environments},
			StripPrefix:       r.StripPrefix,
			ForwardCredential: r.ForwardCredential,
			Upstream:          upstreamMetrics.Count(r.Upstream, pool.Target(), pool),
			Timeout:           r.Timeout,
		})
	}
	metrics := proxy.NewMetrics(routes)
	registry.MustRegister(metrics, upstreamMetrics, a.store, a.keys,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	c := a.cfg.Proxy
	o := proxy.Options{
		Gate: gate.New(a.keys, format), Routes: routes, Uses: a.uses, Metrics: metrics, Logger: a.logger,
		Trusted: c.TrustedProxies, Forwarded: c.Forwarded, LoosePaths: !c.StrictPaths,
		ReadHeader: c.Timeouts.ReadHeader, Idle: c.Timeouts.Idle, BodyIdle: c.Timeouts.BodyIdle,
		HeaderBytes: int(c.Limits.HeaderBytes), BodyBytes: int64(c.Limits.BodyBytes),
		LogSample: c.AccessLog.Sample,
	}
	if c.AccessLog.Enabled {
		o.AccessLog = a.logger
	}
	for _, place := range c.Credentials {
		o.Credentials = append(o.Credentials, proxy.Credential(place))
	}
	return proxy.New(o)
}

func (a *App) newAdmin(format apikey.SecretFormat, registry *prometheus.Registry) (*admin.Plane, error) {
	c := a.cfg.Admin
	metrics := admin.NewMetrics()
	registry.MustRegister(metrics)
	o := admin.Options{
		Metrics:  metrics,
		Keys:     &wire.KeyService{Reader: a.store, Writer: a.store, Receipts: a.store, Format: format},
		Finder:   a.keys,
		Auditor:  a.store,
		Importer: a.store, Scanner: a.store, SpoolDir: a.cfg.Store.Path,
		Gatherer: registry, Ready: a.readiness, Logger: a.logger,
	}
	for _, op := range c.Operators {
		digest, err := op.Digest(os.LookupEnv)
		if err != nil {
			return nil, fmt.Errorf("admin.operators: %s: %w", op.Name, err)
		}
		o.Operators = append(o.Operators, admin.StaticOperator{TokenDigest: digest,
			Operator: wire.Operator{Name: op.Name, Role: wire.Role(op.Role), Tenant: op.Tenant}})
	}
	if c.OIDC.Enabled() {
		o.Tokens = oidc.New(oidc.Options{Issuer: c.OIDC.Issuer, Audience: c.OIDC.Audience,
			RoleClaim: c.OIDC.RoleClaim, TenantClaim: c.OIDC.TenantClaim})
	}
	if c.CertsTokenEnv != "" {
		digest, err := c.CertsDigest(os.LookupEnv)
		if err != nil {
			return nil, fmt.Errorf("admin.certs_token_env: %w", err)
		}
		o.Certs = &admin.StaticOperator{TokenDigest: digest,
			Operator: wire.Operator{Name: "certs", Role: wire.RoleIssuer, Tenant: apikey.AnyTenant}}
	}
	if c.Truvera.Enabled {
		signer, err := jwt.NewSigner(a.store, time.Now())
		if err != nil {
			return nil, err
		}
		o.Signer = signer
		o.Mounts = append(o.Mounts, admin.Mount{Host: c.Truvera.Host, Dialect: truvera.New(truvera.Options{
			Prefix: c.Truvera.Prefix, Signer: signer, Lifetime: c.Truvera.KeyLifetime, TemporaryLifetime: c.Truvera.TemporaryKeyLifetime})})
	}
	if c.Strait.Enabled {
		o.Mounts = append(o.Mounts, admin.Mount{Host: c.Strait.Host, Dialect: strait.New(strait.Options{
			Prefix: c.Strait.Prefix, Grace: a.cfg.Keys.Grace, AllowPrivateWebhooks: c.AllowPrivateWebhooks})})
	}
	if c.Peach.Enabled {
		o.Mounts = append(o.Mounts, admin.Mount{Host: c.Peach.Host, Dialect: peach.New(peach.Options{
			Prefix: c.Peach.Prefix, APIVersions: c.Peach.APIVersions, DowngradeWindow: c.Peach.DowngradeWindow})})
	}
	return admin.New(o)
}

var errNotServing = errors.New("not serving: starting or draining")

// readiness says why the gateway takes no traffic, if it does not.
func (a *App) readiness() error {
	if !a.ready.Load() {
		return errNotServing
	}
	return nil
}

// storePath returns where the store is, whatever the working directory.
func (a *App) storePath() string {
	if full, err := filepath.Abs(a.cfg.Store.Path); err == nil {
		return full
	}
	return a.cfg.Store.Path
}

// Addrs returns the addresses listened on: the data plane's first, then the
// admin plane's.
func (a *App) Addrs() (addrs []net.Addr) {
	for _, l := range a.listeners {
		addrs = append(addrs, l.Addr())
	}
	return addrs
}

// Run serves until ctx ends or a listener fails. Requests under way are then
// given the drain time.
func (a *App) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	served := make(chan struct{})
	for _, l := range a.listeners {
		go func() {
			if err := l.serve(l.Listener); err != nil {
				stop(err)
			}
			served <- struct{}{}
		}()
	}
	jobsDone := make(chan struct{})
	go func() {
		a.jobs.Run(ctx)
		close(jobsDone)
	}()
	a.ready.Store(true)
	a.logger.Info("serving", "proxy", a.cfg.Proxy.Listen, "admin", a.cfg.Admin.Listen,
		"store", a.storePath(), "keys", a.store.Opened(), "version", version())
	if a.store.Opened() == 0 {
		a.logger.Warn("the key store is empty, so every key will be refused; if it should not be, look at store.path and the working directory",
			"store", a.storePath())
	}

	<-ctx.Done()
	a.ready.Store(false)
	a.logger.Info("stopping", "drain", a.cfg.Proxy.Timeouts.Drain.String())
	drain, cancel := context.WithTimeout(context.Background(), a.cfg.Proxy.Timeouts.Drain)
	defer cancel()
	// The data plane first: until it is done, a key can still be revoked.
	var err error
	for _, shutdown := range []func(context.Context) error{a.proxy.Shutdown, a.admin.Shutdown} {
		if e := shutdown(drain); errors.Is(e, context.DeadlineExceeded) {
			a.logger.Warn("requests still under way after the drain time are cut")
		} else {
			err = errors.Join(err, e)
		}
	}
	for _, l := range a.listeners {
		// Shutdown does not know a listener that Serve had not got to yet.
		_ = l.Close()
	}
	for range a.listeners {
		<-served
	}
	<-jobsDone
	// The requests of the last seconds, now that there are no more.
	if e := a.uses.Flush(a.store).Pass(context.Background(), time.Now()); e != nil {
		err = errors.Join(err, e)
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	a.logger.Info("stopped")
	return err
}

// Close releases what New opened, the store last.
func (a *App) Close() error {
	var errs []error
	for _, l := range a.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	for _, p := range a.pools {
		p.Close()
	}
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	if a.keys != nil {
		a.keys.Close()
	}
	return errors.Join(errs...)
}
