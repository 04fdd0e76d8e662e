package admin_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"latchkey/admin"
	"latchkey/apikey"
	"latchkey/internal/dialecttest"
)

const root = "\nAuthorization: Bearer root-token\n"

// A result is what an import says of a line.
type result struct {
	Line  int
	ID    string
	Error string
}

// post imports the lines and returns the status, the results by line, and the
// whole answer.
func post(t *testing.T, p *dialecttest.Plane, target, head string, lines ...string) (int, map[int]result, []byte) {
	t.Helper()
	_, res, body := p.Do(t, "POST "+target+head+"\n"+strings.Join(lines, "\n")+"\n")
	results := map[int]result{}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/x-ndjson") {
		for line := range bytes.Lines(body) {
			var r result
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatalf("answer %q: %v", line, err)
			}
			results[r.Line] = r
		}
	}
	return res.StatusCode, results, body
}

func TestImportLineByLine(t *testing.T) {
	secret := "canary-secret-of-old-gateway"
	sum := sha256.Sum256([]byte(secret))
	other := func(n int) string { return fmt.Sprintf("%064x", 1000+n) }
	issued := apikey.NewSecretFormat("lk").New("live", [32]byte{1})
	cases := []struct {
		name, line string
		problem    string // part of the error; empty if the key is imported
	}{
		{"a secret", `{"secret":"` + secret + `","tenant":"acme"}`, ""},
		{"the same by its digest", fmt.Sprintf(`{"sha256":"%x"}`, sum), "there already"},
		{"the same in base64", `{"sha256":"` + base64.StdEncoding.EncodeToString(sum[:]) + `"}`, "there already"},
		{"the same in URL-safe base64 without padding", `{"sha256":"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"}`, "there already"},
		{"every field", `{"sha256":"sha256:` + other(1) + `","tenant":"acme","name":"ci","environment":"live","subject":"u1","scopes":["orders:read"],"allowed_ips":["10.0.0.0/8"],"expires_at":"2027-01-01T00:00:00Z","id":"0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d2e","api_version":"2024-05-22"}`, ""},
		{"the same ID", `{"sha256":"` + other(2) + `","id":"0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d2e"}`, "there already"},
		{"nothing to know it by", `{"tenant":"acme"}`, "sha256 or secret is required"},
		{"both", `{"sha256":"` + other(3) + `","secret":"` + secret + `"}`, "sha256 or secret is required"},
		{"a short digest", `{"sha256":"abcd"}`, "sha256 must be"},
		{"the digest of nothing", fmt.Sprintf(`{"sha256":"%x"}`, sha256.Sum256(nil)), "sha256 must be"},
		{"a short secret", `{"secret":"hunter2"}`, "secret must have at least 16"},
		{"a secret with a space", `{"secret":"hunter2 hunter2 hunter2"}`, "secret must have at least 16"},
		{"a secret of ours", `{"secret":"` + issued + `"}`, ""},
		{"a secret of ours, mistyped", `{"secret":"` + issued[:20] + "x" + issued[21:] + `"}`, "checksum"},
		{"a misspelt field", `{"sha256":"` + other(4) + `","allowedIps":["10.0.0.0/8"]}`, `"allowedIps" is not a field`},
		{"a field twice", `{"sha256":"` + other(5) + `","name":"a","name":"b"}`, "name is there twice"},
		{"a bad block", `{"sha256":"` + other(6) + `","allowed_ips":["10.0.0.1/8"]}`, "write 10.0.0.0/8"},
		{"expired already", `{"sha256":"` + other(7) + `","expires_at":"2020-01-01T00:00:00Z"}`, "expires_at must be in the future"},
		{"no time", `{"sha256":"` + other(8) + `","expires_at":"tomorrow"}`, "expires_at must be a time"},
		{"nulls are as good as nothing", `{"sha256":"` + other(9) + `","name":null,"subject":null,"scopes":null,"allowed_ips":null,"expires_at":null}`, ""},
		{"a bad ID", `{"sha256":"` + other(10) + `","id":"key-1"}`, "id must be a UUID"},
		{"no JSON", `sha256,tenant`, "the line is not valid JSON"},
		{"a list", `[]`, "the line must be a JSON object"},
		{"an invalid tenant", `{"sha256":"` + other(11) + `","tenant":"*"}`, "tenant must be"},
		{"a scope twice", `{"sha256":"` + other(12) + `","scopes":["a","a"]}`, "scopes"},
		{"a wrong type", `{"sha256":"` + other(13) + `","scopes":"a"}`, "scopes must be a list"},
		{"a long line", `{"sha256":"` + other(14) + `","name":"` + strings.Repeat("x", 70<<10) + `"}`, "longer than"},
		{"an empty line is passed over", "", "passed over"},
		{"the one behind", `{"sha256":"` + other(15) + `"}`, ""},
	}
	p := startAll(t)
	var lines []string
	for _, tc := range cases {
		lines = append(lines, tc.line)
	}
	status, results, body := post(t, p, "/import", root+"Content-Type: application/x-ndjson\n", lines...)
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if bytes.Contains(body, []byte("canary")) {
		t.Error("the answer quotes a secret")
	}
	for i, tc := range cases {
		r, answered := results[i+1]
		switch {
		case tc.problem == "passed over":
			if answered {
				t.Errorf("%s: %+v", tc.name, r)
			}
		case tc.problem == "" && (r.ID == "" || r.Error != ""), tc.problem != "" && (r.ID != "" || !strings.Contains(r.Error, tc.problem)):
			t.Errorf("%s: %+v, want %q", tc.name, r, tc.problem)
		}
	}
	digest := apikey.DigestOf([]byte(secret))
	if k, err := p.Store.ByDigest(&digest); err != nil || k.Tenant != "acme" || k.Hint.String() != "…" {
		t.Errorf("the imported secret is %+v, %v", k, err)
	}
	id, _ := apikey.ParseID("0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d2e")
	k, err := p.Store.ByID("acme", id)
	if err != nil || k.Name != "ci" || k.Subject != "u1" || fmt.Sprint(k.Scopes, k.AllowedIPs.Strings()) != "[orders:read] [10.0.0.0/8]" ||
		!k.ExpiresAt.Equal(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) || k.Pin.Version != "2024-05-22" {
		t.Errorf("the key with every field is %+v, %v", k, err)
	}
	if page, err := p.Store.List(apikey.Query{Tenant: apikey.DefaultTenant, Limit: 9}); err != nil || page.Total != 3 {
		t.Errorf("lines without a tenant: %d keys, %v, want 3", page.Total, err)
	}
}

