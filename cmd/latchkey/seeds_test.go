package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A seed is a call as a product's own document writes it, with the host and the
// placeholders replaced, the fields of the sample answer, and how the gateway's
// answer differs from that on purpose.
type seed struct {
	doc          string // how the row of docs/api.md begins that is about it
	name         string
	method, path string // {id} is a key that was made for the call
	headers      string // besides the credentials, as the document has them
	body         string
	status       int      // as documented
	fields       []string // of the sample, "name type" in its order; an answer that is a list is about its first key
	differs      []string // as differences gives them
}

const (
	typed  = "Content-Type: application/json"
	anyOf  = "Accept: */*"
	jsonOf = typed + "\n" + anyOf
)

func straitKey() []string {
	return []string{"id string", "project_id string", "name string", "key_prefix string", "scopes list", "expires_at string", "last_used_at string", "created_at string", "revoked_at string",
		"replaced_by_key_id string", "grace_expires_at string", "environment_id string", "rotation_interval_days number", "next_rotation_at string", "rotation_webhook_url string"}
}

// straitUnset are the fields that Strait's keys lack while they have no value.
func straitUnset() []string {
	return []string{"-environment_id", "-expires_at", "-grace_expires_at", "-last_used_at", "-next_rotation_at", "-replaced_by_key_id", "-revoked_at", "-rotation_interval_days", "-rotation_webhook_url"}
}

func truveraKey(more ...string) []string {
	return append([]string{"ips list", "alias string", "key string", "created string", "expires string"}, more...)
}

func peachKey() []string {
	return []string{"id string", "companyId string", "userId string", "key string", "whitelistedIPs list", "status string", "description string", "createdAt string", "updatedAt string", "deletedAt string"}
}

// peachMore are the fields that Peach's sample of PUT has and its others lack.
func peachMore(and ...string) []string {
	out := append([]string{"+apiVersion", "+apiVersionDowngradeNotAllowedAfter", "+apiVersionUpdatedAt"}, and...)
	slices.Sort(out)
	return out
}

