package truvera

import (
	"bytes"
	"strconv"
	"testing"

	"latchkey/admin/wire"
	"latchkey/apikey"
	"latchkey/internal/wiretest"
)

// FuzzEdit holds the reading of creations and updates against encoding/json: what
// is taken is what is there, and what is absent is told from null.
func FuzzEdit(f *testing.F) {
	for _, seed := range []string{"", `{}`, `{"ips": ["10.0.0.0/8", "::ffff:1.2.3.4"], "alias": "My Key"}`, `{"ips": null, "alias": null}`, `{"IPs": []}`, `{"alias": "\ud800"}`, `{"ips": [], "ips": ["::1"]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := readEdit(wiretest.Call("", body))
		if wiretest.Refused(t, err) {
			return
		}
		var want struct {
			IPs   []string `json:"ips"`
			Alias string   `json:"alias"`
		}
		nulls, ok := map[string]bool{}, true
		if len(bytes.TrimSpace(body)) > 0 {
			nulls, ok = wiretest.Strict(body, &want, "ips", "alias")
		}
		_, ips := nulls["ips"]
		_, alias := nulls["alias"]
		if !ok || ips != (e.AllowedIPs != nil) || alias != (e.Name != nil) || ips && !wiretest.SameIPs(*e.AllowedIPs, want.IPs) || alias && *e.Name != want.Alias {
			t.Fatalf("%q is read as %+v, it says %+v (%t)", body, e, want, ok)
		}
	})
}

// FuzzTemporary does so for temporary keys.
func FuzzTemporary(f *testing.F) {
	for _, seed := range []string{"", `{"subaccount": 1, "selectedTeamId": 1, "isTestmode": true}`, `{"subaccount": -0}`, `{"selectedTeamId": 9007199254740993}`, `{"isTestmode": null}`, `{"subaccount": 1e1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c := wiretest.Call("", body)
		c.Operator.Tenant = apikey.AnyTenant
		spec, team, err := readTemporary(c)
		if wiretest.Refused(t, err) {
			return
		}
		var want struct {
			Account *uint64 `json:"subaccount"`
			Team    *uint64 `json:"selectedTeamId"`
			Test    bool    `json:"isTestmode"`
		}
		ok := true
		if len(bytes.TrimSpace(body)) > 0 {
			// JSON has a zero that unsigned numbers have not.
			_, ok = wiretest.Strict(bytes.ReplaceAll(body, []byte("-0"), []byte(" 0")), &want, "subaccount", "selectedTeamId", "isTestmode")
		}
		tenant := apikey.DefaultTenant
		if want.Account != nil {
			tenant = strconv.FormatUint(*want.Account, 10)
		}
		if !ok || spec.Tenant != tenant || (team == nil) != (want.Team == nil) || team != nil && uint64(*team) != *want.Team || (spec.Environment == "test") != want.Test {
			t.Fatalf("%q is read as %+v and %v, it says %+v (%t)", body, spec, team, want, ok)
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

// FuzzQuery holds what is asked of the store against the query.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "offset=7&limit=64", "limit=65", "limit=0", "offset=-1", "offset=2147483647", "offset=2147483648", "offset=07", "limit=5&limit=5", "%6cimit=5", "limit=%zz"} {
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
		want := apikey.Query{Tenant: "acme", Limit: q.Limit, Offset: q.Offset}
		if q != want || q.Limit < 1 || q.Limit > 64 || q.Offset < 0 {
			t.Fatalf("%q is read as %+v", query, q)
		}
		if err := wiretest.CheckQuery(query, map[string]any{"limit": q.Limit, "offset": q.Offset}, map[string]any{"limit": 64, "offset": 0}); err != nil {
			t.Fatal(err)
		}
	})
}
