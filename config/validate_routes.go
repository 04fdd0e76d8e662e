package config

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

func (v *validator) routes() {
	routes := v.config.Routes
	if len(routes) == 0 {
		v.fail("routes", "there is no route, so nothing would be served; add one with name, path and upstream")
	}
	names := map[string]string{}
	shapes := make([]string, len(routes))
	for i, r := range routes {
		path := fmt.Sprintf("routes[%d]", i)
		if !isName(r.Name) {
			v.fail(path+".name", "%q is not a route name; use 1 to 64 letters, digits and _ . -", r.Name)
		} else if before, twice := names[r.Name]; twice {
			v.fail(path+".name", "%q is also the name of %s; rename one", r.Name, v.place(before))
		} else {
			names[r.Name] = path
		}
		v.matching(path, r)
		v.conditions(path, r)
		v.forwarding(path, r)

		shape, err := parsePattern(r.Path)
		if err != nil {
			v.fail(path+".path", "%q %s", r.Path, err)
			continue
		}
		shapes[i] = "/" + shape // not "", which marks a path that cannot be compared
		for j := range i {
			if shapes[j] == shapes[i] && overlap(routes[j].Hosts, r.Hosts) && overlap(routes[j].Methods, r.Methods) {
				v.fail(path+".path", "route %q matches the same requests as route %q (%s); change a path, hosts or methods, or remove one",
					r.Name, routes[j].Name, v.place(fmt.Sprintf("routes[%d].path", j)))
			}
		}
	}
}

// overlap reports whether two lists share an element or are both empty. A list
// beside none is no collision: the more specific route wins.
func overlap(a, b []string) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

func (v *validator) matching(path string, r Route) {
	for i, host := range r.Hosts {
		if !isHostName(host) {
			v.fail(fmt.Sprintf("%s.hosts[%d]", path, i), "%q is not a host name; write it in lower case, without port or wildcard", host)
		}
	}
	for name, list := range map[string][]string{"hosts": r.Hosts, "methods": r.Methods} {
		for i, value := range list {
			if slices.Contains(list[:i], value) {
				v.fail(fmt.Sprintf("%s.%s[%d]", path, name, i), "%q is given twice; keep one", value)
			}
		}
	}
	for i, method := range r.Methods {
		at := fmt.Sprintf("%s.methods[%d]", path, i)
		switch {
		case !isToken(method) || method != strings.ToUpper(method):
			v.fail(at, "%q is not a method; write it in upper case, such as GET", method)
		case method == "CONNECT" || method == "TRACE":
			v.fail(at, "%s is never forwarded; remove it", method)
		}
	}
}