func TestImportIsForAdministrators(t *testing.T) {
	p := startAll(t)
	_, writer := issue(t, p, `"keys:write"`)
	line := `{"sha256":"` + strings.Repeat("ab", 32) + `"}`
	for _, token := range []string{"acme-token", "viewer-token", writer} {
		if status, _, body := post(t, p, "/import", "\nAuthorization: Bearer "+token+"\n", line); status != 403 {
			t.Errorf("%.12s: %d %s", token, status, body)
		}
	}
	if _, res, _ := p.Do(t, "POST /import\n\n"+line+"\n"); res.StatusCode != 401 {
		t.Errorf("without credentials: %s", res.Status)
	}
	if _, res, _ := p.Do(t, "POST /import"+root+"Content-Type: application/json\n\n"+line+"\n"); res.StatusCode != 415 {
		t.Errorf("as JSON: %s", res.Status)
	}
	for _, query := range []string{"tenant=acme", "atomc=true", "atomic=true&x="} { // which would change nothing
		if _, res, _ := p.Do(t, "POST /import?"+query+root+"\n"+line+"\n"); res.StatusCode != 400 {
			t.Errorf("%s: %s", query, res.Status)
		}
	}
	if _, res, _ := p.Do(t, "GET /export?tennant=acme"+root); res.StatusCode != 400 {
		t.Errorf("an export of a tenant whose name is misspelt: %s", res.Status)
	}
	if _, res, _ := p.Do(t, "POST /import?atomic=yes"+root+"\n"+line+"\n"); res.StatusCode != 400 {
		t.Errorf("atomic=yes: %s", res.Status)
	}
	// An administrator of one tenant brings in keys of that one.
	status, results, body := post(t, p, "/import", "\nAuthorization: Bearer acme-admin-token\n", line, `{"sha256":"`+strings.Repeat("cd", 32)+`","tenant":"globex"}`)
	if status != 200 || results[1].ID == "" || !strings.Contains(results[2].Error, "tenant") {
		t.Errorf("%d %s", status, body)
	}
}

// TestAnImportIsForTheTenantThatIsNamed has an operator of all tenants name one.
func TestAnImportIsForTheTenantThatIsNamed(t *testing.T) {
	p := startAll(t)
	status, results, body := post(t, p, "/import", root+"X-Latchkey-Tenant: acme\n",
		`{"secret":"a-secret-without-a-tenant"}`, `{"secret":"a-secret-of-acme","tenant":"acme"}`, `{"secret":"a-secret-of-globex","tenant":"globex"}`)
	if status != 200 || results[1].ID == "" || results[2].ID == "" || results[3].Error != "tenant is not the one that this call is for" {
		t.Errorf("%d %s", status, body)
	}
}

