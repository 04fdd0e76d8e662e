package proxy

import (
	"strings"

	"latchkey/proxy/upstream"
)

// hopByHop reports whether a field is about one connection only (RFC 9110,
// section 7.6.1), by its name or because Connection names it. The name is in
// canonical case.
func hopByHop(name []byte, named map[string]bool) bool {
	switch string(name) {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Proxy-Authenticate", "Proxy-Authorization", "Content-Length", "Expect", "Host":
		return true
	}
	return len(named) > 0 && named[strings.ToLower(string(name))]
}

// connectionNamed returns the fields that the request's Connection names, in
// lower case. Fields of ours are not among them: a client cannot have removed
// what the gateway adds.
func connectionNamed(h *head) map[string]bool {
	var named map[string]bool
	for _, f := range h.fields {
		if is(f.name, "Connection") {
			if named == nil {
				named = map[string]bool{}
			}
			addNamed(named, string(f.value))
		}
	}
	return named
}

// endToEnd returns the fields of an upstream's answer that are for the client.
// The request ID is ours, whatever the upstream makes of it.
func endToEnd(fields []upstream.Field) (out []upstream.Field) {
	named := map[string]bool{}
	for _, f := range fields {
		if f.Name == "Connection" {
			addNamed(named, f.Value)
		}
	}
	for _, f := range fields {
		if !hopByHop([]byte(f.Name), named) && f.Name != "X-Request-Id" {
			out = append(out, f)
		}
	}
	return out
}

func addNamed(named map[string]bool, value string) {
	for _, name := range strings.Split(value, ",") {
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
			named[name] = true
		}
	}
}

// ours reports whether a field says what only the gateway may say, in any
// spelling that sameField takes for one. Proxy is among them because programs
// behind CGI take it for the variable HTTP_PROXY (https://httpoxy.org).
func ours(name []byte) bool {
	const prefix = "x-latchkey-"
	if len(name) >= len(prefix) && sameField(name[:len(prefix)], prefix) {
		return true
	}
	for _, own := range [...]string{"x-api-version", "x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-real-ip", "proxy"} {
		if sameField(name, own) {
			return true
		}
	}
	return false
}

// sameField compares field names without regard to case, and takes every
// character that is no letter or digit for the same. Upstreams that hand fields
// to programs as variables (CGI, RFC 3875, section 4.1.18) turn "-" into "_", and
// some of them every such character.
func sameField(name []byte, other string) bool {
	if len(name) != len(other) {
		return false
	}
	for i := range name {
		if fold(name[i]) != fold(other[i]) {
			return false
		}
	}
	return true
}

func fold(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	}
	return '-'
}
