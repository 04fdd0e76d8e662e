// Package truvera speaks Truvera's dialect of key management at the admin
// plane: /keys, mounted at the root.
package truvera

import (
	_ "embed"
	"time"

	"latchkey/admin/jwt"
	"latchkey/admin/wire"
	"latchkey/apikey"
)

//go:embed openapi.yaml
var document []byte

// A Signer makes the tokens that are keys here.
type Signer interface {
	Sign(jwt.Claims) (string, error)
}

// Options configures New.
type Options struct {
	Prefix            string // in front of /keys; usually empty
	Signer            Signer
	Lifetime          time.Duration // of keys
	TemporaryLifetime time.Duration // of temporary keys
}

// dialect is Truvera's dialect as configured.
type dialect struct{ Options }

// New returns the dialect, ready to be mounted.
func New(o Options) *wire.Dialect {
	d := dialect{o}
	keys := o.Prefix + "/keys"
	return &wire.Dialect{
		Name:             "truvera",
		OpenAPI:          document,
		CredentialFields: []string{"DOCK-API-TOKEN"},
		WriteError:       writeError,
		Routes: []wire.Route{
			{Method: "GET", Path: keys, Access: wire.Read, Handle: d.list},
			{Method: "POST", Path: keys, Access: wire.Write, Handle: d.create},
			{Method: "POST", Path: keys + "/temporary-key", Access: wire.Write, Handle: d.createTemporary, Certs: true},
			{Method: "GET", Path: keys + "/{publicKey}", Access: wire.Read, Handle: d.get},
			{Method: "PATCH", Path: keys + "/{publicKey}", Access: wire.Write, Handle: d.update},
			{Method: "DELETE", Path: keys + "/{publicKey}", Access: wire.Write, Handle: d.revoke},
		},
	}
}

func (d dialect) list(c *wire.Call) (err error) {
	var q apikey.Query
	if q.Tenant, err = c.Tenant("", ""); err != nil {
		return err
	}
	if q.Offset, err = c.IntParam("offset", 0, 0, 1<<31-1); err != nil {
		return err
	}
	if q.Limit, err = c.IntParam("limit", 64, 1, 64); err != nil {
		return err
	}
	page, err := c.Keys.List(q)
	if err != nil {
		return translate(err)
	}
	out := []key{}
	for i := range page.Keys {
		// One whose end has come and was not swept yet is over all the same.
		if page.Keys[i].State(c.Now) == apikey.StateActive {
			out = append(out, fromKey(&page.Keys[i]))
		}
	}
	wire.WriteJSON(c.RequestCtx, 200, out)
	return nil
}

func (d dialect) create(c *wire.Call) error {
	edit, err := readEdit(c)
	if err != nil {
		return err
	}
	tenant, err := c.Tenant("", "")
	if err != nil {
		return err
	}
	spec := apikey.Spec{Tenant: tenant, ExpiresAt: c.Now.Add(d.Lifetime)}
	if edit.AllowedIPs != nil {
		spec.AllowedIPs = *edit.AllowedIPs
	}
	if edit.Name != nil {
		spec.Name = *edit.Name
	}
	sign := func(id apikey.ID, random string) (string, error) {
		return d.Signer.Sign(jwt.Claims{Issuer: jwt.Issuer, Subject: tenant, ID: id.String(),
			IssuedAt: c.Now.Unix(), Expires: spec.ExpiresAt.Unix(), Random: random})
	}
	return translate(c.Keys.IssueSigned(c, spec, sign, func(made wire.Made) (int, any) {
		out := fromKey(made.Key)
		out.JWT = made.Secret
		return 200, out
	}))
}

func (d dialect) createTemporary(c *wire.Call) error {
	spec, team, err := readTemporary(c)
	if err != nil {
		return err
	}
	spec.ExpiresAt = c.Now.Add(d.TemporaryLifetime)
	return translate(c.Keys.Issue(c, spec, func(made wire.Made) (int, any) { return 200, temporaryKey{made.Secret, team} }))
}

func (d dialect) get(c *wire.Call) error {
	id, err := c.PathID("publicKey")
	if err != nil {
		return err
	}
	k, err := c.Keys.Get(c, id)
	if err == nil && k.State(c.Now) != apikey.StateActive {
		err = apikey.ErrNotFound
	}
	if err != nil {
		return translate(err)
	}
	wire.WriteJSON(c.RequestCtx, 200, fromKey(&k))
	return nil
}

func (d dialect) update(c *wire.Call) error {
	id, err := c.PathID("publicKey")
	if err != nil {
		return err
	}
	edit, err := readEdit(c)
	if err != nil {
		return err
	}
	k, err := c.Keys.Update(c, id, edit)
	if err != nil {
		return translate(err)
	}
	wire.WriteJSON(c.RequestCtx, 200, fromKey(&k))
	return nil
}

func (d dialect) revoke(c *wire.Call) error {
	id, err := c.PathID("publicKey")
	if err != nil {
		return err
	}
	if err := c.Keys.Revoke(c, id); err != nil {
		return translate(err)
	}
	wire.WriteJSON(c.RequestCtx, 200, map[string]bool{"revoked": true})
	return nil
}