// TestAnImportIsNoPlaceToGuess has an administrator of one tenant try secrets and IDs that may be
// another's. Each that is right is logged, without the secret, and too many end it.
func TestAnImportIsNoPlaceToGuess(t *testing.T) {
	var log bytes.Buffer
	p := dialecttest.StartWith(t, func(o *admin.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) }, dialects(t)...)
	var theirs, ours []string
	for i := range 30 {
		theirs = append(theirs, fmt.Sprintf(`{"secret":"partner-key-of-globex-%d","tenant":"globex","id":"0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d%02x"}`, i, i))
		ours = append(ours, fmt.Sprintf(`{"secret":"partner-key-of-acme-%d","tenant":"acme"}`, i))
	}
	if status, _, body := post(t, p, "/import", root, append(theirs, ours...)...); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	const asAcme = "\nAuthorization: Bearer acme-admin-token\n"
	guesses := func(n int) (lines []string) {
		for i := range n {
			lines = append(lines, fmt.Sprintf(`{"secret":"partner-key-of-globex-%d"}`, i))
		}
		return append(lines, `{"secret":"short"}`)
	}
	p.Now = p.Now.Truncate(time.Minute)
	log.Reset()
	// One's own keys once more are no guess, however many.
	if status, results, body := post(t, p, "/import", asAcme, ours...); status != 200 || len(results) != 30 || strings.Contains(log.String(), "another") {
		t.Errorf("%d %s %s", status, body, log.String())
	}
	status, results, body := post(t, p, "/import?atomic=true", asAcme, guesses(3)...)
	told := log.String()
	if status != 422 || results[1].Error == "" || strings.Count(told, "another tenant's key") != 3 || !strings.Contains(told, "operator=acme-admin") ||
		!strings.Contains(told, "key_id=0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d00") || strings.Contains(told, "partner-key") {
		t.Errorf("%d %s %s", status, body, told)
	}
	status, _, body = post(t, p, "/import", asAcme, `{"secret":"this-one-is-free","id":"0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d05"}`)
	if told = log.String(); status != 200 || strings.Count(told, "another tenant's key") != 4 || !strings.Contains(told, "8b0c1d05") {
		t.Errorf("the ID of another's key: %d %s", status, body)
	}
	log.Reset()
	if status, results, body := post(t, p, "/import?atomic=true", asAcme, guesses(30)...); status != 429 || len(results) == 0 ||
		strings.Count(log.String(), "another tenant's key") != 16 { // and 4 before
		t.Errorf("%d %s %s", status, body, log.String())
	}
	if _, res, _ := p.Do(t, "GET /audit"+asAcme); res.StatusCode != 429 {
		t.Errorf("the next call from there: %s", res.Status)
	}
}

func TestImportAllOrNothing(t *testing.T) {
	p := startAll(t)
	var lines []string
	for n := range 600 {
		lines = append(lines, fmt.Sprintf(`{"sha256":"%064x","tenant":"acme"}`, 5000+n))
	}
	total := func() int {
		page, err := p.Store.List(apikey.Query{Tenant: "acme", Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		return page.Total
	}
	bad := append([]string{}, lines...)
	bad[599] = lines[3]
	status, results, _ := post(t, p, "/import?atomic=true", root, bad...)
	if status != 422 || total() != 0 || len(results) != 600 {
		t.Fatalf("with the last line bad: %d, %d keys, %d answers", status, total(), len(results))
	}
	if !strings.Contains(results[600].Error, "there already") || !strings.Contains(results[1].Error, "another line") || results[1].ID != "" {
		t.Errorf("the bad line is answered %+v, a good one %+v", results[600], results[1])
	}
	status, results, body := post(t, p, "/import?atomic=true", root, lines...)
	if status != 200 || total() != 600 || results[600].ID == "" {
		t.Errorf("with all lines good: %d, %d keys, %.200s", status, total(), body)
	}
	status, _, _ = post(t, p, "/import?atomic=true", root, lines[:1]...)
	if status != 422 || total() != 600 {
		t.Errorf("again: %d, %d keys", status, total())
	}
	if status, _, body := post(t, p, "/import?atomic=true", root); status != 200 || len(body) != 0 {
		t.Errorf("of nothing: %d %s", status, body)
	}
}

// TestABodyCutShortImportsNothing sends fewer bytes than announced, and then
// all of them.
func TestABodyCutShortImportsNothing(t *testing.T) {
	p := startAll(t)
	line := `{"sha256":"` + strings.Repeat("ab", 32) + `","tenant":"acme"}` + "\n"
	for _, head := range []string{
		fmt.Sprintf("Content-Length: %d\r\n\r\n%s", 2*len(line), line),
		fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(line), line),
	} {
		answer := p.Raw(t, "POST /import?atomic=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer root-token\r\n"+head)
		if strings.HasPrefix(answer, "HTTP/1.1 200") {
			t.Errorf("a body cut short is answered %q", answer)
		}
		if page, err := p.Store.List(apikey.Query{Tenant: "acme", Limit: 1}); err != nil || page.Total != 0 {
			t.Fatalf("%d keys, %v", page.Total, err)
		}
	}
	whole := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(line), line)
	if answer := p.Raw(t, "POST /import?atomic=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer root-token\r\nTransfer-Encoding: chunked\r\n\r\n"+whole); !strings.HasPrefix(answer, "HTTP/1.1 200") {
		t.Errorf("a whole body is answered %q", answer)
	}
	if answer := p.Raw(t, "POST /keys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer root-token\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 400") {
		t.Errorf("a creation cut short is answered %q", answer)
	}
}

