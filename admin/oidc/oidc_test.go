package oidc_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"latchkey/admin/oidc"
	"latchkey/admin/wire"
	"latchkey/apikey"
	"latchkey/internal/oidctest"
)

const audience = "https://latchkey.example"

// A clock stands still, at the real time when it is first looked at, until a test
// advances it.
type clock struct {
	once  sync.Once
	start time.Time
	ahead atomic.Int64
}

func (c *clock) now() time.Time {
	c.once.Do(func() { c.start = time.Now() })
	return c.start.Add(time.Duration(c.ahead.Load()))
}

func (c *clock) advance(by time.Duration) { c.ahead.Add(int64(by)) }

func verifier(p *oidctest.Provider, c *clock) *oidc.Verifier {
	return oidc.New(oidc.Options{Issuer: p.URL, Audience: audience, RoleClaim: "roles", TenantClaim: "tenant", Now: c.now})
}

// ada is a client that makes its bearer an issuer for acme.
func ada() oidctest.Client {
	return oidctest.Client{ID: "ada-client", Subject: "ada", Audience: []string{"other", audience},
		Claims: map[string]any{"roles": []string{"issuer"}, "tenant": "acme"}}
}

// good are claims as ada's tokens have them, for tokens that no provider makes.
func good(p *oidctest.Provider) map[string]any {
	return map[string]any{"iss": p.URL, "sub": "ada", "aud": audience, "roles": "issuer", "tenant": "acme",
		"exp": time.Now().Add(time.Hour).Unix(), "nbf": time.Now().Unix(), "iat": time.Now().Unix()}
}

func with(claims map[string]any, name string, value any) map[string]any {
	claims = maps.Clone(claims)
	claims[name] = value
	return claims
}

// notOurs stands for a token that the verifier leaves to others.
const notOurs = 0

// verdict returns 200 for an operator, the status of an error, or notOurs.
func verdict(t testing.TB, v *oidc.Verifier, token string) int {
	t.Helper()
	o, ours, err := v.Verify(context.Background(), token)
	var refused *wire.Error
	switch {
	case (err != nil || !ours) && (o.Name != "" || o.Role != "" || o.Tenant != ""):
		t.Errorf("with %v it returns the operator %+v", err, o)
	case !ours && err != nil:
		t.Errorf("a token of others is an error: %v", err)
	case !ours:
		return notOurs
	case errors.As(err, &refused):
		return refused.Status
	case err != nil:
		t.Errorf("an error without status: %v", err)
	}
	return 200
}

func TestTokenOfTheTokenEndpointMakesAnOperator(t *testing.T) {
	p := oidctest.Start(t)
	v := verifier(p, &clock{})
	o, ours, err := v.Verify(context.Background(), p.Token(t, ada()))
	want := wire.Operator{Name: "oidc ada", Role: wire.RoleIssuer, Tenant: "acme"}
	if diff := cmp.Diff(want, o); !ours || err != nil || diff != "" {
		t.Errorf("ours %t, error %v, operator (-want +got):\n%s", ours, err, diff)
	}
	for range 10 {
		verdict(t, v, p.Token(t, ada()))
	}
	if n := p.Asked(oidctest.DiscoveryPath) + p.Asked(oidctest.KeysPath); n != 2 {
		t.Errorf("11 tokens made %d requests to the provider, want 2", n)
	}
}

func TestAlgorithmsOfProviders(t *testing.T) {
	for _, a := range []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.EdDSA} {
		p := oidctest.Start(t)
		p.Rotate(t, a)
		if got := verdict(t, verifier(p, &clock{}), p.Token(t, ada())); got != 200 {
			t.Errorf("%s: %d, want 200", a, got)
		}
	}
}

func TestRotatedKeys(t *testing.T) {
	p, c := oidctest.Start(t), &clock{}
	v := verifier(p, c)
	first := p.Token(t, ada())
	if got := verdict(t, v, first); got != 200 {
		t.Fatalf("the first key's token: %d", got)
	}
	p.Rotate(t, jose.RS256)
	second := p.Token(t, ada())
	c.advance(11 * time.Second)
	for name, token := range map[string]string{"new": second, "old": first} {
		if got := verdict(t, v, token); got != 200 {
			t.Errorf("after a rotation the %s key's token: %d, want 200", name, got)
		}
	}
	p.Withdraw()
	c.advance(4 * time.Minute)
	if got := verdict(t, v, first); got != 200 {
		t.Fatalf("keys are asked for again after four minutes")
	}
	c.advance(2 * time.Minute)
	if got := verdict(t, v, first); got != 401 {
		t.Errorf("five minutes after it was withdrawn the old key's token: %d, want 401", got)
	}
	if got := verdict(t, v, second); got != 200 {
		t.Errorf("and the other key's: %d, want 200", got)
	}
	p.Rotate(t, jose.ES256)
	p.Withdraw()
	c.advance(11 * time.Second)
	if got := verdict(t, v, p.Token(t, ada())); got != 200 {
		t.Errorf("a key that came with a withdrawal: %d, want 200", got)
	}
	if got := verdict(t, v, second); got != 401 {
		t.Errorf("the key withdrawn with it: %d, want 401", got)
	}
}

