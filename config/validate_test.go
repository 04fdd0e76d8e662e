package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"latchkey/config"
)

// field is a value in the file and what is said about it; "" means accepted.
type field struct{ value, want string }

// checkFields puts each value into format, which is one line of YAML.
func checkFields(t *testing.T, format, path string, fields []field) {
	t.Helper()
	for _, f := range fields {
		t.Run(path+"="+f.value, func(t *testing.T) {
			text := complete(fmt.Sprintf(format, f.value))
			_, err := parse(text)
			agree(t, text, err)
			if f.want != "" {
				refused(t, err, "gw.yaml:1: "+path+f.want)
			} else if err != nil {
				t.Errorf("Parse() = %v, want nil", err)
			}
		})
	}
}

func TestProxyRules(t *testing.T) {
	checkFields(t, "proxy: {listen: %s}", "proxy.listen", []field{
		{"[]", ": the list is empty"},
		{"['localhost:0', 'localhost:0', ':80', '[::]:81']", ""},
		{"['127.0.0.1']", `[0]: "127.0.0.1" is not an address to listen on: no host and port`},
		{"[':65536']", `[0]: ":65536" is not an address to listen on: the port`},
		{"['a b:80']", `[0]: "a b:80" is not an address to listen on: the host`},
		{"[':80', ':80']", `[1]: :80 is taken by proxy.listen[0], line 1`},
		{"['127.0.0.1:80', ':80']", `[1]: :80 is taken by proxy.listen[0]`}, {"[':80', 'a.org:80']", `[1]: a.org:80 is taken by`},
		{"['0.0.0.0:80', '127.0.0.1:80']", `[1]: 127.0.0.1:80 is taken by`}, {"['127.0.0.1:80', '[::]:80']", `[1]: [::]:80 is taken by`},
		{"['0.0.0.0:80', '[::1]:80']", ""}, {"['127.0.0.1:80', '127.0.0.2:80', 'localhost:80', '[::1]:80']", ""},
		{"['[::1]:80', '[0:0::1]:80']", `[1]: [0:0::1]:80 is taken by proxy.listen[0]`},
	})
	checkFields(t, "proxy: {listen: [':81'], trusted_proxies: [%s]}", "proxy.trusted_proxies", []field{
		{"10.0.0.5/8", "[0]: 10.0.0.5/8 has bits set beyond its prefix; write 10.0.0.0/8"},
		{"'::/0'", "[0]: ::/0 would trust everyone"}, {"0.0.0.0/0", "[0]: 0.0.0.0/0 would trust everyone"}, {"10.0.0.0/8, '::1'", ""},
	})
	checkFields(t, "proxy: {listen: [':81'], %s}", "proxy.proxy_protocol", []field{
		{"proxy_protocol: true", ": no proxy is trusted, so no header would be read; name the proxies in proxy.trusted_proxies"},
		{"proxy_protocol: true, trusted_proxies: []", ": no proxy is trusted"},
		{"proxy_protocol: true, trusted_proxies: [10.0.0.0/8]", ""},
	})
	checkFields(t, "proxy: {credentials: %s}", "proxy.credentials", []field{
		{"[]", ": the list is empty"},
		{"[{header: A, query: b}]", "[0]: has 2 of header, bearer and query"},
		{"[{bearer: false}]", "[0]: has 0 of"},
		{"[{header: 'A:'}]", `[0].header: "A:" is not a header name`},
		{"[{header: X-Request-Id}]", `[0].header: X-Request-Id is the gateway's own to write`}, {"[{header: connection}]", "[0].header: connection is the gateway's own"}, {"[{header: Authorization}]", ""},
		{"[{query: 'a&b'}]", `[0].query: "a&b" is not a plain parameter name`},
		{"[{bearer: true}, {bearer: true}]", "[1]: the same place as proxy.credentials[0], line 1"},
		{"[{header: A}, {header: a}]", "[1]: the same place as"},
		{"[{header: A}, {query: A}, {query: a}, {bearer: true}]", ""},
	})
	for _, name := range []string{"read_header", "idle", "body_idle", "drain"} {
		checkFields(t, "proxy: {timeouts: {"+name+": %s}}", "proxy.timeouts."+name, []field{{"0s", ": 0s is not above zero"}})
	}
	checkFields(t, "proxy: {limits: {header_bytes: %s}}", "proxy.limits.header_bytes", []field{
		{"4095", ": 4095 is out of range"}, {"4KiB", ""}, {"1MiB", ""}, {"1048577", ": 1048577 is out of range"},
	})
	checkFields(t, "proxy: {limits: {connections: %s}}", "proxy.limits.connections", []field{{"-1", ": -1 is negative"}, {"0", ""}})
	checkFields(t, "proxy: {access_log: {sample: %s}}", "proxy.access_log.sample", []field{
		{"1.01", ": 1.01 is not between"}, {"-0.1", ": -0.1 is not"}, {"nan", ": NaN is not"}, {"0", ""}, {"0.5", ""},
	})
	checkFields(t, "proxy: {access_log: {format: %s}}", "proxy.access_log.format", []field{{"text", `: unknown format "text"`}})
	for _, name := range []string{"cache_bytes", "block_cache_bytes"} {
		checkFields(t, "store: {"+name+": %s}", "store."+name, []field{{"1023KiB", ": 1023KiB is too small"}, {"1MiB", ""}})
	}
	checkFields(t, "admin: {operators: [{name: a, token_sha256: "+strings.Repeat("a", 64)+", role: admin, tenant: '*'}], truvera: {key_lifetime: %s}}", "admin.truvera.key_lifetime", []field{{"0s", ": 0s is not above zero"}})
	checkFields(t, "admin: {operators: [{name: a, token_sha256: "+strings.Repeat("a", 64)+", role: admin, tenant: '*'}], truvera: {temporary_key_lifetime: %s}}", "admin.truvera.temporary_key_lifetime", []field{{"0s", ": 0s is not above zero"}})
	checkFields(t, "admin: {operators: [{name: a, token_sha256: "+strings.Repeat("a", 64)+", role: admin, tenant: '*'}], certs_token_env: %s}", "admin.certs_token_env", []field{{"UNSET_VARIABLE", ": "}})
	checkFields(t, "keys: {grace: %s}", "keys.grace", []field{
		{"60m", ""},
		{"0s", ""},
		{"168h", ""},
		{"169h", ": 169h0m0s is out of range; write 0s to 168h0m0s"},
	})
	checkFields(t, "keys: {prefix: %s}", "keys.prefix", []field{
		{"a_b", `: "a_b" is not a prefix`}, {"abcdefghijklmnopq", ": "}, {"Ab", ": "}, {"abcdefghijklmn09", ""},
	})
}