// conditions checks what a route asks of a key.
func (v *validator) conditions(path string, r Route) {
	if r.Auth != AuthRequired && r.Auth != AuthNone {
		v.fail(path+".auth", "%q is neither required nor none; write one of them", r.Auth)
	}
	for _, list := range []struct {
		name, rule string
		values     []string
		valid      func(string) bool
	}{
		{"scopes", `is not a scope; use visible ASCII without " and \`, r.Scopes, isScope},
		{"tenants", "is not a tenant; use 1 to 128 visible ASCII characters", r.Tenants, isVisible},
		{"environments", "is not an environment; use 1 to 128 visible ASCII characters", r.Environments, isVisible},
	} {
		if r.Auth == AuthNone && len(list.values) > 0 {
			v.fail(path+"."+list.name, "has no effect with auth: none; remove it, or set auth: required")
		}
		for i, value := range list.values {
			at := fmt.Sprintf("%s.%s[%d]", path, list.name, i)
			switch {
			case !list.valid(value):
				v.fail(at, "%q %s", value, list.rule)
			case list.name == "tenants" && value == "*":
				v.fail(at, "* is not a tenant; leave the list empty to serve all of them")
			}
		}
	}
}

// forwarding checks where a route leads.
func (v *validator) forwarding(path string, r Route) {
	if _, ok := v.config.Upstreams[r.Upstream]; !ok {
		names := slices.Sorted(maps.Keys(v.config.Upstreams))
		switch {
		case len(names) == 0:
			v.fail(path+".upstream", "there are no upstreams; add one under upstreams and name it here")
		case r.Upstream == "":
			v.fail(path+".upstream", "missing; name one of: %s", strings.Join(names, ", "))
		default:
			v.fail(path+".upstream", "no upstream is named %q; name one of: %s", r.Upstream, strings.Join(names, ", "))
		}
	}
	if p := r.StripPrefix; p != "" {
		if problem := prefixProblem(p); problem != "" {
			v.fail(path+".strip_prefix", "%q %s", p, problem)
		} else if r.Path != p && !strings.HasPrefix(r.Path, p+"/") {
			v.fail(path+".strip_prefix", "%q is not how the path %q begins; write its first segments, or remove it", p, r.Path)
		}
	}
	if p := r.AddPrefix; p != "" {
		if problem := prefixProblem(p); problem != "" {
			v.fail(path+".add_prefix", "%q %s", p, problem)
		}
	}
	if h := r.RewriteHost; h != "" {
		if !isHostAndPort(h) {
			v.fail(path+".rewrite_host", "%q is not a host; write it in lower case, with a port where one is needed", h)
		}
	}
	v.positive(path+".timeout", r.Timeout)
	if r.Retries < 0 || r.Retries > 3 {
		v.fail(path+".retries", "%d is out of range; write 0 to 3", r.Retries)
	}
	if r.BodyBytes < 0 {
		v.fail(path+".body_bytes", "%d is negative; write 0 for the limit of all routes", int64(r.BodyBytes))
	}
	v.headers(path+".request_headers", r.RequestHeaders)
	v.headers(path+".response_headers", r.ResponseHeaders)
	v.cors(path+".cors", r.CORS)
	for _, name := range slices.Sorted(maps.Keys(r.ResponseHeaders.Set)) {
		if len(r.CORS.Origins) > 0 && strings.HasPrefix(strings.ToLower(name), "access-control-") {
			v.fail(path+".response_headers.set."+name, "written by cors already; remove one of the two")
		}
	}
	v.notNegative(path+".maintenance.retry_after", r.Maintenance.RetryAfter)
	if d := r.Maintenance.Detail; !printableASCII(d) || len(d) > 200 {
		v.fail(path+".maintenance.detail", "%q is not printable ASCII of at most 200 characters", d)
	}
}

// headers checks changes of a head. What the gateway says itself, and what says
// how a message is framed, is not to be changed.
func (v *validator) headers(path string, h Headers) {
	first := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(h.Set)) {
		at := path + ".set." + name
		v.header(at, name)
		if before, twice := first[strings.ToLower(name)]; twice {
			v.fail(at, "is %s in other letters, and names of headers ignore case; keep one", before)
		}
		first[strings.ToLower(name)] = name
		if value := h.Set[name]; !printableASCII(value) || strings.TrimSpace(value) != value {
			v.fail(at, "the value is not printable ASCII without spaces around it")
		}
	}
	for i, name := range h.Remove {
		v.header(fmt.Sprintf("%s.remove[%d]", path, i), name)
	}
}

// header checks the name of a header that is not the gateway's own.
func (v *validator) header(path, name string) {
	// Programs behind CGI take X_A for X-A, and any other character for a "-".
	dashed := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
	switch {
	case !isToken(name):
		v.fail(path, "%q is not a header name; use letters, digits and -", name)
	case slices.Contains(reservedHeaders(), dashed) || strings.HasPrefix(dashed, "x-latchkey-") || strings.HasPrefix(dashed, "x-forwarded-"):
		v.fail(path, "%s is the gateway's own to write; remove it", name)
	}
}

func printableASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func reservedHeaders() []string {
	return []string{"connection", "content-length", "date", "expect", "forwarded", "host", "keep-alive", "proxy",
		"proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
		"x-api-version", "x-real-ip", "x-request-id"}
}

func (v *validator) cors(path string, c CORS) {
	for i, origin := range c.Origins {
		at := fmt.Sprintf("%s.origins[%d]", path, i)
		u, err := url.Parse(origin)
		switch {
		case origin == "*" && c.Credentials:
			v.fail(at, "* with credentials would let every page act for its visitor; name the origins, or set credentials: false")
		case origin == "*":
		case err != nil || u.Scheme == "" || u.Host == "" || origin != u.Scheme+"://"+u.Host || origin != strings.ToLower(origin):
			v.fail(at, "%q is not an origin; write scheme, host and port in lower case, such as https://app.example, or *", origin)
		case strings.Contains(origin, "*"):
			v.fail(at, "%q: * stands for nothing within an origin; write each one out, or * alone for any", origin)
		case u.Scheme == "http" && u.Port() == "80" || u.Scheme == "https" && u.Port() == "443":
			v.fail(at, "%q: browsers leave the scheme's own port out; remove :%s", origin, u.Port())
		}
	}
	if len(c.Origins) == 0 && (len(c.Methods)+len(c.Headers)+len(c.Expose) > 0 || c.Credentials || c.MaxAge != 0) {
		v.fail(path, "has no effect without origins; name at least one, or remove the rest")
	}
	for name, list := range map[string][]string{"methods": c.Methods, "headers": c.Headers, "expose": c.Expose} {
		for i, value := range list {
			at := fmt.Sprintf("%s.%s[%d]", path, name, i)
			switch {
			case !isToken(value):
				v.fail(at, "%q is not a name; use letters, digits and -", value)
			case value == "*" && c.Credentials:
				v.fail(at, "browsers take * with credentials for a name; write the names out, or set credentials: false")
			}
		}
	}
	v.notNegative(path+".max_age", c.MaxAge)
	if c.MaxAge%time.Second != 0 {
		v.fail(path+".max_age", "%s is not of whole seconds, which browsers count in; write 1s or more", c.MaxAge)
	}
}
