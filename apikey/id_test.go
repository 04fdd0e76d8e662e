package apikey

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The example of RFC 9562, appendix A.6: its 12 bits after the millisecond,
// 0xcc3, are what 797,608 ns make of them, and its top entropy bits are lost
// to the variant.
func TestNewIDMakesTheExampleOfTheRFC(t *testing.T) {
	zone := time.FixedZone("EST", -5*3600)
	at := time.Date(2022, 2, 22, 14, 22, 22, 797_608, zone)
	want := "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
	for _, top := range []byte{0x18, 0x58, 0x98, 0xd8} {
		got := NewID(at, [8]byte{top, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f})
		if got.String() != want {
			t.Errorf("NewID(%s, %x...) = %s, want %s", at, top, got, want)
		}
		if utc := NewID(at.UTC(), [8]byte{top, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f}); utc != got {
			t.Errorf("NewID(the same in UTC) = %s, want %s", utc, got)
		}
	}
}

func TestNewIDUses62BitsOfEntropy(t *testing.T) {
	seen := map[ID]bool{NewID(at(0), [8]byte{}): true}
	for bit := range 64 {
		var e [8]byte
		e[bit/8] = 0x80 >> (bit % 8)
		seen[NewID(at(0), e)] = true
	}
	if got, want := len(seen), 1+62; got != want {
		t.Errorf("64 bits set one by one make %d IDs, want %d", got, want)
	}
}

// The earlier ID gets the greatest entropy and the later one the least, so
// that only the time can order them and neither reaches the fixed bits.
func TestIDsSortByTime(t *testing.T) {
	greatest := [8]byte(bytes.Repeat([]byte{0xff}, 8))
	ascend := func(early, late time.Time) {
		t.Helper()
		a, b := NewID(early, greatest), NewID(late, [8]byte{})
		if bytes.Compare(a[:], b[:]) >= 0 || a.String() >= b.String() {
			t.Errorf("NewID(%s) = %s, not before %s, NewID %s later", early, a, b, late.Sub(early))
		}
		for _, id := range []ID{a, b} {
			if version, variant := id[6]>>4, id[8]>>6; version != 7 || variant != 0b10 {
				t.Errorf("%s has version %d, variant %b, want 7, 10", id, version, variant)
			}
		}
	}
	const quarter = 250 * time.Nanosecond
	for i := range time.Duration(8001) { // two whole milliseconds, and their borders
		ascend(at(i*quarter), at((i+1)*quarter))
	}
	for _, step := range []time.Duration{time.Microsecond, time.Millisecond, time.Second, time.Hour, 100 * 365 * 24 * time.Hour} {
		ascend(at(0), at(step))
		ascend(at(-1), at(step-1))
	}
}

func TestParseID(t *testing.T) {
	id := NewID(at(0), [8]byte{1, 2, 3, 4, 5, 6, 0xab, 0xcd})
	s := id.String()
	for _, tc := range []struct {
		name, text string
		ok         bool
	}{
		{"as String wrote it", s, true},
		{"in upper case", strings.ToUpper(s), true},
		{"nothing", "", false},
		{"without hyphens", strings.ReplaceAll(s, "-", ""), false},
		{"in braces", "{" + s + "}", false},
		{"as a URN", "urn:uuid:" + s, false},
		{"a space before", " " + s, false},
		{"a line end after", s + "\n", false},
		{"one digit short", s[:35], false},
		{"a digit for the first hyphen", s[:8] + "0" + s[9:], false},
		{"a digit for the second hyphen", s[:13] + "0" + s[14:], false},
		{"a digit for the third hyphen", s[:18] + "0" + s[19:], false},
		{"a digit for the fourth hyphen", s[:23] + "0" + s[24:], false},
		{"a digit that is none", s[:35] + "g", false},
		{"a hyphen for a digit", s[:35] + "-", false},
		{"a hyphen one place early", s[:7] + "-" + s[7:8] + s[9:], false},
		{"a multi-byte digit", s[:34] + "é", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseID(tc.text)
			if tc.ok && (got != id || err != nil) {
				t.Errorf("ParseID(%q) = %s, %v, want %s, nil", tc.text, got, err, id)
			}
			if !tc.ok && (!got.IsZero() || !errors.Is(err, ErrInvalidID)) {
				t.Errorf("ParseID(%q) = %s, %v, want zero, ErrInvalidID", tc.text, got, err)
			}
		})
	}
	if id.IsZero() || !(ID{}).IsZero() {
		t.Errorf("IsZero() = %t of %s, %t of the zero ID, want false, true", id.IsZero(), id, ID{}.IsZero())
	}
}

func FuzzParseID(f *testing.F) {
	s := NewID(at(0), [8]byte{1, 2, 3, 4, 5, 6, 0xab, 0xcd}).String()
	for _, seed := range []string{"", s, strings.ToUpper(s), "{" + s + "}", strings.ReplaceAll(s, "-", ""), s[:35] + "g", s[:34] + "é"} {
		f.Add(seed)
	}
	uuid := regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseID(text)
		if got, want := err == nil, uuid.MatchString(text); got != want {
			t.Fatalf("ParseID(%q) accepts = %t, want %t", text, got, want)
		}
		if err != nil {
			if !id.IsZero() || !errors.Is(err, ErrInvalidID) {
				t.Errorf("ParseID(%q) = %s, %v, want zero, ErrInvalidID", text, id, err)
			}
			return
		}
		if got, want := id.String(), strings.ToLower(text); got != want {
			t.Errorf("ParseID(%q).String() = %s, want %s", text, got, want)
		}
	})
}
