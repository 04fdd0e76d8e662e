package oidc

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// FuzzPeek holds the reading of unverified tokens against go-jose's: an issuer
// is seen only where go-jose, given the token, verifies the same payload.
func FuzzPeek(f *testing.F) {
	encode := base64.RawURLEncoding.EncodeToString
	for _, parts := range [][2]string{
		{`{"alg":"RS256","kid":"a","typ":"at+jwt"}`, `{"iss":"https://issuer.example"}`},
		{`{"alg":"none","crit":[]}`, `{"iss":1}`},
		{`{"alg":"ES256","typ":null}`, `{"iss":"a","iss":"b"}`},
		{`[]`, `{`},
	} {
		f.Add(encode([]byte(parts[0])) + "." + encode([]byte(parts[1])) + ".c2ln")
	}
	f.Add("..")
	f.Add(encode([]byte(`{"alg":"RS256","typ":"at+jwt"}`)) + "." + encode([]byte(`{"iss":"a","iss":null}`)) + ".c2ln")
	f.Add(encode([]byte(`{"alg":"RS256","typ":"at+jwt"}`)) + "." + encode([]byte(`{"iss":"a","x":1e999}`)) + ".c2ln")
	f.Add(encode([]byte(`{"alg":"RS256","Typ":"at+jwt"}`)) + "." + encode([]byte(`{"iss":"a","ISS":"b"}`)) + ".c2ln")
	f.Fuzz(func(t *testing.T, token string) {
		head, issuer, ok := peek(token)
		if !ok {
			if issuer != "" || head != (header{}) {
				t.Errorf("of no token it returns %+v and %q", head, issuer)
			}
			return
		}
		signed, err := jose.ParseSignedCompact(token, algorithms())
		if err != nil {
			return
		}
		var payload map[string]json.RawMessage // in which a number may be 1e999
		var said string
		if err := errors.Join(json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &payload), json.Unmarshal(payload["iss"], &said)); err != nil || said != issuer {
			t.Errorf("issuer %q, but the payload has %s (%v)", issuer, payload["iss"], err)
		}
		if typ, _ := signed.Signatures[0].Protected.ExtraHeaders["typ"].(string); head.accessToken && !strings.HasSuffix(strings.ToLower(typ), "at+jwt") {
			t.Errorf("the type %q counts as an access token's", typ)
		}
	})
}

// FuzzClaims checks that whatever a token says, it makes its bearer an operator
// with a known role, a tenant and a name, or a refusal that quotes none of it.
func FuzzClaims(f *testing.F) {
	for _, text := range []string{
		`{"sub":"ada","roles":"issuer","tenant":"acme"}`,
		`{"sub":"ada","roles":["admin",1],"tenant":"*"}`,
		`{"sub":"ada","a":{"b":["viewer"]},"a.b":null,"tenant":""}`,
		`{"Sub":"x","ſub":"y","aud":{}}`,
		`null`, `[]`,
	} {
		f.Add(text, "roles", "tenant")
		f.Add(text, "a.b", "a..b")
	}
	f.Add(`{"sub":"ada","sub":null,"roles":"issuer","tenant":"acme"}`, "roles", "tenant")
	f.Fuzz(func(t *testing.T, text, roleClaim, tenantClaim string) {
		var c claims
		if json.Unmarshal([]byte(text), &c) != nil {
			return
		}
		var checked struct {
			Subject string `json:"sub"`
		}
		if json.Unmarshal([]byte(text), &checked) == nil && !c.ambiguous() && checked.Subject != "" && c["sub"] != nil && c["sub"] != checked.Subject {
			t.Errorf("the subject checked is %q, the one used %v", checked.Subject, c["sub"])
		}
		o, err := c.operator(roleClaim, tenantClaim)
		if err != nil {
			var refused *wire.Error
			if !errors.As(err, &refused) || refused.Status != 401 && refused.Status != 403 || o.Name != "" || o.Role != "" || o.Tenant != "" {
				t.Errorf("%+v with %v", o, err)
			}
			return
		}
		subject, ok := strings.CutPrefix(o.Name, "oidc ")
		switch {
		case !ok || subject == "" || len(subject) > maxSubject || subject != c["sub"]:
			t.Errorf("the operator is called %q", o.Name)
		case o.Role != wire.RoleAdmin && o.Role != wire.RoleIssuer && o.Role != wire.RoleViewer:
			t.Errorf("its role is %q", o.Role)
		case o.Tenant != apikey.AnyTenant && !apikey.ValidTenant(o.Tenant), o.Key, o.Scopes != nil:
			t.Errorf("it is %+v", o)
		}
	})
}

// FuzzKeySet feeds the reader of JWK Sets.
func FuzzKeySet(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AA"},null,1]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := readKeys(strings.NewReader(string(text)))
		if (err == nil) != (len(keys) > 0) {
			t.Errorf("%d keys and %v", len(keys), err)
		}
		for _, k := range keys {
			if !k.IsPublic() || !k.Valid() {
				t.Errorf("%T is not a public key", k.Key)
			}
		}
	})
}