func seeds() []seed {
	const ips = `{"ips": ["192.0.2.7"], "alias": "My Key"}`
	rotated := []string{"old_key_id string", "new_key_id string", "project_id string", "name string", "key string", "key_prefix string", "scopes list", "expires_at string", "created_at string", "grace_expires_at string"}
	put := []string{"id string", "companyId string", "userId string", "key string", "whitelistedIPs list", "apiVersion string", "apiVersionUpdatedAt string", "apiVersionDowngradeNotAllowedAfter string",
		"status string", "description string", "createdAt string", "updatedAt string", "deletedAt string"}
	return []seed{
		{"| Strait `GET /v1/api-keys` |", "", "GET", "/v1/api-keys?project_id=string", "", "", 200, straitKey(), straitUnset()},
		{"| Strait `GET /v1/api-keys` |", "of keys that have everything", "GET", "/v1/api-keys?project_id=full&include_revoked=true", "", "", 200, straitKey(), nil},
		{"| Strait `POST /v1/api-keys` |", "", "POST", "/v1/api-keys", typed, `{ "project_id": "string", "name": "string" }`, 201, straitKey(), append([]string{"+key"}, straitUnset()...)},
		{"| Strait `POST /v1/api-keys` |", "with a webhook", "POST", "/v1/api-keys", typed, `{"project_id": "string", "name": "string", "rotation_interval_days": 1, "rotation_webhook_url": "https://hooks.example/x"}`, 201, straitKey(),
			[]string{"+key", "+rotation_webhook_secret", "-environment_id", "-expires_at", "-grace_expires_at", "-last_used_at", "-replaced_by_key_id", "-revoked_at"}},
		{"| Strait `DELETE /v1/api-keys/string` |", "", "DELETE", "/v1/api-keys/{id}", "", "", 204, nil, nil},
		{"| Strait `DELETE /v1/api-keys/string` |", "as it is written", "DELETE", "/v1/api-keys/string", "", "", 204, nil, []string{"status 404"}},
		{"| Strait `POST …/rotate` with `{}` |", "", "POST", "/v1/api-keys/{id}/rotate", typed, `{}`, 201, rotated, []string{"expires_at null"}},
		{"| Strait `POST …/rotate` with `{}` |", "as it is written", "POST", "/v1/api-keys/string/rotate", typed, `{}`, 201, rotated, []string{"status 404"}},

		{"| Truvera `GET /keys` |", "", "GET", "/keys", anyOf, "", 200, truveraKey(), []string{"order"}},
		{"| Truvera `POST /keys` |", "", "POST", "/keys", jsonOf, ips, 200, truveraKey("jwt string"), []string{"order"}},
		{"| Truvera `POST /keys` |", "as it is written", "POST", "/keys", jsonOf, `{"ips": ["text"], "alias": "My Key"}`, 200, truveraKey("jwt string"), []string{"status 400"}},
		{"| Truvera `PATCH /keys/{publicKey}` |", "", "PATCH", "/keys/{id}", jsonOf, ips, 200, truveraKey(), []string{"order"}},
		{"| Truvera `PATCH /keys/{publicKey}` |", "as it is written", "PATCH", "/keys/{id}", jsonOf, `{"ips": ["text"], "alias": "My Key"}`, 200, truveraKey(), []string{"status 400"}},
		{"| Truvera `DELETE /keys/{publicKey}` |", "", "DELETE", "/keys/{id}", anyOf, "", 200, []string{"revoked boolean"}, nil},
		{"| Truvera `DELETE /keys/{publicKey}` |", "again", "DELETE", "/keys/{ended}", anyOf, "", 200, []string{"revoked boolean"}, []string{"status 404"}},
		{"| Truvera `POST /keys/temporary-key` |", "", "POST", "/keys/temporary-key", jsonOf, `{"subaccount": 1, "selectedTeamId": 1, "isTestmode": true}`, 200, []string{"key string", "selectedTeamId number"}, nil},
		{"| Truvera `POST /keys/temporary-key` |", "of no team", "POST", "/keys/temporary-key", jsonOf, `{}`, 200, []string{"key string", "selectedTeamId number"}, []string{"selectedTeamId null"}},

		{"| Peach `GET /keys` |", "", "GET", "/api/keys", "", "", 200, []string{"status number", "total number", "count number", "nextUrl string", "previousUrl string", "data list"}, []string{"nextUrl null", "previousUrl null"}},
		{"| Peach `POST /keys`, `GET /keys/{keyId}` |", "", "POST", "/api/keys", typed, `{"userId": "string", "whitelistedIPs": [], "description": "string"}`, 201, peachKey(), peachMore("deletedAt null", "whitelistedIPs null", "apiVersionDowngradeNotAllowedAfter null", "apiVersionUpdatedAt null")},
		{"| Peach `POST /keys`, `GET /keys/{keyId}` |", "reading", "GET", "/api/keys/{id}", "", "", 200, peachKey(), peachMore("deletedAt null", "description null", "apiVersionDowngradeNotAllowedAfter null", "apiVersionUpdatedAt null", "whitelistedIPs null")},
		{"| Peach `PUT /keys/{keyId}` |", "", "PUT", "/api/keys/{id}", typed, `{"apiVersion": "2024-05-22", "description": "string", "whitelistedIPs": []}`, 200, put,
			[]string{"apiVersionDowngradeNotAllowedAfter null", "apiVersionUpdatedAt null", "deletedAt null", "order", "whitelistedIPs null"}},
		{"| Peach `DELETE /keys/{keyId}` |", "", "DELETE", "/api/keys/{id}", "", "", 204, nil, nil},
		{"| Peach `DELETE /keys/{keyId}` |", "again", "DELETE", "/api/keys/{ended}", "", "", 204, nil, []string{"status 404"}},
	}
}

// differences says how an answer differs from the sample: in its status (and then
// no further), by fields that are there in one of them only, by null and by other
// types than the sample's, and in the order of the fields that both have.
func differences(s *seed, status int, body []byte) (out []string, err error) {
	if status != s.status {
		return []string{fmt.Sprint("status ", status)}, nil
	}
	if len(s.fields) == 0 {
		if len(body) > 0 {
			out = append(out, "a body")
		}
		return out, nil
	}
	names, types, err := shape(body)
	if err != nil {
		return nil, err
	}
	var both []string
	for _, f := range s.fields {
		name, kind, _ := strings.Cut(f, " ")
		switch got, there := types[name]; {
		case !there:
			out = append(out, "-"+name)
			continue
		case got != kind:
			out = append(out, name+" "+got)
		}
		both = append(both, name)
	}
	var order []string
	for _, name := range names {
		if slices.Contains(both, name) {
			order = append(order, name)
			continue
		}
		out = append(out, "+"+name)
		if types[name] == "null" {
			out = append(out, name+" null")
		}
	}
	if !slices.Equal(order, both) {
		out = append(out, "order")
	}
	slices.Sort(out)
	return out, nil
}

