package upstream

import (
	"bytes"

	"latchkey/proxy/http1"
)

// A Field is one line of a head, with the whitespace around its value removed.
type Field struct{ Name, Value []byte }

// maxFields is how many field lines a head may have. A Field takes 48 bytes and
// a line as few as four, so without a limit of its own the list of a long head
// would take twelve times its memory.
const maxFields = 512

// A head is a parsed response head.
type head struct {
	status    int
	minor     byte    // of the version: 0 or 1
	fields    []Field // slices of the parsed bytes
	length    int64   // of Content-Length; -1 if there is none
	chunked   bool
	close     bool // the connection option "close" (RFC 9112, section 9.6)
	keepAlive bool // the connection option "keep-alive", which HTTP/1.0 needs
}

// A headScan finds the end of a head in bytes that arrive in pieces. Its zero
// value begins a head.
type headScan struct {
	line int // where the current line begins
	next int // the first byte not looked at
}

// scan looks at b, which begins with the bytes of the calls before, and returns
// the length of the head including its empty line, or 0 if that has not come
// yet. It fails on the first line that does not end in CRLF and on the first
// bytes that cannot begin a response, because such a peer may never send the
// end that a reader waits for.
func (s *headScan) scan(b []byte) (int, error) {
	if s.line == 0 {
		const start = "HTTP/1."
		if n := min(len(b), len(start)); string(b[:n]) != start[:n] {
			return 0, malformed("response does not begin with HTTP/1.")
		}
	}
	for {
		i := bytes.IndexByte(b[s.next:], '\n')
		if i < 0 {
			s.next = len(b)
			return 0, nil
		}
		lf := s.next + i
		if lf == s.line || b[lf-1] != '\r' {
			return 0, malformed("bare LF in head")
		}
		empty := lf == s.line+1
		s.line, s.next = lf+1, lf+1
		if empty {
			return lf + 1, nil
		}
	}
}

// parse reads a whole head, through its empty line, as scan found it. It keeps
// slices of b in h.fields, whose memory it uses again; on errors h is undefined.
func (h *head) parse(b []byte) error {
	*h = head{fields: h.fields[:0], length: -1}
	line, rest := http1.CutLine(b)
	if err := h.parseStatusLine(line); err != nil {
		return err
	}
	encoded := false
	for {
		if line, rest = http1.CutLine(rest); len(line) == 0 {
			break
		}
		f, err := parseField(line)
		if err != nil {
			return err
		}
		if len(h.fields) == maxFields {
			return malformed("too many fields")
		}
		h.fields = append(h.fields, f)
		switch len(f.Name) {
		case len("connection"):
			if equalFold(f.Name, "connection") {
				h.parseConnection(f.Value)
			}
		case len("content-length"):
			if equalFold(f.Name, "content-length") {
				if h.length >= 0 {
					return malformed("several Content-Length")
				}
				if h.length = http1.ParseLength(f.Value); h.length < 0 {
					return malformed("malformed Content-Length")
				}
			}
		case len("transfer-encoding"):
			if equalFold(f.Name, "transfer-encoding") {
				if encoded || !equalFold(f.Value, "chunked") {
					return malformed("Transfer-Encoding other than chunked")
				}
				encoded = true
			}
		}
	}
	h.chunked = encoded
	if encoded && h.length >= 0 {
		return malformed("Content-Length with Transfer-Encoding")
	}
	if encoded && h.minor == 0 {
		return malformed("Transfer-Encoding in HTTP/1.0")
	}
	return nil
}

// parseStatusLine reads a status line (RFC 9112, section 4). The reason may be
// missing together with the space before it, as many servers have it.
func (h *head) parseStatusLine(line []byte) error {
	const version = "HTTP/1."
	if len(line) < len("HTTP/1.1 200") || string(line[:len(version)]) != version || line[8] != ' ' {
		return malformed("malformed status line")
	}
	h.minor = line[7] - '0'
	if h.minor > 1 {
		return malformed("version other than HTTP/1.0 and HTTP/1.1")
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return malformed("malformed status")
		}
		h.status = h.status*10 + int(c-'0')
	}
	if h.status < 100 || h.status > 599 {
		return malformed("status out of range")
	}
	if rest := line[12:]; len(rest) > 0 && (rest[0] != ' ' || !isText(rest)) {
		return malformed("malformed reason")
	}
	return nil
}

// parseField reads a field line (RFC 9112, section 5). Whitespace before the
// colon and folded lines are refused: readers disagree on what they mean.
func parseField(line []byte) (Field, error) {
	i := 0
	for i < len(line) && http1.IsToken(line[i]) {
		i++
	}
	if i == 0 || i == len(line) || line[i] != ':' {
		return Field{}, malformed("malformed field name")
	}
	value := line[i+1:]
	if !isText(value) {
		return Field{}, malformed("control character in field value")
	}
	return Field{Name: line[:i:i], Value: trimSpace(value)}, nil
}

// parseConnection reads the connection options that matter here (RFC 9110,
// section 7.6.1).
func (h *head) parseConnection(value []byte) {
	for len(value) > 0 {
		option := value
		if i := bytes.IndexByte(value, ','); i >= 0 {
			option, value = value[:i], value[i+1:]
		} else {
			value = nil
		}
		option = trimSpace(option)
		h.close = h.close || equalFold(option, "close")
		h.keepAlive = h.keepAlive || equalFold(option, "keep-alive")
	}
}

// persistent reports whether the upstream keeps the connection open after this
// response (RFC 9112, section 9.3).
func (h *head) persistent() bool {
	return !h.close && (h.minor == 1 || h.keepAlive)
}
