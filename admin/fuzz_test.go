package admin

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"latchkey/apikey"
	"latchkey/internal/wiretest"
)

// FuzzLine holds the reading of an import's lines against encoding/json, and what
// comes of it against what a key can be.
func FuzzLine(f *testing.F) {
	sum := strings.Repeat("ab", 32)
	for _, seed := range []string{`{"sha256":"` + sum + `","tenant":"acme"}`, `{"secret":"a-secret-of-16-and-more","name":"n"}`, `{"secret":"lk_live_x","sha256":"` + sum + `"}`,
		`{"sha256":"sha256:` + sum + `","scopes":["a"],"allowed_ips":["10.0.0.0/8"],"expires_at":"2027-01-01T00:00:00Z","id":"0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d2e","api_version":"2024-05-22","subject":"u","environment":"e"}`,
		`{"sha256":"` + sum + `","tenant":"globex"}`, `{"sha256":"` + sum + `","name":null}`, `{"sha256":"` + sum + `","id":"00000000-0000-0000-0000-000000000000"}`} {
		f.Add([]byte(seed))
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Add([]byte(`{"sha256":"` + sum + `","expires_at":"2027-01-01T00:00:00\u005a"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r := lineReader{format: apikey.NewSecretFormat("lk"), reach: "acme", tenant: "acme", next: now}
		k, err := r.read(line)
		if err != nil {
			if problem := problemOf(err); problem == "" {
				t.Fatal("a refusal without a reason")
			}
			return
		}
		var want struct {
			Secret, SHA256, Tenant, Name, Environment, Subject, ID string
			Scopes                                                 []string
			IPs                                                    []string `json:"allowed_ips"`
			At                                                     string   `json:"expires_at"` // time.Time reads no escapes
			Version                                                string   `json:"api_version"`
		}
		_, ok := wiretest.Strict(line, &want, "secret", "sha256", "tenant", "name", "environment", "subject", "scopes", "allowed_ips", "expires_at", "id", "api_version")
		var at time.Time
		if want.At != "" {
			at, err = time.Parse(time.RFC3339, want.At)
			ok = ok && err == nil
		}
		digest := apikey.DigestOf([]byte(want.Secret))
		if want.Secret == "" {
			digest, _ = parseDigest(want.SHA256)
		}
		if !ok || k.Validate() != nil || k.Tenant != "acme" || want.Tenant != "" && want.Tenant != "acme" || k.Name != want.Name || k.Environment != want.Environment || k.Subject != want.Subject ||
			strings.Join(k.Scopes, " ") != strings.Join(want.Scopes, " ") || !wiretest.SameIPs(k.AllowedIPs, want.IPs) || !k.ExpiresAt.Equal(at.Truncate(time.Microsecond)) || k.Pin.Version != want.Version ||
			k.Digest != digest || digest == apikey.DigestOf(nil) || want.ID != "" && k.ID.String() != strings.ToLower(want.ID) || k.ID.IsZero() || k.State(now) != apikey.StateActive {
			t.Fatalf("%q is read as %+v, it says %+v (%t)", line, k, want, ok)
		}
	})
}

// FuzzParseDigest writes a digest that was read in every form, which must all be
// read as the same, and the text must be one of them.
func FuzzParseDigest(f *testing.F) {
	d := apikey.DigestOf([]byte("x"))
	for _, text := range digestForms(d) {
		f.Add(text)
	}
	f.Add("sha256:sha256:" + hex.EncodeToString(d[:]))
	f.Add(base64.StdEncoding.EncodeToString(d[:])[:43] + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		d, ok := parseDigest(text)
		if !ok {
			if d != (apikey.Digest{}) {
				t.Fatalf("%q is refused, and read as %x", text, d[:])
			}
			return
		}
		plain := strings.TrimPrefix(text, "sha256:")
		known := false
		for _, form := range digestForms(d) {
			got, ok := parseDigest(form)
			if !ok || got != d {
				t.Fatalf("%q is read as %x, but %q as %x, %t", text, d[:], form, got[:], ok)
			}
			known = known || form == plain || len(plain) == 64 && strings.EqualFold(form, plain)
		}
		// The two alphabets of base64 may be mixed.
		if swapped := strings.NewReplacer("-", "+", "_", "/").Replace(plain); !known && swapped != digestForms(d)[1] && swapped != digestForms(d)[2] || d == apikey.DigestOf(nil) {
			t.Fatalf("%q is read as %x", text, d[:])
		}
	})
}

func digestForms(d apikey.Digest) []string {
	return []string{hex.EncodeToString(d[:]), base64.StdEncoding.EncodeToString(d[:]), base64.RawStdEncoding.EncodeToString(d[:]),
		base64.URLEncoding.EncodeToString(d[:]), base64.RawURLEncoding.EncodeToString(d[:])}
}

// FuzzAuditQuery holds the query of the audit log against a reading by other means.
func FuzzAuditQuery(f *testing.F) {
	for _, seed := range []string{"", "tenant=acme&limit=1000&before=9", "key=0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d2e&since=2026-01-01T00:00:00Z", "tenant=globex", "before=18446744073709551615", "before=09",
		"since=2026-01-01T00:00:00%2B01:00", "key=00000000-0000-0000-0000-000000000000", "tenant=acme&tenant=acme"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := readAuditQuery(wiretest.Call(query, nil))
		if wiretest.Refused(t, err) {
			return
		}
		if q.Tenant != "acme" || q.Limit < 1 || q.Limit > 1000 {
			t.Fatalf("%q is read as %+v", query, q)
		}
		before := any(q.Before.Revision)
		// An error is of another pair than the cursor's.
		if values, _ := url.ParseQuery(query); strings.Contains(values.Get("before"), ".") {
			before = q.Before
		}
		if err := wiretest.CheckQuery(query, map[string]any{"limit": q.Limit, "before": before, "key": q.Key}, map[string]any{"limit": 100, "before": 0}); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzCredential holds the finding of a call's credential against a reading of the
// header by other means: what is found is all that there is, whole.
func FuzzCredential(f *testing.F) {
	for _, seed := range []string{"Authorization: Bearer a", "authorization: bearer a\r\nX_API_KEY: a", "Authorization: Basic a", "X-Api-Key: a\r\nX-API-KEY: b", "Authorization: Bearer", "Authorization: Bearer  a b ", "X-API-KEY:", "Authorization: Bearer a\r\nAuthorization: Bearer b", "X--API-KEY: a"} {
		f.Add(seed)
	}
	f.Add("author\u0130zation: Bearer a")
	f.Add("X-API-\u212aEY: a")
	f.Fuzz(func(t *testing.T, fields string) {
		var h fasthttp.RequestHeader
		var want []string
		for _, line := range strings.Split(fields, "\r\n") {
			name, value, ok := strings.Cut(line, ":")
			value = textproto.TrimString(value)
			if !ok || name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" || strings.ContainsAny(value, "\r\n\x00") {
				return // no header that gets here
			}
			h.Add(name, value)
			switch strings.ReplaceAll(strings.ToLower(name), "_", "-") {
			case "authorization":
				token := ""
				if len(value) >= 7 && strings.EqualFold(value[:7], "Bearer ") {
					token = string(bytes.TrimSpace([]byte(value[7:])))
				}
				want = append(want, token)
			case "x-api-key":
				want = append(want, value)
			}
		}
		token, bearer, err := credential(&h, []string{"X-API-KEY"})
		different := false
		for _, one := range want {
			different = different || one != want[0]
		}
		if (err == nil) != (len(want) > 0 && !different) {
			t.Fatalf("%q has the credentials %q, found is %q, %v", fields, want, token, err)
		}
		if err == nil && (string(token) != want[0] || bearer != strings.Contains(strings.ToLower("\r\n"+fields), "\r\nauthorization:")) {
			t.Fatalf("%q has the credentials %q, found is %q, bearer %t", fields, want, token, bearer)
		}
	})
}

// FuzzPlace holds the reading of cursors to their one spelling, and revisions alone.
func FuzzPlace(f *testing.F) {
	for _, text := range []string{"0", "0.0", "9", "9.1", "09.1", "9.01", "9.", ".1", "+9", "18446744073709551615.4294967295", "18446744073709551616", "1.4294967296", "1.2.3", ""} {
		f.Add(text)
	}
	spelling := regexp.MustCompile(`^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))?$`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePlace(text)
		m := spelling.FindStringSubmatch(text)
		var revision, ordinal big.Int
		if m != nil {
			revision.SetString(m[1], 10)
			ordinal.SetString("0"+m[3], 10)
		}
		if (err == nil) != (m != nil && revision.IsUint64() && ordinal.BitLen() <= 32) {
			t.Fatalf("%q is read as %s, %v", text, p, err)
		}
		if err == nil && (p.Revision != revision.Uint64() || uint64(p.Ordinal) != ordinal.Uint64()) {
			t.Fatalf("%q is read as %s", text, p)
		}
	})
}

// FuzzReadAudit holds the reading of a saved audit log against a decoder that knows
// nothing of events, and what was read against what is read of it when it is written
// again.
func FuzzReadAudit(f *testing.F) {
	const event = `{"revision":3,"cursor":"3.0","at":"2026-01-02T03:04:05.000006Z","actor":"ops","action":"revoked","key_id":"0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d2e","tenant":"acme","fields":["revoked_at"],"request_id":"r"}`
	used := strings.Replace(event, "revoked", "used", 1)
	signing := strings.Replace(event, "key_id", "signing_key_id", 1)
	for _, text := range []string{"", "[]", "[" + event + "," + used + "]\n[" + event + "]", event + event, event[:40], "null", "[null]", `[{"revision":3}]`, event + "]", "[[]]", signing, strings.Replace(event, "{", `{"signing_key_id":"k",`, 1), strings.Replace(event, "}", `,"action":null}`, 1), strings.Replace(event, "3", "-3", 1), `{"Revision":3}`} {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"x":1e999,"revision":3,"cursor":"3.0","at":"2026-01-02T03:04:05.000006Z","actor":"ops","action":"revoked","key_id":"0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d2e","tenant":"acme"}`))
	f.Add([]byte(`{"revision":3,"cursor":"3.0","at":"0001-01-01T00:00:00.0000001Z","actor":"ops","action":"revoked","key_id":"0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d2e","tenant":"acme"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var got []apikey.Event
		again := bytes.NewBufferString("[]")
		err := ReadAudit(bytes.NewReader(text), func(e apikey.Event) error {
			got = append(got, e)
			return json.NewEncoder(again).Encode(showEvent(e))
		})
		if err != nil && err.Error() == "" {
			t.Fatal("a refusal without a reason")
		}
		var back []apikey.Event
		if err := ReadAudit(again, func(e apikey.Event) error { back = append(back, e); return nil }); err != nil || !slices.Equal(encoded(back), encoded(got)) {
			t.Fatalf("%q is read as %+v, which is written as what is read as %+v, %v", text, got, back, err)
		}
		if err != nil {
			return
		}
		var want []string
		for d := json.NewDecoder(bytes.NewReader(text)); ; {
			d.UseNumber() // no float64 holds 1e999
			var value any
			if d.Decode(&value) != nil {
				break
			}
			list, many := value.([]any)
			if !many {
				list = []any{value}
			}
			for _, one := range list {
				fields, _ := one.(map[string]any)
				for name, value := range fields {
					if name != strings.ToLower(name) || strings.ContainsAny(name, "\u017f\u212a") {
						return // encoding/json takes it for the same
					}
					if value == nil {
						return // and leaves what stood there before
					}
				}
				id, _ := fields["key_id"].(string)
				signing, _ := fields["signing_key_id"].(string)
				if fields["action"] != "used" {
					want = append(want, fmt.Sprint(fields["action"], " ", strings.ToLower(id), " ", signing))
				}
			}
		}
		for i, e := range got {
			if i >= len(want) || want[i] != string(e.Action)+" "+showEvent(e).KeyID+" "+e.SigningKey {
				t.Fatalf("%q: event %d is read as %+v, want one of %q", text, i, e, want)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%q has %d events, %d are read", text, len(want), len(got))
		}
	})
}

// encoded makes events comparable.
func encoded(events []apikey.Event) (out []string) {
	for _, e := range events {
		out = append(out, fmt.Sprintf("%+v", showEvent(e)))
	}
	return out
}

// FuzzQuestion holds the reading of what is to be explained against encoding/json.
func FuzzQuestion(f *testing.F) {
	for _, seed := range []string{`{"method":"GET","path":"/","host":"h"}`, `{"method":"GET","path":"/?q","host":"h","ip":"::ffff:192.0.2.7","key":"k"}`, `{"method":"GET","path":"/","host":"h","ip":"fe80::1%eth0"}`,
		`{"method":"","path":"/","host":"h"}`, `{"method":"GET","path":"/","host":null}`, `{"method":"GET","path":"/","host":"h","Key":"k"}`, `{}`} {
		f.Add([]byte(seed))
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte) {
		c := wiretest.Call("", body)
		c.Now = now
		q, err := readQuestion(c)
		if wiretest.Refused(t, err) {
			return
		}
		var want struct {
			Method, Path, Host, Key string
			IP                      *string
		}
		nulls, ok := wiretest.Strict(body, &want, "method", "path", "host", "key", "ip")
		for _, null := range nulls {
			ok = ok && !null
		}
		var client netip.Addr
		if want.IP != nil {
			client, err = netip.ParseAddr(*want.IP)
			ok = ok && err == nil && client.Zone() == ""
		}
		_, key := nulls["key"]
		if !ok || q.Method != want.Method || q.Path != want.Path || q.Host != want.Host || string(q.Secret) != want.Key || key && want.Key == "" ||
			want.Method == "" || want.Path == "" || want.Host == "" || q.Client != client.Unmap() || q.Tenant != "acme" || !q.Now.Equal(now) {
			t.Fatalf("%q is read as %+v, it says %+v (%t)", body, q, want, ok)
		}
	})
}
