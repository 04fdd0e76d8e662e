package config

import (
	"net/netip"
	"strconv"
	"strings"
)

// The bytes that names are made of.
const (
	lowerBytes = "abcdefghijklmnopqrstuvwxyz"
	upperBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digitBytes = "0123456789"
	nameBytes  = lowerBytes + upperBytes + digitBytes + "_.-"
)

// only reports whether s consists of the given bytes.
func only(s, allowed string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(allowed, r) })
}

// isName reports whether s may name a route or an upstream. Such names become
// metric labels and parts of dotted paths.
func isName(s string) bool { return s != "" && len(s) <= 64 && only(s, nameBytes) }

// isToken follows RFC 9110 section 5.6.2.
func isToken(s string) bool {
	return s != "" && only(s, lowerBytes+upperBytes+digitBytes+"!#$%&'*+-.^_`|~")
}

// isVisible reports whether s is 1 to 128 visible ASCII characters.
func isVisible(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7e })
}

// isScope follows RFC 6749 section 3.3.
func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7e || r == '"' || r == '\\' })
}

// isHostName reports whether s is a host name or IPv4 address in lower case,
// without a port. Underscores occur in practice.
func isHostName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || !only(label, lowerBytes+digitBytes+"_-") ||
			label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// isHostAndPort reports whether s is a host name or an address, an IPv6 one in
// brackets, and at most a port.
func isHostAndPort(s string) bool {
	host := s
	if i := strings.LastIndexByte(s, ':'); i > strings.IndexByte(s, ']') {
		port, err := strconv.ParseUint(s[i+1:], 10, 16)
		if err != nil || port == 0 {
			return false
		}
		host = s[:i]
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		return err == nil && addr.Is6() && addr.Zone() == "" && strings.HasSuffix(inner, "]")
	}
	return isHostName(host)
}

// prefixProblem says why s cannot be a path prefix; "" means that it can.
func prefixProblem(s string) string {
	if strings.HasSuffix(s, "/") {
		return "ends with /; write it without"
	}
	if strings.ContainsAny(s, "{}") {
		return "has a parameter; only literal segments can be a prefix"
	}
	if _, err := parsePattern(s); err != nil {
		return err.Error()
	}
	return ""
}
