package proxy

import (
	"bytes"

	"latchkey/proxy/http1"
)

// A head is what a request says of itself, read once. It borrows the
// connection's buffer and lasts as long as the request; its memory is used again
// for the next.
type head struct {
	method []byte
	target []byte // as received
	path   []byte // of the target, up to the query
	query  []byte // after the question mark; nil if there is none
	minor  byte   // of the version, HTTP/1.x

	fields []field
	named  [][]byte // the options of Connection, as received

	hostField []byte // the value of Host
	host      []byte // of it: lower case, without port and trailing dot
	hosts     int    // how many Host fields there are

	length    int64 // of the body; zero if there is none, -1 if it comes in chunks
	expects   bool  // the client waits for 100 Continue
	close     bool  // the client wants the connection closed
	keepAlive bool  // it wants it kept, which HTTP/1.0 has to say
	upgrade   []byte
}

// A field is one header field line. The name is in canonical case.
type field struct{ name, value []byte }

// maxFields is how many field lines a head may have. A field takes 48 bytes and
// a line as few as four, so without a limit of its own the list of a long head
// would take twelve times its memory.
const maxFields = 256

// parse reads a whole head, through its empty line, every line of which ends in
// CRLF, into an empty one. What two servers could understand differently is a fault (RFC 9112,
// sections 2.2, 3, 5 and 6).
func (h *head) parse(b []byte) *fault {
	line, rest := http1.CutLine(b)
	if f := h.parseRequestLine(line); f != nil {
		return f
	}
	framing := 0
	for {
		if line, rest = http1.CutLine(rest); len(line) == 0 {
			break
		}
		f, ok := parseField(line)
		if !ok {
			return badRequest
		}
		if len(h.fields) == maxFields {
			return headTooLarge
		}
		h.fields = append(h.fields, f)
		if fault := h.note(f, &framing); fault != nil {
			return fault
		}
	}
	if framing > 1 || h.length < 0 && h.minor == 0 {
		return badFraming
	}
	return nil
}

// clear forgets the request, and memory that few requests need. What is left of a
// head points into a buffer that may be another connection's by now.
func (h *head) clear() {
	const few = 64
	fields, named := h.fields[:0], h.named[:0]
	if cap(fields) > few {
		fields = nil
	}
	*h = head{fields: fields, named: named, host: h.host[:0]}
}

// maxOptions is how many options Connection may have.
const maxOptions = 32

// parseRequestLine reads a request line (RFC 9112, section 3): exactly one space
// on either side of the target, and nothing but visible characters in it.
func (h *head) parseRequestLine(line []byte) *fault {
	i := bytes.IndexByte(line, ' ')
	j := bytes.LastIndexByte(line, ' ')
	if i <= 0 || j <= i+1 {
		return badRequest
	}
	h.method, h.target = line[:i], line[i+1:j]
	for _, c := range h.method {
		if c >= 'a' && c <= 'z' {
			return badMethod
		}
		if !http1.IsToken(c) {
			return badRequest
		}
	}
	for _, c := range h.target {
		if c <= ' ' || c == 0x7f {
			return badRequest
		}
	}
	switch version := line[j+1:]; string(version) {
	case "HTTP/1.1":
		h.minor = 1
	case "HTTP/1.0":
	default:
		if len(version) == len("HTTP/1.1") && bytes.HasPrefix(version, []byte("HTTP/")) {
			return badVersion
		}
		return badRequest
	}
	return nil
}

// parseField reads a field line (RFC 9112, section 5). Whitespace before the
// colon and folded lines are refused: servers disagree on what they mean.
func parseField(line []byte) (field, bool) {
	i := bytes.IndexByte(line, ':')
	if i <= 0 || !canonicalize(line[:i]) {
		return field{}, false
	}
	value := line[i+1:]
	for _, c := range value {
		if !http1.IsText(c) {
			return field{}, false
		}
	}
	return field{line[:i:i], bytes.Trim(value, " \t")}, true
}

// note takes down what a field says about the connection and the body.
func (h *head) note(f field, framing *int) *fault {
	switch string(f.name) {
	case "Host":
		h.hosts++
		h.hostField = f.value
	case "Content-Length":
		*framing++
		if h.length = http1.ParseLength(f.value); h.length < 0 {
			return badFraming
		}
	case "Transfer-Encoding":
		*framing++
		if !http1.EqualFold(f.value, "chunked") {
			return badFraming
		}
		h.length = -1
	case "Connection":
		for option := range bytes.SplitSeq(f.value, []byte(",")) {
			option = bytes.Trim(option, " \t")
			h.close = h.close || http1.EqualFold(option, "close")
			h.keepAlive = h.keepAlive || http1.EqualFold(option, "keep-alive")
			if len(option) == 0 {
				continue
			}
			if len(h.named) == maxOptions {
				return headTooLarge
			}
			h.named = append(h.named, option)
		}
	case "Upgrade":
		if h.upgrade != nil {
			return badRequest
		}
		h.upgrade = f.value
	case "Expect":
		if !http1.EqualFold(f.value, "100-continue") {
			return expectationFailed
		}
		h.expects = true
	}
	return nil
}

// persistent reports whether the client can send another request on the
// connection (RFC 9112, section 9.3).
func (h *head) persistent() bool { return !h.close && (h.minor == 1 || h.keepAlive) }

// isNamed reports whether Connection names a field.
func (h *head) isNamed(name []byte) bool {
	for _, option := range h.named {
		if http1.EqualFold(option, name) {
			return true
		}
	}
	return false
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
		case !http1.IsToken(c):
			return false
		}
		upper = c == '-'
	}
	return len(name) > 0
}
