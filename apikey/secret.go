package apikey

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/big"
	"slices"
	"strings"
)

// base62 are the digits of the secret, in the order math/big gives them.
const base62 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

const (
	randomDigits   = 43 // 62^43 > 2^256
	checksumDigits = 6  // 62^6 > 2^32
)

// A Digest is the SHA-256 of a secret's bytes. The secret has 256 random bits,
// so neither salt nor a slow hash would make the digest harder to invert.
type Digest [sha256.Size]byte

// DigestOf returns the digest of whatever credential was presented, of its
// exact bytes. It does not allocate and keeps no reference to secret.
func DigestOf(secret []byte) Digest { return sha256.Sum256(secret) }

// A SecretFormat makes and recognises the secrets Latchkey issues:
//
//	<prefix>_<live|test>_<43 base62 digits><6 base62 digits>
//
// The 43 digits are 256 random bits; the 6 are the CRC-32 (IEEE) of all
// before them, so that a mistyped or made-up secret is refused without a
// look-up and a secret scanner can tell a leaked one from noise.
type SecretFormat struct {
	live, test string // "lk_live_", "lk_test_"
}

// NewSecretFormat returns the format of secrets that begin with prefix, which
// holds only lower-case letters and digits (package config checks it).
func NewSecretFormat(prefix string) SecretFormat {
	return SecretFormat{live: prefix + "_" + EnvironmentLive + "_", test: prefix + "_" + EnvironmentTest + "_"}
}

// New returns the secret that 256 bits of entropy make. Every environment but
// "test" is marked "live": a secret that is not known to be harmless is not to
// look so.
func (f SecretFormat) New(environment string, entropy [32]byte) string {
	head := f.live
	if environment == EnvironmentTest {
		head = f.test
	}
	digits := new(big.Int).SetBytes(entropy[:]).Text(62)
	body := head + strings.Repeat("0", randomDigits-len(digits)) + digits
	sum := checksum([]byte(body))
	return body + string(sum[:])
}

// A Screening says what a secret's spelling alone tells.
type Screening uint8

// The findings of Screen.
const (
	ScreenForeign Screening = iota // not in our format: an imported key or a JWT, look it up
	ScreenValid                    // ours, and the checksum holds: look it up
	ScreenBroken                   // begins like ours but cannot be: refuse it
)

// Screen judges a secret by its spelling. It does not allocate and keeps no
// reference to secret.
func (f SecretFormat) Screen(secret []byte) Screening {
	switch {
	case bytes.HasPrefix(secret, []byte(f.live)), bytes.HasPrefix(secret, []byte(f.test)):
	default:
		return ScreenForeign
	}
	if len(secret) != len(f.live)+randomDigits+checksumDigits {
		return ScreenBroken
	}
	body, sum := secret[:len(secret)-checksumDigits], checksum(secret[:len(secret)-checksumDigits])
	if !bytes.Equal(secret[len(body):], sum[:]) {
		return ScreenBroken
	}
	return ScreenValid
}

// Mask returns the text with "(key)" in place of what is spelt like a secret of
// ours, mistyped or not: one of the heads, and whatever letters and digits follow.
func (f SecretFormat) Mask(text []byte) []byte {
	for _, head := range []string{f.live, f.test} {
		for at := bytes.Index(text, []byte(head)); at >= 0; at = bytes.Index(text, []byte(head)) {
			end := at + len(head)
			for end < len(text) && strings.IndexByte(base62, text[end]) >= 0 {
				end++
			}
			text = slices.Concat(text[:at], []byte("(key)"), text[end:])
		}
	}
	return text
}

// checksum returns the CRC-32 of body in base62.
func checksum(body []byte) (out [checksumDigits]byte) {
	n := crc32.ChecksumIEEE(body)
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = base62[n%62]
		n /= 62
	}
	return out
}

// A Hint is what may be shown of a secret after it was issued. Both parts are
// empty for a key imported by its digest.
type Hint struct {
	Head string // the first 12 bytes
	Tail string // the last 4
}

// shortestHinted is the length below which a secret is shown not at all: a
// hint must leave most of a secret unsaid.
const shortestHinted = 32

// HintOf returns the hint of a secret.
func HintOf(secret string) Hint {
	if len(secret) < shortestHinted {
		return Hint{}
	}
	return Hint{Head: secret[:12], Tail: secret[len(secret)-4:]}
}

// String returns the masked secret, such as "lk_live_Ab3d…9xYz".
func (h Hint) String() string { return h.Head + "…" + h.Tail }

// Format keeps digests out of logs: whatever the verb, a digest prints as its
// first four bytes, enough to tell two apart and too little to look one up.
func (d Digest) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "sha256:%s…", hex.EncodeToString(d[:4]))
}

// MarshalText does the same for encoders, such as that of a JSON log.
func (d Digest) MarshalText() ([]byte, error) { return fmt.Append(nil, d), nil }
