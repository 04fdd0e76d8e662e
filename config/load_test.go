package config_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"latchkey/config"
)

const goodDigest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// complete appends the sections that text lacks for it to be valid, so that
// the lines of text keep their numbers.
func complete(text string) string {
	for name, section := range map[string]string{
		"routes":    "routes: [{name: r, path: /, upstream: u}]\n",
		"upstreams": "upstreams: {u: {targets: ['http://127.0.0.1:9000']}}\n",
		"admin":     "admin: {operators: [{name: root, token_sha256: " + goodDigest + ", role: admin, tenant: '*'}]}\n",
	} {
		if !strings.HasPrefix(text, name+":") && !strings.Contains(text, "\n"+name+":") {
			text += "\n" + section
		}
	}
	return text
}

// parse parses text as gw.yaml in a small environment.
func parse(text string) (*config.Config, error) {
	env := map[string]string{
		"N":      "7",
		"ON":     "true",
		"HOST":   "example.org",
		"SPOOF":  "x]\nadmin: {}",
		"NESTED": "${N}",
		"BAD":    "hunter2hunter2",
		"TOKEN":  "correct horse battery",
		"SHORT":  "hunter2",
	}
	return config.Parse("gw.yaml", []byte(text), func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	})
}

// refused checks that err has one line for each of want, which begins so.
func refused(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("Parse() = nil error, want %q", want)
	}
	if _, ok := errors.AsType[config.Problems](err); !ok {
		t.Errorf("Parse() = %T, want Problems", err)
	}
	got := strings.Split(err.Error(), "\n")
	if len(got) != len(want) {
		t.Fatalf("Parse() = %d problems, want %d:\n%s", len(got), len(want), err)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("problem %d\n got %s\nwant %s…", i, got[i], want[i])
		}
	}
}

func TestParseFillsDefaults(t *testing.T) {
	got, err := parse(complete(""))
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	route := config.DefaultRoute()
	route.Name, route.Path, route.Upstream = "r", "/", "u"
	upstream := config.DefaultUpstream()
	upstream.Targets = []config.Target{{URL: "http://127.0.0.1:9000", Weight: 1}}
	want.Routes = []config.Route{route}
	want.Upstreams = map[string]config.Upstream{"u": upstream}
	want.Admin.Operators = []config.Operator{{Name: "root", TokenSHA256: goodDigest, Role: "admin", Tenant: "*"}}
	if diff := cmp.Diff(*got, want); diff != "" {
		t.Errorf("Parse() (-got +want):\n%s", diff)
	}
	if err := got.Validate(); err != nil {
		t.Errorf("Validate() = %v, want nil", err)
	}
}

func TestParseReadsValues(t *testing.T) {
	text := complete(`
proxy:
  listen: [":1", "[::1]:2"]
  credentials: [{query: api_key}]
  trusted_proxies: [10.0.0.0/8, 192.0.2.1, "::ffff:10.1.0.0/112"]
  limits:
    connections: ${N}
    connections_per_ip: "${N}"
    body_bytes: ${N}MiB
  forwarded: ${ON}
routes:
  - {name: a, path: "/a/{id:[0-9]{3}/?}", upstream: u, hosts: ["API.${HOST}"], timeout: 1m30s, tenants: [0042]}
  - {name: b, path: /b, upstream: u, environments: ['$${N}', '$$${N}', '${NESTED}', 'x${N}${N}', '$5']}
upstreams: {u: {targets: ['http://[::1]:9000'], connections: {max: 1}}}
admin:
  operators: [{name: root, token_env: TOKEN, role: admin, tenant: '*'}]
  peach: {api_versions: [2025-01-01, 2024-05-22]}
`)
	c, err := parse(text)
	agree(t, text, err)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name      string
		got, want any
	}{
		{"a list replaces the default", c.Proxy.Credentials, []config.Credential{{Query: "api_key"}}},
		{"order is kept", c.Proxy.Listen, []string{":1", "[::1]:2"}},
		{"addresses become blocks, mapped ones IPv4", c.Proxy.TrustedProxies, []netip.Prefix{
			netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("10.1.0.0/16")}},
		{"a number from the environment", c.Proxy.Limits.Connections, 7},
		{"a quoted one too", c.Proxy.Limits.ConnectionsPerIP, 7},
		{"a part of a size", c.Proxy.Limits.BodyBytes, 7 * config.MiB},
		{"a truth value from the environment", c.Proxy.Forwarded, true},
		{"a field beside keeps its default", c.Proxy.Limits.HeaderBytes, 16 * config.KiB},
		{"hosts in lower case", c.Routes[0].Hosts, []string{"api.example.org"}},
		{"durations", c.Routes[0].Timeout, 90 * time.Second},
		{"text as it is written", c.Routes[0].Tenants, []string{"0042"}},
		{"escapes, and no second expansion", c.Routes[1].Environments, []string{"${N}", "$${N}", "${N}", "x77", "$5"}},
		{"an element's other defaults", c.Upstreams["u"].Connections.Idle, 64},
		{"versions are sorted", c.Admin.Peach.APIVersions, []string{"2024-05-22", "2025-01-01"}},
	} {
		if diff := cmp.Diff(tc.got, tc.want, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%s (-got +want):\n%s", tc.name, diff)
		}
	}
}

