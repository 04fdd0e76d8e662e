package config_test

import (
	"testing"

	"latchkey/config"
)

func TestSizeText(t *testing.T) {
	for _, tc := range []struct {
		text string
		want config.Size // negative means refused
	}{
		{"0", 0}, {"1025", 1025}, {"16KiB", 16 << 10}, {"64MiB", 64 << 20}, {"3GiB", 3 << 30}, {"8589934591GiB", 8589934591 << 30},
		{"8589934592GiB", -1}, {"9223372036854775808", -1}, {"-1", -1}, {"+1", -1}, {"1.5KiB", -1}, {"1 KiB", -1}, {"1kb", -1}, {"KiB", -1}, {"", -1},
	} {
		got := config.Size(-1)
		err := got.UnmarshalText([]byte(tc.text))
		if got != tc.want || (err != nil) != (tc.want < 0) {
			t.Errorf("UnmarshalText(%q) = %d, %v, want %d", tc.text, got, err, tc.want)
		}
		if err == nil && got.String() != tc.text {
			t.Errorf("String() = %q, want %q", got.String(), tc.text)
		}
	}
}
