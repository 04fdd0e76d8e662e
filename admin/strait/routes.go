// Package strait speaks Strait's dialect of key management at the admin plane:
// /v1/api-keys, mounted at the root.
package strait

import (
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

//go:embed openapi.yaml
var document []byte

// Options configures New.
type Options struct {
	Prefix string        // in front of /v1/api-keys; usually empty
	Grace  time.Duration // how long a rotated key goes on where the call does not say

	// AllowPrivateWebhooks lets a webhook's host be a loopback or private address.
	AllowPrivateWebhooks bool
}

// dialect is Strait's dialect as configured.
type dialect struct{ Options }

// New returns the dialect, ready to be mounted.
func New(o Options) *wire.Dialect {
	d := dialect{o}
	keys := o.Prefix + "/v1/api-keys"
	return &wire.Dialect{
		Name:       "strait",
		OpenAPI:    document,
		WriteError: writeError,
		Routes: []wire.Route{
			{Method: "GET", Path: keys, Access: wire.Read, Handle: d.list},
			{Method: "POST", Path: keys, Access: wire.Write, Handle: d.create},
			{Method: "DELETE", Path: keys + "/{keyID}", Access: wire.Write, Handle: d.revoke},
			{Method: "POST", Path: keys + "/{keyID}/rotate", Access: wire.Write, Handle: d.rotate},
		},
	}
}

func (d dialect) list(c *wire.Call) error {
	project, err := c.Param("project_id", "")
	if err != nil {
		return err
	}
	var q apikey.Query
	if q.Tenant, err = c.Tenant("project_id", project); err != nil {
		return malformed(err)
	}
	if q.Limit, err = c.IntParam("limit", 50, 1, 100); err != nil {
		return err
	}
	if q.After, err = c.CursorParam("cursor"); err != nil {
		return err
	}
	all, err := c.ChoiceParam("include_revoked", "false", "false", "true")
	if err != nil {
		return err
	}
	if all == "true" {
		q.Which = apikey.WhichAll
	}
	page, err := c.Keys.List(q)
	if err != nil {
		return translate(err)
	}
	uses, err := c.Keys.Uses(page.Keys)
	if err != nil {
		return translate(err)
	}
	out := make([]key, len(page.Keys))
	for i := range page.Keys {
		out[i] = fromKey(&page.Keys[i], uses[i])
	}
	if page.Older {
		next := c.PageURL(url.Values{"project_id": {q.Tenant}, "limit": {strconv.Itoa(q.Limit)},
			"include_revoked": {all}, "cursor": {out[len(out)-1].ID}})
		c.Response.Header.Set("Link", fmt.Sprintf("<%s>; rel=\"next\"", next)) // RFC 8288
	}
	wire.WriteJSON(c.RequestCtx, 200, out)
	return nil
}

func (d dialect) create(c *wire.Call) error {
	spec, err := d.readSpec(c)
	if err != nil {
		return err
	}
	return translate(c.Keys.Issue(c, spec, func(made wire.Made) (int, any) {
		out := fromKey(made.Key, apikey.Use{})
		out.Key, out.RotationWebhookSecret = made.Secret, string(made.WebhookSecret)
		return 201, out
	}))
}

// revoke ends a key; ending one that is revoked already is no error.
func (d dialect) revoke(c *wire.Call) error {
	id, err := c.PathID("keyID")
	if err != nil {
		return err
	}
	if err := c.Keys.Revoke(c, id); err != nil && !errors.Is(err, apikey.ErrNotLive) {
		return malformed(translate(err))
	}
	c.SetStatusCode(204)
	return nil
}

// maxGraceMinutes is a week.
const maxGraceMinutes = 7 * 24 * 60

func (d dialect) rotate(c *wire.Call) error {
	id, err := c.PathID("keyID")
	if err != nil {
		return err
	}
	grace, err := d.readGrace(c)
	if err != nil {
		return malformed(err)
	}
	return malformed(translate(c.Keys.Rotate(c, id, grace, func(made wire.Made) (int, any) { return 201, fromRotation(made) })))
}

// readGrace reads the body of a rotation: how long the old key goes on.
func (d dialect) readGrace(c *wire.Call) (time.Duration, error) {
	b, err := c.ReadBody(true)
	if err != nil {
		return 0, err
	}
	grace := d.Grace
	if minutes := b.Int("grace_period_minutes", 0, maxGraceMinutes); minutes.Set {
		grace = time.Duration(minutes.Value) * time.Minute
	}
	return grace, b.Err()
}