func TestParseRefusesStructure(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"empty file", "", []string{"gw.yaml:1: the file is empty; it needs at least routes"}},
		{"only comments", "# nothing\n---\n", []string{"gw.yaml:1: the file is empty"}},
		{"two documents", complete("store: {}") + "---\nstore: {}\n", []string{"gw.yaml:7: a second YAML document"}},
		{"syntax error", "store:\n  path: 'x\n", []string{"gw.yaml:2: not valid YAML: could not find end character"}},
		{"braces without quotes", "routes: [{path: /{x}}]\n", []string{"gw.yaml:1: not valid YAML: ',' or '}' must be specified; inside [ ] or { }, put"}},
		{"not fields at all", "- a\n", []string{"gw.yaml:1: expected fields (name: value), got a list"}},
		{"unknown field", complete("store:\n  path: x\n  paht: y"), []string{
			"gw.yaml:3: store.paht: there is no such field; known here: path, cache_bytes, block_cache_bytes"}},
		{"a field that would do nothing", complete("upstreams:\n  u:\n    targets: ['http://h']\n    sticky: {}"), []string{
			"gw.yaml:4: upstreams.u.sticky: there is no such field; known here: targets, balance"}},
		{"unknown field in a list", complete("routes:\n- {name: r, path: /, upstream: u}\n- name: s\n  path: /s\n  upstream: u\n  repeats: 1"), []string{
			"gw.yaml:6: routes[1].repeats: there is no such field"}},
		{"a URL in braces without quotes", complete("upstreams: {u: {targets: [http://h:80]}}"), []string{
			"gw.yaml:1: upstreams.u.targets[0].http:…: there is no such field; known here: url, weight; put a URL between {} or [] in quotes",
			"gw.yaml:1: upstreams.u.targets[0]: has no url; write scheme, host and port alone, such as http://127.0.0.1:9000"}},
		{"key given twice", complete("store:\n  path: x\n  path: y"), []string{"gw.yaml:3: store.path: given twice, first on line 2"}},
		{"merge key", complete("store:\n  <<: {path: x}"), []string{"gw.yaml:2: store: a key is not plain text"}},
		{"anchor and alias", complete("store: &s {path: x}\nkeys: *s"), []string{
			"gw.yaml:1: store: YAML anchors", "gw.yaml:2: keys: YAML anchors"}},
		{"no value", complete("proxy:\n  timeouts:\n"), []string{"gw.yaml:2: proxy.timeouts: has no value"}},
		{"text for a number", complete("proxy: {limits: {connections: many}}"), []string{
			`gw.yaml:1: proxy.limits.connections: expected a whole number such as 512, got "many"`}},
		{"text for a truth value", complete("proxy: {strict_paths: yes}"), []string{`gw.yaml:1: proxy.strict_paths: expected true or false, got "yes"`}},
		{"number without unit", complete("proxy: {timeouts: {idle: 5}}"), []string{`gw.yaml:1: proxy.timeouts.idle: expected a duration such as 500ms, 30s or 72h, got "5"`}},
		{"negative duration", complete("proxy: {timeouts: {idle: -5s}}"), []string{`gw.yaml:1: proxy.timeouts.idle: expected a duration`}},
		{"unknown size suffix", complete("store: {cache_bytes: 64MB}"), []string{`gw.yaml:1: store.cache_bytes: expected a size such as 4096 or 16KiB, got "64MB"`}},
		{"text for a list", complete("proxy: {listen: ':1'}"), []string{"gw.yaml:1: proxy.listen: expected a list, got a single value; write [a, b]"}},
		{"list for text", complete("store: {path: [x]}"), []string{"gw.yaml:1: store.path: expected text, got a list"}},
		{"text for fields", complete("store: x"), []string{"gw.yaml:1: store: expected fields (name: value), got a single value"}},
		{"a zone", complete("proxy: {trusted_proxies: ['fe80::1%eth0']}"), []string{"gw.yaml:1: proxy.trusted_proxies[0]: expected an address or a CIDR block"}},
		{"unset variable", complete("store:\n  path: x\n  cache_bytes: ${UNSET}"), []string{
			"gw.yaml:3: store.cache_bytes: the environment variable UNSET is not set"}},
		{"not a variable", complete("store: {path: 'a${x-y}'}"), []string{"gw.yaml:1: store.path: ${ is not followed by"}},
		{"no problem follows from another", complete("proxy: {credentials: [{header: '${UNSET}'}]}"), []string{
			"gw.yaml:1: proxy.credentials[0].header: the environment variable UNSET"}},
		{"the environment adds no structure", complete("proxy: {listen: ['${SPOOF}']}"), []string{`gw.yaml:1: proxy.listen[0]: "x]\nadmin: {}" is not an address`}},
		{"lines after CRLF, blanks and blocks", complete("# c\r\n\r\nkeys:\r\n  prefix: >-\r\n    ab\r\n\r\n\r\nstore:\r\n  x: 1"), []string{"gw.yaml:9: store.x: there"}},
		{"a name with a line break", complete("upstreams: {u: {targets: ['http://h']}, \"a\\nb\": {targets: ['http://h']}}"), []string{
			`gw.yaml:1: upstreams.a\nb: "a\nb" is not an upstream name`}},
		{"all at once, by line", "keys: {prefix: ''}\nroutes:\n- name: a\n  path: x\nupstreams:\n  u: {}\nstore: {path: ''}\n", []string{
			`gw.yaml:1: keys.prefix: "" is not a prefix`,
			`gw.yaml:3: routes[0].upstream: missing; name one of: u`,
			`gw.yaml:4: routes[0].path: "x" does not begin with /`,
			"gw.yaml:6: upstreams.u.targets: there is no target",
			"gw.yaml:7: store.path: empty"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parse(tc.text)
			agree(t, tc.text, err)
			refused(t, err, tc.want...)
		})
	}
}

