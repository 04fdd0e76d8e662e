package admin_test

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestAuditShowsWhoDidWhat(t *testing.T) {
	p := startAll(t)
	as := func(line, token string) string { return line + "\nAuthorization: Bearer " + token + "\n" }
	id, secret := issue(t, p, `"orders:read"`)
	p.Do(t, "PUT /api/keys/"+id+auth+"\n"+`{"apiVersion": "2024-05-22", "whitelistedIPs": ["10.0.0.0/8"]}`)
	p.Do(t, as("DELETE /v1/api-keys/"+id, "root-token"))
	p.Do(t, "POST /keys"+strings.Replace(auth, "acme", "globex", 1)+"\n{}")
	type event struct {
		Revision                       int
		Actor, Action, Tenant, Address string
		KeyID                          string `json:"key_id"`
		RequestID                      string `json:"request_id"`
		Fields                         []string
	}
	read := func(query, token string, want ...string) {
		t.Helper()
		_, res, body := p.Do(t, as("GET /audit"+query, token))
		var events []event
		if err := json.Unmarshal(body, &events); err != nil || res.StatusCode != 200 {
			t.Errorf("%s: %s %s", query, res.Status, body)
			return
		}
		var got []string
		for _, e := range events {
			got = append(got, strings.Join(append([]string{e.Actor, e.Action}, e.Fields...), " "))
			if e.Address != "127.0.0.1" || e.RequestID == "" || e.KeyID == "" || e.Tenant == "" {
				t.Errorf("%s: an event lacks something: %+v", query, e)
			}
		}
		if strings.Join(got, "; ") != strings.Join(want, "; ") {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
		if strings.Contains(string(body), secret[10:30]) {
			t.Error("the secret is in the audit log")
		}
	}
	made, changed, ended, foreign := "acme-issuer created", "acme-issuer updated allowed_ips api_version", "root revoked revoked_at", "globex-issuer created"
	read("", "root-token", foreign, ended, changed, made)
	read("?tenant=acme", "root-token", ended, changed, made)
	read("?key="+id, "root-token", ended, changed, made)
	read("?limit=1", "root-token", foreign)
	read("?before=3", "root-token", changed, made)
	read("", "viewer-token", ended, changed, made)
	read("?key="+id, "globex-token")
	read("?since=2026-03-01T12:00:03Z", "root-token", foreign, ended)
	for query, status := range map[string]int{"?limit=0": 400, "?limit=1001": 400, "?since=yesterday": 400, "?key=x": 400, "?before=x": 400, "?before=05": 400, "?since=2026-01-01T0:00:00Z": 400, "?key=00000000-0000-0000-0000-000000000000": 400, "?tenant=acme": 403} {
		if _, res, body := p.Do(t, as("GET /audit"+query, "globex-token")); res.StatusCode != status {
			t.Errorf("%s: %s %s, want %d", query, res.Status, body, status)
		}
	}
	if _, res, _ := p.Do(t, "GET /audit"); res.StatusCode != 401 {
		t.Errorf("without credentials: %s", res.Status)
	}
}
