// Package http1oracle reads HTTP/1.1 in another way than the gateway does, as a
// whole and with regular expressions, for fuzz targets to compare with.
package http1oracle

import (
	"regexp"
	"strconv"
	"strings"
)

// Limits of what is between the data of chunks, in bytes, as package http1 has
// them.
const (
	maxExtension    = 256
	maxTrailerBytes = 8 << 10
)

// Chunked decodes a chunked body as a whole. The status is "done", or "bad or
// open"; rest is what follows a complete body.
func Chunked(body string) (data, status, rest string) {
	line := regexp.MustCompile(`^([0-9A-Fa-f]{1,16})(?:;([\t\x20-\x7e\x80-\xff]*))?\r\n`)
	text := regexp.MustCompile("^(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\\t\\x20-\\x7e\\x80-\\xff]*\\r\\n)*\\r\\n")
	for {
		m := line.FindStringSubmatch(Latin1(body))
		if m == nil {
			return data, "bad or open", ""
		}
		size, err := strconv.ParseInt(m[1], 16, 64)
		if err != nil || len(Unlatin1(m[2])) > maxExtension {
			return data, "bad or open", ""
		}
		body = body[len(Unlatin1(m[0])):]
		if size == 0 {
			break
		}
		if int64(len(body)) < size {
			return data + body, "bad or open", ""
		}
		data, body = data+body[:size], body[size:]
		if !strings.HasPrefix(body, "\r\n") {
			return data, "bad or open", ""
		}
		body = body[2:]
	}
	m := text.FindString(Latin1(body))
	if m == "" || len(Unlatin1(m)) > maxTrailerBytes {
		return data, "bad or open", ""
	}
	return data, "done", body[len(Unlatin1(m)):]
}

// Latin1 makes each byte a character, so that regular expressions match bytes.
func Latin1(s string) string {
	r := make([]rune, len(s))
	for i := range len(s) {
		r[i] = rune(s[i])
	}
	return string(r)
}

// Unlatin1 undoes Latin1.
func Unlatin1(s string) string {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r))
	}
	return string(b)
}
