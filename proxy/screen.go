package proxy

import (
	"bytes"
	"net/netip"
)

// screen returns the fault for which a request whose head could be read must be
// refused all the same.
func (h *head) screen(strictPath bool) *fault {
	if is(h.method, "CONNECT") || is(h.method, "TRACE") {
		return methodRefused
	}
	if h.hosts > 1 || h.hosts == 0 && h.minor == 1 {
		return badHost
	}
	if h.hosts == 1 && !h.readHost() {
		return badHost
	}
	return h.screenTarget(strictPath)
}

func (h *head) screenTarget(strict bool) *fault {
	if h.target[0] != '/' || bytes.IndexByte(h.target, '#') >= 0 {
		return badTarget
	}
	h.path, h.query = h.target, nil
	if i := bytes.IndexByte(h.target, '?'); i >= 0 {
		h.path, h.query = h.target[:i], h.target[i+1:]
	}
	if strict && ambiguous(h.path) {
		return ambiguousPath
	}
	return nil
}

// is compares a canonical name.
func is(name []byte, want string) bool { return string(name) == want }

// readHost reads the host of the Host field, in lower case without port and
// trailing dot, and reports whether the field is a host and at most a port (RFC
// 9110, section 7.2).
func (h *head) readHost() bool {
	host := h.hostField
	end := bytes.LastIndexByte(host, ':')
	if end < bytes.IndexByte(host, ']') {
		end = -1 // the colon is inside an IPv6 address
	}
	if end >= 0 {
		for _, c := range host[end+1:] {
			if c < '0' || c > '9' {
				return false
			}
		}
		host = host[:end]
	}
	if len(host) > 0 && host[0] == '[' {
		addr, err := netip.ParseAddr(string(bytes.TrimSuffix(host[1:], []byte("]"))))
		if err != nil || !addr.Is6() || addr.Zone() != "" || host[len(host)-1] != ']' {
			return false
		}
	} else {
		host = bytes.TrimSuffix(host, []byte("."))
		for _, c := range host {
			if c <= ' ' || c >= 0x7f || bytes.IndexByte([]byte("/\\@?#,:\"<>[]{}|^`%"), c) >= 0 {
				return false
			}
		}
	}
	h.host = h.host[:0]
	for _, c := range host {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h.host = append(h.host, c)
	}
	return len(h.host) > 0
}

// ambiguous reports whether a path has a spelling that some server would read
// as another path, so that the rule found for it here might not be the rule for
// what the upstream serves:
//
//   - an encoded slash, backslash or NUL, and a plain backslash;
//   - "." and ".." segments, plain or encoded (RFC 3986, section 5.2.4), and
//     with a parameter as in "..;x";
//   - ";", which some servers cut a segment at, and "//", which many fold;
//   - encoded letters, digits, "-", ".", "_" and "~", which RFC 3986, section
//     6.2.2.2, says are equal to the plain ones;
//   - a malformed escape.
func ambiguous(path []byte) bool {
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\', c == ';', c <= ' ', c >= 0x7f:
			return true
		case c == '/':
			rest := path[i+1:]
			if len(rest) > 0 && rest[0] == '/' {
				return true
			}
			if end := bytes.IndexByte(rest, '/'); end >= 0 {
				rest = rest[:end]
			}
			if string(rest) == "." || string(rest) == ".." {
				return true
			}
		case c == '%':
			if i+2 >= len(path) {
				return true
			}
			hi, lo := unhex(path[i+1]), unhex(path[i+2])
			if hi < 0 || lo < 0 {
				return true
			}
			if d := byte(hi<<4 | lo); d == '/' || d == '\\' || d == 0 || d == ';' || unreserved(d) {
				return true
			}
			i += 2
		}
	}
	return false
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
