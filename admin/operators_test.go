package admin_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"latchkey/apikey"
	"latchkey/internal/dialecttest"
)

// issue makes a key with the scopes through Strait's dialect and returns its ID
// and secret.
func issue(t *testing.T, p *dialecttest.Plane, scopes string) (id, secret string) {
	t.Helper()
	_, res, body := p.Do(t, "POST /v1/api-keys"+auth+"\n"+`{"name": "x", "scopes": [`+scopes+`]}`)
	var k struct{ ID, Key string }
	if err := json.Unmarshal(body, &k); err != nil || res.StatusCode != 201 {
		t.Fatalf("issue: %s %s", res.Status, body)
	}
	return k.ID, k.Key
}

func TestKeysCallForTheirOwnTenantAndScopes(t *testing.T) {
	p := startAll(t)
	_, writer := issue(t, p, `"keys:write", "orders:read"`)
	_, reader := issue(t, p, `"keys:read"`)
	_, other := issue(t, p, `"orders:read"`)
	gone, revoked := issue(t, p, `"keys:write"`)
	if _, res, _ := p.Do(t, "DELETE /v1/api-keys/"+gone+auth); res.StatusCode != 204 {
		t.Fatal(res.Status)
	}
	strong, _ := issue(t, p, `"orders:write"`)
	weak, _ := issue(t, p, `"orders:read"`)
	as := func(line, key, body string) string {
		return line + "\nAuthorization: Bearer " + key + "\nContent-Type: application/json\n" + body
	}
	for _, tc := range []struct {
		name, request string
		status        int
	}{
		{"a writer lists", as("GET /v1/api-keys", writer, ""), 200},
		{"a writer creates with a scope it has", as("POST /v1/api-keys", writer, "\n"+`{"name": "a", "scopes": ["orders:read"]}`), 201},
		{"and with none", as("POST /keys", writer, "\n{}"), 200},
		{"not with one it lacks", as("POST /v1/api-keys", writer, "\n"+`{"name": "a", "scopes": ["orders:write"]}`), 403},
		{"nor by rotating a key that has one", as("POST /v1/api-keys/"+strong+"/rotate", writer, ""), 403},
		{"a writer rotates a key that has no more", as("POST /v1/api-keys/"+weak+"/rotate", writer, ""), 201},
		{"not for another tenant", as("GET /v1/api-keys?project_id=globex", writer, ""), 403},
		{"a reader lists", as("GET /api/keys", reader, ""), 200},
		{"a reader does not create", as("POST /keys", reader, "\n{}"), 403},
		{"a key without such scopes does nothing", as("GET /keys", other, ""), 403},
		{"a revoked key is no operator", as("GET /keys", revoked, ""), 401},
		{"nor is a writer an administrator", as("POST /signing-keys/rotate", writer, ""), 404}, // not mounted without a signer
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, res, body := p.Do(t, tc.request); res.StatusCode != tc.status {
				t.Errorf("%s %s, want %d", res.Status, body, tc.status)
			}
		})
	}
}

// TestWhatIsNotThere has each path that takes other methods, or that there is not, answered in
// the form of the dialect or of the plane.
func TestWhatIsNotThere(t *testing.T) {
	p := startAll(t)
	for call, want := range map[string]string{
		"POST /audit":                  `405 GET {"type":"about:blank"`,
		"GET /import":                  `405 POST {"type":"about:blank"`,
		"DELETE /healthz":              `405 GET {"type":"about:blank"`,
		"POST /openapi/strait.yaml":    `405 GET {"type":"about:blank"`,
		"PUT /v1/api-keys":             `405 GET, POST {"error":{"code":`,
		"POST /v1/api-keys/x/y":        `404  {"error":{"code":"not_found"`,
		"GET /api/keys/x/y":            `404  {"status":404,"message":`,
		"GET /keys/x/y":                `404  {"status":404,"type":"NotFound"`,
		"GET /keysx":                   `404  {"type":"about:blank"`,
		"GET /nothing":                 `404  {"type":"about:blank"`,
		"GET /v1/api-keys?cursor=":     `400  {"error":{"code":`,
		"GET /api/keys?startingAfter=": `400  {"status":400,`,
		"GET /export?key=":             `400  {"type":"about:blank"`,
		"GET /export?tenant=":          `400  {"type":"about:blank"`,
	} {
		_, res, body := p.Do(t, call+root)
		if got := fmt.Sprintf("%d %s %s", res.StatusCode, res.Header.Get("Allow"), body); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", call, got, want)
		}
	}
}

