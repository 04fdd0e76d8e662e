// Package peach speaks Peach Finance's dialect of key management at the admin
// plane: /keys, mounted at /api.
package peach

import (
	_ "embed"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

//go:embed openapi.yaml
var document []byte

// Options configures New.
type Options struct {
	Prefix          string        // in front of /keys, such as "/api"; may be empty
	APIVersions     []string      // YYYY-MM-DD in ascending order; at least one
	DowngradeWindow time.Duration // how long a key's version may be moved back down after a move up
}

// dialect is Peach's dialect as configured.
type dialect struct{ Options }

// New returns the dialect, ready to be mounted.
func New(o Options) *wire.Dialect {
	d := dialect{o}
	return &wire.Dialect{
		Name:             "peach",
		OpenAPI:          document,
		CredentialFields: []string{"X-API-KEY"},
		WriteError:       writeError,
		Routes: []wire.Route{
			{Method: "GET", Path: o.Prefix + "/keys", Access: wire.Read, Handle: d.list},
			{Method: "POST", Path: o.Prefix + "/keys", Access: wire.Write, Handle: d.create},
			{Method: "GET", Path: o.Prefix + "/keys/{keyId}", Access: wire.Read, Handle: d.get},
			{Method: "PUT", Path: o.Prefix + "/keys/{keyId}", Access: wire.Write, Handle: d.update},
			{Method: "DELETE", Path: o.Prefix + "/keys/{keyId}", Access: wire.Write, Handle: d.remove},
		},
	}
}

func (d dialect) list(c *wire.Call) error {
	q, status, err := readQuery(c)
	if err != nil {
		return err
	}
	found, err := c.Keys.List(q)
	if err != nil {
		return translate(err)
	}
	out := page{Status: 200, Total: found.Total, Data: []key{}}
	for i := range found.Keys {
		// One whose end has come and was not swept yet is no longer active all the same.
		if shown := fromKey(&found.Keys[i], c.Now); shown.Status == status {
			out.Data = append(out.Data, shown)
		} else {
			out.Total--
		}
	}
	out.Count = len(out.Data)
	if found.Older {
		out.NextURL = pageURL(c, status, q.Limit, "startingAfter", found.Keys[len(found.Keys)-1].ID.String())
	}
	if found.Newer {
		out.PreviousURL = pageURL(c, status, q.Limit, "endingBefore", found.Keys[0].ID.String())
	}
	wire.WriteJSON(c.RequestCtx, 200, out)
	return nil
}

// readQuery reads the parameters of a list. endingBefore wins over
// startingAfter, and a cursor over offset; what loses must be well-formed all
// the same.
func readQuery(c *wire.Call) (q apikey.Query, status string, err error) {
	var errs [6]error
	q.Tenant, errs[0] = c.Tenant("", "")
	status, errs[1] = c.ChoiceParam("status", active, active, inactive)
	q.Limit, errs[2] = c.IntParam("limit", 25, 1, 100)
	q.After, errs[3] = c.CursorParam("startingAfter")
	q.Before, errs[4] = c.CursorParam("endingBefore")
	q.Offset, errs[5] = c.IntParam("offset", 0, 0, 1<<31-1)
	if status == inactive {
		q.Which = apikey.WhichEnded
	}
	for _, err := range errs {
		if err != nil {
			return q, "", err
		}
	}
	return q, status, nil
}

// pageURL returns the address of a neighbouring page, with the same filters.
func pageURL(c *wire.Call, status string, limit int, cursor, id string) *string {
	return orNull(c.PageURL(url.Values{"status": {status}, "limit": {strconv.Itoa(limit)}, cursor: {id}}))
}

func (d dialect) create(c *wire.Call) error {
	body, err := readNewKey(c)
	if err != nil {
		return err
	}
	tenant, err := c.Tenant("", "")
	if err != nil {
		return err
	}
	spec := apikey.Spec{
		Tenant:     tenant,
		Subject:    body.userID,
		Name:       body.description,
		AllowedIPs: body.whitelistedIPs,
		APIVersion: d.APIVersions[len(d.APIVersions)-1],
	}
	return translate(c.Keys.Issue(c, spec, func(made wire.Made) (int, any) {
		out := fromKey(made.Key, c.Now)
		out.Key = made.Secret
		return 201, out
	}))
}

func (d dialect) get(c *wire.Call) error {
	id, err := c.PathID("keyId")
	if err != nil {
		return err
	}
	k, err := c.Keys.Get(c, id)
	if err != nil {
		return translate(err)
	}
	wire.WriteJSON(c.RequestCtx, 200, fromKey(&k, c.Now))
	return nil
}

func (d dialect) update(c *wire.Call) error {
	id, err := c.PathID("keyId")
	if err != nil {
		return err
	}
	edit, err := readEdit(c)
	if err != nil {
		return err
	}
	if !slices.Contains(d.APIVersions, *edit.APIVersion) {
		return wire.BadRequest("apiVersion", "must be one of: "+strings.Join(d.APIVersions, ", "))
	}
	edit.DowngradeWindow = d.DowngradeWindow
	k, err := c.Keys.Update(c, id, edit)
	if err != nil {
		return translate(err)
	}
	wire.WriteJSON(c.RequestCtx, 200, fromKey(&k, c.Now))
	return nil
}

func (d dialect) remove(c *wire.Call) error {
	id, err := c.PathID("keyId")
	if err != nil {
		return err
	}
	err = c.Keys.Revoke(c, id)
	if errors.Is(err, apikey.ErrNotLive) {
		return wire.NotFound() // a key can be deleted once
	}
	if err != nil {
		return translate(err)
	}
	c.SetStatusCode(204)
	return nil
}

func translate(err error) error { return wire.Translate(err, fieldNames()) }