func TestRouteRules(t *testing.T) {
	const route = "routes: [{name: r, path: /, upstream: u, "
	checkFields(t, "routes: %s", "routes", []field{
		{"[]", ": there is no route"},
		{"[{path: /, upstream: u}]", `[0].name: "" is not a route name`},
		{"[{name: a/b, path: /, upstream: u}]", `[0].name: "a/b" is not`},
		{"[{name: a, path: /, upstream: u}, {name: a, path: /x, upstream: u}]", `[1].name: "a" is also the name of routes[0], line 1`},
		{"[{name: a, path: /, upstream: ordrs}]", `[0].upstream: no upstream is named "ordrs"; name one of: u`},
		{"[{name: a, upstream: u}]", `[0].path: "" does not begin with /`},
	})
	checkFields(t, route+"auth: %s}]", "routes[0]", []field{
		{"maybe", `.auth: "maybe" is neither`},
		{"none, scopes: [a]", ".scopes: has no effect"},
		{"none, tenants: [a]", ".tenants: has no effect"},
		{"none, environments: [a]", ".environments: has no effect"},
		{"none", ""},
	})
	checkFields(t, route+"%s}]", "routes[0]", []field{
		{"add_prefix: api", ".add_prefix: "}, {"add_prefix: /api/", ".add_prefix: "}, {"add_prefix: /api", ""},
		{"rewrite_host: 'a b'", ".rewrite_host: "}, {"rewrite_host: 'a.org:8080'", ""}, {"rewrite_host: '[::1]:8080'", ""}, {"rewrite_host: '[::1]'", ""}, {"rewrite_host: '[a]'", ".rewrite_host: "},
		{"rewrite_host: 'a.org:'", ".rewrite_host: "}, {"rewrite_host: 'a.org:0'", ".rewrite_host: "}, {"rewrite_host: 'a.org:http'", ".rewrite_host: "}, {`rewrite_host: "a.org:1\r\nX:y"`, ".rewrite_host: "}, {"rewrite_host: '::1'", ".rewrite_host: "},
		{"retries: 4", ".retries: 4"}, {"retries: -1", ".retries: "}, {"retries: 0", ""},
		{"body_bytes: 1MiB", ""}, {"request_headers: {set: {X-A: b}, remove: [X-B]}", ""}, {"request_headers: {set: {'X A': b}}", ".request_headers.set.X A: "},
		{"request_headers: {set: {X-Latchkey-Tenant: b}}", ".request_headers.set.X-Latchkey-Tenant: "}, {"request_headers: {remove: [Content-Length]}", ".request_headers.remove[0]: "},
		{"request_headers: {set: {X_Latchkey_Tenant: b}}", ".request_headers.set.X_Latchkey_Tenant: "}, {"request_headers: {remove: [X_Request_Id]}", ".request_headers.remove[0]: "},
		{"request_headers: {set: {x.forwarded.for: b}}", ".request_headers.set.x.forwarded.for: "}, {"request_headers: {set: {X-Real-IP: b}}", ".request_headers.set.X-Real-IP: "}, {"response_headers: {set: {Proxy-Authenticate: b}}", ".response_headers.set.Proxy-Authenticate: "},
		{`request_headers: {set: {X-A: "b\r\nc"}}`, ".request_headers.set.X-A: "}, {"response_headers: {set: {Transfer-Encoding: b}}", ".response_headers.set.Transfer-Encoding: "},
		{"cors: {origins: ['https://app.example']}", ""}, {"cors: {origins: ['*']}", ""}, {"cors: {origins: ['*'], credentials: true}", ".cors.origins[0]: * with credentials"},
		{"cors: {origins: ['https://a.org'], credentials: true, headers: ['*']}", ".cors.headers[0]: browsers take *"}, {"cors: {origins: ['https://a.org'], headers: ['*']}", ""},
		{"cors: {origins: ['https://a.org']}, response_headers: {set: {Access-Control-Allow-Origin: b}}", ".response_headers.set.Access-Control-Allow-Origin: written by cors"}, {"response_headers: {set: {Access-Control-Allow-Origin: b}}", ""},
		{"cors: {origins: ['https://app.example/']}", ".cors.origins[0]: "}, {"cors: {origins: [app.example]}", ".cors.origins[0]: "}, {"cors: {methods: [PUT]}", ".cors: has no effect"},
		{"cors: {origins: ['https://*.app.example']}", ".cors.origins[0]: \"https://*.app.example\": * stands for nothing"}, {"cors: {origins: ['https://a.org:8443', 'http://a.org:443']}", ""},
		{"cors: {origins: ['https://a.org:443']}", ".cors.origins[0]: \"https://a.org:443\": browsers leave the scheme's own port out; remove :443"}, {"cors: {origins: ['http://a.org:80']}", ".cors.origins[0]: "},
		{"cors: {origins: ['*'], max_age: 1500ms}", ".cors.max_age: 1.5s is not of whole seconds"}, {"cors: {origins: ['*'], max_age: 1s}", ""},
		{"request_headers: {set: {X-A: b, x-a: c}}", ".request_headers.set.x-a: is X-A in other letters"},
		{"cors: {origins: ['*'], headers: ['a b']}", ".cors.headers[0]: "}, {"cors: {origins: ['*'], max_age: -1s}", ".cors.max_age: "},
		{"maintenance: {enabled: true, retry_after: 60s}", ""}, {"maintenance: {retry_after: -1s}", ".maintenance.retry_after: "}, {`maintenance: {detail: "a\nb"}`, ".maintenance.detail: "},
	})
	checkFields(t, route+"hosts: [%s]}]", "routes[0].hosts[0]", []field{
		{"'a.org:80'", ": "}, {"'*.a.org'", ": "}, {"a..org", ": "}, {"-a.org", ": "}, {"''", ": "}, {"A.org, 10.0.0.1", ""},
	})
	checkFields(t, route+"methods: [%s]}]", "routes[0].methods[0]", []field{
		{"get", `: "get" is not a method`}, {"'A B'", ": "}, {"''", ": "}, {"CONNECT", ": CONNECT is never"}, {"TRACE", ": "}, {"GET, PROPFIND", ""},
	})
	checkFields(t, route+"scopes: [%s]}]", "routes[0].scopes[0]", []field{
		{"'a b'", ": "}, {`'a"'`, ": "}, {`'a\'`, ": "}, {"''", ": "}, {"é", ": "}, {"'orders:read'", ""},
	})
	checkFields(t, route+"tenants: [%s]}]", "routes[0].tenants[0]", []field{
		{"'*'", ": * is not a tenant"}, {"'a b'", ": "}, {strings.Repeat("a", 129), ": "}, {strings.Repeat("a", 128), ""},
	})
	checkFields(t, route+"environments: [%s]}]", "routes[0].environments[0]", []field{{"''", ": "}, {"'a b'", ": "}, {"live", ""}})
	checkFields(t, route+"timeout: %s}]", "routes[0].timeout", []field{{"0", ": 0s is not above zero"}})
	checkFields(t, "routes: [{name: r, path: '/v1/a/{id}', upstream: u, strip_prefix: %s}]", "routes[0].strip_prefix", []field{
		{"v1", `: "v1" does not begin with /`}, {"/v1/", `: "/v1/" ends with /`}, {"/", `: "/" ends with /`},
		{"/v", `: "/v" is not how the path "/v1/a/{id}" begins`}, {"'/v1/a/{id}'", ": "}, {"/v1/b", ": "}, {"/v1", ""}, {"/v1/a", ""},
	})
}

