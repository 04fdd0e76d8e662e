package admin_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"latchkey/apikey"
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
	// A last use stands in front of the events, and is none of those that are asked for.
	key, err := apikey.ParseID(id)
	if err == nil {
		err = p.Store.PutUses([]apikey.Use{{Key: key, At: p.Now, Address: netip.MustParseAddr("127.0.0.1")}})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"used", "revoked", "updated", "created"} {
		cursor := ""
		for range 3 {
			_, _, body := p.Do(t, as("GET /audit?limit=1&key="+id+cursor, "root-token"))
			var page []struct{ Action, Cursor string }
			if err := json.Unmarshal(body, &page); err != nil || len(page) == 0 {
				t.Fatalf("%s: %s, %v", cursor, body, err)
			}
			if page[0].Action == want || page[len(page)-1].Action == want {
				want = "found"
			}
			cursor = "&before=" + page[len(page)-1].Cursor
		}
		if want != "found" {
			t.Errorf("pages of one event never show that the key was %s", want)
		}
	}
	for query, status := range map[string]int{"?limit=0": 400, "?limit=1001": 400, "?since=yesterday": 400, "?key=x": 400, "?before=x": 400, "?before=05": 400, "?since=2026-01-01T0:00:00Z": 400, "?key=00000000-0000-0000-0000-000000000000": 400, "?key=": 400, "?since=": 400, "?tenant=": 400, "?before=": 400, "?tenent=acme": 400, "?%0a=": 400, "?tenant=acme": 403} {
		if _, res, body := p.Do(t, as("GET /audit"+query, "globex-token")); res.StatusCode != status {
			t.Errorf("%s: %s %s, want %d", query, res.Status, body, status)
		}
	}
	if _, res, _ := p.Do(t, "GET /audit"); res.StatusCode != 401 {
		t.Errorf("without credentials: %s", res.Status)
	}
}
