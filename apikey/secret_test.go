package apikey

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
)

// counting returns the bytes 0, 1, 2, ... as entropy.
func counting() (e [32]byte) {
	for i := range e {
		e[i] = byte(i)
	}
	return e
}

// referenceChecksum computes the checksum from the definition of CRC-32
// (IEEE 802.3, reflected) bit by bit, and leaves the digits to math/big.
func referenceChecksum(body []byte) string {
	crc := ^uint32(0)
	for _, b := range body {
		crc ^= uint32(b)
		for range 8 {
			low := crc & 1
			crc >>= 1
			if low == 1 {
				crc ^= 0xedb88320
			}
		}
	}
	return fmt.Sprintf("%06s", new(big.Int).SetUint64(uint64(^crc)).Text(62))
}

// The wanted secrets were computed with Python's zlib.crc32 and divmod.
func TestNewMakesTheKnownSecrets(t *testing.T) {
	ones := [32]byte(bytes.Repeat([]byte{0xff}, 32))
	for _, tc := range []struct {
		name, prefix, environment string
		entropy                   [32]byte
		want                      string
	}{
		{"live", "lk", "live", counting(), "lk_live_003AuLtjc7TJLctqJ2Unu3mfAGcxg9lrkrCWgKbidLF4tMj5e"},
		{"test", "lk", "test", counting(), "lk_test_003AuLtjc7TJLctqJ2Unu3mfAGcxg9lrkrCWgKbidLF4m56Du"},
		{"no environment is marked live", "lk", "", counting(), "lk_live_003AuLtjc7TJLctqJ2Unu3mfAGcxg9lrkrCWgKbidLF4tMj5e"},
		{"a tenant's own environment is marked live", "lk", "testing", counting(), "lk_live_003AuLtjc7TJLctqJ2Unu3mfAGcxg9lrkrCWgKbidLF4tMj5e"},
		{"the least entropy is padded", "lk", "live", [32]byte{}, "lk_live_00000000000000000000000000000000000000000003qJuMF"},
		{"the greatest entropy fits", "lk", "live", ones, "lk_live_YHJSKWDa6oz1al1yMhwzwM8llg7hJNUca2J5RoW8xP109begg"},
		{"a small checksum is padded", "lk", "live", [32]byte{30: 3, 31: 55}, "lk_live_00000000000000000000000000000000000000000dh00gozR"},
		{"another prefix", "acme7", "test", [32]byte{31: 61}, "acme7_test_000000000000000000000000000000000000000000Z1ApShL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := NewSecretFormat(tc.prefix)
			got := f.New(tc.environment, tc.entropy)
			if got != tc.want {
				t.Errorf("New(%q, %x) = %s, want %s", tc.environment, tc.entropy, got, tc.want)
			}
			if got := f.Screen([]byte(tc.want)); got != ScreenValid {
				t.Errorf("Screen(%s) = %d, want ScreenValid", tc.want, got)
			}
		})
	}
}

func TestNewLosesNoEntropy(t *testing.T) {
	f := NewSecretFormat("lk")
	for bit := range 256 {
		var e [32]byte
		e[bit/8] = 1 << (bit % 8)
		secret := f.New("live", e)
		n, ok := new(big.Int).SetString(secret[8:8+43], 62)
		if !ok || [32]byte(n.FillBytes(make([]byte, 32))) != e {
			t.Errorf("New(%x) = %s, whose digits are %x", e, secret, n)
		}
	}
}

func TestScreen(t *testing.T) {
	f := NewSecretFormat("lk")
	live, test := f.New("live", counting()), f.New("test", counting())
	seal := func(body string) string { return body + referenceChecksum([]byte(body)) }
	for _, tc := range []struct {
		name, secret string
		want         Screening
	}{
		{"live", live, ScreenValid},
		{"test", test, ScreenValid},
		{"nothing", "", ScreenForeign},
		{"a JWT", "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2ln", ScreenForeign},
		{"another product's key", "sk_live_" + live[8:], ScreenForeign},
		{"another environment", "lk_prod_" + live[8:], ScreenForeign},
		{"another case", "LK_live_" + live[8:], ScreenForeign},
		{"a space before", " " + live, ScreenForeign},
		{"a head cut short", "lk_live", ScreenForeign},
		{"a longer prefix that ends alike", "alk_live_" + live[8:], ScreenForeign},
		{"a head alone", "lk_live_", ScreenBroken},
		{"one character short", live[:len(live)-1], ScreenBroken},
		{"one character more", live + "0", ScreenBroken},
		{"a line end after", live + "\n", ScreenBroken},
		{"a right checksum over too few digits", seal(live[:50]), ScreenBroken},
		{"a right checksum over too many digits", seal(live[:51] + "0"), ScreenBroken},
		{"the checksum covers the head", "lk_test_" + live[8:], ScreenBroken},
		{"the checksum of another secret", live[:51] + test[51:], ScreenBroken},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := f.Screen([]byte(tc.secret)); got != tc.want {
				t.Errorf("Screen(%q) = %d, want %d", tc.secret, got, tc.want)
			}
		})
	}
}