func TestPathRules(t *testing.T) {
	checkFields(t, "routes: [{name: r, upstream: u, path: '%s'}]", "routes[0].path", []field{
		{"/", ""}, {"/a/", ""}, {"/a/{b}/c", ""}, {"/{a:*}", ""}, {"/a/{b:[^/]{2}}/{c:*}", ""}, {"/a/{b:(?:x|y)}", ""}, {"/%41;v=1", ""},
		{"a", `: "a" does not begin with /`},
		{"/{a", `: "/{a" its braces are not balanced`},
		{"/a}/{b", ": "},
		{"/{a:[}", ": "},
		{`/{a:\Qx}`, ": "},
		{"/{a:x)(y}", ": "},
		{"/{a:(x)}", `: "/{a:(x)}" the expression of {a} has a capturing group`},
		{"/{a:}", ": "},
		{"/{a:*}/b", `: "/{a:*}/b" {a:*} takes the rest of the path; put it last`},
		{"/{a:*}/", ": "},
		{"/x{a:*}", `: "/x{a:*}" mixes text and a parameter`},
		{"/{a}.json", ": "},
		{"/{a}{b}", ": "},
		{"/{}", `: "/{}" a parameter has no name`},
		{"/{:x}", ": "},
		{"/{a?}", `: "/{a?}" {a?} is optional, which is not supported; write two routes`},
		{"/{a?:x}", ": "},
		{"/{a}/{a}", `: "/{a}/{a}" two parameters are named "a"`},
		{"/a?b", ": "}, {"/a#b", ": "}, {"/a b", ": "}, {"/é", ": "}, {"//a", ": "}, {"/a/../b", ": "},
	})
}

