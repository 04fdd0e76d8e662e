package config

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
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
	v.positive(path+".timeout", r.Timeout)
}

func (v *validator) upstreams() {
	for _, name := range slices.Sorted(maps.Keys(v.config.Upstreams)) {
		u := v.config.Upstreams[name]
		path := "upstreams." + name
		if !isName(name) {
			v.fail(path, "%q is not an upstream name; use 1 to 64 letters, digits and _ . -", name)
		}
		if len(u.Targets) != 1 {
			v.fail(path+".targets", "has %d targets; give exactly one, such as [\"http://127.0.0.1:9000\"]", len(u.Targets))
		}
		for i, target := range u.Targets {
			if problem := targetProblem(target); problem != "" {
				v.fail(fmt.Sprintf("%s.targets[%d]", path, i), "%s", problem)
			}
		}
		c := u.Connections
		if c.Max < 1 {
			v.fail(path+".connections.max", "%d is too few; write at least 1", c.Max)
		}
		if c.Idle < 0 {
			v.fail(path+".connections.idle", "%d is negative; write 0 to keep none", c.Idle)
		}
		v.positive(path+".connections.idle_timeout", c.IdleTimeout)
		v.positive(path+".connections.connect_timeout", c.ConnectTimeout)
	}
}

// targetProblem says what is wrong with a target; "" means nothing. It does
// not quote the target, which may hold a password.
func targetProblem(target string) string {
	const remedy = "; write scheme, host and port alone, such as http://127.0.0.1:9000"
	u, err := url.Parse(target)
	switch {
	case err != nil:
		return "not a URL" + remedy
	case u.Scheme != "http" && u.Scheme != "https":
		return "begins with neither http:// nor https://" + remedy
	case u.User != nil:
		return "holds a user name or password" + remedy
	case u.Hostname() == "":
		return "names no host" + remedy
	case u.Path != "" || strings.ContainsAny(target, "?#"):
		return "has a path, query or fragment" + remedy
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "its port is not a number from 1 to 65535" + remedy
		}
	}
	return ""
}
