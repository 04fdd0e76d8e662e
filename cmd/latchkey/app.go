package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"latchkey/admin"
	"latchkey/apikey"
	"latchkey/cache"
	"latchkey/config"
	"latchkey/jobs"
	"latchkey/keystore"
	"latchkey/listen"
	"latchkey/proxy"
	"latchkey/proxy/gate"
	"latchkey/trace"
)

// An App is the whole gateway, wired up. New opens everything, Run serves until
// its context ends, Close closes the store last.
type App struct {
	cfg    *config.Config // that New was given; of what a reload can change, see reloading
	logger *slog.Logger

	store *keystore.Store
	keys  *cache.Keys
	gate  *gate.Gate
	proxy *proxy.Proxy
	admin *admin.Plane
	uses  *jobs.Uses
	jobs  *jobs.Runner

	upstreams *upstreams
	data      *proxy.Metrics
	reloading *reloading
	tracer    *trace.Tracer // nil unless requests are traced

	listeners    []listener
	counted      map[string]*listen.Counters // by the listener's name in metrics
	certificates []jobs.Job                  // that take up changed files
	ready        atomic.Bool
}

// New opens the store and the listeners. Where it returns an error nothing is
// left open.
func New(cfg *config.Config, logger *slog.Logger) (*App, error) {
	a := &App{cfg: cfg, logger: logger, upstreams: newUpstreams(), data: proxy.NewMetrics(),
		counted: map[string]*listen.Counters{}, uses: new(jobs.Uses), reloading: newReloading(cfg)}
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
	a.store.Notify(a.keys)
	format := apikey.NewSecretFormat(a.cfg.Keys.Prefix)
	registry := prometheus.NewRegistry()
	courier := jobs.NewCourier(a.store, a.store,
		jobs.NewWebhooks(jobs.WebhookOptions{AllowPrivate: a.cfg.Admin.AllowPrivateWebhooks}), a.logger)
	work := append(a.certificates, jobs.Sweep(a.store), jobs.Rotate(a.store, format),
		courier.Deliver(), jobs.Forget(a.store), a.uses.Flush(a.store),
		a.upstreams.maintain(), a.upstreams.check())
	if a.cfg.Reload.OnChange { // which takes a restart to change
		work = append(work, a.watchConfig())
	}
	a.jobs = jobs.NewRunner(a.logger, work...)
	registry.MustRegister(a.jobs, courier.Metrics(), a.uses.Dropped(), a.store, a.keys, a.data, a.upstreams, a.upstreams.answers,
		a.reloading.result, a.reloading.at, buildInfo(),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(connectionMetrics(a.counted)...)
	if a.tracer, err = newTracer(a.cfg.Tracing, a.logger); err != nil {
		return err
	}
	if a.tracer != nil {
		registry.MustRegister(a.tracer)
	}
	a.gate = gate.New(a.keys, format)
	services, err := a.upstreams.prepare(a.cfg)
	if err != nil {
		return err
	}
	a.upstreams.replace(services)
	if a.proxy, err = proxy.New(a.proxyOptions(a.cfg, services)); err != nil {
		return err
	}
	a.admin, err = a.newAdmin(format, registry)
	return err
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
	limit := a.reloading.latest.Load().Proxy.Timeouts.Drain
	a.logger.Info("stopping", "drain", limit.String())
	drain, cancel := context.WithTimeout(context.Background(), limit)
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
		a.logger.Error("last uses of keys were lost", "error", e)
	}
	a.flushTraces()
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
	a.upstreams.close()
	a.flushTraces() // of an App that never ran, or again
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	if a.keys != nil {
		a.keys.Close()
	}
	return errors.Join(errs...)
}