func TestExport(t *testing.T) {
	p := startAll(t)
	var lines []string
	for n := range 1200 {
		lines = append(lines, fmt.Sprintf(`{"sha256":"%064x","tenant":"%s","name":"k%d"}`, 5000+n, []string{"acme", "globex"}[n%2], n))
	}
	if status, _, body := post(t, p, "/import", root, lines...); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	id, secret := issue(t, p, `"orders:read"`)
	keyID, _ := apikey.ParseID(id)
	at := time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)
	if err := p.Store.PutUses([]apikey.Use{{Key: keyID, At: at, Address: netip.MustParseAddr("192.0.2.9"), Route: "orders"}}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, request string
		want          int
	}{
		{"an operator of all tenants", "GET /export" + root, 1201},
		{"naming one", "GET /export?tenant=globex" + root, 600},
		{"an operator of one", "GET /export\nAuthorization: Bearer viewer-token\n", 601},
	} {
		_, res, body := p.Do(t, tc.request)
		if got := bytes.Count(body, []byte("\n")); res.StatusCode != 200 || got != tc.want {
			t.Errorf("%s: %s, %d lines, want %d", tc.name, res.Status, got, tc.want)
		}
		digest := apikey.DigestOf([]byte(secret))
		for _, form := range []string{secret, fmt.Sprintf("%x", digest[:]), base64.StdEncoding.EncodeToString(digest[:]), secret[:20], fmt.Sprintf("%064x", 5000)} {
			if bytes.Contains(body, []byte(form)) {
				t.Errorf("%s: the export holds a secret or its digest", tc.name)
			}
		}
		if tc.want != 600 && !bytes.Contains(body, []byte(`"last_used_at":"2026-03-01T12:30:00Z"`)) {
			t.Errorf("%s: no last use", tc.name)
		}
	}
	if _, res, _ := p.Do(t, "GET /export?tenant=globex\nAuthorization: Bearer viewer-token\n"); res.StatusCode != 403 {
		t.Errorf("another tenant's keys: %s", res.Status)
	}
	_, _, body := p.Do(t, "GET /audit?limit=2&key="+id+root)
	var events []map[string]any
	if err := json.Unmarshal(body, &events); err != nil || len(events) != 2 || events[0]["action"] != "used" || events[0]["address"] != "192.0.2.9" || events[0]["route"] != "orders" || events[1]["action"] != "created" {
		t.Errorf("the audit log of a used key is %s, %v", body, err)
	}
	for name, request := range map[string]string{
		"since then":               "GET /audit?since=2026-03-01T13:00:00Z&key=" + id + root,
		"to another tenant":        "GET /audit?key=" + id + "\nAuthorization: Bearer globex-token\n",
		"on the pages behind":      "GET /audit?before=1&key=" + id + root,
		"in the log of all events": "GET /audit?limit=1000" + root,
	} {
		if _, res, body := p.Do(t, request); res.StatusCode != 200 || bytes.Contains(body, []byte(`"used"`)) {
			t.Errorf("the last use is shown %s: %s %.300s", name, res.Status, body)
		}
	}
}
