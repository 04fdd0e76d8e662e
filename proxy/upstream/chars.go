package upstream

// The characters of a token (RFC 9110, section 5.6.2), a bit for each: letters,
// digits and !#$%&'*+-.^_`|~.
const (
	lowTokenChars  = 0x03ff_6cfa_0000_0000 // 0 to 63
	highTokenChars = 0x57ff_ffff_c7ff_fffe // 64 to 127
)

func isTokenChar(c byte) bool {
	if c < 64 {
		return lowTokenChars>>c&1 != 0
	}
	return c < 128 && highTokenChars>>(c-64)&1 != 0
}

// isTextChar reports whether c may be in a field value or a reason: HTAB, SP,
// visible ASCII and obs-text (RFC 9110, section 5.5).
func isTextChar(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }

func isText(b []byte) bool {
	for _, c := range b {
		if !isTextChar(c) {
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
