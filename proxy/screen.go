package proxy

import (
	"bytes"
	"net/netip"

	"github.com/valyala/fasthttp"

	"latchkey/proxy/upstream"
)

// A head is what a request says of itself, read once. It borrows the request's
// memory and lasts as long as the request.
type head struct {
	target []byte // as received
	path   []byte // of the target, up to the query
	query  []byte // after the question mark; nil if there is none
	host   []byte // lower case, without port and trailing dot
	fields []field
}

// A field is one header field line. The name is in canonical case.
type field struct{ name, value []byte }

// screen reads the head and returns the fault for which the request must be
// refused: whatever two servers could understand differently.
func (h *head) screen(ctx *fasthttp.RequestCtx, strictPath bool) *fault {
	header := &ctx.Request.Header
	if v := header.Protocol(); !bytes.Equal(v, []byte("HTTP/1.1")) && !bytes.Equal(v, []byte("HTTP/1.0")) {
		return badVersion
	}
	if bytes.ContainsFunc(header.Method(), func(c rune) bool { return 'a' <= c && c <= 'z' }) {
		return badMethod
	}
	if header.IsConnect() || header.IsTrace() {
		return methodRefused
	}
	if !h.readFields(header.RawHeaders()) {
		return badRequest
	}
	framing := 0
	hosts := 0
	for _, f := range h.fields {
		switch {
		case is(f.name, "Host"):
			hosts++
		case is(f.name, "Content-Length"), is(f.name, "Transfer-Encoding"):
			framing++
			if is(f.name, "Transfer-Encoding") && !bytes.EqualFold(f.value, []byte("chunked")) {
				return badFraming
			}
		}
	}
	if framing > 1 {
		return badFraming
	}
	if hosts > 1 || hosts == 0 && header.IsHTTP11() {
		return badHost
	}
	if h.host = hostName(header.Host()); h.host == nil && hosts == 1 {
		return badHost
	}
	return h.screenTarget(header.RequestURI(), strictPath)
}

// readFields cuts the header section into field lines, and reports whether it
// is exactly one (RFC 9112, section 5): fasthttp takes a bare LF for the end of
// a line, joins folded lines and lets spaces stand in names, and another server
// may not. Names are put into canonical case in place.
func (h *head) readFields(section []byte) bool {
	h.fields = h.fields[:0]
	for len(section) > 0 {
		end := bytes.IndexByte(section, '\n')
		if end < 1 || section[end-1] != '\r' {
			return false
		}
		line := section[:end-1]
		section = section[end+1:]
		if len(line) == 0 {
			return len(section) == 0
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || !canonicalize(name) {
			return false
		}
		value = bytes.Trim(value, " \t")
		for _, c := range value {
			if c < ' ' && c != '\t' || c == 0x7f {
				return false
			}
		}
		h.fields = append(h.fields, field{name, value})
	}
	return true
}

// canonicalize puts a field name into canonical case, such as "X-Api-Key", and
// reports whether it is a token (RFC 9110, section 5.6.2).
func canonicalize(name []byte) bool {
	upper := true
	for i, c := range name {
		switch {
		case 'a' <= c && c <= 'z':
			if upper {
				name[i] = c - 'a' + 'A'
			}
		case 'A' <= c && c <= 'Z':
			if !upper {
				name[i] = c - 'A' + 'a'
			}
		case '0' <= c && c <= '9', bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0:
		default:
			return false
		}
		upper = c == '-'
	}
	return len(name) > 0
}

func (h *head) screenTarget(target []byte, strict bool) *fault {
	if len(target) == 0 || target[0] != '/' || bytes.IndexByte(target, '#') >= 0 {
		return badTarget
	}
	h.target = target
	h.path, h.query = target, nil
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		h.path, h.query = target[:i], target[i+1:]
	}
	if strict && ambiguous(h.path) {
		return ambiguousPath
	}
	return nil
}

// is compares a canonical name.
func is(name []byte, want string) bool { return string(name) == want }

// hostName returns the host of a Host field in lower case without port and
// trailing dot, nil if the field is not a host and at most a port (RFC 9110,
// section 7.2).
func hostName(host []byte) []byte {
	end := bytes.LastIndexByte(host, ':')
	if end < bytes.IndexByte(host, ']') {
		end = -1 // the colon is inside an IPv6 address
	}
	if end >= 0 {
		for _, c := range host[end+1:] {
			if c < '0' || c > '9' {
				return nil
			}
		}
		host = host[:end]
	}
	if len(host) > 0 && host[0] == '[' {
		addr, err := netip.ParseAddr(string(bytes.TrimSuffix(host[1:], []byte("]"))))
		if err != nil || !addr.Is6() || addr.Zone() != "" || host[len(host)-1] != ']' {
			return nil
		}
		return bytes.ToLower(host)
	}
	host = bytes.TrimSuffix(host, []byte("."))
	if len(host) == 0 {
		return nil
	}
	for _, c := range host {
		if c <= ' ' || c >= 0x7f || bytes.IndexByte([]byte("/\\@?#,:\"<>[]{}|^`%"), c) >= 0 {
			return nil
		}
	}
	return bytes.ToLower(host)
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

// values returns the values of the fields with the canonical name.
func (h *head) values(name string) (out []string) {
	for _, f := range h.fields {
		if is(f.name, name) {
			out = append(out, string(f.value))
		}
	}
	return out
}

// upstreamField makes a field that outlives the request.
func (f field) upstreamField() upstream.Field {
	return upstream.Field{Name: string(f.name), Value: string(f.value)}
}
