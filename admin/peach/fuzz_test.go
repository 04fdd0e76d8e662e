package peach

import (
	"testing"

	"latchkey/apikey"
	"latchkey/internal/wiretest"
)

// FuzzNewKey holds the reading of creations against encoding/json.
func FuzzNewKey(f *testing.F) {
	for _, seed := range []string{`{"userId": "u", "whitelistedIPs": ["10.0.0.0/8"], "description": "d"}`, `{"userId": "u", "whitelistedIps": ["::1"]}`, `{"userId": null}`, `{"userId": "u", "description": null}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := readNewKey(wiretest.Call("", body))
		if wiretest.Refused(t, err) {
			return
		}
		var want struct {
			UserID string   `json:"userId"`
			IPs    []string `json:"whitelistedIPs"`
			Text   string   `json:"description"`
		}
		nulls, ok := wiretest.Strict(body, &want, "userId", "whitelistedIPs", "description")
		if !ok || nulls["userId"] || want.UserID == "" || n.userID != want.UserID || n.description != want.Text || !wiretest.SameIPs(n.whitelistedIPs, want.IPs) {
			t.Fatalf("%q is read as %+v, it says %+v (%t)", body, n, want, ok)
		}
	})
}

// FuzzEdit holds the reading of updates against encoding/json: what is absent is
// told from null.
func FuzzEdit(f *testing.F) {
	for _, seed := range []string{`{"apiVersion": "2024-05-22", "description": "d", "whitelistedIPs": []}`, `{"apiVersion": "2024-05-22", "description": null, "whitelistedIPs": null}`, `{"apiVersion": "2024-05-22"}`, `{}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := readEdit(wiretest.Call("", body))
		if wiretest.Refused(t, err) {
			return
		}
		var want struct {
			Version string   `json:"apiVersion"`
			Text    string   `json:"description"`
			IPs     []string `json:"whitelistedIPs"`
		}
		nulls, ok := wiretest.Strict(body, &want, "apiVersion", "description", "whitelistedIPs")
		_, text := nulls["description"]
		_, ips := nulls["whitelistedIPs"]
		if !ok || e.APIVersion == nil || *e.APIVersion != want.Version || text != (e.Name != nil) || ips != (e.AllowedIPs != nil) ||
			text && *e.Name != want.Text || ips && !wiretest.SameIPs(*e.AllowedIPs, want.IPs) {
			t.Fatalf("%q is read as %+v, it says %+v (%t)", body, e, want, ok)
		}
	})
}

// FuzzQuery writes the query that was read in full, which must read the same: no
// parameter is lost or guessed, and all are within their bounds.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "status=inactive&limit=100", "limit=01", "startingAfter=0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d2e&offset=7", "limit=5&limit=5", "%6cimit=5", "endingBefore=00000000-0000-0000-0000-000000000000", "limit=+5", "limit=5;offset=1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, status, err := readQuery(wiretest.Call(query, nil))
		if wiretest.Refused(t, err) {
			return
		}
		if q.Tenant != "acme" || q.Limit < 1 || q.Limit > 100 || q.Offset < 0 || (q.Which == apikey.WhichEnded) != (status == inactive) {
			t.Fatalf("%q is read as %+v", query, q)
		}
		if err := wiretest.CheckQuery(query, map[string]any{"status": status, "limit": q.Limit, "offset": q.Offset, "startingAfter": q.After, "endingBefore": q.Before},
			map[string]any{"status": active, "limit": 25, "offset": 0}); err != nil {
			t.Fatal(err)
		}
	})
}
