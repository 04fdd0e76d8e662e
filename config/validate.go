package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Validate reports every problem of a configuration built in code, as
// Problems without lines. It reads the files that c names and the process's
// environment. Unlike Parse it changes nothing, so host names must be in lower
// case and api_versions in ascending order.
func (c *Config) Validate() error {
	v := validator{config: c, getenv: os.LookupEnv, line: func(string) int { return 0 }}
	list := v.validate()
	if !slices.IsSorted(c.Admin.Peach.APIVersions) {
		list = append(list, Problem{Path: "admin.peach.api_versions", Message: "not in ascending order; sort them"})
	}
	return problems("", list)
}

// validator gathers the problems of one Config.
type validator struct {
	config   *Config
	getenv   func(string) (string, bool)
	line     func(path string) int // where path stands in the file, 0 if nowhere
	problems []Problem
}

func (v *validator) validate() []Problem {
	v.proxy()
	v.routes()
	v.upstreams()
	v.store()
	v.admin()
	v.listeners()
	v.tracing()
	return v.problems
}

// fail reports a problem of the value at path.
func (v *validator) fail(path, format string, args ...any) {
	v.problems = append(v.problems, Problem{Path: path, Line: v.line(path), Message: fmt.Sprintf(format, args...)})
}

// place names a path in the message of another.
func (v *validator) place(path string) string {
	if line := v.line(path); line > 0 {
		return fmt.Sprintf("%s, line %d", path, line)
	}
	return path
}

func (v *validator) proxy() {
	p := &v.config.Proxy
	if len(p.Listen) == 0 {
		v.fail("proxy.listen", "the list is empty; name at least one address, or remove it for the default")
	}
	v.tls("proxy.tls", p.TLS)
	v.credentials()
	for i, block := range p.TrustedProxies {
		path := fmt.Sprintf("proxy.trusted_proxies[%d]", i)
		switch {
		case !block.IsValid():
			v.fail(path, "not a valid block; write an address or a CIDR block such as 10.0.0.0/8")
		case block.Bits() == 0:
			v.fail(path, "%s would trust everyone, and with that every client's own X-Forwarded-For; name the proxies' addresses", block)
		case block != block.Masked():
			v.fail(path, "%s has bits set beyond its prefix; write %s", block, block.Masked())
		}
	}
	if p.ProxyProtocol && len(p.TrustedProxies) == 0 {
		v.fail("proxy.proxy_protocol", "no proxy is trusted, so no header would be read; name the proxies in proxy.trusted_proxies")
	}
	for _, t := range []struct {
		name  string
		value Duration
	}{
		{"read_header", p.Timeouts.ReadHeader},
		{"idle", p.Timeouts.Idle},
		{"body_idle", p.Timeouts.BodyIdle},
		{"tunnel_idle", p.Timeouts.TunnelIdle},
		{"drain", p.Timeouts.Drain},
	} {
		v.positive("proxy.timeouts."+t.name, t.value)
	}
	v.limits()
	if p.AccessLog.Format != "json" {
		v.fail("proxy.access_log.format", "unknown format %q; the only one is json", p.AccessLog.Format)
	}
	// Written so that NaN fails too.
	if s := p.AccessLog.Sample; !(s >= 0 && s <= 1) {
		v.fail("proxy.access_log.sample", "%v is not between 0 and 1; write 1 to log every request", s)
	}
}

func (v *validator) credentials() {
	credentials := v.config.Proxy.Credentials
	if len(credentials) == 0 {
		v.fail("proxy.credentials", "the list is empty, so no request could carry a key; name a place, or remove it for the default")
	}
	first := map[string]string{}
	for i, c := range credentials {
		path := fmt.Sprintf("proxy.credentials[%d]", i)
		given := 0
		for _, set := range []bool{c.Header != "", c.Bearer, c.Query != ""} {
			if set {
				given++
			}
		}
		if given != 1 {
			v.fail(path, "has %d of header, bearer and query; give exactly one per entry", given)
			continue
		}
		if c.Header != "" {
			v.header(path+".header", c.Header)
		}
		if c.Query != "" && !only(c.Query, nameBytes+"~") {
			v.fail(path+".query", "%q is not a plain parameter name; use letters, digits and _ . - ~", c.Query)
		}
		// Header names ignore case (RFC 9110 section 5.1), parameters do not.
		source := fmt.Sprintf("%s %t %s", strings.ToLower(c.Header), c.Bearer, c.Query)
		if before, twice := first[source]; twice {
			v.fail(path, "the same place as %s; keep one", v.place(before))
			continue
		}
		first[source] = path
	}
}

func (v *validator) limits() {
	l := v.config.Proxy.Limits
	if l.HeaderBytes < 4*KiB || l.HeaderBytes > MiB {
		v.fail("proxy.limits.header_bytes", "%s is out of range; write 4KiB to 1MiB", l.HeaderBytes)
	}
	for _, limit := range []struct {
		name  string
		value int64
	}{
		{"body_bytes", int64(l.BodyBytes)},
		{"connections", int64(l.Connections)},
		{"connections_per_ip", int64(l.ConnectionsPerIP)},
		{"failures_per_ip", int64(l.FailuresPerIP)},
	} {
		if limit.value < 0 {
			v.fail("proxy.limits."+limit.name, "%d is negative; write 0 for no limit", limit.value)
		}
	}
}