func TestParseShowsNoSecret(t *testing.T) {
	const secret = "hunter2hunter2"
	for _, tc := range []struct{ name, text string }{
		{"a malformed digest", "admin: {operators: [{name: a, role: admin, tenant: t, token_sha256: " + secret + "}]}"},
		{"a space forgotten in front of it", "admin: {operators: [{name: a, role: admin, tenant: t, token_sha256:" + secret + "}]}"},
		{"a token in place of a variable", "admin: {operators: [{name: a, role: admin, tenant: t, token_env: " + secret + "}]}"},
		{"a token in place of a file", "admin: {operators: [{name: a, role: admin, tenant: t, token_file: " + secret + "}]}"},
		{"a short token", "admin: {operators: [{name: a, role: admin, tenant: t, token_env: SHORT}]}"},
		{"a password in a target", "upstreams: {u: {targets: ['http://user:" + secret + "@h:x']}}"},
		{"the environment in a number", "proxy: {limits: {connections: '${BAD}'}}"},
		{"a syntax error beside it", "admin: {operators: [{token_sha256: '" + secret},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parse(complete(tc.text))
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("Parse() = %v, want an error without the secret", err)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gw.yaml")
	if _, err := config.Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load() = %v, want %v", err, os.ErrNotExist)
	}
	t.Setenv("LATCHKEY_TEST_DIR", "/tmp/keys")
	if err := os.WriteFile(path, []byte("\ufeff"+complete("store: {path: '${LATCHKEY_TEST_DIR}'}")), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Store.Path, "/tmp/keys"; got != want {
		t.Errorf("Store.Path = %q, want %q", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Setenv("LATCHKEY_ROOT_TOKEN", "correct horse battery")
	example, err := os.ReadFile("../config.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add([]byte(complete("proxy: {limits: {connections: \"${N}\"}}")))
	f.Add([]byte("a: &x [1, *x]\n? b\n: !!str |\n  c\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("gw.yaml", data, os.LookupEnv)
		if err != nil {
			p, _ := errors.AsType[config.Problems](err)
			if got, want := strings.Count(err.Error(), "\n")+1, len(p.List); got != want {
				t.Errorf("Parse() = an error of %d lines, want %d:\n%s", got, want, err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("Validate() after Parse() = %v, want nil", err)
		}
	})
}