func TestRoutesCollide(t *testing.T) {
	for _, tc := range []struct {
		name, a, b string
		want       bool
	}{
		{"the same path", "path: /a", "path: /a", true},
		{"parameters by other names", "path: '/{a}/{b:x}/{c:*}'", "path: '/{x}/{y:x}/{z:*}'", true},
		{"a trailing slash", "path: '/{a}'", "path: '/{b}/'", true},
		{"a shared host, in another case", "path: /, hosts: [a.org, b.org]", "path: /, hosts: [B.org]", true},
		{"a shared method", "path: /, methods: [GET, PUT]", "path: /, methods: [PUT]", true},
		{"escapes of the same text", "path: /a%62", "path: /ab", true},
		{"other literals", "path: /a", "path: /b", false},
		{"an escaped slash and a slash", "path: /a%2fb", "path: /a/b", false},
		{"escaped braces and a parameter", "path: '/%7b%7d'", "path: '/{x}'", false},
		{"an escaped percent sign", "path: /%252f", "path: /%2f", false},
		{"other expressions", "path: '/{a:x}'", "path: '/{a:y}'", false},
		{"one segment or the rest", "path: '/{a}'", "path: '/{a:*}'", false},
		{"other hosts", "path: /, hosts: [a.org]", "path: /, hosts: [b.org]", false},
		{"a host beside any host", "path: /, hosts: [a.org]", "path: /", false},
		{"a method beside any method", "path: /", "path: /, methods: [GET]", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := complete(fmt.Sprintf("routes:\n- {name: a, upstream: u, %s}\n- {name: b, upstream: u, %s}\n", tc.a, tc.b))
			_, err := parse(text)
			agree(t, text, err)
			if tc.want {
				refused(t, err, `gw.yaml:3: routes[1].path: route "b" matches the same requests as route "a" (routes[0].path, line 2)`)
			} else if err != nil {
				t.Errorf("Parse() = %v, want nil", err)
			}
		})
	}
}