func (v *validator) store() {
	s := v.config.Store
	if s.Path == "" {
		v.fail("store.path", "empty; name a directory, such as ./data")
	}
	if s.CacheBytes < MiB {
		v.fail("store.cache_bytes", "%s is too small; write at least 1MiB", s.CacheBytes)
	}
	if s.BlockCacheBytes < MiB {
		v.fail("store.block_cache_bytes", "%s is too small; write at least 1MiB", s.BlockCacheBytes)
	}
	if p := v.config.Keys.Prefix; len(p) < 1 || len(p) > 16 || !only(p, lowerBytes+digitBytes) {
		v.fail("keys.prefix", "%q is not a prefix; use 1 to 16 of a-z and 0-9", p)
	}
	if g := v.config.Keys.Grace; g < 0 || g > maxGrace {
		v.fail("keys.grace", "%s is out of range; write 0s to %s", g, maxGrace)
	}
}

// tls checks that the files belong together and hold what they are for, so that a
// wrong mode or name stops the start and not the first handshake.
func (v *validator) tls(path string, t TLS) {
	if (t.CertFile == "") != (t.KeyFile == "") {
		v.fail(path, "cert_file and key_file come together; give both or neither")
	}
	if t.ClientCAFile != "" && t.CertFile == "" && t.KeyFile == "" {
		v.fail(path+".client_ca_file", "needs a certificate to serve with; set cert_file and key_file too")
	}
	v.certificate(path+".cert_file", t.CertFile, path+".key_file", t.KeyFile)
	v.authorities(path+".client_ca_file", t.ClientCAFile)
	if len(t.Certificates) > 0 && t.CertFile == "" && t.KeyFile == "" {
		v.fail(path+".certificates", "needs a certificate for clients that ask for no name; set cert_file and key_file too")
	}
	for i, c := range t.Certificates {
		at := fmt.Sprintf("%s.certificates[%d]", path, i)
		if c.CertFile == "" || c.KeyFile == "" {
			v.fail(at, "has not both cert_file and key_file; give both")
		}
		v.certificate(at+".cert_file", c.CertFile, at+".key_file", c.KeyFile)
	}
}

// certificate checks a certificate and its key, as far as files are named.
func (v *validator) certificate(certPath, certFile, keyPath, keyFile string) {
	cert, key := v.read(certPath, certFile), v.read(keyPath, keyFile)
	if cert == nil || key == nil {
		return
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		v.fail(certPath, "%s and %s: %s; name a certificate and its key, both in PEM", certFile, keyFile, strings.TrimPrefix(err.Error(), "tls: "))
	}
}

// authorities checks a file of certificates of authorities, if one is named.
func (v *validator) authorities(path, file string) {
	if text := v.read(path, file); text != nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
		v.fail(path, "%s holds no certificate; name a file of certificates in PEM", file)
	}
}

// read returns what is in a file, nil if none is named or it cannot be read.
func (v *validator) read(path, file string) []byte {
	if file == "" {
		return nil
	}
	text, _, err := readFile(file)
	if err != nil {
		v.fail(path, "%s; name a file that this process may read", err)
		return nil
	}
	return append([]byte{}, text...) // not nil where it is empty
}

// listeners checks all addresses together: two listeners cannot share one, and all
// addresses of a port are those of any other on it.
func (v *validator) listeners() {
	type listener struct{ path, address string }
	var all []listener
	for i, address := range v.config.Proxy.Listen {
		all = append(all, listener{fmt.Sprintf("proxy.listen[%d]", i), address})
	}
	all = append(all, listener{"admin.listen", v.config.Admin.Listen})
	if metrics := v.config.Admin.MetricsListen; metrics != "" {
		all = append(all, listener{"admin.metrics_listen", metrics})
	}
	taken := map[int][]listener{} // by port
	for _, l := range all {
		host, port, err := splitAddress(l.address)
		if err != nil {
			v.fail(l.path, "%q is not an address to listen on: %s; write host:port, such as 127.0.0.1:8080 or [::1]:8080", l.address, err)
			continue
		}
		if port == 0 { // a new one each time
			continue
		}
		if i := slices.IndexFunc(taken[port], func(before listener) bool { return collide(before.address, host) }); i >= 0 {
			v.fail(l.path, "%s is taken by %s; choose another", l.address, v.place(taken[port][i].path))
			continue
		}
		taken[port] = append(taken[port], listener{l.path, host})
	}
}

// collide reports whether two hosts, as splitAddress returns them, cannot both have a port.
func collide(a, b string) bool {
	if a == b || a == "" || b == "" { // all interfaces, of either family
		return true
	}
	addrA, errA := netip.ParseAddr(a)
	addrB, errB := netip.ParseAddr(b)
	if errA != nil || errB != nil {
		return false // what names stand for is not known here
	}
	all6 := netip.IPv6Unspecified() // which takes in IPv4 as well
	return addrA == all6 || addrB == all6 || addrA.Is4() == addrB.Is4() && (addrA.IsUnspecified() || addrB.IsUnspecified())
}

// splitAddress returns a listen address's host in one spelling, and its port.
// No host means all interfaces.
func splitAddress(address string) (host string, port int, err error) {
	host, digits, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, errors.New("no host and port")
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return "", 0, errors.New("the port is not a number from 0 to 65535")
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String(), int(n), nil
	}
	host = strings.ToLower(host)
	if host != "" && !isHostName(host) {
		return "", 0, errors.New("the host is neither an address nor a name")
	}
	return host, int(n), nil
}

func (v *validator) positive(path string, d Duration) {
	if d <= 0 {
		v.fail(path, "%s is not above zero; write a duration such as 30s", d)
	}
}

// maxGrace is a week, the longest that Strait lets a call ask for.
const maxGrace = 7 * 24 * time.Hour
