package admin

import (
	"fmt"
	"strings"

	"github.com/fasthttp/router"
	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// routers returns the routers of the hosts that mounts name, and the one for all others.
func (p *Plane) routers() (shared *router.Router, hosts map[string]*router.Router, err error) {
	shared, hosts = p.openRoutes(), map[string]*router.Router{}
	owners := map[string]string{} // host and path to the dialect that owns them
	for _, m := range p.options.Mounts {
		r := shared
		if m.Host != "" {
			if hosts[m.Host] == nil {
				hosts[m.Host] = newRouter()
				hosts[m.Host].NotFound = shared.Handler
			}
			r = hosts[m.Host]
		}
		if err := p.mount(r, m, owners); err != nil {
			return nil, nil, err
		}
	}
	only(shared, "GET", "/metrics", p.operatorsOnly(wire.Read, p.metrics()))
	only(shared, "GET", "/audit", p.audit)
	if p.options.Reload != nil {
		only(shared, "POST", "/reload", p.reload)
	}
	if p.options.Backup != nil {
		only(shared, "POST", "/backup", p.backup)
	}
	if p.options.Explain != nil {
		only(shared, "POST", "/explain", p.explain)
	}
	if p.options.Importer != nil {
		only(shared, "POST", "/import", p.importKeys)
	}
	if p.options.Scanner != nil {
		only(shared, "GET", "/export", p.exportKeys)
	}
	if p.options.Signer != nil {
		only(shared, "POST", "/signing-keys/rotate", p.signingKeys(func(by apikey.Origin, _ string) error { return p.options.Signer.Rotate(by) }))
		only(shared, "DELETE", "/signing-keys/{kid}", p.signingKeys(p.options.Signer.Withdraw))
		only(shared, "GET", "/.well-known/jwks.json", func(ctx *fasthttp.RequestCtx) {
			ctx.SetContentType("application/jwk-set+json")
			ctx.SetBody(p.options.Signer.KeySet())
		})
	}
	shared.NotFound = p.notFound
	return shared, hosts, nil
}

// newRouter returns a router that decides by the path as it is sent.
func newRouter() *router.Router {
	r := router.New()
	r.RedirectTrailingSlash, r.RedirectFixedPath = false, false
	r.HandleOPTIONS, r.HandleMethodNotAllowed = false, false
	r.SaveMatchedRoutePath = true // for the log
	return r
}

// mount adds a dialect's calls and document to the router.
func (p *Plane) mount(r *router.Router, m Mount, owners map[string]string) error {
	allowed := map[string][]string{}
	for _, route := range m.Dialect.Routes {
		place := m.Host + route.Path
		if owner := owners[place]; owner != "" && owner != m.Dialect.Name {
			return fmt.Errorf("the dialects %s and %s both own the path %s; give one of them another prefix or host", owner, m.Dialect.Name, route.Path)
		}
		owners[place] = m.Dialect.Name
		allowed[route.Path] = append(allowed[route.Path], route.Method)
		r.Handle(route.Method, route.Path, p.call(m.Dialect, route))
	}
	for path, methods := range allowed {
		r.Handle(router.MethodWild, path, wrongMethod(m.Dialect.WriteError, strings.Join(methods, ", ")))
	}
	only(r, "GET", "/openapi/"+m.Dialect.Name+".yaml", func(ctx *fasthttp.RequestCtx) {
		ctx.SetContentType("application/yaml")
		ctx.SetBody(m.Dialect.OpenAPI)
	})
	return nil
}

// call authenticates, checks the role and runs one call of a dialect.
func (p *Plane) call(d *wire.Dialect, route wire.Route) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		now := p.options.Now()
		err := func() error {
			operator, err := p.caller(ctx, now, route.Certs, d.CredentialFields)
			if err != nil {
				return err
			}
			if !operator.Role.May(route.Access) {
				return wire.Forbidden("this operator may read only")
			}
			return route.Handle(&wire.Call{
				RequestCtx: ctx,
				Operator:   operator,
				Keys:       p.options.Keys,
				Now:        now,
				Client:     clientAddr(ctx),
				RequestID:  wire.RequestID(ctx),
			})
		}()
		if err != nil {
			p.fail(ctx, d.WriteError, wire.AsError(err, nil))
		}
	}
}

// only has a path that is no dialect's answer calls of one method.
func only(r *router.Router, method, path string, h fasthttp.RequestHandler) {
	r.Handle(method, path, h)
	r.Handle(router.MethodWild, path, wrongMethod(writeError, method))
}

// wrongMethod refuses a call whose path takes other methods (RFC 9110, section 15.5.6).
func wrongMethod(write func(*fasthttp.RequestCtx, *wire.Error), allow string) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		ctx.Response.Header.Set("Allow", allow)
		write(ctx, &wire.Error{Status: 405, Message: "this path takes " + allow})
	}
}

// notFound answers a call to a path that there is not, below one of a dialect's in its form.
func (p *Plane) notFound(ctx *fasthttp.RequestCtx) {
	write, host := writeError, hostOf(ctx)
	for _, m := range p.options.Mounts {
		for _, route := range m.Dialect.Routes {
			if below, ok := strings.CutPrefix(string(ctx.Path()), route.Path); ok && strings.HasPrefix(below, "/") && (m.Host == "" || m.Host == host) {
				write = m.Dialect.WriteError
			}
		}
	}
	write(ctx, &wire.Error{Status: 404, Message: "no such path; see /openapi/<dialect>.yaml"})
}

// hostOf returns the host that a call names, without a port.
func hostOf(ctx *fasthttp.RequestCtx) string {
	host, _, _ := strings.Cut(strings.ToLower(string(ctx.Host())), ":")
	return host
}

// openRoutes returns a router with what needs no credentials.
func (p *Plane) openRoutes() *router.Router {
	r := newRouter()
	only(r, "GET", "/healthz", func(ctx *fasthttp.RequestCtx) { writePlain(ctx, 200, "ok") })
	only(r, "GET", "/readyz", func(ctx *fasthttp.RequestCtx) {
		if err := p.options.Ready(); err != nil {
			writePlain(ctx, 503, err.Error())
			return
		}
		writePlain(ctx, 200, "ok")
	})
	return r
}
