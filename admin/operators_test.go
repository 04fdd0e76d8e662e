package admin_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

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
