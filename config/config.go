// Package config decides whether a configuration file is one this gateway can
// run on, and what every value in it is once defaults, ${NAME} references and
// operator tokens are settled.
//
// Parse is strict: a field that does nothing does not exist here, so that
// nobody sets it and silently gets nothing. It reports every problem at once,
// each with its line, its dotted path and a remedy, and never shows a secret.
//
// It opens no listener and keeps no state. Whether a certificate fits its key,
// an address can be bound or an upstream answers is for those who use them.
package config

import (
	"net/netip"
	"slices"
	"time"
)

// Values of Route.Auth, Upstream.Balance and Operator.Role.
const (
	AuthRequired = "required" // only requests with a good key pass
	AuthNone     = "none"     // every request passes

	BalancePowerOfTwo       = "power_of_two"
	BalanceRoundRobin       = "round_robin"
	BalanceLeastConnections = "least_connections"

	RoleAdmin  = "admin"  // may do everything
	RoleIssuer = "issuer" // may manage keys
	RoleViewer = "viewer" // may only read
)

// The comments on the fields below are what operators read of them: the schema
// and the reference in docs are made of them (TestSchema). So they speak the
// file's language, and end with the default where there is one worth saying.

// Duration is time.Duration. In the file it is written in Go's syntax, such as
// 500ms, 30s or 72h; negative durations are refused.
type Duration = time.Duration

// Config is a whole configuration. Build one from Default, or read one with
// Load or Parse; the zero value does not validate.
type Config struct {
	Proxy     Proxy               `yaml:"proxy"`     // the data plane
	Routes    []Route             `yaml:"routes"`    // at least one; the most specific pattern wins
	Upstreams map[string]Upstream `yaml:"upstreams"` // by the name that routes use
	Store     Store               `yaml:"store"`     // where keys are kept
	Keys      Keys                `yaml:"keys"`      // what new keys look like
	Admin     Admin               `yaml:"admin"`     // the admin plane
	Reload    Reload              `yaml:"reload"`    // when this file is read again
	Tracing   Tracing             `yaml:"tracing"`   // where traces of requests are sent
}

// Tracing says where traces of requests go. Without an endpoint there are none.
type Tracing struct {
	Endpoint    string  `yaml:"endpoint"`     // URL of an OTLP/HTTP collector; without a path, /v1/traces; "" traces nothing
	Sample      float64 `yaml:"sample"`       // the share of requests recorded where the client does not say, 0 to 1; default 0.1
	Insecure    bool    `yaml:"insecure"`     // the endpoint begins with http, not https; default false
	ServiceName string  `yaml:"service_name"` // what traces call the gateway; default latchkey
}

// Reload says when the file is read again, besides on SIGHUP and POST /reload.
type Reload struct {
	OnChange bool `yaml:"on_change"` // within seconds of a change of the file; default false
}

// Proxy configures the data plane: its listeners, and what it asks of every
// request before any route is considered.
type Proxy struct {
	Listen         []string       `yaml:"listen"`          // addresses of the data plane, host:port, at least one; default 127.0.0.1:8080
	TLS            TLS            `yaml:"tls"`             // of all these addresses; without it they speak plain HTTP
	Credentials    []Credential   `yaml:"credentials"`     // where a request may carry its key; tried in order, at least one
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"` // addresses and CIDR blocks whose X-Forwarded-For and PROXY header are believed
	ProxyProtocol  bool           `yaml:"proxy_protocol"`  // trusted proxies begin with a PROXY header; default false
	Forwarded      bool           `yaml:"forwarded"`       // also send RFC 7239 Forwarded; default false
	Timeouts       Timeouts       `yaml:"timeouts"`        // of the phases of a client's connection
	Limits         Limits         `yaml:"limits"`          // of what clients may take
	StrictPaths    bool           `yaml:"strict_paths"`    // refuse paths that servers read differently; default true
	ServerTiming   bool           `yaml:"server_timing"`   // answers say how long gateway and upstream took; default false
	AccessLog      AccessLog      `yaml:"access_log"`      // the line written after each request
}

// TLS names the files of a listener's certificate, relative to the working
// directory. The zero value means no TLS.
type TLS struct {
	CertFile     string `yaml:"cert_file"`      // PEM chain, leaf first; comes with key_file
	KeyFile      string `yaml:"key_file"`       // PEM private key; comes with cert_file
	ClientCAFile string `yaml:"client_ca_file"` // PEM bundle; "" asks clients for no certificate

	Certificates []Certificate `yaml:"certificates"` // further ones, chosen by the name a client asks for
}

