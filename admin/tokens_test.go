package admin_test

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"latchkey/admin"
	"latchkey/admin/oidc"
	"latchkey/admin/wire"
	"latchkey/internal/dialecttest"
	"latchkey/internal/oidctest"
)

const audience = "https://latchkey.example"

// startTokens runs an admin plane whose operators may come with the tokens of an
// identity provider, by a clock that is right.
func startTokens(t *testing.T, change func(*admin.Options, *oidctest.Provider)) (*dialecttest.Plane, *oidctest.Provider) {
	t.Helper()
	provider := oidctest.Start(t)
	p := dialecttest.StartWith(t, func(o *admin.Options) {
		o.Tokens = oidc.New(oidc.Options{Issuer: provider.URL, Audience: audience, RoleClaim: "realm_access.roles", TenantClaim: "tenant"})
		if change != nil {
			change(o, provider)
		}
	}, dialects(t)...)
	p.Now = time.Now()
	return p, provider
}

// client gets tokens with the role and tenant.
func client(name, role, tenant string) oidctest.Client {
	return oidctest.Client{ID: name, Subject: name, Audience: []string{audience},
		Claims: map[string]any{"realm_access": map[string]any{"roles": []string{"offline_access", role}}, "tenant": tenant}}
}

func as(line, token, body string) string {
	return line + "\nAuthorization: Bearer " + token + "\nContent-Type: application/json\n" + body
}

func TestTokensOfAnIdentityProvider(t *testing.T) {
	p, provider := startTokens(t, nil)
	issuer := provider.Token(t, client("ada", "issuer", "acme"))
	viewer := provider.Token(t, client("vic", "viewer", "acme"))
	root := provider.Token(t, client("root", "admin", "*"))
	nobody := provider.Token(t, client("nemo", "guest", "acme"))
	nowhere := provider.Token(t, client("nowhere", "issuer", ""))
	expired := client("late", "admin", "*")
	expired.Lifetime = -time.Hour
	long := client("long", "viewer", "acme")
	long.Claims["groups"] = strings.Repeat("g", 11<<10)
	opaque := client("opaque", "admin", "*")
	opaque.Opaque = true
	_, ours := issue(t, p, `"keys:read"`)
	for _, tc := range []struct {
		name, request string
		status        int
		contains      string
	}{
		{"an issuer creates", as("POST /api/keys", issuer, "\n"+`{"userId": "u-1"}`), 201, ""},
		{"and lists its tenant's keys", as("GET /api/keys", issuer, ""), 200, "u-1"},
		{"not another's", as("GET /api/keys", issuer, "X-Latchkey-Tenant: globex\n"), 403, ""},
		{"a viewer lists", as("GET /v1/api-keys", viewer, ""), 200, ""},
		{"and does not create", as("POST /keys", viewer, "\n{}"), 403, ""},
		{"one of all tenants names one", as("POST /api/keys", root, "X-Latchkey-Tenant: globex\n\n"+`{"userId": "u-2"}`), 201, ""},
		{"and finds its key there", as("GET /api/keys", root, "X-Latchkey-Tenant: globex\n"), 200, "u-2"},
		{"not in the default tenant", as("GET /api/keys", root, ""), 200, `"total":0`},
		{"and reads metrics", as("GET /metrics", root, ""), 200, ""},
		{"a token without a role says which claim lacks it", as("GET /keys", nobody, ""), 403, "realm_access.roles"},
		{"or the tenant", as("GET /keys", nowhere, ""), 403, "claim tenant"},
		{"an expired one is refused", as("GET /keys", provider.Token(t, expired), ""), 401, "not known here"},
		{"an opaque one is unknown", as("GET /keys", provider.Token(t, opaque), ""), 401, "not known here"},
		{"a long one passes", as("GET /keys", provider.Token(t, long), ""), 200, ""},
		{"a token counts in Authorization only", "GET /api/keys\nX-API-KEY: " + root + "\n", 401, ""},
		{"or there too", as("GET /api/keys", root, "X-API-KEY: "+root+"\n"), 200, ""},
		{"not beside another credential", as("GET /api/keys", root, "X-API-KEY: root-token\n"), 401, "two different"},
		{"operators with static tokens stay", as("GET /keys", "root-token", ""), 200, ""},
		{"and keys of ours", as("GET /keys", ours, ""), 200, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, res, body := p.Do(t, tc.request)
			if res.StatusCode != tc.status || !strings.Contains(string(body), tc.contains) {
				t.Errorf("%s %s, want %d with %q", res.Status, body, tc.status, tc.contains)
			}
			if (res.Header.Get("Www-Authenticate") != "") != (res.StatusCode == 401) {
				t.Errorf("%s with the challenge %q", res.Status, res.Header.Get("Www-Authenticate"))
			}
		})
	}
	if _, _, body := p.Do(t, as("GET /audit", root, "")); !strings.Contains(string(body), `"actor":"oidc ada"`) {
		t.Errorf("the audit log does not name who came with the token: %s", body)
	}
}

