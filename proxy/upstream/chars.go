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

// equalFold is http1.EqualFold.
func equalFold(b []byte, lower string) bool { return http1.EqualFold(b, lower) }
