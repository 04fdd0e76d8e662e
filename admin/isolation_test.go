package admin_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fasthttp/router"
	"github.com/google/go-cmp/cmp"

	"latchkey/admin"
	"latchkey/admin/wire"
	"latchkey/apikey"
	"latchkey/internal/dialecttest"
)

// absentID is the ID of a key that never was.
const absentID = "019ca945-0000-7000-8000-0123456789ab"

// put makes the tenant's n-th key behind the plane's back.
func put(t *testing.T, p *dialecttest.Plane, tenant string, n int) apikey.Key {
	t.Helper()
	sum := sha256.Sum256(fmt.Append(nil, tenant, n, p.Now))
	entropy := [40]byte(append(sum[:], sum[:8]...))
	c, err := apikey.Issue(apikey.Spec{Tenant: tenant, Name: "n", Scopes: []string{"orders:read"}},
		apikey.NewCredentials(apikey.NewSecretFormat("lk"), "", p.Now.Add(time.Duration(n)*time.Microsecond), entropy), p.Now)
	if err == nil {
		err = p.Store.Create(apikey.Origin{At: p.Now, Actor: "test"}, c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c.Keys[0]
}

// foreign returns the IDs of another tenant's keys in every state.
func foreign(t *testing.T, p *dialecttest.Plane) map[string]string {
	t.Helper()
	ids := map[string]string{}
	for n, state := range []string{"live", "revoked", "rotated with grace", "rotated without"} {
		k := put(t, p, "globex", n)
		_, err := p.Store.Change(apikey.Origin{At: p.Now, Actor: "test"}, "globex", k.ID, func(k apikey.Key) (apikey.Change, error) {
			heir := apikey.NewCredentials(apikey.NewSecretFormat("lk"), "", p.Now, [40]byte{byte(n), 39: byte(n)})
			switch n {
			case 1:
				return k.Revoke(p.Now)
			case 2:
				return k.Rotate(heir, time.Hour, p.Now)
			case 3:
				return k.Rotate(heir, 0, p.Now)
			}
			return k.Update(apikey.Edit{}, p.Now)
		})
		if err != nil {
			t.Fatal(err)
		}
		ids[state] = k.ID.String()
	}
	return ids
}

// bodyOf is a body that any call of the method can have.
func bodyOf(method, path string) string {
	switch {
	case method == "PUT":
		return `{"apiVersion": "2024-05-22"}`
	case method == "PATCH", strings.HasSuffix(path, "/rotate"), path == "/keys", strings.HasSuffix(path, "temporary-key"):
		return `{}`
	case path == "/v1/api-keys":
		return `{"name": "n"}`
	case path == "/api/keys":
		return `{"userId": "u"}`
	}
	return ""
}

// visible is all that a caller sees of an answer but when it was given.
func visible(res *http.Response, body []byte) string {
	id := res.Header.Get("X-Request-Id")
	h := res.Header.Clone()
	h.Del("Date")
	h.Del("X-Request-Id")
	return fmt.Sprintf("%s %v\n%s", res.Status, h, strings.ReplaceAll(string(body), id, "<id>"))
}

// idCalls are all calls that take a key's ID, with {id} where it goes, and with
// bodies good and bad.
func idCalls(t *testing.T) (calls []string) {
	for _, d := range dialects(t) {
		for _, r := range d.Routes {
			before, after, ok := strings.Cut(r.Path, "{")
			if !ok {
				continue
			}
			_, after, _ = strings.Cut(after, "}")
			for _, body := range []string{bodyOf(r.Method, r.Path), `{"unknown": 1}`, `{`} {
				calls = append(calls, r.Method+" "+before+"{id}"+after+"\nContent-Type: application/json\nAUTH\n\n"+body)
			}
		}
	}
	for _, list := range []string{"/v1/api-keys?cursor={id}", "/v1/api-keys?include_revoked=true&cursor={id}", "/api/keys?startingAfter={id}", "/api/keys?endingBefore={id}",
		"/api/keys?status=inactive&startingAfter={id}", "/api/keys?endingBefore={id}&startingAfter={id}", "/audit?key={id}", "/export?key={id}", "/audit?key={id}&since=2026-01-01T00:00:00Z", "/keys?offset=0&cursor={id}"} {
		calls = append(calls, "GET "+list+"\nAUTH\n")
	}
	return calls
}

// TestAnothersKeysLookAbsent makes every call that takes a key's ID with those of
// another tenant's keys. The answer is byte for byte that for a key that never was.
func TestAnothersKeysLookAbsent(t *testing.T) {
	p := startAll(t)
	_, writer := issue(t, p, `"keys:write"`)
	ids := foreign(t, p)
	compared := 0
	for _, call := range idCalls(t) {
		for _, token := range []string{"acme-token", "acme-admin-token", "viewer-token", writer, "root-token\nX-Latchkey-Tenant: acme"} {
			send := func(id string) string {
				_, res, body := p.Do(t, strings.ReplaceAll(strings.ReplaceAll(call, "{id}", id), "AUTH", "Authorization: Bearer "+token))
				return strings.ReplaceAll(visible(res, body), id, "{id}")
			}
			want := send(absentID)
			for state, id := range ids {
				if diff := cmp.Diff(want, send(id)); diff != "" {
					t.Errorf("%.60q by %.20q tells a key that is %s from none (-none +key):\n%s", call, token, state, diff)
				}
				compared++
			}
		}
	}
	t.Logf("%d answers compared", compared)
}

// TestAnotherTenantLooksAbsent names another tenant wherever one can be named. The
// answer is byte for byte that for a tenant that never was.
func TestAnotherTenantLooksAbsent(t *testing.T) {
	p := startAll(t)
	own := put(t, p, "acme", 0).ID.String()
	foreign(t, p)
	calls := []string{"GET /v1/api-keys?project_id=TENANT\nAUTH\n", "GET /audit?tenant=TENANT\nAUTH\n", "GET /export?tenant=TENANT\nAUTH\n",
		"POST /import\nAUTH\n\n" + `{"sha256": "` + strings.Repeat("ab", 32) + `", "tenant": "TENANT"}`,
		"POST /v1/api-keys\nAUTH\n\n" + `{"name": "n", "project_id": "TENANT"}`,
		"GET /audit\nAUTH\nX-Latchkey-Tenant: TENANT\n", "GET /export\nAUTH\nX-Latchkey-Tenant: TENANT\n", "POST /import\nAUTH\nX-Latchkey-Tenant: TENANT\n"}
	for _, d := range dialects(t) {
		for _, r := range d.Routes {
			if r.Certs {
				continue // its operator is of all tenants
			}
			path := r.Path
			if before, rest, ok := strings.Cut(path, "{"); ok {
				_, after, _ := strings.Cut(rest, "}")
				path = before + own + after
			}
			calls = append(calls, r.Method+" "+path+"\nAUTH\nX-Latchkey-Tenant: TENANT\n\n"+bodyOf(r.Method, r.Path))
		}
	}
	for _, call := range calls {
		for _, token := range []string{"acme-token", "acme-admin-token", "viewer-token"} {
			send := func(tenant string) string {
				_, res, body := p.Do(t, strings.ReplaceAll(strings.ReplaceAll(call, "TENANT", tenant), "AUTH", "Authorization: Bearer "+token))
				return visible(res, body)
			}
			want, got := send("never"), send("globex")
			if diff := cmp.Diff(want, got); diff != "" || strings.HasPrefix(want, "2") && !strings.HasPrefix(call, "POST /import") {
				t.Errorf("%q by %s: %s (-none +another's):\n%s", call, token, want, diff)
			}
		}
	}
}

// TestIdempotencyKeysAreAnOperatorsOwn uses one that others have used.
func TestIdempotencyKeysAreAnOperatorsOwn(t *testing.T) {
	for _, path := range []string{"/keys", "/v1/api-keys", "/api/keys"} {
		p := startAll(t)
		seen := map[string]string{}
		for _, token := range []string{"acme-token", "acme-admin-token", "globex-token", "root-token", "root-token\nX-Latchkey-Tenant: acme"} {
			_, res, body := p.Do(t, "POST "+path+"\nContent-Type: application/json\nIdempotency-Key: k\nAuthorization: Bearer "+token+"\n\n"+bodyOf("POST", path))
			want := map[bool]bool{true: res.StatusCode == 200 || res.StatusCode == 201, false: res.StatusCode == 409 || res.StatusCode == 422}[token != "root-token\nX-Latchkey-Tenant: acme"]
			if who := seen[string(body)]; !want || who != "" || res.Header.Get("Idempotent-Replayed") != "" {
				t.Errorf("POST %s by %q with the Idempotency-Key of another: %s %s, as for %q", path, token, res.Status, body, who)
			}
			seen[string(body)] = token
		}
	}
}

// signer replaces no key and publishes none.
type signer struct{}

func (signer) KeySet() []byte                       { return []byte(`{"keys":[]}`) }
func (signer) Rotate(apikey.Origin) error           { return nil }
func (signer) Withdraw(apikey.Origin, string) error { return nil }

// TestEveryRouteAsksForItsAccess makes every call that there is as everyone. Who may make
// it follows from what the route is declared to need.
func TestEveryRouteAsksForItsAccess(t *testing.T) {
	const open = wire.Access(255)
	type row struct {
		wire.Route
		body string
		all  bool // it is for operators of all tenants
	}
	rows := []row{}
	for _, d := range dialects(t) {
		for _, r := range d.Routes {
			rows = append(rows, row{Route: r, body: bodyOf(r.Method, r.Path)})
		}
		rows = append(rows, row{Route: wire.Route{Method: "GET", Path: "/openapi/" + d.Name + ".yaml", Access: open}})
	}
	for path, access := range map[string]wire.Access{"GET /metrics": wire.Read, "GET /audit": wire.Read, "GET /export": wire.Read, "POST /import": wire.Administer,
		"POST /explain": wire.Read, "POST /reload": wire.Administer, "POST /backup": wire.Administer,
		"POST /signing-keys/rotate": wire.Administer, "DELETE /signing-keys/{kid}": wire.Administer, "GET /healthz": open, "GET /readyz": open, "GET /.well-known/jwks.json": open} {
		method, path, _ := strings.Cut(path, " ")
		one := row{Route: wire.Route{Method: method, Path: path, Access: access}, all: path == "/backup" || path == "/reload" || strings.HasPrefix(path, "/signing-keys/")}
		if path == "/explain" {
			one.body = `{"method": "GET", "path": "/", "host": "h"}`
		}
		rows = append(rows, one)
	}
	var options admin.Options
	p := dialecttest.StartWith(t, func(o *admin.Options) {
		o.Signer = signer{}
		o.Reload = func() error { return nil }
		o.Backup = func(time.Time) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("an archive")), nil }
		o.Explain = func(admin.Question) (admin.Explanation, error) { return admin.Explanation{}, nil }
		options = *o
	}, dialects(t)...)
	list, err := admin.RouteList(options)
	if err != nil {
		t.Fatal(err)
	}
	for method, paths := range list {
		for _, path := range paths {
			if method != router.MethodWild && !slices.ContainsFunc(rows, func(r row) bool { return r.Method == method && r.Path == path }) {
				t.Errorf("%s %s is tried by nobody", method, path)
			}
		}
	}
	_, writer := issue(t, p, `"keys:write", "orders:read"`)
	_, reader := issue(t, p, `"keys:read", "orders:read"`)
	_, plain := issue(t, p, `"orders:read"`)
	bearer := func(token string) string { return "Authorization: Bearer " + token + "\n" }
	for _, who := range []struct {
		name, credentials string
		known             bool
		role              wire.Role // "" may do nothing
	}{
		{"nobody", "", false, ""},
		{"someone with wrong credentials", bearer("nobody") + "X-API-KEY: nobody\nDOCK-API-TOKEN: nobody\n", false, ""},
		{"someone with a wrong CERTS-TOKEN", "CERTS-TOKEN: nobody\n", false, ""},
		{"who has the CERTS-TOKEN", "CERTS-TOKEN: certs-token\n", false, ""},
		{"a viewer", bearer("viewer-token"), true, wire.RoleViewer},
		{"an issuer", bearer("acme-token"), true, wire.RoleIssuer},
		{"a key with keys:read", bearer(reader), true, wire.RoleViewer},
		{"a key with keys:write", bearer(writer), true, wire.RoleIssuer},
		{"a key with neither", bearer(plain), true, ""},
		{"an administrator of one tenant", bearer("acme-admin-token"), true, wire.RoleAdmin},
		{"an administrator", bearer("root-token"), true, wire.RoleAdmin},
	} {
		may := map[wire.Role]string{"": "", wire.RoleViewer: "r", wire.RoleIssuer: "rw", wire.RoleAdmin: "rwa"}[who.role]
		for n, r := range rows {
			p.Now = p.Now.Add(2 * time.Minute) // failed authentications are forgotten
			want := "2xx"
			switch {
			case r.Access == open:
			case r.Certs && !strings.HasSuffix(who.credentials, "certs-token\n"), !r.Certs && !who.known:
				want = "401"
			case r.Certs:
			case r.all && who.credentials != bearer("root-token"):
				want = "403"
			case !strings.Contains(may, map[wire.Access]string{wire.Read: "r", wire.Write: "w", wire.Administer: "a"}[r.Access]):
				want = "403"
			}
			path := r.Path
			if before, rest, ok := strings.Cut(path, "{"); ok {
				_, after, _ := strings.Cut(rest, "}")
				path = before + put(t, p, "acme", n).ID.String() + after
			}
			_, res, body := p.Do(t, r.Method+" "+path+"\n"+who.credentials+"\n"+r.body)
			got := fmt.Sprint(res.StatusCode)
			if res.StatusCode < 300 {
				got = "2xx"
			}
			if got != want || (want == "401") != (res.Header.Get("Www-Authenticate") != "") {
				t.Errorf("%s %s by %s: %s %.200s, want %s", r.Method, path, who.name, res.Status, body, want)
			}
		}
	}
}
