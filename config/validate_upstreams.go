package config

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

func (v *validator) upstreams() {
	for _, name := range slices.Sorted(maps.Keys(v.config.Upstreams)) {
		u := v.config.Upstreams[name]
		path := "upstreams." + name
		if !isName(name) {
			v.fail(path, "%q is not an upstream name; use 1 to 64 letters, digits and _ . -", name)
		}
		v.targets(path+".targets", u.Targets)
		switch u.Balance {
		case BalancePowerOfTwo, BalanceRoundRobin, BalanceLeastConnections:
		default:
			v.fail(path+".balance", "%q is not a way to balance; write power_of_two, round_robin or least_connections", u.Balance)
		}
		v.notNegative(path+".slow_start", u.SlowStart)
		v.positive(path+".resolve", u.Resolve)
		c := u.Connections
		if c.Max < 1 {
			v.fail(path+".connections.max", "%d is too few; write at least 1", c.Max)
		}
		if c.Idle < 0 {
			v.fail(path+".connections.idle", "%d is negative; write 0 to keep none", c.Idle)
		}
		v.positive(path+".connections.idle_timeout", c.IdleTimeout)
		v.positive(path+".connections.connect_timeout", c.ConnectTimeout)
		v.notNegative(path+".connections.wait", c.Wait)
		v.health(path+".health", u.Health)
		if e := u.Ejection; e.Failures < 0 {
			v.fail(path+".ejection.failures", "%d is negative; write 0 to eject nothing", e.Failures)
		}
		v.positive(path+".ejection.interval", u.Ejection.Interval)
		v.positive(path+".ejection.duration", u.Ejection.Duration)
		v.upstreamTLS(path+".tls", u)
	}
}

func (v *validator) targets(path string, targets []Target) {
	if len(targets) == 0 {
		v.fail(path, "there is no target; give at least one, such as [\"http://127.0.0.1:9000\"]")
	}
	first := map[string]string{}
	for i, target := range targets {
		at := fmt.Sprintf("%s[%d]", path, i)
		if problem := targetProblem(target.URL); problem != "" {
			v.fail(at, "%s", problem)
		} else if before, twice := first[strings.ToLower(target.URL)]; twice {
			v.fail(at, "is given twice (%s); keep one, and give it a weight", v.place(before))
		} else {
			first[strings.ToLower(target.URL)] = at
		}
		if target.Weight < 1 || target.Weight > 1000 {
			v.fail(at+".weight", "%d is out of range; write 1 to 1000, or remove the target", target.Weight)
		}
	}
}

func (v *validator) health(path string, h Health) {
	if h.Path != "" && (h.Path[0] != '/' || strings.ContainsFunc(h.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' })) {
		v.fail(path+".path", "%q is not a path; write it as /healthz", h.Path)
	}
	v.positive(path+".interval", h.Interval)
	v.positive(path+".timeout", h.Timeout)
	if h.Healthy < 1 {
		v.fail(path+".healthy", "%d is too few; write at least 1", h.Healthy)
	}
	if h.Unhealthy < 1 {
		v.fail(path+".unhealthy", "%d is too few; write at least 1", h.Unhealthy)
	}
}

// upstreamTLS checks that files belong together and hold what they are for, and that
// there is a target for them.
func (v *validator) upstreamTLS(path string, u Upstream) {
	t := u.TLS
	if t == (UpstreamTLS{}) {
		return
	}
	if !slices.ContainsFunc(u.Targets, func(t Target) bool { return strings.HasPrefix(t.URL, "https://") }) {
		v.fail(path, "has no effect: no target's URL begins with https://; change one, or remove tls")
	}
	if (t.ClientCertFile == "") != (t.ClientKeyFile == "") {
		v.fail(path, "client_cert_file and client_key_file come together; give both or neither")
	}
	if t.Insecure && t.CAFile != "" {
		v.fail(path+".insecure", "makes ca_file useless: any certificate is accepted; remove one of them")
	}
	v.authorities(path+".ca_file", t.CAFile)
	v.certificate(path+".client_cert_file", t.ClientCertFile, path+".client_key_file", t.ClientKeyFile)
}

func (v *validator) notNegative(path string, d Duration) {
	if d < 0 {
		v.fail(path, "%s is negative; write 0s for none", d)
	}
}

// targetProblem says what is wrong with a target; "" means nothing. It does
// not quote the target, which may hold a password.
func targetProblem(target string) string {
	const remedy = "; write scheme, host and port alone, such as http://127.0.0.1:9000"
	u, err := url.Parse(target)
	switch {
	case target == "":
		return "has no url" + remedy
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
	if _, err := netip.ParseAddr(u.Hostname()); err != nil && !isHostName(strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")) {
		return "its host is neither an address nor a name" + remedy
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "its port is not a number from 1 to 65535" + remedy
		}
	}
	return ""
}