// TestIdempotencyKeysAreATenantsOwn has one and the same person come for two
// tenants, as the tokens of some providers do.
func TestIdempotencyKeysAreATenantsOwn(t *testing.T) {
	p, provider := startTokens(t, nil)
	var answers []string
	for _, tenant := range []string{"acme", "globex", "acme"} {
		token := provider.Token(t, client("ada", "issuer", tenant))
		_, res, body := p.Do(t, as("POST /api/keys", token, "Idempotency-Key: k-1\n\n"+`{"userId": "u-1"}`))
		if res.StatusCode != 201 || !strings.Contains(string(body), `"companyId":"`+tenant+`"`) {
			t.Fatalf("for %s: %s %s", tenant, res.Status, body)
		}
		answers = append(answers, string(body))
	}
	if answers[0] != answers[2] || answers[0] == answers[1] {
		t.Errorf("the answers are %q, want the same key for the same tenant and another for another", answers)
	}
}

func TestIdentityProviderThatIsDownIsNoRefusal(t *testing.T) {
	p, provider := startTokens(t, nil)
	token := provider.Token(t, client("ada", "issuer", "acme"))
	provider.Break(oidctest.HangUp)
	for range 30 { // more than there may be failed authentications
		for _, path := range []string{"/keys", "/v1/api-keys", "/api/keys", "/metrics", "/audit"} {
			_, res, body := p.Do(t, as("GET "+path, token, ""))
			if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || strings.Contains(string(body), "key store") {
				t.Fatalf("%s: %s %s", path, res.Status, body)
			}
		}
	}
	if _, res, body := p.Do(t, as("GET /keys", "root-token", "")); res.StatusCode != 200 {
		t.Errorf("a static operator meanwhile: %s %s", res.Status, body)
	}
}

func TestTokensThatFailAreFailedAuthentications(t *testing.T) {
	p, provider := startTokens(t, nil)
	token := provider.Token(t, client("ada", "issuer", "acme"))
	p.Now = p.Now.Truncate(time.Minute).Add(time.Minute) // the clock goes on with every call
	for range 20 {
		if _, res, body := p.Do(t, as("GET /keys", token[:len(token)-8]+"AAAAAAAA", "")); res.StatusCode != 401 {
			t.Fatalf("%s %s", res.Status, body)
		}
	}
	if _, res, body := p.Do(t, as("GET /keys", token, "")); res.StatusCode != 429 {
		t.Errorf("after 20 failures: %s %s", res.Status, body)
	}
}

// TestTokensThatFailAreTriedAsNothingElse makes one a static operator's.
func TestTokensThatFailAreTriedAsNothingElse(t *testing.T) {
	var token string
	p, _ := startTokens(t, func(o *admin.Options, provider *oidctest.Provider) {
		token = provider.Sign(t, nil, map[string]any{"iss": provider.URL})
		o.Callers.Operators = append(o.Callers.Operators, admin.StaticOperator{TokenDigest: sha256.Sum256([]byte(token)),
			Operator: wire.Operator{Name: "x", Role: wire.RoleAdmin, Tenant: "*"}})
	})
	if _, res, body := p.Do(t, as("GET /keys", token, "")); res.StatusCode != 401 {
		t.Errorf("%s %s", res.Status, body)
	}
}
