package proxy

import (
	"bytes"
	"strings"

	"latchkey/proxy/http1"
	"latchkey/proxy/upstream"
)

// hopByHop reports whether a field is about one connection only (RFC 9110,
// section 7.6.1), or is written anew on either side, in any spelling that
// sameField takes for one: an upstream that reads variables would take
// Transfer_Encoding for the coding of a body that comes with a length.
func hopByHop(name []byte) bool {
	var own string
	switch len(name) {
	case 2:
		own = "te"
	case 4:
		own = "host"
	case 6:
		own = "expect"
	case 7:
		return sameField(name, "trailer") || sameField(name, "upgrade")
	case 10:
		return sameField(name, "connection") || sameField(name, "keep-alive")
	case 14:
		own = "content-length"
	case 16:
		own = "proxy-connection"
	case 17:
		own = "transfer-encoding"
	case 18:
		own = "proxy-authenticate"
	case 19:
		own = "proxy-authorization"
	default:
		return false
	}
	return sameField(name, own)
}

// connectionOptions returns what the Connection fields of an answer name.
func connectionOptions(fields []upstream.Field) (named [][]byte) {
	for _, f := range fields {
		if len(f.Name) == len("Connection") && bytes.EqualFold(f.Name, []byte("Connection")) {
			for option := range bytes.SplitSeq(f.Value, []byte(",")) {
				named = append(named, bytes.Trim(option, " \t"))
			}
		}
	}
	return named
}

func isNamed(named [][]byte, name []byte) bool {
	for _, option := range named {
		if http1.EqualFold(option, name) {
			return true
		}
	}
	return false
}

// forwardedElement writes one element of Forwarded (RFC 7239, section 4). An
// IPv6 address and anything else that is not a token is quoted.
func forwardedElement(peer, proto, host string) string {
	if strings.Contains(peer, ":") {
		peer = `"[` + peer + `]"`
	}
	element := "for=" + peer + ";proto=" + proto
	if host != "" {
		element += `;host="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(host) + `"`
	}
	return element
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
