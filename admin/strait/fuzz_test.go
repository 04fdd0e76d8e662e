package strait

import (
	"bytes"
	"testing"
	"time"

	"latchkey/admin/wire"
	"latchkey/apikey"
	"latchkey/internal/wiretest"
)

// FuzzSpec holds the reading of creations against encoding/json.
func FuzzSpec(f *testing.F) {
	for _, seed := range []string{`{ "project_id": "acme", "name": "string" }`, `{"name": "CI", "scopes": ["a:b"], "expires_in_days": 90, "environment_id": "e"}`, `{"name": "CI", "expires_at": "2027-01-31T00:00:00Z"}`,
		`{"name": "n", "rotation_interval_days": 1, "rotation_webhook_url": "https://hooks.example/x"}`, `{"name": "n", "scopes": [null]}`, `{"name": "n", "expires_in_days": -0}`, `{"Name": "n"}`} {
		f.Add([]byte(seed))
	}
	d := dialect{}
	f.Add([]byte(`{"name":"CI","expires_at":"2027-01-31T00:00:00\u005a"}`))
	f.Add([]byte(`{"name":"CI","expires_at":"2027-01-31T00:00:00.000000001Z"}`))
	f.Add([]byte(`{"name":"CI","project_id":""}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c := wiretest.Call("", body)
		c.Now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		spec, err := d.readSpec(c)
		if wiretest.Refused(t, err) {
			return
		}
		var want struct {
			Project     string   `json:"project_id"`
			Name        string   `json:"name"`
			Scopes      []string `json:"scopes"`
			Days        int      `json:"expires_in_days"`
			At          *string  `json:"expires_at"` // time.Time reads no escapes
			Environment string   `json:"environment_id"`
			Every       int      `json:"rotation_interval_days"`
			Webhook     string   `json:"rotation_webhook_url"`
		}
		nulls, ok := wiretest.Strict(body, &want, "project_id", "name", "scopes", "expires_in_days", "expires_at", "environment_id", "rotation_interval_days", "rotation_webhook_url")
		for _, null := range nulls {
			ok = ok && !null
		}
		expires := time.Time{}
		if want.Days > 0 {
			expires = c.Now.AddDate(0, 0, want.Days)
		}
		if want.At != nil {
			expires, err = time.Parse(time.RFC3339, *want.At)
			ok = ok && err == nil && want.Days == 0
		}
		if !ok || spec.Tenant != "acme" || want.Project != "" && want.Project != "acme" || spec.Name != want.Name || want.Name == "" || len(spec.Scopes) != len(want.Scopes) ||
			!spec.ExpiresAt.Equal(expires) || spec.Environment != want.Environment || spec.RotateEveryDays != want.Every || spec.WebhookURL != want.Webhook || (want.Every > 0) != (want.Webhook != "") {
			t.Fatalf("%q is read as %+v, it says %+v (%t)", body, spec, want, ok)
		}
		for i, s := range want.Scopes {
			if spec.Scopes[i] != s {
				t.Fatalf("%q: scope %d is read as %q", body, i, spec.Scopes[i])
			}
		}
	})
}

// listed remembers the query that it was asked.
type listed struct {
	wire.Reader
	q *apikey.Query
}

func (l listed) List(q apikey.Query) (apikey.Page, error) {
	*l.q = q
	return apikey.Page{}, nil
}

func (l listed) Uses([]apikey.ID) ([]apikey.Use, error) { return nil, nil }

// FuzzQuery holds what is asked of the store against the query.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "project_id=acme&limit=100&include_revoked=true", "limit=0", "cursor=0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d2e", "cursor=0199F3A2-5C1E-7B3A-9D4E-2F6A8B0C1D2E&limit=7", "project_id=globex", "include_revoked=%74rue", "limit=%zz"} {
		f.Add(seed)
	}
	d := dialect{}
	f.Fuzz(func(t *testing.T, query string) {
		var q apikey.Query
		c := wiretest.Call(query, nil)
		c.Keys = &wire.KeyService{Reader: listed{q: &q}}
		if wiretest.Refused(t, d.list(c)) {
			if q != (apikey.Query{}) {
				t.Fatalf("%q is refused, but the store was asked %+v", query, q)
			}
			return
		}
		if q.Tenant != "acme" || q.Limit < 1 || q.Limit > 100 || q.Offset != 0 || !q.Before.IsZero() {
			t.Fatalf("%q is read as %+v", query, q)
		}
		all := q.Which == apikey.WhichAll
		if err := wiretest.CheckQuery(query, map[string]any{"limit": q.Limit, "cursor": q.After, "include_revoked": all},
			map[string]any{"limit": 50, "include_revoked": false}); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzGrace holds the grace that a rotation asks for against encoding/json.
func FuzzGrace(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"grace_period_minutes": 30}`, `{"grace_period_minutes": null}`, `{"grace_period_minutes": 10081}`, `{"grace_period_minutes": 1.0}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		d := dialect{Options{Grace: time.Hour}}
		grace, err := d.readGrace(wiretest.Call("", body))
		if wiretest.Refused(t, err) {
			return
		}
		var want struct {
			Minutes *int64 `json:"grace_period_minutes"`
		}
		nulls, ok := map[string]bool{}, true
		if len(bytes.TrimSpace(body)) > 0 {
			nulls, ok = wiretest.Strict(body, &want, "grace_period_minutes")
		}
		minutes := int64(60)
		if want.Minutes != nil {
			minutes = *want.Minutes
		}
		if !ok || nulls["grace_period_minutes"] || grace != time.Duration(minutes)*time.Minute || minutes < 0 || minutes > 10080 {
			t.Fatalf("%q is read as %s, it says %d (%t)", body, grace, minutes, ok)
		}
	})
}
