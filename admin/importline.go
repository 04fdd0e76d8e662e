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
	format apikey.SecretFormat
	reach  string    // the tenant that the call is for, or apikey.AnyTenant
	tenant string    // of a line that names none
	next   time.Time // when the next key is created: a line later is a microsecond later
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
	case r.reach != apikey.AnyTenant && spec.Tenant != r.reach:
		return apikey.Key{}, errors.New("tenant is not the one that this call is for")
	}
	r.next = r.next.Add(time.Microsecond)
	return apikey.Adopt(spec, id, digest, hint, r.next)
}

// taken counts the lines of a call for one tenant that have the secret or the ID of
// another's key, of which it tells the caller no more than that it is there: each is as good as
// a guess at a credential that was right. Like failed authentications they are counted by
// address, and logged. Too many end the import.
func (in *intake) taken(chunk []outcome) error {
	p, addr := in.plane, in.call.Client
	var stop error
	for i := range chunk {
		o := &chunk[i]
		if in.reader.reach == apikey.AnyTenant || !errors.Is(o.err, apikey.ErrExists) {
			continue
		}
		if stop != nil {
			o.err = stop
			continue
		}
		id, err := p.foreign(in.reader.reach, &o.key)
		if err != nil {
			return err
		}
		if id.IsZero() {
			continue
		}
		now := p.options.Now()
		p.limit.Add(addr, now)
		p.options.Logger.Warn("an operator of one tenant imports the secret or the ID of another tenant's key",
			"request_id", in.call.RequestID, "client", addr.String(), "operator", in.call.Operator.Name, "key_id", id.String())
		if p.limit.Wait(addr, maxFailures, now) > 0 {
			stop = &wire.Error{Status: 429, Message: "too many lines with the secret or the ID of keys that are there already; wait a minute"}
		}
	}
	return stop
}

// foreign returns the ID of a key with the same secret or ID that is not the tenant's, the
// zero ID if there is none.
func (p *Plane) foreign(tenant string, k *apikey.Key) (apikey.ID, error) {
	if p.options.Finder != nil {
		if g, err := p.options.Finder.Lookup(&k.Digest); err == nil && g.Tenant != tenant {
			return g.ID, nil
		} else if err != nil && !errors.Is(err, apikey.ErrNotFound) {
			return apikey.ID{}, err
		}
	}
	there, err := p.options.Keys.Reader.ByID(apikey.AnyTenant, k.ID)
	if errors.Is(err, apikey.ErrNotFound) {
		return apikey.ID{}, nil
	}
	if err != nil || there.Tenant == tenant {
		return apikey.ID{}, err
	}
	return there.ID, nil
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
