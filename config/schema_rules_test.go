package config_test

import "latchkey/config"

// rules says what package config asks of values beyond their type, as far as a
// schema can: of a type by its name, of a field by type.field, of the elements
// of a list or mapping by type.field[].
func rules() map[string]object {
	const (
		name    = `^[A-Za-z0-9_.-]{1,64}$`
		visible = `^[!-~]{1,128}$`
		token   = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
		host    = `^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$`
		orEmpty = `^$|`
		prefix  = `^(/[!"$-)+-.0->@-z|~]+)*$` // segments without ? # * { }
		// Not every spelling of a loopback address is told from others by a pattern.
		loopback = `^(localhost|127\.[0-9.]+|\[[0-9A-Fa-f:.]+\]):`
		address  = `^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]*):[0-9]{1,5}$`
	)
	positive := object{"positive": true}
	atLeast := func(n int) object { return object{"minimum": n} }
	between := func(low, high int) object { return object{"minimum": low, "maximum": high} }
	pattern := func(p string) object { return object{"type": "string", "pattern": p} }
	needs := func(names ...string) object { return object{"required": names} }
	all := map[string]object{
		"Config":           needs("routes", "upstreams"),
		"Config.routes":    atLeastItems(1),
		"Config.upstreams": {"minProperties": 1, "propertyNames": object{"pattern": name}},

		"Proxy.listen":      atLeastItems(1),
		"Proxy.listen[]":    pattern(address),
		"Proxy.credentials": atLeastItems(1),
		"Credential": {"oneOf": []any{filled("header"), filled("query"),
			object{"required": []string{"bearer"}, "properties": object{"bearer": object{"not": object{"const": false}}}}}},
		"Credential.header":         pattern(orEmpty + token),
		"Credential.query":          pattern(`^[A-Za-z0-9_.~-]*$`),
		"TLS":                       {"allOf": []any{goesWith("cert_file", "key_file"), goesWith("key_file", "cert_file"), goesWith("client_ca_file", "cert_file")}},
		"Certificate":               needs("cert_file", "key_file"),
		"Limits.header_bytes":       between(int(4*config.KiB), int(config.MiB)),
		"Limits.connections":        atLeast(0),
		"Limits.connections_per_ip": atLeast(0),
		"Limits.failures_per_ip":    atLeast(0),
		"AccessLog.format":          {"enum": []string{"json"}},
		"AccessLog.sample":          between(0, 1),

		"Route":           needs("name", "path", "upstream"),
		"Route.name":      pattern(name),
		"Route.hosts":     {"uniqueItems": true},
		"Route.hosts[]":   pattern(host),
		"Route.methods":   {"uniqueItems": true},
		"Route.methods[]": {"pattern": "^[!#$%&'*+.^_`|~0-9A-Z-]+$", "not": object{"enum": []string{"CONNECT", "TRACE"}}},
		// Segments of literals or of one parameter; what is in a parameter's
		// expression is not looked at.
		"Route.path":           pattern(`^(/([!"$-)+-.0->@-z|~]+|\{[A-Za-z0-9_.-]+(:.+)?\}))+/?$|^/$`),
		"Route.upstream":       pattern(name),
		"Route.auth":           {"enum": []string{config.AuthRequired, config.AuthNone}},
		"Route.scopes[]":       pattern(`^[!#-\[\]-~]+$`),
		"Route.tenants[]":      {"pattern": visible, "not": object{"const": "*"}},
		"Route.environments[]": pattern(visible),
		"Route.strip_prefix":   pattern(prefix),
		"Route.add_prefix":     pattern(prefix),
		"Route.rewrite_host":   pattern(`^(\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]|[a-z0-9_.-]+)(:[1-9][0-9]{0,4})?$|^$`),
		"Route.timeout":        positive,
		"Route.retries":        between(0, 3),
		"Headers.set":          {"propertyNames": object{"pattern": token}},
		"Headers.set[]":        pattern(`^([!-~]([ -~]*[!-~])?)?$`),
		"Headers.remove[]":     pattern(token),
		"CORS.origins[]":       pattern(`^(\*|[a-z][a-z0-9+.-]*://[^/?#A-Z]+)$`),
		"CORS.methods[]":       pattern(token),
		"CORS.headers[]":       pattern(token),
		"CORS.expose[]":        pattern(token),
		"Maintenance.detail":   pattern(`^[ -~]{0,200}$`),

		"Upstream":                    needs("targets"),
		"Upstream.targets":            atLeastItems(1),
		"Upstream.balance":            {"enum": []string{config.BalancePowerOfTwo, config.BalanceRoundRobin, config.BalanceLeastConnections}},
		"Upstream.resolve":            positive,
		"Target":                      needs("url"),
		"Target.url":                  pattern(`^https?://(\[[0-9A-Fa-f:.]+\]|[^/?#@:]+)(:[1-9][0-9]{0,4})?$`),
		"Target.weight":               between(1, 1000),
		"Connections.max":             atLeast(1),
		"Connections.idle":            atLeast(0),
		"Connections.idle_timeout":    positive,
		"Connections.connect_timeout": positive,
		"Health.path":                 pattern(`^(/[!-"$-~]*)?$`),
		"Health.interval":             positive,
		"Health.timeout":              positive,
		"Health.healthy":              atLeast(1),
		"Health.unhealthy":            atLeast(1),
		"Ejection.failures":           atLeast(0),
		"Ejection.interval":           positive,
		"Ejection.duration":           positive,
		"UpstreamTLS":                 {"allOf": []any{goesWith("client_cert_file", "client_key_file"), goesWith("client_key_file", "client_cert_file")}},

		"Store.path":              {"minLength": 1},
		"Store.cache_bytes":       atLeast(int(config.MiB)),
		"Store.block_cache_bytes": atLeast(int(config.MiB)),
		"Keys.prefix":             pattern(`^[a-z0-9]{1,16}$`),

		"Admin": {"anyOf": []any{
			object{"required": []string{"operators"}, "properties": object{"operators": atLeastItems(1)}},
			object{"required": []string{"oidc"}, "properties": object{"oidc": filled("issuer")}},
			object{"properties": object{"listen": pattern(loopback)}},
		}},
		"Admin.listen":                   pattern(address),
		"Admin.metrics_listen":           pattern(orEmpty + address),
		"Operator":                       {"required": []string{"name", "role", "tenant"}, "oneOf": []any{filled("token_sha256"), filled("token_env"), filled("token_file")}},
		"Operator.name":                  pattern(visible),
		"Operator.token_sha256":          pattern(`^((sha256:)?[0-9A-Fa-f]{64})?$`),
		"Operator.role":                  {"enum": []string{config.RoleAdmin, config.RoleIssuer, config.RoleViewer}},
		"Operator.tenant":                pattern(visible),
		"OIDC":                           {"allOf": []any{goesWith("issuer", "audience"), goesWith("audience", "issuer")}},
		"OIDC.issuer":                    pattern(`^(https?://(\[[0-9A-Fa-f:.]+\]|[^/?#@:]+)(:[0-9]{1,5})?(/[^?#]*)?)?$`),
		"OIDC.role_claim":                pattern(visible),
		"OIDC.tenant_claim":              pattern(visible),
		"Truvera.host":                   pattern(orEmpty + host),
		"Truvera.prefix":                 pattern(prefix),
		"Truvera.key_lifetime":           positive,
		"Truvera.temporary_key_lifetime": positive,
		"Strait.host":                    pattern(orEmpty + host),
		"Strait.prefix":                  pattern(prefix),
		"Peach.host":                     pattern(orEmpty + host),
		"Peach.prefix":                   pattern(prefix),
		"Peach.api_versions":             {"minItems": 1, "uniqueItems": true},
		"Peach.api_versions[]":           pattern(`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`),

		"Tracing.endpoint":     pattern(`^(https?://(\[[0-9A-Fa-f:.]+\]|[^/?#@:]+)(:[0-9]{1,5})?(/[^?#]*)?)?$`),
		"Tracing.sample":       between(0, 1),
		"Tracing.service_name": pattern(visible),
	}
	for _, field := range []string{"read_header", "idle", "body_idle", "tunnel_idle", "drain"} {
		all["Timeouts."+field] = positive
	}
	return all
}

func atLeastItems(n int) object { return object{"minItems": n} }

// filled asks for text in a field.
func filled(field string) object {
	return object{"required": []string{field}, "properties": object{field: object{"type": []string{"string", "number"}, "not": object{"const": ""}}}}
}

// goesWith asks for a field where there is another.
func goesWith(field, other string) object { return object{"if": filled(field), "then": filled(other)} }
