package apikey

import (
	"bytes"
	"regexp"
	"testing"
)

// FuzzMask holds masking against regular expressions, one head after the other as it
// does, and to what it is for: no head of a secret is left, and nothing else is lost.
func FuzzMask(f *testing.F) {
	format := NewSecretFormat("lk")
	secret := format.New("live", counting())
	for _, s := range []string{"", "GET /?key=" + secret + "&a=1", secret + secret, secret[:20], "lk_live_lk_test_x", "lk_test_lk_live_x", "lk_live", "LK_LIVE_x", "lk_lk_live_x_live_x", "x\x00lk_test_\xff"} {
		f.Add([]byte(s))
	}
	heads := []*regexp.Regexp{regexp.MustCompile(`lk_live_[0-9a-zA-Z]*`), regexp.MustCompile(`lk_test_[0-9a-zA-Z]*`)}
	f.Fuzz(func(t *testing.T, text []byte) {
		want, given := text, bytes.Clone(text)
		for _, head := range heads {
			want = head.ReplaceAll(want, []byte("(key)"))
		}
		got := format.Mask(text)
		if !bytes.Equal(got, want) {
			t.Errorf("Mask(%q) = %q, want %q", text, got, want)
		}
		if bytes.Contains(got, []byte("lk_live_")) || bytes.Contains(got, []byte("lk_test_")) {
			t.Errorf("Mask(%q) = %q, which begins a secret", text, got)
		}
		if !bytes.Equal(text, given) {
			t.Errorf("Mask changed what it was given: %q", given)
		}
	})
}