// Certificate names the files of one certificate.
type Certificate struct {
	CertFile string `yaml:"cert_file"` // PEM chain, leaf first
	KeyFile  string `yaml:"key_file"`  // PEM private key
}

// Enabled reports whether the listener speaks TLS.
func (t TLS) Enabled() bool { return t.CertFile != "" }

// Credential is one place a request may carry its key. Exactly one field is
// set.
type Credential struct {
	Header string `yaml:"header"` // the name of a header whose whole value is the key
	Bearer bool   `yaml:"bearer"` // Authorization: Bearer (RFC 6750 section 2.1)
	Query  string `yaml:"query"`  // the name of a query parameter that is the key
}

// Timeouts bounds the phases of a client's connection. Each is above zero.
type Timeouts struct {
	ReadHeader Duration `yaml:"read_header"` // from the first byte to the end of the head; default 5s
	Idle       Duration `yaml:"idle"`        // between two requests; default 1m
	BodyIdle   Duration `yaml:"body_idle"`   // between two pieces of a body; default 30s
	TunnelIdle Duration `yaml:"tunnel_idle"` // of a WebSocket without a word either way; default 1h
	Drain      Duration `yaml:"drain"`       // for running requests at shutdown; default 30s
}

// Limits bounds what clients may take. Zero means unlimited, except for
// HeaderBytes.
type Limits struct {
	HeaderBytes      Size `yaml:"header_bytes"`       // request line and headers, 4KiB to 1MiB; default 16KiB
	BodyBytes        Size `yaml:"body_bytes"`         // one request's body, 0 is unlimited; default 0
	Connections      int  `yaml:"connections"`        // open at once, 0 is unlimited; default 0
	ConnectionsPerIP int  `yaml:"connections_per_ip"` // open at once from one address, an IPv6 /64, 0 is unlimited; default 0
	FailuresPerIP    int  `yaml:"failures_per_ip"`    // requests with unknown keys from one address, an IPv6 /64, in a minute, 0 is unlimited; default 0
}

// AccessLog configures the line written after each request.
type AccessLog struct {
	Enabled bool    `yaml:"enabled"` // whether it is written; default true
	Format  string  `yaml:"format"`  // json, the only one; default json
	Sample  float64 `yaml:"sample"`  // the share of requests logged, 0 to 1; default 1
}

// Route says which requests go to an upstream, and on which conditions.
// DefaultRoute has its defaults.
type Route struct {
	Name              string      `yaml:"name"`               // unique, 1 to 64 letters, digits and _ . -; labels metrics and logs
	Hosts             []string    `yaml:"hosts"`              // host names without port that it answers for; empty means any
	Methods           []string    `yaml:"methods"`            // in upper case; empty means any
	Path              string      `yaml:"path"`               // literal, {name}, {name:regex} segments; {name:*} last
	Upstream          string      `yaml:"upstream"`           // a name under upstreams
	Auth              string      `yaml:"auth"`               // required: only requests with a good key pass; none: every request passes; default required
	Scopes            []string    `yaml:"scopes"`             // the key must have all of them; empty asks for none
	Tenants           []string    `yaml:"tenants"`            // the key must be of one of them; empty means any
	Environments      []string    `yaml:"environments"`       // the key must be of one of them; empty means any
	StripPrefix       string      `yaml:"strip_prefix"`       // removed from the path before forwarding; "" removes nothing
	AddPrefix         string      `yaml:"add_prefix"`         // put in front of the path then; "" adds nothing
	RewriteHost       string      `yaml:"rewrite_host"`       // the upstream's Host; "" is the client's
	ForwardCredential bool        `yaml:"forward_credential"` // let the upstream see the key; default false
	RequestHeaders    Headers     `yaml:"request_headers"`    // changes of what the upstream gets
	ResponseHeaders   Headers     `yaml:"response_headers"`   // changes of what the client gets
	BodyBytes         Size        `yaml:"body_bytes"`         // the longest request body, 0 is proxy.limits.body_bytes; default 0
	Timeout           Duration    `yaml:"timeout"`            // until the upstream's response head, above zero; default 30s
	Retries           int         `yaml:"retries"`            // how often a request is repeated where that is safe, 0 to 3; default 1
	CORS              CORS        `yaml:"cors"`               // for pages of other origins; no origins mean none
	Maintenance       Maintenance `yaml:"maintenance"`        // answers 503 in place of the upstream
}

// Headers changes the fields of a head.
type Headers struct {
	Set    map[string]string `yaml:"set"`    // values by the name of the field that they replace
	Remove []string          `yaml:"remove"` // names of fields that are dropped
}

