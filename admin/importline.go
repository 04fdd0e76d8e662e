package admin

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// A lineReader makes keys of the lines of an import. Its methods are for one
// goroutine.
type lineReader struct {
	format   apikey.SecretFormat
	operator *wire.Operator
	tenant   string    // of a line that names none
	next     time.Time // when the next key is created: a line later is a microsecond later
}

// minSecret is the shortest secret that can be imported in the clear. A shorter
// one could be found by trying.
const minSecret = 16

// read makes a key of one line.
func (r *lineReader) read(line []byte) (apikey.Key, error) {
	b, err := wire.ParseBody(line)
	if err != nil {
		return apikey.Key{}, err
	}
	spec := apikey.Spec{
		Tenant:      b.Text("tenant", 1, apikey.MaxTenant, false).Value,
		Name:        b.Text("name", 0, apikey.MaxName, true).Value,
		Subject:     b.Text("subject", 0, apikey.MaxSubject, true).Value,
		Environment: b.Text("environment", 1, apikey.MaxEnvironment, false).Value,
		Scopes:      b.Texts("scopes", true).Value,
		AllowedIPs:  b.IPs("allowed_ips", true).Value,
		APIVersion:  b.Text("api_version", 1, len(time.DateOnly), false).Value,
		ExpiresAt:   b.NullableTime("expires_at").Value,
	}
	digest, hint := r.secret(b)
	id := r.id(b)
	if err := b.Err(); err != nil {
		return apikey.Key{}, err
	}
	switch {
	case spec.Tenant == "":
		spec.Tenant = r.tenant
	case r.operator.Tenant != apikey.AnyTenant && spec.Tenant != r.operator.Tenant:
		return apikey.Key{}, errors.New("tenant is not the one that this operator acts for")
	}
	r.next = r.next.Add(time.Microsecond)
	return apikey.Adopt(spec, id, digest, hint, r.next)
}

// secret reads what the key is known by: its secret, or the digest of it.
func (r *lineReader) secret(b *wire.Body) (digest apikey.Digest, hint apikey.Hint) {
	text, sum := b.Text("secret", 0, wire.MaxBody, false), b.Text("sha256", 0, wire.MaxBody, false)
	switch {
	case text.Set == sum.Set:
		b.Refuse("sha256", "or secret is required, one of them")
	case sum.Set:
		var ok bool
		if digest, ok = parseDigest(sum.Value); !ok {
			b.Refuse("sha256", "must be a SHA-256 in hexadecimal or base64")
		}
	case len(text.Value) < minSecret || !visibleASCII(text.Value):
		b.Refuse("secret", "must have at least 16 visible ASCII characters")
	case r.format.Screen([]byte(text.Value)) == apikey.ScreenBroken:
		b.Refuse("secret", "begins like one issued here, but its checksum is wrong; it is mistyped or made up")
	default:
		digest, hint = apikey.DigestOf([]byte(text.Value)), apikey.HintOf(text.Value)
	}
	return digest, hint
}

// id reads the key's ID, or makes one. IDs that were made elsewhere decide where
// the key stands in lists.
func (r *lineReader) id(b *wire.Body) apikey.ID {
	text := b.Text("id", 0, wire.MaxBody, false)
	if !text.Set {
		return apikey.NewID(r.next, entropy())
	}
	id, err := apikey.ParseID(text.Value)
	if err != nil || id.IsZero() {
		b.Refuse("id", "must be a UUID such as 0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d2e")
	}
	return id
}

// parseDigest reads 64 hexadecimal digits, with "sha256:" before them or not, or
// base64 in either alphabet, padded or not (RFC 4648).
func parseDigest(text string) (d apikey.Digest, ok bool) {
	text = strings.TrimPrefix(text, "sha256:")
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(d) {
		text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimSuffix(text, "="))
		raw, err = base64.RawStdEncoding.Strict().DecodeString(text)
	}
	// The decoder passes over line ends.
	if err != nil || len(raw) != len(d) || strings.ContainsAny(text, "\r\n") || apikey.Digest(raw) == apikey.DigestOf(nil) {
		return d, false
	}
	return apikey.Digest(raw), true
}

func visibleASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