// shape returns the fields of an object, in order, and their types. Those of a
// list's objects are taken together: a field counts as null only if it is in all.
func shape(body []byte) (names []string, types map[string]string, err error) {
	var objects []json.RawMessage
	if bytes.HasPrefix(body, []byte("[")) {
		if err := json.Unmarshal(body, &objects); err != nil {
			return nil, nil, err
		}
	} else {
		objects = []json.RawMessage{body}
	}
	types = map[string]string{}
	at := 0
	for _, o := range objects {
		d := json.NewDecoder(bytes.NewReader(o))
		if _, err := d.Token(); err != nil {
			return nil, nil, err
		}
		for at = 0; d.More(); {
			t, err := d.Token()
			if err != nil {
				return nil, nil, err
			}
			name := t.(string)
			var value any
			if err := d.Decode(&value); err != nil {
				return nil, nil, err
			}
			if i := slices.Index(names, name); i >= 0 {
				at = i + 1
			} else {
				names = slices.Insert(names, at, name)
				at++
			}
			if kind := kindOf(value); types[name] == "" || types[name] == "null" {
				types[name] = kind
			}
		}
	}
	return names, types, nil
}

func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case float64:
		return "number"
	case bool:
		return "boolean"
	case []any:
		return "list"
	}
	return "object"
}

// TestTheProductsOwnSamples makes every call of the three products' documents as it
// is written there, and compares the answers with their samples. The differences
// are those that docs/api.md owns up to, no more and no fewer.
func TestTheProductsOwnSamples(t *testing.T) {
	t.Setenv("LATCHKEY_SEED_CERTS", canaryCerts)
	cfg := testConfig(t, upstreamOK(t).URL)
	cfg.Admin.CertsTokenEnv = "LATCHKEY_SEED_CERTS"
	g := startGateway(t, cfg)
	docs, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, headers, body string) (int, []byte) {
		req, err := http.NewRequest(method, g.admin+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, "/temporary-key") {
			req.Header.Set("CERTS-TOKEN", canaryCerts)
		} else {
			req.Header.Set("Authorization", "Bearer "+testToken)
		}
		for line := range strings.Lines(headers) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			req.Header.Set(name, value)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, answer
	}
	ask("POST", "/v1/api-keys", typed, `{"project_id": "string", "name": "string"}`)
	ask("POST", "/keys", typed, `{"ips": ["192.0.2.7"], "alias": "My API"}`)
	makeFullKeys(t, g, ask)
	for _, s := range seeds() {
		t.Run(fmt.Sprint(strings.Trim(s.doc, "| "), s.name), func(t *testing.T) {
			if !bytes.Contains(docs, []byte("\n"+s.doc)) {
				t.Errorf("docs/api.md has no row %s", s.doc)
			}
			path := s.path
			if strings.Contains(path, "{") {
				k, err := issue(http.DefaultClient, g.admin)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(path, "{ended}") {
					if err := revoke(http.DefaultClient, g.admin, k.ID); err != nil {
						t.Fatal(err)
					}
				}
				path = strings.NewReplacer("{id}", k.ID, "{ended}", k.ID).Replace(path)
			}
			status, body := ask(s.method, path, s.headers, s.body)
			got, err := differences(&s, status, body)
			if err != nil {
				t.Fatalf("%d %s: %v", status, body, err)
			}
			slices.Sort(s.differs)
			if diff := cmp.Diff(s.differs, got); diff != "" {
				t.Errorf("differences from the sample (-in the table +there are): %s\n%d %s", diff, status, body)
			}
		})
	}
}

// makeFullKeys makes keys of the project full that between them have a value in
// each field that Strait's keys can have.
func makeFullKeys(t *testing.T, g *gateway, ask func(method, path, headers, body string) (int, []byte)) {
	t.Helper()
	_, body := ask("POST", "/v1/api-keys", typed, `{"project_id": "full", "name": "n", "scopes": ["a"], "environment_id": "e", "expires_in_days": 9, "rotation_interval_days": 1, "rotation_webhook_url": "https://hooks.example/x"}`)
	var k issued
	if err := json.Unmarshal(body, &k); err != nil {
		t.Fatal(err)
	}
	if status, code, err := use(http.DefaultClient, g.proxy, k.Key); status != 200 || err != nil {
		t.Fatalf("use: %d %s %v", status, code, err)
	}
	if err := g.app.uses.Flush(g.app.store).Pass(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, call := range []string{"POST /v1/api-keys/" + k.ID + "/rotate", "DELETE /v1/api-keys/" + k.ID} {
		method, path, _ := strings.Cut(call, " ")
		if status, body := ask(method, path, "", ""); status > 299 {
			t.Fatalf("%s: %d %s", call, status, body)
		}
	}
}