// A slip in the head makes a secret someone else's, any other makes it broken.
func TestScreenFindsEverySlip(t *testing.T) {
	f := NewSecretFormat("lk")
	for _, entropy := range [][32]byte{{}, counting()} {
		good := []byte(f.New("live", entropy))
		for at := range good {
			want := ScreenBroken
			if at < len("lk_live_") {
				want = ScreenForeign
			}
			for c := range 256 {
				bad := slices.Clone(good)
				if bad[at] = byte(c); bytes.Equal(bad, good) {
					continue
				}
				if got := f.Screen(bad); got != want {
					t.Errorf("Screen(%q), character %d wrong = %d, want %d", bad, at, got, want)
				}
			}
			if at < len("lk_live_") || at+1 == len(good) || good[at] == good[at+1] {
				continue
			}
			bad := slices.Clone(good)
			bad[at], bad[at+1] = bad[at+1], bad[at]
			if got := f.Screen(bad); got != ScreenBroken {
				t.Errorf("Screen(%q), characters %d and %d swapped = %d, want ScreenBroken", bad, at, at+1, got)
			}
		}
	}
}

func FuzzScreen(f *testing.F) {
	format := NewSecretFormat("lk")
	for _, s := range []string{"", "lk_live_", "lk_test", "eyJhbGciOiJFZERTQSJ9.e30.c2ln",
		format.New("live", counting()), format.New("test", [32]byte{}), format.New("live", counting())[:51]} {
		f.Add([]byte(s))
	}
	oracle := func(s string) Screening {
		parts := strings.SplitN(s, "_", 3)
		if len(parts) < 3 || parts[0] != "lk" || parts[1] != "live" && parts[1] != "test" {
			return ScreenForeign
		}
		digits := parts[2]
		if len(digits) == 49 && referenceChecksum([]byte(s[:len(s)-6])) == digits[43:] {
			return ScreenValid
		}
		return ScreenBroken
	}
	f.Fuzz(func(t *testing.T, secret []byte) {
		// The fuzzer will not guess a checksum, so each input is also sealed.
		for _, s := range []string{string(secret), string(secret) + referenceChecksum(secret)} {
			if got, want := format.Screen([]byte(s)), oracle(s); got != want {
				t.Errorf("Screen(%q) = %d, want %d", s, got, want)
			}
		}
	})
}

func TestSecretAllocs(t *testing.T) {
	f := NewSecretFormat(strings.Repeat("p", 100))
	secret := []byte(f.New("test", counting()))
	ok := true
	for name, run := range map[string]func(){
		"DigestOf": func() { ok = ok && DigestOf(secret) != Digest{} },
		"Screen":   func() { ok = ok && f.Screen(secret) == ScreenValid },
	} {
		if got := testing.AllocsPerRun(100, run); got != 0 {
			t.Errorf("%s allocates %v times, want 0", name, got)
		}
	}
	if !ok {
		t.Error("DigestOf or Screen answered wrongly")
	}
}

// The vector is from FIPS 180-2, appendix B.1.
func TestDigestOf(t *testing.T) {
	got, want := DigestOf([]byte("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if hex.EncodeToString(got[:]) != want {
		t.Errorf("DigestOf(abc) = %x, want %s", got[:], want)
	}
	if DigestOf([]byte("abc\n")) == got {
		t.Error("DigestOf(abc and a line end) = DigestOf(abc), want the exact bytes digested")
	}
}

func TestDigestNeverPrintsInFull(t *testing.T) {
	d := DigestOf([]byte("abc"))
	for _, verb := range []string{"%v", "%s", "%x", "%X", "%q", "%+v", "%#v", "%d", "% x", "%#x", "%64s", "%c"} {
		if got, want := fmt.Sprintf(verb, d), "sha256:ba7816bf…"; got != want {
			t.Errorf("Sprintf(%q, digest) = %s, want %s", verb, got, want)
		}
		got := fmt.Sprintf(verb, Key{Digest: d})
		if !strings.Contains(got, "sha256:ba7816bf…") {
			t.Errorf("Sprintf(%q, key) = %s, want the short digest in it", verb, got)
		}
	}
	encoded, err := json.Marshal(Key{Digest: d})
	if err != nil || !strings.Contains(string(encoded), `"Digest":"sha256:ba7816bf…"`) {
		t.Errorf("a key in JSON = %s, %v, want the short digest in it", encoded, err)
	}
}

func TestHintOf(t *testing.T) {
	for _, tc := range []struct {
		name, secret string
		want         Hint
		shown        string
	}{
		{"an issued secret", NewSecretFormat("lk").New("live", counting()), Hint{"lk_live_003A", "Mj5e"}, "lk_live_003A…Mj5e"},
		{"32 bytes are shown in part", "0123456789abcdefghijklmnopqrstuv", Hint{"0123456789ab", "stuv"}, "0123456789ab…stuv"},
		{"31 bytes are not shown", "0123456789abcdefghijklmnopqrstu", Hint{}, "…"},
		{"no secret", "", Hint{}, "…"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := HintOf(tc.secret)
			if got != tc.want || got.String() != tc.shown {
				t.Errorf("HintOf(%q) = %#v shown as %s, want %#v shown as %s", tc.secret, got, got, tc.want, tc.shown)
			}
		})
	}
}
