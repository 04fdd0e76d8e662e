package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/apikey"
	"latchkey/config"
	"latchkey/jobs"
	"latchkey/proxy"
	"latchkey/proxy/upstream"
)

// proxyOptions turns a configuration into options of the data plane.
func (a *App) proxyOptions(cfg *config.Config, services prepared) proxy.Options {
	c := cfg.Proxy
	o := proxy.Options{
		Gate: a.gate, Uses: a.uses, Metrics: a.data, Logger: a.logger,
		Trusted: c.TrustedProxies, Forwarded: c.Forwarded, LoosePaths: !c.StrictPaths, ServerTiming: c.ServerTiming,
		ReadHeader: c.Timeouts.ReadHeader, Idle: c.Timeouts.Idle, BodyIdle: c.Timeouts.BodyIdle, TunnelIdle: c.Timeouts.TunnelIdle,
		HeaderBytes: int(c.Limits.HeaderBytes), BodyBytes: int64(c.Limits.BodyBytes), FailuresPerIP: c.Limits.FailuresPerIP,
		LogSample: c.AccessLog.Sample,
	}
	if a.tracer != nil { // a nil pointer in the interface would not be nil
		o.Tracer = a.tracer
	}
	if c.AccessLog.Enabled {
		o.AccessLog = a.logger
	}
	for _, place := range c.Credentials {
		o.Credentials = append(o.Credentials, proxy.Credential(place))
	}
	for _, r := range cfg.Routes {
		o.Routes = append(o.Routes, newRoute(r, services[r.Upstream].service))
	}
	return o
}

func newRoute(r config.Route, service service) *proxy.Route {
	out := &proxy.Route{
		Name: r.Name, Hosts: r.Hosts, Methods: r.Methods, Path: r.Path,
		Public:            r.Auth == config.AuthNone,
		Demand:            apikey.Demand{Scopes: r.Scopes, Tenants: r.Tenants, Environments: r.Environments},
		StripPrefix:       r.StripPrefix,
		AddPrefix:         r.AddPrefix,
		HostRewrite:       r.RewriteHost,
		ForwardCredential: r.ForwardCredential,
		RequestEdits:      proxy.Edits{Set: r.RequestHeaders.Set, Remove: r.RequestHeaders.Remove},
		ResponseEdits:     proxy.Edits{Set: r.ResponseHeaders.Set, Remove: r.ResponseHeaders.Remove},
		BodyBytes:         int64(r.BodyBytes),
		Upstream:          service.Upstream,
		Counts:            service.counts,
		Timeout:           r.Timeout,
		Retries:           r.Retries,
	}
	if c := r.CORS; len(c.Origins) > 0 {
		out.CORS = &proxy.CORS{Origins: c.Origins, Methods: c.Methods, Headers: c.Headers, Expose: c.Expose,
			Credentials: c.Credentials, MaxAge: c.MaxAge}
	}
	if m := r.Maintenance; m.Enabled {
		out.Maintenance = &proxy.Maintenance{Detail: m.Detail, RetryAfter: m.RetryAfter}
	}
	return out
}

// upstreams are the services behind the gateway, by name.
type upstreams struct {
	mu      sync.Mutex
	all     map[string]service
	answers *proxy.UpstreamMetrics
	checks  sync.WaitGroup // passes of active checks that are under way
}

// A service is an upstream with the counts of its answers.
type service struct {
	*upstream.Upstream
	counts *proxy.UpstreamCounts
}

func newUpstreams() *upstreams {
	return &upstreams{all: map[string]service{}, answers: proxy.NewUpstreamMetrics()}
}

// retireAfter is how long an upstream that is no longer configured goes on taking
// the requests that found it before.
const retireAfter = time.Minute

// prepared are the services that a configuration asks for, by name: those that
// are there already, to be updated, and new ones.
type prepared map[string]preparedService

type preparedService struct {
	service
	options upstream.Options
	isNew   bool
}

// prepare makes ready what a configuration asks for, and changes nothing of what
// is in use.
func (u *upstreams) prepare(cfg *config.Config) (prepared, error) {
	next, now := prepared{}, u.snapshot()
	for name, c := range cfg.Upstreams {
		o, err := upstreamOptions(c)
		if err == nil {
			err = o.Validate()
		}
		p := preparedService{options: o}
		if p.Upstream = now[name].Upstream; err == nil && p.Upstream == nil {
			p.isNew = true
			p.Upstream, err = upstream.New(o)
		}
		if err != nil {
			u.discard(next)
			return nil, fmt.Errorf("upstreams.%s: %w", name, err)
		}
		var targets []string
		for _, t := range o.Targets {
			targets = append(targets, t.URL)
		}
		p.counts = u.answers.Upstream(name, targets)
		next[name] = p
	}
	return next, nil
}

// discard closes what was made for a configuration that is not taken.
func (u *upstreams) discard(p prepared) {
	now := u.snapshot()
	for name, s := range p {
		u.answers.Forget(name, s.counts, now[name].counts)
		if s.isNew {
			s.Close()
		}
	}
}

