package http1

import (
	"bytes"
	"math/big"
	"strings"
	"testing"
)

// FuzzParseLength holds the reading of lengths against math/big: decimal digits alone,
// and what an int64 can hold.
func FuzzParseLength(f *testing.F) {
	for _, s := range []string{"0", "007", "9223372036854775807", "9223372036854775808", "18446744073709551616", "+1", "-0", "1_0", "0x1", " 1", "1,1", "1.0", "", "٣"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		want := int64(-1)
		if len(text) > 0 && len(bytes.Trim(text, "0123456789")) == 0 {
			if n, ok := new(big.Int).SetString(string(text), 10); ok && n.IsInt64() {
				want = n.Int64()
			}
		}
		if got := ParseLength(text); got != want {
			t.Errorf("ParseLength(%q) = %d, want %d", text, got, want)
		}
	})
}

// FuzzEqualFold holds the comparison of names to ASCII letters alone.
func FuzzEqualFold(f *testing.F) {
	f.Add("chunked", "CHUNKED")
	f.Add("chun\u212aed", "chunked")
	f.Add("@[`{", "`{@[")
	f.Fuzz(func(t *testing.T, a, b string) {
		upper := func(s string) string {
			out := []byte(s)
			for i, c := range out {
				if strings.IndexByte("abcdefghijklmnopqrstuvwxyz", c) >= 0 {
					out[i] = c &^ 0x20
				}
			}
			return string(out)
		}
		if got, want := EqualFold(a, []byte(b)), upper(a) == upper(b); got != want {
			t.Errorf("EqualFold(%q, %q) = %t, want %t", a, b, got, want)
		}
		if !EqualFold(a, upper(a)) {
			t.Errorf("EqualFold(%q, %q) = false", a, upper(a))
		}
	})
}
