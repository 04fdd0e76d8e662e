// Package http1 is what requests and responses of HTTP/1.1 have in common: the
// characters of their lines, lengths, and bodies in chunks (RFC 9112).
//
// It reads strictly. What two readers could take for two different things is a
// Syntax error; what to make of that is for its callers to say.
package http1

import (
	"errors"
	"math"
)

// A Syntax error says in what way a message breaks RFC 9112. It quotes nothing.
type Syntax string

// Error returns what is wrong.
func (s Syntax) Error() string { return string(s) }

// IsSyntax reports whether the error is one of syntax.
func IsSyntax(err error) bool {
	_, ok := errors.AsType[Syntax](err)
	return ok
}

// The characters of a token (RFC 9110, section 5.6.2), a bit for each: letters,
// digits and !#$%&'*+-.^_`|~.
const (
	lowTokens  = 0x03ff_6cfa_0000_0000 // 0 to 63
	highTokens = 0x57ff_ffff_c7ff_fffe // 64 to 127
)

// IsToken reports whether c may be in a token.
func IsToken(c byte) bool {
	if c < 64 {
		return lowTokens>>c&1 != 0
	}
	return c < 128 && highTokens>>(c-64)&1 != 0
}

// IsText reports whether c may be in a field value or a reason: HTAB, SP, visible
// ASCII and obs-text (RFC 9110, section 5.5).
func IsText(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }

// EqualFold reports whether a and b are the same in any case of ASCII letters.
// bytes.EqualFold would also take the Kelvin sign for a k and the long s for an s,
// so that what is chunked here would be an unknown coding elsewhere.
func EqualFold[A, B []byte | string](a A, b B) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// ParseLength reads the value of Content-Length: decimal digits and nothing else.
// It returns -1 for anything that is not a length.
func ParseLength(b []byte) int64 {
	if len(b) == 0 {
		return -1
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' || n > (math.MaxInt64-int64(c-'0'))/10 {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// CutLine returns the first line without its CRLF, and what follows. Every line
// of b ends in CRLF.
func CutLine(b []byte) (line, rest []byte) {
	for i, c := range b {
		if c == '\n' {
			return b[:i-1], b[i+1:]
		}
	}
	return nil, nil
}
