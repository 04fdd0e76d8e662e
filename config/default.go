package config

import "time"

// Default returns the values of everything a file leaves out. It does not
// validate as it is: routes and upstreams have no default.
func Default() Config {
	return Config{
		Proxy: Proxy{
			Listen:      []string{"127.0.0.1:8080"},
			Credentials: []Credential{{Header: "X-API-Key"}, {Bearer: true}},
			Timeouts: Timeouts{
				ReadHeader: 5 * time.Second,
				Idle:       60 * time.Second,
				BodyIdle:   30 * time.Second,
				TunnelIdle: time.Hour,
				Drain:      30 * time.Second,
			},
			Limits:      Limits{HeaderBytes: 16 * KiB},
			StrictPaths: true,
			AccessLog:   AccessLog{Enabled: true, Format: "json", Sample: 1},
		},
		Store:   Store{Path: "./data", CacheBytes: 64 * MiB, BlockCacheBytes: 64 * MiB},
		Tracing: Tracing{Sample: 0.1, ServiceName: "latchkey"},
		Keys:    Keys{Prefix: "lk", Grace: time.Hour},
		Admin: Admin{
			Listen:  "127.0.0.1:8081",
			OIDC:    OIDC{RoleClaim: "roles", TenantClaim: "tenant"},
			Truvera: Truvera{Enabled: true, KeyLifetime: 365 * 24 * time.Hour, TemporaryKeyLifetime: time.Hour},
			Strait:  Strait{Enabled: true},
			Peach: Peach{
				Enabled:         true,
				Prefix:          "/api",
				APIVersions:     []string{"2023-11-29", "2024-05-22"},
				DowngradeWindow: 72 * time.Hour,
			},
		},
	}
}

// DefaultRoute returns what a route of the file starts from.
func DefaultRoute() Route {
	return Route{Auth: AuthRequired, Timeout: 30 * time.Second, Retries: 1}
}

// DefaultUpstream returns what an upstream of the file starts from.
func DefaultUpstream() Upstream {
	return Upstream{
		Balance: BalancePowerOfTwo,
		Resolve: 30 * time.Second,
		Connections: Connections{
			Max:            512,
			Idle:           64,
			IdleTimeout:    30 * time.Second,
			ConnectTimeout: 2 * time.Second,
			Wait:           time.Second,
		},
		Health:   Health{Interval: 5 * time.Second, Timeout: time.Second, Healthy: 2, Unhealthy: 3},
		Ejection: Ejection{Failures: 5, Interval: 10 * time.Second, Duration: 30 * time.Second},
	}
}

// DefaultTarget returns what a target of the file starts from.
func DefaultTarget() Target { return Target{Weight: 1} }