func TestRefusals(t *testing.T) {
	p := oidctest.Start(t)
	private, id := p.Key()
	public := private.Public().(*rsa.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	attacker, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var lured atomic.Int32
	lure := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lured.Add(1)
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: attacker.Public(), KeyID: id}}})
	}))
	defer lure.Close()
	hmac := func(secret []byte) string {
		return oidctest.Sign(t, jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: secret, KeyID: id}}, nil, good(p))
	}
	forge := func(header map[jose.HeaderKey]any) string {
		return oidctest.Sign(t, jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: attacker, KeyID: id}}, header, good(p))
	}
	sign := func(name string, value any) string { return p.Sign(t, nil, with(good(p), name, value)) }
	token := p.Sign(t, nil, good(p))
	parts := strings.Split(token, ".")
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	payload, err := json.Marshal(with(good(p), "roles", "admin"))
	if err != nil {
		t.Fatal(err)
	}
	client := func(change func(*oidctest.Client)) string {
		c := ada()
		change(&c)
		return p.Token(t, c)
	}

	for _, tc := range []struct {
		name, token string
		want        int
	}{
		{"a good token passes", token, 200},
		{"of a type for access tokens", p.Sign(t, map[jose.HeaderKey]any{"typ": "at+jwt"}, good(p)), 200},
		{"written out", p.Sign(t, map[jose.HeaderKey]any{"typ": "application/at+jwt"}, good(p)), 200},
		{"of another type", p.Sign(t, map[jose.HeaderKey]any{"typ": "logout+jwt"}, good(p)), 401},
		{"of an empty type", p.Sign(t, map[jose.HeaderKey]any{"typ": ""}, good(p)), 401},
		{"of a type that is no text", p.Sign(t, map[jose.HeaderKey]any{"typ": 1}, good(p)), 401},

		{"for another audience", client(func(c *oidctest.Client) { c.Audience = []string{"other"} }), 401},
		{"for no audience", sign("aud", nil), 401},
		{"of another issuer", sign("iss", "https://other.example"), notOurs},
		{"of an issuer with one more slash", sign("iss", p.URL+"/"), notOurs},
		{"of an issuer that is no text", sign("iss", []string{p.URL}), notOurs},
		{"expired", client(func(c *oidctest.Client) { c.Lifetime = -time.Minute }), 401},
		{"that does not expire", sign("exp", nil), 401},
		{"not good yet", sign("nbf", time.Now().Add(time.Hour).Unix()), 401},
		{"without subject", sign("sub", ""), 401},
		{"with a subject that is no text", sign("sub", 7), 401},
		{"with a subject that is not ASCII", sign("sub", "ädä"), 401},
		{"with a line break in the subject", sign("sub", "a\nb"), 401},
		{"with a subject of 255 characters", sign("sub", strings.Repeat("a", 255)), 200},
		{"with a longer subject", sign("sub", strings.Repeat("a", 256)), 401},
		{"with a second audience in other letters", sign("Aud", audience), 401},

		{"an ID token by its nonce", sign("nonce", "n"), 401},
		{"an ID token by its hash", sign("at_hash", "h"), 401},
		{"a logout token", sign("events", map[string]any{}), 401},
		{"an opaque token", client(func(c *oidctest.Client) { c.Opaque = true }), notOurs},

		{"signed by nobody", encode(`{"alg":"none","kid":"`+id+`"}`) + "." + parts[1] + ".", 401},
		{"signed by nobody, in capitals", encode(`{"alg":"NONE","kid":"`+id+`"}`) + "." + parts[1] + "." + parts[2], 401},
		{"without its signature", parts[0] + "." + parts[1] + ".", 401},
		{"with another payload", parts[0] + "." + base64.RawURLEncoding.EncodeToString(payload) + "." + parts[2], 401},
		{"by the public key as an HMAC secret, DER", hmac(der), 401},
		{"as PKCS #1", hmac(x509.MarshalPKCS1PublicKey(public)), 401},
		{"as PEM", hmac(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), 401},
		{"as its modulus", hmac(public.N.Bytes()), 401},
		{"by another key under the same name", forge(nil), 401},
		{"by a key in the header", forge(map[jose.HeaderKey]any{"jwk": jose.JSONWebKey{Key: attacker.Public(), KeyID: id}}), 401},
		{"by a key that the header points to", forge(map[jose.HeaderKey]any{"jku": lure.URL}), 401},
		{"by a certificate that the header points to", forge(map[jose.HeaderKey]any{"x5u": lure.URL}), 401},
		{"by a key under no name", oidctest.Sign(t, jose.SigningKey{Algorithm: jose.RS256, Key: attacker}, nil, good(p)), 401},
		{"by the provider, with a pointer that is not followed", p.Sign(t, map[jose.HeaderKey]any{"jku": lure.URL}, good(p)), 200},
		{"with an extension to understand", p.Sign(t, map[jose.HeaderKey]any{"crit": []string{"exp"}, "exp": 1}, good(p)), 401},
		{"with an extension that the library understands", p.Sign(t, map[jose.HeaderKey]any{"crit": []string{"b64"}, "b64": true}, good(p)), 401},

		{"longer than 16 KiB", sign("more", strings.Repeat("a", 16<<10)), notOurs},
		{"in the JSON form", `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, notOurs},
		{"no token", "", notOurs},
		{"dots alone", "..", notOurs},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := verdict(t, verifier(p, &clock{}), tc.token); got != tc.want {
				t.Errorf("%d, want %d", got, tc.want)
			}
		})
	}
	if n := lured.Load(); n > 0 {
		t.Errorf("a token's header made %d requests", n)
	}
}

func TestClaimsSayRoleAndTenant(t *testing.T) {
	p := oidctest.Start(t)
	for _, tc := range []struct {
		name                   string
		roleClaim, tenantClaim string
		claims                 map[string]any
		role                   wire.Role
		tenant                 string
		lacks                  string // the claim that the refusal names
	}{
		{"one role as text", "roles", "tenant", map[string]any{"roles": "viewer", "tenant": "acme"}, wire.RoleViewer, "acme", ""},
		{"the strongest of several, as text", "roles", "tenant", map[string]any{"roles": "viewer admin issuer", "tenant": "acme"}, wire.RoleAdmin, "acme", ""},
		{"or in a list", "roles", "tenant", map[string]any{"roles": []string{"viewer", "x", "issuer"}, "tenant": "acme"}, wire.RoleIssuer, "acme", ""},
		{"all tenants", "roles", "tenant", map[string]any{"roles": "admin", "tenant": "*"}, wire.RoleAdmin, apikey.AnyTenant, ""},
		{"a path", "realm_access.roles", "org.id", map[string]any{"realm_access": map[string]any{"roles": []string{"admin"}}, "org": map[string]any{"id": "t"}}, wire.RoleAdmin, "t", ""},
		{"a name with dots", "https://a.b/roles", "a.b", map[string]any{"https://a.b/roles": "admin", "a.b": "t", "a": map[string]any{"b": "other"}}, wire.RoleAdmin, "t", ""},
		{"the name wins over the path", "a.b", "tenant", map[string]any{"a.b": "none", "a": map[string]any{"b": "admin"}, "tenant": "t"}, "", "", "a.b"},
		{"a path through no object", "roles.x", "tenant", map[string]any{"roles": "admin", "tenant": "t"}, "", "", "roles.x"},
		{"no role claim", "roles", "tenant", map[string]any{"tenant": "t"}, "", "", "roles"},
		{"no role of ours", "roles", "tenant", map[string]any{"roles": []string{"Admin", "administrator", "admin viewer"}, "tenant": "t"}, "", "", "roles"},
		{"a list that is not of texts", "roles", "tenant", map[string]any{"roles": []any{"admin", 1}, "tenant": "t"}, "", "", "roles"},
		{"a role that is true", "admin", "tenant", map[string]any{"admin": true, "tenant": "t"}, "", "", "admin"},
		{"roles as an object", "roles", "tenant", map[string]any{"roles": map[string]any{"admin": true}, "tenant": "t"}, "", "", "roles"},
		{"no tenant", "roles", "tenant", map[string]any{"roles": "admin"}, "", "", "tenant"},
		{"an empty tenant", "roles", "tenant", map[string]any{"roles": "admin", "tenant": ""}, "", "", "tenant"},
		{"a tenant with a space", "roles", "tenant", map[string]any{"roles": "admin", "tenant": "a b"}, "", "", "tenant"},
		{"a list of tenants", "roles", "tenant", map[string]any{"roles": "admin", "tenant": []string{"*"}}, "", "", "tenant"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := oidc.New(oidc.Options{Issuer: p.URL, Audience: audience, RoleClaim: tc.roleClaim, TenantClaim: tc.tenantClaim})
			c := ada()
			c.Claims = tc.claims
			o, ours, err := v.Verify(context.Background(), p.Token(t, c))
			if tc.lacks != "" {
				var refused *wire.Error
				if !errors.As(err, &refused) || refused.Status != 403 || !strings.Contains(refused.Message, "its claim "+tc.lacks+" ") {
					t.Errorf("%v, want a 403 that names %s", err, tc.lacks)
				}
				return
			}
			want := wire.Operator{Name: "oidc ada", Role: tc.role, Tenant: tc.tenant}
			if diff := cmp.Diff(want, o); !ours || err != nil || diff != "" {
				t.Errorf("ours %t, error %v, operator (-want +got):\n%s", ours, err, diff)
			}
		})
	}
}