// TestNoOtherCredentialBesideTheCertsToken makes temporary keys with one credential, and with two.
func TestNoOtherCredentialBesideTheCertsToken(t *testing.T) {
	p := startAll(t)
	for other, want := range map[string]int{
		"": 200, "Authorization: Bearer certs-token\n": 200, "Authorization: Bearer root-token\n": 401, "Authorization: Basic Y2VydHM6\n": 401,
		"DOCK-API-TOKEN: root-token\n": 401, "CERTS_TOKEN: other\n": 401, "CERTS-TOKEN: other\n": 401,
	} {
		if _, res, body := p.Do(t, "POST /keys/temporary-key\nContent-Type: application/json\nCERTS-TOKEN: certs-token\n"+other+"\n{}"); res.StatusCode != want {
			t.Errorf("with %q: %s %s, want %d", other, res.Status, body, want)
		}
	}
}

func TestTooManyFailuresAreTurnedAway(t *testing.T) {
	for path, form := range map[string]string{
		"/keys": `"type":"TooManyRequests"`, "/v1/api-keys": `"code":"rate_limited"`, "/api/keys": `"status":429`, "/metrics": `"status":429`,
	} {
		t.Run(path, func(t *testing.T) {
			p := startAll(t)
			p.Do(t, "GET "+path+auth)
			p.Now = p.Now.Truncate(time.Minute).Add(time.Minute) // the clock goes on with every call
			for n := range 20 {
				if _, res, _ := p.Do(t, fmt.Sprintf("GET %s\nAuthorization: Bearer guess-%d\n", path, n)); res.StatusCode != 401 {
					t.Fatalf("guess %d: %s", n, res.Status)
				}
			}
			_, res, body := p.Do(t, "GET "+path+"\nAuthorization: Bearer root-token\n")
			if res.StatusCode != 429 || res.Header.Get("Retry-After") == "" || !strings.Contains(string(body), form) {
				t.Errorf("after 20 failures the right token gets %s %s", res.Status, body)
			}
			p.Now = p.Now.Add(time.Minute)
			if _, res, body := p.Do(t, "GET "+path+"\nAuthorization: Bearer root-token\n"); res.StatusCode != 200 {
				t.Errorf("a minute later it gets %s %s", res.Status, body)
			}
		})
	}
}

// TestAKeyThatIsOverIsNotListedAsActive looks between a key's end and the sweep that marks it.
func TestAKeyThatIsOverIsNotListedAsActive(t *testing.T) {
	p := startAll(t)
	for n := range 3 {
		spec := apikey.Spec{Tenant: "acme"}
		if n == 1 {
			spec.ExpiresAt = p.Now.Add(time.Minute)
		}
		c, err := apikey.Issue(spec, apikey.NewCredentials(apikey.NewSecretFormat("lk"), "", p.Now, [40]byte{byte(n), 39: byte(n)}), p.Now)
		if err == nil {
			err = p.Store.Create(apikey.Origin{At: p.Now, Actor: "test"}, c)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string, into any) {
		t.Helper()
		if _, res, body := p.Do(t, "GET "+path+auth); res.StatusCode != 200 || json.Unmarshal(body, into) != nil {
			t.Fatalf("%s: %s %s", path, res.Status, body)
		}
	}
	for _, want := range []int{3, 2} {
		var peach struct {
			Total, Count int
			Data         []struct{ Status string }
		}
		read("/api/keys?status=active", &peach)
		for _, k := range peach.Data {
			if k.Status != "active" {
				t.Errorf("Peach lists a key as active that is %s", k.Status)
			}
		}
		var truvera []struct{ Key string }
		read("/keys", &truvera)
		if peach.Total != want || peach.Count != want || len(peach.Data) != want || len(truvera) != want {
			t.Errorf("Peach %+v, Truvera %v, want %d", peach, truvera, want)
		}
		p.Now = p.Now.Add(time.Hour)
	}
}
