package truvera

import (
	"strconv"
	"time"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// key is a key on the wire. Every field is there, but for the secret.
type key struct {
	Key     string   `json:"key"` // the public ID
	IPs     []string `json:"ips"`
	Alias   *string  `json:"alias"`
	Created string   `json:"created"`
	Expires string   `json:"expires"`
	JWT     string   `json:"jwt,omitempty"` // in the answer that creates it only
}

func fromKey(k *apikey.Key) key {
	out := key{Key: k.ID.String(), IPs: k.AllowedIPs.Strings(), Created: stamp(k.CreatedAt), Expires: never}
	if out.IPs == nil {
		out.IPs = []string{}
	}
	if k.Name != "" {
		out.Alias = &k.Name
	}
	if end := k.EndsAt(); !end.IsZero() {
		out.Expires = stamp(end)
	}
	return out
}

// never is shown for a key of another dialect that does not expire: the field is
// always there.
const never = "9999-12-31T23:59:59.999Z"

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// readEdit reads the body of a creation or an update: what is absent stays, null
// clears.
func readEdit(c *wire.Call) (apikey.Edit, error) {
	b, err := c.ReadBody(true)
	if err != nil {
		return apikey.Edit{}, err
	}
	e := apikey.Edit{
		AllowedIPs: b.IPs("ips", true).Pointer(),
		Name:       b.Text("alias", 1, apikey.MaxName, true).Pointer(),
	}
	return e, b.Err()
}

// temporaryKey is the answer to the creation of a temporary key.
type temporaryKey struct {
	Key            string `json:"key"` // the secret
	SelectedTeamID *int   `json:"selectedTeamId"`
}

// maxID bounds subaccounts and teams, which are whole numbers.
const maxID = 1<<53 - 1

// readTemporary reads the body of the creation of a temporary key.
func readTemporary(c *wire.Call) (apikey.Spec, *int, error) {
	b, err := c.ReadBody(true)
	if err != nil {
		return apikey.Spec{}, nil, err
	}
	account, team, test := b.Int("subaccount", 0, maxID), b.Int("selectedTeamId", 0, maxID), b.Bool("isTestmode")
	if err := b.Err(); err != nil {
		return apikey.Spec{}, nil, err
	}
	spec, named := apikey.Spec{Name: "temporary"}, ""
	if account.Set {
		named = strconv.Itoa(account.Value)
	}
	if team.Set {
		spec.Subject = strconv.Itoa(team.Value)
	}
	if test.Value {
		spec.Environment = apikey.EnvironmentTest
	}
	spec.Tenant, err = c.Tenant("subaccount", named)
	return spec, team.Pointer(), err
}
