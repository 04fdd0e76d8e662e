package upstream

import "latchkey/proxy/http1"

func isText(b []byte) bool {
	for _, c := range b {
		if !http1.IsText(c) {
			return false
		}
	}
	return true
}

// trimSpace removes the whitespace around a value: SP and HTAB only.
func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// equalFold reports whether b is lower, which is in lower case, in any case of
// ASCII letters. bytes.EqualFold would also take the Kelvin sign for a k.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
