package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/config"
	"latchkey/jobs"
)

// reloading is what a reload needs and what is known of the last one.
type reloading struct {
	mu     sync.Mutex
	path   string                        // of the file; empty where the configuration is from none
	latest atomic.Pointer[config.Config] // the one in force
	seen   []byte                        // the file as it was looked at last
	result prometheus.Gauge
	at     prometheus.Gauge
}

func newReloading(cfg *config.Config) *reloading {
	r := &reloading{
		result: prometheus.NewGauge(prometheus.GaugeOpts{Name: "latchkey_config_last_reload_success",
			Help: "Whether the last reload of the configuration succeeded: 1, or 0. 1 if there was none."}),
		at: prometheus.NewGauge(prometheus.GaugeOpts{Name: "latchkey_config_last_reload_timestamp_seconds",
			Help: "When the configuration was last reloaded, in seconds since 1970, well or not; 0 if it never was."}),
	}
	r.result.Set(1)
	r.latest.Store(cfg)
	return r
}

var errNoFile = errors.New("the configuration is not from a file")

// Reload reads the configuration file again and serves all further requests by
// it. It is read and checked as a whole first: with an error nothing changes.
func (a *App) Reload() error {
	r := a.reloading
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.path == "" {
		return errNoFile
	}
	err := a.reload()
	r.at.SetToCurrentTime()
	if err != nil {
		r.result.Set(0)
		a.logger.Error("the configuration was not reloaded; nothing has changed", "error", err)
		return err
	}
	r.result.Set(1)
	a.logger.Info("configuration reloaded", "routes", len(r.latest.Load().Routes), "upstreams", len(r.latest.Load().Upstreams))
	return nil
}

func (a *App) reload() error {
	next, err := config.Load(a.reloading.path)
	if err != nil {
		return err
	}
	if fixed := needRestart(a.reloading.latest.Load(), next); len(fixed) > 0 {
		return fmt.Errorf("changes of %s take a restart; undo them, or restart", strings.Join(fixed, ", "))
	}
	known, err := a.callers(next.Admin)
	if err != nil {
		return err
	}
	services, err := a.upstreams.prepare(next)
	if err != nil {
		return err
	}
	if err := a.proxy.Reload(a.proxyOptions(next, services)); err != nil {
		a.upstreams.discard(services)
		return err
	}
	a.upstreams.replace(services)
	a.admin.SetCallers(known)
	a.reloading.latest.Store(next)
	return nil
}

// needRestart names what differs between two configurations and is not
// reloaded: what belongs to open sockets, to the store and, but for who may call
// it, to the admin plane.
func needRestart(a, b *config.Config) (fixed []string) {
	adminA, adminB := a.Admin, b.Admin
	adminA.Operators, adminB.Operators = nil, nil
	adminA.CertsTokenEnv, adminB.CertsTokenEnv = "", ""
	for _, part := range []struct {
		name string
		a, b any
	}{
		{"proxy.listen", a.Proxy.Listen, b.Proxy.Listen},
		{"proxy.tls", a.Proxy.TLS, b.Proxy.TLS},
		{"proxy.proxy_protocol", a.Proxy.ProxyProtocol, b.Proxy.ProxyProtocol},
		{"proxy.trusted_proxies", a.Proxy.TrustedProxies, b.Proxy.TrustedProxies},
		{"proxy.limits.connections", a.Proxy.Limits.Connections, b.Proxy.Limits.Connections},
		{"proxy.limits.connections_per_ip", a.Proxy.Limits.ConnectionsPerIP, b.Proxy.Limits.ConnectionsPerIP},
		{"store", a.Store, b.Store},
		{"keys", a.Keys, b.Keys},
		{"admin, but for operators and certs_token_env,", adminA, adminB},
		{"reload", a.Reload, b.Reload},
		{"tracing", a.Tracing, b.Tracing},
	} {
		if !reflect.DeepEqual(part.a, part.b) {
			fixed = append(fixed, part.name)
		}
	}
	return fixed
}

// ReloadOn reloads on each signal until ctx ends. What went wrong is in the log.
func (a *App) ReloadOn(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			_ = a.Reload()
		}
	}
}

// watchConfig returns the job that reloads when the file has changed.
func (a *App) watchConfig() jobs.Job {
	return jobs.Job{Name: "watch_config", Every: 2 * time.Second, Pass: func(context.Context, time.Time) error {
		r := a.reloading
		if r.path == "" { // the configuration is not from a file
			return nil
		}
		text, err := os.ReadFile(r.path)
		if err != nil {
			return fmt.Errorf("watch the configuration: %w", err)
		}
		first := r.seen == nil
		if bytes.Equal(r.seen, text) && !first {
			return nil
		}
		r.seen = text // a file that is wrong is not tried again until it changes
		if first {    // it may have changed since the start read it
			if now, err := config.Parse(r.path, text, os.LookupEnv); err == nil && reflect.DeepEqual(now, r.latest.Load()) {
				return nil
			}
		}
		_ = a.Reload()
		return nil
	}}
}
