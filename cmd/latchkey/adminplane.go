package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/admin"
	"latchkey/admin/jwt"
	"latchkey/admin/oidc"
	"latchkey/admin/peach"
	"latchkey/admin/strait"
	"latchkey/admin/truvera"
	"latchkey/admin/wire"
	"latchkey/apikey"
	"latchkey/config"
	"latchkey/proxy"
)

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
		Backup:   func(now time.Time) (io.ReadCloser, error) { return a.store.Backup(version(), now) },
		Gatherer: registry, Ready: a.readiness, Reload: a.Reload, Explain: a.explain, Logger: a.logger,
	}
	var err error
	if o.Callers, err = a.callers(c); err != nil {
		return nil, err
	}
	if c.OIDC.Enabled() {
		o.Tokens = oidc.New(oidc.Options{Issuer: c.OIDC.Issuer, Audience: c.OIDC.Audience,
			RoleClaim: c.OIDC.RoleClaim, TenantClaim: c.OIDC.TenantClaim})
	}
	if c.Truvera.Enabled {
		signer, err := jwt.NewSigner(a.store, apikey.Origin{At: apikey.Instant(time.Now()), Actor: "serve"})
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

// callers returns who is known by a token, reading it from where it is kept.
func (a *App) callers(c config.Admin) (out admin.Callers, err error) {
	if c, err = a.withOperator(c); err != nil {
		return out, err
	}
	for _, op := range c.Operators {
		digest, err := op.Digest(os.LookupEnv)
		if err != nil {
			return out, fmt.Errorf("admin.operators: %s: %w", op.Name, err)
		}
		out.Operators = append(out.Operators, admin.StaticOperator{TokenDigest: digest,
			Operator: wire.Operator{Name: op.Name, Role: wire.Role(op.Role), Tenant: op.Tenant}})
	}
	if c.CertsTokenEnv != "" {
		digest, err := c.CertsDigest(os.LookupEnv)
		if err != nil {
			return out, fmt.Errorf("admin.certs_token_env: %w", err)
		}
		out.Certs = &admin.StaticOperator{TokenDigest: digest,
			Operator: wire.Operator{Name: "certs", Role: wire.RoleIssuer, Tenant: apikey.AnyTenant}}
	}
	return out, nil
}

// explain has the data plane answer a question of the admin plane.
func (a *App) explain(q admin.Question) (admin.Explanation, error) {
	e, err := a.proxy.Explain(proxy.Question{Method: q.Method, Target: q.Path, Host: q.Host, Secret: q.Secret, Client: q.Client,
		Now: q.Now, Tenant: q.Tenant})
	out := admin.Explanation{Status: e.Status, Outcome: e.Outcome, Detail: e.Detail, Allowed: e.Allowed, Key: e.Key}
	if r := e.Route; r != nil {
		out.Route = &admin.Rule{Name: r.Name, Path: r.Path, Hosts: r.Hosts, Methods: r.Methods, Public: r.Public,
			Scopes: r.Demand.Scopes, Tenants: r.Demand.Tenants, Environments: r.Demand.Environments}
	}
	return out, err
}