func TestUpstreamRules(t *testing.T) {
	checkFields(t, "upstreams: {u: {targets: %s}}", "upstreams.u.targets", []field{
		{"[]", ": there is no target"}, {"['http://a', 'http://b']", ""}, {"['http://a', 'http://a']", "[1]: is given twice"}, {"['http://localhost:1', 'http://LOCALHOST:1']", "[1]: is given twice"},
		{"[{url: 'http://a', weight: 3}, 'http://b']", ""}, {"[{url: 'http://a', weight: 0}]", "[0].weight: 0 is out of range"}, {"[{weight: 1}]", "[0]: has no url"},
		{"[{url: 'http://a', wight: 1}]", "[0].wight: there is no such field"},
		{"['ftp://a']", "[0]: begins with neither"}, {"[a]", "[0]: "}, {"['http://']", "[0]: names no host"}, {"['http://:80']", "[0]: names no host"},
		{"['http://a/']", "[0]: has a path"}, {"['http://a?']", "[0]: has a path"}, {"['http://a#b']", "[0]: has a path"},
		{"['http://u@a']", "[0]: holds a user name"}, {"['http://a:0']", "[0]: its port"}, {"['http://a:70000']", "[0]: its port"},
		{"['https://[::1]:443']", ""}, {"['http://a']", ""},
	})
	checkFields(t, "upstreams: {u: {targets: ['http://a'], connections: {%s}}}", "upstreams.u.connections", []field{
		{"max: 0", ".max: 0 is too few"}, {"idle: -1", ".idle: -1 is negative"}, {"idle: 0", ""},
		{"idle_timeout: 0s", ".idle_timeout: 0s is not"}, {"connect_timeout: 0s", ".connect_timeout: 0s is not"},
	})
	checkFields(t, "upstreams: {u: {targets: ['http://a'], %s}}", "upstreams.u", []field{
		{"balance: sticky", `.balance: "sticky" is not a way`}, {"balance: round_robin", ""}, {"slow_start: -1s", ".slow_start: "}, {"resolve: 0s", ".resolve: 0s is not"},
		{"connections: {wait: 0s}", ""}, {"health: {path: healthz}", ".health.path: "}, {"health: {path: '/a b'}", ".health.path: "}, {"health: {path: /healthz}", ""},
		{"health: {interval: 0s}", ".health.interval: "}, {"health: {timeout: 0s}", ".health.timeout: "}, {"health: {healthy: 0}", ".health.healthy: "}, {"health: {unhealthy: 0}", ".health.unhealthy: "},
		{"ejection: {failures: -1}", ".ejection.failures: "}, {"ejection: {failures: 0}", ""}, {"ejection: {interval: 0s}", ".ejection.interval: "}, {"ejection: {duration: 0s}", ".ejection.duration: "},
		{"tls: {insecure: true}", ".tls: has no effect"},
	})
	checkFields(t, "upstreams: {u: {targets: ['https://a'], tls: {%s}}}", "upstreams.u.tls", []field{
		{"insecure: true", ""}, {"server_name: b", ""}, {"ca_file: missing.pem", ".ca_file: "},
	})
	checkFields(t, "upstreams: {u: {targets: ['http://a']}, %s: {targets: ['http://a']}}", "upstreams", []field{
		{"unused", ""}, {"'a b'", `.a b: "a b" is not an upstream name`},
	})
}

