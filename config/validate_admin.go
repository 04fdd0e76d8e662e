package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

func (v *validator) admin() {
	a := &v.config.Admin
	v.tls("admin.tls", a.TLS)
	host, _, err := splitAddress(a.Listen)
	if err == nil && !IsLoopback(host) && !a.TLS.Enabled() && !a.AllowPublicPlaintext {
		v.fail("admin.listen", "%s can be reached from outside, and operators' tokens would cross the network in plain text; "+
			"listen on 127.0.0.1, set admin.tls, or set admin.allow_public_plaintext: true", a.Listen)
	}
	v.operators()
	v.oidc()
	v.mount("admin.truvera", a.Truvera.Host, a.Truvera.Prefix)
	if l := a.Truvera.KeyLifetime; l <= 0 {
		v.fail("admin.truvera.key_lifetime", "%s is not above zero; write it as 8760h", l)
	}
	if l := a.Truvera.TemporaryKeyLifetime; l <= 0 {
		v.fail("admin.truvera.temporary_key_lifetime", "%s is not above zero; write it as 1h", l)
	}
	if a.CertsTokenEnv != "" {
		if _, err := a.CertsDigest(v.getenv); err != nil {
			v.fail("admin.certs_token_env", "%s", err)
		}
	}
	v.mount("admin.strait", a.Strait.Host, a.Strait.Prefix)
	v.mount("admin.peach", a.Peach.Host, a.Peach.Prefix)
	v.peach()
}

// mount checks where a dialect is to answer.
func (v *validator) mount(path, host, prefix string) {
	if host != "" && !isHostName(host) {
		v.fail(path+".host", "%q is not a host name; write it in lower case, without port or wildcard", host)
	}
	if prefix == "" {
		return
	}
	if problem := prefixProblem(prefix); problem != "" {
		v.fail(path+".prefix", "%q %s", prefix, problem)
	}
}

// IsLoopback reports whether a host is this machine itself. A
// name other than localhost may resolve to anything.
func IsLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (v *validator) operators() {
	operators := v.config.Admin.Operators
	host, _, err := splitAddress(v.config.Admin.Listen)
	if len(operators) == 0 && !v.config.Admin.OIDC.Enabled() && err == nil && !IsLoopback(host) {
		v.fail("admin.operators", "there is no operator, and one is made only while admin.listen is on this machine alone; "+
			"add one with name, role, tenant and token_sha256, which is made by: latchkey operators hash; or listen on 127.0.0.1, or set admin.oidc")
	}
	inTheLog := []string{"sweep", "rotate", "deliver", "serve", "restore", "certs"}
	names := map[string]string{}
	digests := map[[32]byte]int{}
	for i, o := range operators {
		path := fmt.Sprintf("admin.operators[%d]", i)
		if !isVisible(o.Name) {
			v.fail(path+".name", "%q is not a name; use 1 to 128 visible ASCII characters", o.Name)
		} else if slices.Contains(inTheLog, o.Name) {
			v.fail(path+".name", "%q is what the audit log calls the gateway itself; use another", o.Name)
		} else if before, twice := names[o.Name]; twice {
			v.fail(path+".name", "%q is also the name of %s; rename one", o.Name, v.place(before))
		} else {
			names[o.Name] = path
		}
		if o.Role != RoleAdmin && o.Role != RoleIssuer && o.Role != RoleViewer {
			v.fail(path+".role", "%q is not a role; write admin, issuer or viewer", o.Role)
		}
		if !isVisible(o.Tenant) {
			v.fail(path+".tenant", `%q is not a tenant; write 1 to 128 visible ASCII characters, or "*" for all tenants`, o.Tenant)
		}
		digest, err := o.Digest(v.getenv)
		if err != nil {
			if field := o.tokenField(); field != "" {
				path += "." + field
			}
			v.fail(path, "%s", err)
			continue
		}
		if j, twice := digests[digest]; twice {
			v.fail(path, "has the same token as operator %q (%s); give each its own",
				operators[j].Name, v.place(fmt.Sprintf("admin.operators[%d]", j)))
			continue
		}
		digests[digest] = i
	}
}

func (v *validator) oidc() {
	o := v.config.Admin.OIDC
	switch {
	case o.Issuer == "" && o.Audience != "":
		v.fail("admin.oidc.issuer", "empty, though there is an audience; give both or neither")
	case o.Issuer == "":
	default:
		if problem := issuerProblem(o.Issuer); problem != "" {
			v.fail("admin.oidc.issuer", "%s", problem)
		}
		if o.Audience == "" {
			v.fail("admin.oidc.audience", "empty, so that tokens made for any service would count; name the one that stands for this gateway")
		}
	}
	for _, claim := range []struct{ name, value string }{{"role_claim", o.RoleClaim}, {"tenant_claim", o.TenantClaim}} {
		if !isVisible(claim.value) {
			v.fail("admin.oidc."+claim.name, "%q is not a claim; write 1 to 128 visible ASCII characters, or remove it for the default", claim.value)
		}
	}
}

// issuerProblem says what is wrong with an issuer (OpenID Connect Discovery,
// section 2); "" means nothing. It does not quote the issuer, which may hold a
// password.
func issuerProblem(issuer string) string {
	const remedy = "; write it as the provider's discovery document does, such as https://login.example.org/realms/main"
	u, err := url.Parse(issuer)
	switch {
	case err != nil:
		return "not a URL" + remedy
	case u.Scheme != "https" && u.Scheme != "http":
		return "does not begin with https://" + remedy
	case u.User != nil:
		return "holds a user name or password" + remedy
	case u.Hostname() == "":
		return "names no host" + remedy
	case u.Scheme == "http" && !IsLoopback(u.Hostname()):
		return "begins with http://, so that anybody on the way could replace the provider's keys; use https://"
	case strings.ContainsAny(issuer, "?#"):
		return "has a query or fragment" + remedy
	}
	return ""
}

func (v *validator) peach() {
	p := &v.config.Admin.Peach
	if len(p.APIVersions) == 0 {
		v.fail("admin.peach.api_versions", "the list is empty; name at least one version, or remove it for the default")
	}
	first := map[string]string{}
	for i, version := range p.APIVersions {
		path := fmt.Sprintf("admin.peach.api_versions[%d]", i)
		if _, err := time.Parse(time.DateOnly, version); err != nil {
			v.fail(path, "%q is not a date; write year, month and day, such as 2024-05-22", version)
		} else if before, twice := first[version]; twice {
			v.fail(path, "%s is given twice (%s); keep one", version, v.place(before))
		} else {
			first[version] = path
		}
	}
	if p.DowngradeWindow < 0 {
		v.fail("admin.peach.downgrade_window", "%s is negative; write 0 to forbid going back", p.DowngradeWindow)
	}
}
