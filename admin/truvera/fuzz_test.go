package truvera

import (
	"bytes"
	"strconv"
	"testing"

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