func TestAdminRules(t *testing.T) {
	const operators = ", operators: [{name: root, role: admin, tenant: '*', token_env: TOKEN}]}"
	checkFields(t, "admin: {%s"+operators, "admin", []field{
		{"listen: 0.0.0.0:1", ".listen: 0.0.0.0:1 can be reached from outside, and operators' tokens would cross the network in plain text; " +
			"listen on 127.0.0.1, set admin.tls, or set admin.allow_public_plaintext: true"},
		{"listen: ':1'", ".listen: :1 can be reached"}, {"listen: 'a.org:1'", ".listen: a.org:1 can be reached"},
		{"listen: ':1', allow_public_plaintext: true", ""}, {"listen: '[::1]:1'", ""}, {"listen: 'localhost:1'", ""},
		{"listen: ''", `.listen: "" is not an address`},
		{"listen: 127.0.0.1:8080", ".listen: 127.0.0.1:8080 is taken by proxy.listen"},
		{"metrics_listen: 0.0.0.0:1", ""},
		{"metrics_listen: 127.0.0.1:8081", ".metrics_listen: 127.0.0.1:8081 is taken by admin.listen"},
		{"peach: {host: 'a:1'}", ".peach.host: "}, {"peach: {host: A.org}", ""},
		{"peach: {prefix: api}", ".peach.prefix: "}, {"peach: {prefix: /api/}", ".peach.prefix: "}, {"peach: {prefix: '/{a}'}", ".peach.prefix: "},
		{"peach: {prefix: ''}", ""}, {"peach: {prefix: /a/b}", ""},
		{"peach: {api_versions: []}", ".peach.api_versions: the list is empty"},
		{"peach: {api_versions: [2024-02-30]}", `.peach.api_versions[0]: "2024-02-30" is not a date`},
		{"peach: {api_versions: [2024-01-01, 2024-01-01]}", ".peach.api_versions[1]: 2024-01-01 is given twice"},
		{"peach: {downgrade_window: 0s}", ""},
	})
	const good = "{name: a, role: admin, tenant: t, token_env: TOKEN}"
	checkFields(t, "admin: {operators: %s}", "admin.operators", []field{
		{"[]", ""}, // one is made
		{"[], listen: 'localhost:1'", ""},
		{"[], listen: '0.0.0.0:1', allow_public_plaintext: true", ": there is no operator, and one is made only while admin.listen is on this machine alone; " +
			"add one with name, role, tenant and token_sha256, which is made by: latchkey operators hash; or listen on 127.0.0.1, or set admin.oidc"},
		{"[{role: admin, tenant: t, token_env: TOKEN}]", `[0].name: "" is not a name`},
		{"[{name: a, role: root, tenant: t, token_env: TOKEN}]", `[0].role: "root" is not a role`},
		{"[{name: a, role: admin, token_env: TOKEN}]", `[0].tenant: "" is not a tenant`},
		{"[{name: a, role: admin, tenant: t}]", "[0]: has not exactly one of"},
		{"[{name: a, role: admin, tenant: t, token_env: TOKEN, token_file: x}]", "[0]: has not exactly one of"},
		{"[{name: a, role: admin, tenant: t, token_env: UNSET}]", "[0].token_env: the environment variable UNSET is not set"},
		{"[" + good + ", {name: a, role: admin, tenant: t, token_sha256: " + goodDigest + "}]", `[1].name: "a" is also the name of admin.operators[0], line 1`},
		{"[{name: sweep, role: admin, tenant: t, token_sha256: " + goodDigest + "}]", `[0].name: "sweep" is what the audit log calls the gateway itself; use another`},
		{"[" + good + ", {name: b, role: admin, tenant: t, token_env: TOKEN}]", `[1]: has the same token as operator "a" (admin.operators[0], line 1)`},
	})
}