// CORS says which pages of other origins may use a route from a browser.
type CORS struct {
	Origins     []string `yaml:"origins"`     // such as https://app.example, or "*"; empty leaves CORS to the upstream
	Methods     []string `yaml:"methods"`     // besides GET, HEAD and POST
	Headers     []string `yaml:"headers"`     // that requests may carry, besides the safelisted ones
	Expose      []string `yaml:"expose"`      // that pages may read of answers, besides the safelisted ones
	Credentials bool     `yaml:"credentials"` // let pages send cookies and read the answer; default false
	MaxAge      Duration `yaml:"max_age"`     // how long browsers remember a preflight, 0s is their own default; default 0s
}

// Maintenance closes a route for a while.
type Maintenance struct {
	Enabled    bool     `yaml:"enabled"`     // answer 503; default false
	Detail     string   `yaml:"detail"`      // for people; "" is a general text
	RetryAfter Duration `yaml:"retry_after"` // what clients are told, 0s tells nothing; default 0s
}

// Upstream is a service that requests are sent to. DefaultUpstream has its
// defaults.
type Upstream struct {
	Targets     []Target    `yaml:"targets"`     // the places that serve it, at least one; each fields, or its URL alone
	Balance     string      `yaml:"balance"`     // which target a request goes to: the better of two at random, in turn, or the one with the fewest; default power_of_two
	SlowStart   Duration    `yaml:"slow_start"`  // during which a target that comes back gets less than its share, 0s is none; default 0s
	Resolve     Duration    `yaml:"resolve"`     // how often host names of targets are resolved, above zero; default 30s
	Connections Connections `yaml:"connections"` // to each address of the targets
	Health      Health      `yaml:"health"`      // active checks of each target
	Ejection    Ejection    `yaml:"ejection"`    // takes a target out after failures in a row
	TLS         UpstreamTLS `yaml:"tls"`         // of targets whose URL begins with https
}

// Target is a place that serves an upstream's requests. In the file it may be
// its URL alone.
type Target struct {
	URL    string `yaml:"url"`    // http:// or https://, host and port alone
	Weight int    `yaml:"weight"` // its share relative to that of others, 1 to 1000; default 1
}

// Health configures active checks of each target.
type Health struct {
	Path      string   `yaml:"path"`      // what is asked for; "" means no checks
	Interval  Duration `yaml:"interval"`  // between two checks; default 5s
	Timeout   Duration `yaml:"timeout"`   // for the whole answer; default 1s
	Healthy   int      `yaml:"healthy"`   // good answers in a row that bring a target back; default 2
	Unhealthy int      `yaml:"unhealthy"` // bad ones in a row that take it out; default 3
}

// Ejection takes a target out after failures in a row, but never more than half
// of them.
type Ejection struct {
	Failures int      `yaml:"failures"` // in a row, 0 ejects nothing; default 5
	Interval Duration `yaml:"interval"` // failures further apart are not in a row; default 10s
	Duration Duration `yaml:"duration"` // how long it stays out; default 30s
}

// UpstreamTLS says how targets are spoken to over TLS.
type UpstreamTLS struct {
	CAFile         string `yaml:"ca_file"`          // PEM authorities to trust instead of the system's; "" means the system's
	ServerName     string `yaml:"server_name"`      // expected of the certificate; "" means the URL's host
	ClientCertFile string `yaml:"client_cert_file"` // PEM client certificate; comes with client_key_file
	ClientKeyFile  string `yaml:"client_key_file"`  // its PEM private key
	Insecure       bool   `yaml:"insecure"`         // accept any certificate; default false
}

// Connections sizes an upstream's connection pool. Max and both timeouts are
// above zero.
type Connections struct {
	Max            int      `yaml:"max"`             // open at once; default 512
	Idle           int      `yaml:"idle"`            // kept for reuse, 0 keeps none; default 64
	IdleTimeout    Duration `yaml:"idle_timeout"`    // until an unused one is closed; default 30s
	ConnectTimeout Duration `yaml:"connect_timeout"` // for TCP and TLS together; default 2s
	Wait           Duration `yaml:"wait"`            // how long a request waits when all are in use, 0s is not at all; default 1s
}

// Store says where keys are kept and how much memory speeds up reading them.
type Store struct {
	Path            string `yaml:"path"`              // a directory; default ./data
	CacheBytes      Size   `yaml:"cache_bytes"`       // verified keys in memory, at least 1MiB; default 64MiB
	BlockCacheBytes Size   `yaml:"block_cache_bytes"` // Pebble's blocks in memory, at least 1MiB; default 64MiB
}

// Keys says what newly issued keys look like.
type Keys struct {
	Prefix string   `yaml:"prefix"` // how they begin, 1 to 16 of a-z and 0-9; default lk
	Grace  Duration `yaml:"grace"`  // how long a rotated key goes on where the call does not say, at most 168h, 0s ends it at once; default 1h
}

