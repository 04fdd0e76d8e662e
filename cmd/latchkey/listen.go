package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/config"
	"latchkey/jobs"
	"latchkey/listen"
)

// A listener is an open socket and what serves it.
type listener struct {
	net.Listener
	serve func(net.Listener) error
}

// listenError reports an address that cannot be listened on.
type listenError struct {
	field   string // of the configuration
	problem string
}

// Error names the field and the problem.
func (e *listenError) Error() string { return e.field + ": " + e.problem }

// A door is a listener to be: where it is, what its connections go through and
// who serves them.
type door struct {
	field   string // of the configuration
	place   listen.Place
	tls     string // the field of its TLS settings; "" if it has none
	files   config.TLS
	options listen.Options
	serve   func(net.Listener) error
}

// doors returns all listeners that the configuration asks for: the data
// plane's, the admin plane's, and the one for metrics if there is to be one.
// The data plane's limits are for all of its listeners together.
func (a *App) doors() []door {
	p, admin := a.cfg.Proxy, a.cfg.Admin
	data := listen.Options{
		ProxyProtocol: p.ProxyProtocol, Trusted: p.TrustedProxies,
		Handshake: func() time.Duration { return a.reloading.latest.Load().Proxy.Timeouts.ReadHeader },
		Caps:      listen.NewCaps(p.Limits.Connections, p.Limits.ConnectionsPerIP), Counters: new(listen.Counters),
	}
	var doors []door
	for i, address := range p.Listen {
		doors = append(doors, door{fmt.Sprintf("proxy.listen[%d]", i), listen.Place{Name: "proxy", Address: address},
			"proxy.tls", p.TLS, data, func(l net.Listener) error { return a.proxy.Serve(l) }})
	}
	doors = append(doors, door{"admin.listen", listen.Place{Name: "admin", Address: admin.Listen},
		"admin.tls", admin.TLS, listen.Options{Caps: adminCaps(), Counters: new(listen.Counters)},
		func(l net.Listener) error { return a.admin.Serve(l) }})
	if admin.MetricsListen != "" {
		doors = append(doors, door{"admin.metrics_listen", listen.Place{Name: "metrics", Address: admin.MetricsListen},
			"", config.TLS{}, listen.Options{Caps: adminCaps(), Counters: new(listen.Counters)},
			func(l net.Listener) error { return a.admin.ServeOpen(l) }})
	}
	return doors
}

// adminCaps bounds the connections of a listener of the admin plane: they take files of
// the process, which the data plane needs. No configuration has more callers than that.
func adminCaps() *listen.Caps { return listen.NewCaps(1024, 256) }

// listen opens all listeners, and loads their certificates first.
func (a *App) listen() error {
	sockets, err := listen.Inherit()
	if err != nil {
		return err
	}
	doors := a.doors()
	if err := a.loadCertificates(doors); err != nil {
		sockets.Close()
		return err
	}
	var places []listen.Place
	for _, d := range doors {
		places = append(places, d.place)
	}
	opened, err := sockets.Open(places)
	if at := (*listen.OpenError)(nil); errors.As(err, &at) {
		d := doors[at.Place]
		if errors.Is(err, syscall.EADDRINUSE) {
			return &listenError{d.field, "address " + d.place.Address + " is already in use; stop what listens there or choose another"}
		}
		return &listenError{d.field, err.Error()}
	}
	if err != nil {
		return err
	}
	for i, d := range doors {
		a.listeners = append(a.listeners, listener{listen.New(opened[i], d.options), d.serve})
		a.counted[d.place.Name] = d.options.Counters
	}
	return a.checkAdminAddress()
}

// checkAdminAddress holds an inherited socket to the rule that the
// configuration's own address was held to: found by its name, it may have
// another address.
func (a *App) checkAdminAddress() error {
	at := a.listeners[len(a.cfg.Proxy.Listen)].Addr()
	tcp, ok := at.(*net.TCPAddr)
	if ok && tcp.IP.IsLoopback() || a.cfg.Admin.TLS.Enabled() || a.cfg.Admin.AllowPublicPlaintext {
		return nil
	}
	return &listenError{"admin.listen", fmt.Sprintf("the inherited socket has the address %s, which can be reached from outside, "+
		"and operators' tokens would cross the network in plain text; give it 127.0.0.1, set admin.tls, or set admin.allow_public_plaintext: true", at)}
}

// loadCertificates gives each door with TLS its certificates. Doors with the
// same settings share them, and so their session tickets; the planes never do:
// who was let into one would come into the other.
func (a *App) loadCertificates(doors []door) error {
	loaded := map[string]*listen.Certificates{}
	for i := range doors {
		d := &doors[i]
		if !d.files.Enabled() {
			continue
		}
		if loaded[d.tls] == nil {
			o := listen.CertificateOptions{ClientCAFile: d.files.ClientCAFile,
				Pairs: []listen.Pair{{CertFile: d.files.CertFile, KeyFile: d.files.KeyFile}}}
			for _, further := range d.files.Certificates {
				o.Pairs = append(o.Pairs, listen.Pair(further))
			}
			c, err := listen.LoadCertificates(o, time.Now())
			if err != nil {
				return fmt.Errorf("%s: %w", d.tls, err)
			}
			loaded[d.tls] = c
			a.certificates = append(a.certificates, a.certificatesJob(d.tls, c))
		}
		d.options.Certificates = loaded[d.tls]
	}
	return nil
}

// certificateInterval is how often the files are looked at.
const certificateInterval = 5 * time.Second

// certificatesJob takes up changed files. A pass fails once for what is wrong
// with them, and not again while it stays so.
func (a *App) certificatesJob(field string, c *listen.Certificates) jobs.Job {
	pass := func(_ context.Context, now time.Time) error {
		changed, err := c.Refresh(now)
		if changed {
			a.logger.Info("certificates reloaded", "field", field)
		}
		if err != nil {
			return fmt.Errorf("%s: %w; what was loaded before stays in use", field, err)
		}
		return nil
	}
	return jobs.Job{Name: "certificates_" + field[:len(field)-len(".tls")], Every: certificateInterval, Pass: pass}
}

// connectionMetrics shows the listeners' counters. The labels are closed: the
// listeners that the configuration has, and the reasons there are.
func connectionMetrics(counted map[string]*listen.Counters) (all []prometheus.Collector) {
	for name, c := range counted {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "latchkey_connections_open",
			Help:        "Clients' connections that are open, by listener.",
			ConstLabels: prometheus.Labels{"listener": name},
		}, func() float64 { return float64(c.Open.Load()) }))
		for result, n := range map[string]*atomic.Int64{
			"accepted": &c.Accepted, "full": &c.Full, "address_full": &c.AddressFull,
			"bad_proxy_header": &c.BadHeader, "bad_tls": &c.BadTLS, "fault": &c.Faults,
		} {
			all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{
				Name:        "latchkey_connections_total",
				Help:        "Clients' connections by listener and by what became of them: accepted, or closed because there were too many (full), too many from one address (address_full), or PROXY header or TLS handshake were not good or not in time; fault is the system's failure to accept one.",
				ConstLabels: prometheus.Labels{"listener": name, "result": result},
			}, func() float64 { return float64(n.Load()) }))
		}
	}
	return all
}
