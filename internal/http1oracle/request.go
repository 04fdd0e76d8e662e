package http1oracle

import (
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Verdict says what is to become of what a client sent.
type Verdict int

// The verdicts.
const (
	Whole      Verdict = iota // a request that passes
	Refused                   // no request that passes, whatever follows
	Unfinished                // the end of its head is not there
	Cut                       // its head passes, and its body is malformed or not all there
)

// A Request is a request as it was meant.
type Request struct {
	Method, Target string
	Minor          string
	Fields         [][2]string // names in lower case
	Chunked        bool
	Length         int64
	Body           string
}

// Values returns the values of the fields of a name in lower case.
func (q *Request) Values(name string) (out []string) {
	for _, f := range q.Fields {
		if f[0] == name {
			out = append(out, f[1])
		}
	}
	return out
}

// Options returns the options of Connection in lower case.
func (q *Request) Options() (out []string) {
	for _, v := range q.Values("connection") {
		for option := range strings.SplitSeq(v, ",") {
			out = append(out, Lower(strings.Trim(option, " \t")))
		}
	}
	return out
}

// Persistent reports whether another request may follow on the connection.
func (q *Request) Persistent() bool {
	options := q.Options()
	return !slices.Contains(options, "close") && (q.Minor == "1" || slices.Contains(options, "keep-alive"))
}

// A Reader reads requests.
type Reader struct {
	// EmptyHost lets Host be empty, as it is in a request of a gateway for a
	// client that named no host (RFC 9112, section 3.2).
	EmptyHost bool

	line, field, length, path, escape, host *regexp.Regexp
}

// NewReader returns a Reader.
func NewReader() *Reader {
	return &Reader{
		line:   regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Z-]+) (/[\\x21-\\x7e\\x80-\\xff]*) HTTP/1\\.([01])$"),
		field:  regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\\t ]*([\\t\\x20-\\x7e\\x80-\\xff]*?)[\\t ]*$"),
		length: regexp.MustCompile(`^[0-9]+$`),
		path:   regexp.MustCompile(`^(?:/(?:[!-$&-.0-:<-\[\]-~]|%[0-9A-Fa-f]{2})*)+$`),
		escape: regexp.MustCompile(`%[0-9A-Fa-f]{2}`),
		host:   regexp.MustCompile(`^(?:\[([^\]]*)\]|([!$&-+\x2d.0-9;=A-Z_a-z~]+))(?::[0-9]*)?$`),
	}
}

// Request reads the first request of a text, whose head may have so many bytes,
// and returns what follows it.
func (r *Reader) Request(text string, limit int) (q Request, rest string, v Verdict) {
	block, rest, found := strings.Cut(strings.TrimPrefix(text, "\r\n"), "\r\n\r\n")
	if !found {
		return q, "", Unfinished
	}
	lines := strings.Split(block, "\r\n")
	m := r.line.FindStringSubmatch(Latin1(lines[0]))
	if m == nil || len(block)+4 > limit || m[1] == "CONNECT" || m[1] == "TRACE" {
		return q, "", Refused
	}
	q.Method, q.Target, q.Minor = m[1], Unlatin1(m[2]), m[3]
	for _, line := range lines[1:] {
		f := r.field.FindStringSubmatch(Latin1(line))
		if f == nil {
			return q, "", Refused
		}
		q.Fields = append(q.Fields, [2]string{Lower(f[1]), Unlatin1(f[2])})
	}
	if !r.goodTarget(q.Target) || !r.goodHost(&q) || !r.goodOptions(&q) || !r.frame(&q) {
		return q, "", Refused
	}
	switch {
	case q.Chunked:
		var status string
		if q.Body, status, rest = Chunked(rest); status != "done" {
			return q, "", Cut
		}
	case q.Length > int64(len(rest)):
		return q, "", Cut
	default:
		q.Body, rest = rest[:q.Length], rest[q.Length:]
	}
	return q, rest, Whole
}

// goodTarget holds a target's path to having one spelling.
func (r *Reader) goodTarget(target string) bool {
	path, _, _ := strings.Cut(target, "?")
	if strings.Contains(target, "#") || !r.path.MatchString(path) || strings.Contains(path, "//") {
		return false
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	for _, escape := range r.escape.FindAllString(path, -1) {
		n, _ := strconv.ParseUint(escape[1:], 16, 8)
		c := string(rune(n))
		if strings.Contains("\x00/\\;-._~0123456789", c) || strings.ToLower(c) != strings.ToUpper(c) && n < 0x80 {
			return false
		}
	}
	return true
}

// goodHost wants one Host that is a host, which HTTP/1.0 may leave out.
func (r *Reader) goodHost(q *Request) bool {
	hosts := q.Values("host")
	if len(hosts) != 1 {
		return len(hosts) == 0 && q.Minor == "0"
	}
	if hosts[0] == "" {
		return r.EmptyHost
	}
	m := r.host.FindStringSubmatch(Latin1(hosts[0]))
	if m == nil {
		return false
	}
	if m[2] != "" {
		return m[2] != "."
	}
	return net.ParseIP(m[1]) != nil && strings.Contains(m[1], ":")
}

// goodOptions wants no expectation but the one, and one upgrade.
func (r *Reader) goodOptions(q *Request) bool {
	for _, v := range q.Values("expect") {
		if Lower(v) != "100-continue" {
			return false
		}
	}
	upgrades := q.Values("upgrade")
	for i, v := range upgrades {
		if v != "" && i < len(upgrades)-1 {
			return false
		}
	}
	return true
}

// frame reads how the body's end is found.
func (r *Reader) frame(q *Request) bool {
	lengths, codings := q.Values("content-length"), q.Values("transfer-encoding")
	switch {
	case len(lengths)+len(codings) > 1:
		return false
	case len(lengths) == 1:
		var err error
		q.Length, err = strconv.ParseInt(lengths[0], 10, 64)
		return err == nil && r.length.MatchString(lengths[0])
	case len(codings) == 1:
		q.Chunked = true
		return q.Minor == "1" && Lower(codings[0]) == "chunked"
	}
	return true
}

// Lower puts the letters of ASCII in lower case.
func Lower(s string) string {
	return strings.Map(func(c rune) rune {
		if 'A' <= c && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, Latin1(s))
}