func TestOIDCRules(t *testing.T) {
	const audience = "issuer: 'https://a.org', audience: "
	checkFields(t, "admin: {oidc: {%s}}", "admin.oidc", []field{
		{"issuer: 'https://a.org/realms/x', audience: gw", ""}, // without any operator
		{audience + "gw, role_claim: realm_access.roles, tenant_claim: 'https://a.org/tenant'", ""},
		{"issuer: 'https://a.org/', audience: 'https://gw.org'", ""},
		{"issuer: 'http://localhost:8080', audience: gw", ""},
		{"issuer: 'http://127.0.0.1:8080/x', audience: gw", ""},
		{"issuer: 'http://[::1]', audience: gw", ""},
		{"issuer: 'http://a.org', audience: gw", ".issuer: begins with http://, so that anybody on the way could replace the provider's keys; use https://"},
		{"issuer: 'http://localhost.a.org', audience: gw", ".issuer: begins with http://"},
		{"issuer: a.org, audience: gw", ".issuer: does not begin with https://"},
		{"issuer: 'https:///x', audience: gw", ".issuer: names no host"},
		{"issuer: 'https://u:p@a.org', audience: gw", ".issuer: holds a user name or password; write it as the provider's discovery document does"},
		{"issuer: 'https://a.org/?x', audience: gw", ".issuer: has a query or fragment"},
		{"issuer: 'https://a.org/#', audience: gw", ".issuer: has a query or fragment"},
		{"issuer: 'https://a.org:x', audience: gw", ".issuer: not a URL"},
		{audience + "''", ".audience: empty, so that tokens made for any service would count"},
		{audience + "gw, role_claim: ''", `.role_claim: "" is not a claim`},
		{audience + "gw, tenant_claim: 'a b'", `.tenant_claim: "a b" is not a claim`},
	})
	checkFields(t, "admin: {operators: [{name: a, role: admin, tenant: t, token_env: TOKEN}], oidc: {%s}}", "admin.oidc", []field{
		{"audience: gw", ".issuer: empty, though there is an audience; give both or neither"},
		{"issuer: '', audience: ''", ""},
	})
	checkFields(t, "admin: {%s}", "admin.operators", []field{
		{"oidc: {issuer: ''}, listen: '192.0.2.1:1', allow_public_plaintext: true", ": there is no operator"},
		{"oidc: {issuer: 'https://a.org', audience: gw}, listen: '192.0.2.1:1', allow_public_plaintext: true", ""},
	})
}

func TestTLSRules(t *testing.T) {
	file, other, empty := pemFile(t), pemFile(t), filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	checkFields(t, "proxy: {tls: {%s}}", "proxy.tls", []field{
		{"cert_file: " + file, ": cert_file and key_file come together"},
		{"key_file: " + file, ": cert_file and key_file come together"},
		{"client_ca_file: " + file, ".client_ca_file: needs a certificate"},
		{"cert_file: /nonexistent, key_file: " + file, ".cert_file: stat /nonexistent: no such file"},
		{"cert_file: /dev/null, key_file: " + file, ".cert_file: read /dev/null: not a regular file"},
		{"cert_file: " + file + ", key_file: " + file + ", client_ca_file: " + file, ""},
		{"cert_file: " + file + ", key_file: " + other, ".cert_file: " + file + " and " + other + ": private key does not match public key; name a certificate and its key"},
		{"cert_file: " + empty + ", key_file: " + file, ".cert_file: " + empty + " and " + file + ": failed to find any PEM data"},
		{"cert_file: " + file + ", key_file: " + file + ", client_ca_file: " + empty, ".client_ca_file: " + empty + " holds no certificate; name a file of certificates in PEM"},
		{"certificates: [{cert_file: " + file + ", key_file: " + file + "}]", ".certificates: needs a certificate for clients that ask for no name"},
	})
	pair := "cert_file: " + file + ", key_file: " + file
	checkFields(t, "proxy: {tls: {"+pair+", certificates: [{"+pair+"}, {%s}]}}", "proxy.tls.certificates[1]", []field{
		{"cert_file: " + file, ": has not both cert_file and key_file"},
		{"key_file: " + file, ": has not both cert_file and key_file"},
		{"cert_file: " + file + ", key_file: /nonexistent", ".key_file: stat /nonexistent: no such file"},
		{"cert_file: " + file + ", key_file: " + other, ".cert_file: " + file + " and " + other + ": private key does not match"},
		{pair, ""},
	})
	checkFields(t, "upstreams: {u: {targets: ['https://a'], tls: {%s}}}", "upstreams.u.tls", []field{
		{"ca_file: " + file, ""}, {"ca_file: " + empty, ".ca_file: " + empty + " holds no certificate"},
		{"client_cert_file: " + file + ", client_key_file: " + file, ""},
		{"client_cert_file: " + file + ", client_key_file: " + other, ".client_cert_file: " + file + " and " + other + ": private key does not match"},
	})
}

// pemFile returns the name of a file with a certificate and its key.
func pemFile(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	file := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestValidateInCode(t *testing.T) {
	c := config.Default()
	c.Admin.Peach.APIVersions = []string{"2024-05-22", "2023-11-29"}
	want := `routes: there is no route, so nothing would be served; add one with name, path and upstream
admin.peach.api_versions: not in ascending order; sort them`
	if got := fmt.Sprint(c.Validate()); got != want {
		t.Errorf("Validate() =\n%s\nwant\n%s", got, want)
	}
}