// replace puts prepared services in use. Ones that stay keep their connections to
// targets that stay; ones that go take requests a little longer.
func (u *upstreams) replace(next prepared) {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := map[string]service{}
	for name, p := range next {
		if !p.isNew {
			// Its options were found to be good, so this cannot fail.
			_ = p.Update(p.options)
		}
		all[name] = p.service
	}
	for name, s := range u.all {
		u.answers.Forget(name, s.counts, all[name].counts)
		if _, stays := all[name]; !stays {
			time.AfterFunc(retireAfter, s.Close)
		}
	}
	u.all = all
}

func upstreamOptions(c config.Upstream) (upstream.Options, error) {
	o := upstream.Options{
		Balance:     upstream.Balance(c.Balance),
		SlowStart:   c.SlowStart,
		ResolveEach: c.Resolve,
		Connections: upstream.Connections{Max: c.Connections.Max, Idle: c.Connections.Idle, IdleTimeout: c.Connections.IdleTimeout,
			ConnectTimeout: c.Connections.ConnectTimeout, Wait: c.Connections.Wait},
		Ejection: upstream.Ejection{Failures: c.Ejection.Failures, Interval: c.Ejection.Interval, Duration: c.Ejection.Duration},
		Health: upstream.Health{Path: c.Health.Path, Interval: c.Health.Interval, Timeout: c.Health.Timeout,
			Healthy: c.Health.Healthy, Unhealthy: c.Health.Unhealthy},
		TLS: upstream.TLS{ServerName: c.TLS.ServerName, Insecure: c.TLS.Insecure},
	}
	// Zero is none in the file, and the default in Options.
	if c.Ejection.Failures == 0 {
		o.Ejection.Failures = -1
	}
	if c.Connections.Idle == 0 {
		o.Connections.Idle = -1
	}
	for _, t := range c.Targets {
		o.Targets = append(o.Targets, upstream.Target(t))
	}
	for _, f := range []struct {
		name string
		into *[]byte
	}{{c.TLS.CAFile, &o.TLS.CA}, {c.TLS.ClientCertFile, &o.TLS.Cert}, {c.TLS.ClientKeyFile, &o.TLS.Key}} {
		if f.name == "" {
			continue
		}
		var err error
		if *f.into, err = os.ReadFile(f.name); err != nil {
			return o, fmt.Errorf("tls: %w", err)
		}
	}
	return o, nil
}

// snapshot returns all services, without the lock.
func (u *upstreams) snapshot() map[string]service {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.all // which is replaced, not changed
}

// maintain returns the job that closes idle connections and resolves names anew.
func (u *upstreams) maintain() jobs.Job {
	return jobs.Job{Name: "upstreams", Every: time.Second, Pass: func(ctx context.Context, now time.Time) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		var all sync.WaitGroup
		var mu sync.Mutex
		var errs []error
		for name, s := range u.snapshot() {
			s.Expire(now)
			all.Go(func() { // a name server that hangs delays no names but its own
				if err := s.Resolve(ctx, now); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, fmt.Errorf("upstream %s: %w", name, err))
				}
			})
		}
		all.Wait()
		return errors.Join(errs...)
	}}
}

// check returns the job that begins the active checks. It waits for none: a target that
// hangs would delay the checks of all others.
func (u *upstreams) check() jobs.Job {
	return jobs.Job{Name: "upstream_checks", Every: time.Second, Pass: func(ctx context.Context, now time.Time) error {
		for _, s := range u.snapshot() {
			u.checks.Go(func() { s.Check(ctx, now) })
		}
		return nil
	}}
}

// close ends the services, once the context of their checks is done.
func (u *upstreams) close() {
	u.checks.Wait()
	for _, s := range u.snapshot() {
		s.Close()
	}
}

// Describe implements prometheus.Collector. What there is depends on the
// configuration, which can change.
func (u *upstreams) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. Labels are closed: upstreams and
// targets as they are configured.
func (u *upstreams) Collect(ch chan<- prometheus.Metric) {
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("latchkey_upstream_"+name, help, append([]string{"upstream", "target"}, labels...), nil)
	}
	addresses := desc("addresses", "Addresses of the target: in service, ejected after failures, or down by active checks.", "state")
	connections := desc("connections", "Connections to the target.", "state")
	inFlight := desc("in_flight_requests", "Requests that the target is working on.")
	waiting := desc("waiting_requests", "Requests that wait for a connection to the target.")
	connects := desc("connects_total", "Connections made to the target, those of active checks included.")
	repeats := desc("repeats_total", "Requests that were sent to the target again.")
	ejections := desc("ejections_total", "Times an address of the target was ejected.")
	for name, s := range u.snapshot() {
		for _, t := range s.State() {
			send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
				ch <- prometheus.MustNewConstMetric(d, kind, value, append([]string{name, t.Target}, labels...)...)
			}
			send(addresses, gauge, float64(t.InService), "in_service")
			send(addresses, gauge, float64(t.Ejected), "ejected")
			send(addresses, gauge, float64(t.Down), "down")
			send(connections, gauge, float64(t.Idle), "idle")
			send(connections, gauge, float64(t.Open-t.Idle), "in_use")
			send(inFlight, gauge, float64(t.InFlight))
			send(waiting, gauge, float64(t.Waiting))
			send(connects, counter, float64(t.Connects))
			send(repeats, counter, float64(t.Repeats))
			send(ejections, counter, float64(t.Ejections))
		}
	}
}