// Admin configures the admin plane.
type Admin struct {
	Listen               string     `yaml:"listen"`                 // address of the admin plane, host:port; default 127.0.0.1:8081
	MetricsListen        string     `yaml:"metrics_listen"`         // a second address, open to anyone: /metrics, /healthz, /readyz; "" means none
	TLS                  TLS        `yaml:"tls"`                    // of listen; without it plain HTTP
	AllowPublicPlaintext bool       `yaml:"allow_public_plaintext"` // permit listen off loopback without TLS; default false
	Operators            []Operator `yaml:"operators"`              // who may call it with a static token; where there are none, and oidc has no issuer, one is made at the start
	OIDC                 OIDC       `yaml:"oidc"`                   // operators by access token
	CertsTokenEnv        string     `yaml:"certs_token_env"`        // the environment variable with Truvera's CERTS-TOKEN; "" refuses temporary keys
	AllowPrivateWebhooks bool       `yaml:"allow_private_webhooks"` // let rotation webhooks lead to private addresses; default false
	Truvera              Truvera    `yaml:"truvera"`                // the API as Truvera documents it
	Strait               Strait     `yaml:"strait"`                 // the API as Strait documents it
	Peach                Peach      `yaml:"peach"`                  // the API as Peach Finance documents it
}

// Operator is someone who may call the admin plane with a static token.
// Exactly one of the Token fields is set; Digest settles it.
type Operator struct {
	Name        string `yaml:"name"`         // unique; named in the audit log, where sweep, rotate, deliver, serve, restore and certs are the gateway itself
	TokenSHA256 string `yaml:"token_sha256"` // 64 hexadecimal digits, "sha256:" may stand before them
	TokenEnv    string `yaml:"token_env"`    // an environment variable that holds the token
	TokenFile   string `yaml:"token_file"`   // a file that holds the token, readable by its owner alone
	Role        string `yaml:"role"`         // admin may do everything, issuer manage keys, viewer read
	Tenant      string `yaml:"tenant"`       // the only tenant it sees, or "*" for all; has no default
}

// OIDC says which access tokens make their bearers operators. The issuer is empty
// where none do.
type OIDC struct {
	Issuer      string `yaml:"issuer"`       // an https URL, as the tokens name it; comes with audience; "" means that no access token counts
	Audience    string `yaml:"audience"`     // one of a token's audiences
	RoleClaim   string `yaml:"role_claim"`   // a claim or a path to it; default roles
	TenantClaim string `yaml:"tenant_claim"` // a claim or a path to it; default tenant
}

// Enabled reports whether access tokens count.
func (o OIDC) Enabled() bool { return o.Issuer != "" }

// HasAdministrator reports whether some operator may do everything, for all tenants, as far
// as the configuration tells: one is made where there is none, and an identity provider may
// name one.
func (a Admin) HasAdministrator() bool {
	all := func(o Operator) bool { return o.Role == RoleAdmin && o.Tenant == "*" }
	return len(a.Operators) == 0 || a.OIDC.Enabled() || slices.ContainsFunc(a.Operators, all)
}

// Truvera configures the admin plane's Truvera dialect.
type Truvera struct {
	Enabled              bool     `yaml:"enabled"`                // answer its calls; default true
	Host                 string   `yaml:"host"`                   // answer only under this host name; "" answers under any
	Prefix               string   `yaml:"prefix"`                 // in front of /keys; "" is the root
	KeyLifetime          Duration `yaml:"key_lifetime"`           // after which a new key expires; default 8760h
	TemporaryKeyLifetime Duration `yaml:"temporary_key_lifetime"` // the same for temporary keys; default 1h
}

// Strait configures the admin plane's Strait dialect.
type Strait struct {
	Enabled bool   `yaml:"enabled"` // answer its calls; default true
	Host    string `yaml:"host"`    // answer only under this host name; "" answers under any
	Prefix  string `yaml:"prefix"`  // in front of /v1/api-keys; "" is the root
}

// Peach configures the admin plane's Peach Finance dialect.
type Peach struct {
	Enabled         bool     `yaml:"enabled"`          // answer its calls; default true
	Host            string   `yaml:"host"`             // answer only under this host name; "" answers under any
	Prefix          string   `yaml:"prefix"`           // the path it is mounted under, "" is the root; default /api
	APIVersions     []string `yaml:"api_versions"`     // dates; new keys are pinned to the newest
	DowngradeWindow Duration `yaml:"downgrade_window"` // how long after an upgrade a key may go back a version, 0s is never; default 72h
}
