package admin

import (
	"bytes"
	"encoding/json"
	"io"
	"time"

	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// A Scanner reads all keys of a tenant, newest first, a page at a time.
type Scanner interface {
	Scan(tenant string, before apikey.ID, limit int) ([]apikey.Key, error)
	Uses([]apikey.ID) ([]apikey.Use, error)
}

// exported is a key as an export shows it: neither its secret nor anything that
// it could be checked against.
type exported struct {
	ID              string   `json:"id"`
	Tenant          string   `json:"tenant"`
	Name            string   `json:"name,omitempty"`
	Subject         string   `json:"subject,omitempty"`
	Environment     string   `json:"environment"`
	State           string   `json:"state"`
	Scopes          []string `json:"scopes,omitempty"`
	AllowedIPs      []string `json:"allowed_ips,omitempty"`
	APIVersion      string   `json:"api_version,omitempty"`
	CreatedAt       string   `json:"created_at"`
	UpdatedAt       string   `json:"updated_at"`
	ExpiresAt       string   `json:"expires_at,omitempty"`
	RevokedAt       string   `json:"revoked_at,omitempty"`
	LastUsedAt      string   `json:"last_used_at,omitempty"`
	ReplacedBy      string   `json:"replaced_by,omitempty"`
	GraceEndsAt     string   `json:"grace_ends_at,omitempty"`
	RotateEveryDays int      `json:"rotation_interval_days,omitempty"`
	NextRotationAt  string   `json:"next_rotation_at,omitempty"`
	WebhookURL      string   `json:"rotation_webhook_url,omitempty"`
}

func export(k *apikey.Key, last apikey.Use, now time.Time) exported {
	e := exported{
		ID: k.ID.String(), Tenant: k.Tenant, Name: k.Name, Subject: k.Subject, Environment: k.EnvironmentName(),
		State: k.State(now).String(), Scopes: k.Scopes, AllowedIPs: k.AllowedIPs.Strings(), APIVersion: k.Pin.Version,
		CreatedAt: stamp(k.CreatedAt), UpdatedAt: stamp(k.UpdatedAt), ExpiresAt: stamp(k.ExpiresAt), RevokedAt: stamp(k.RevokedAt),
		LastUsedAt: stamp(last.At), GraceEndsAt: stamp(k.Rotation.GraceEndsAt), RotateEveryDays: k.Rotation.EveryDays,
		NextRotationAt: stamp(k.Rotation.NextAt), WebhookURL: k.Rotation.WebhookURL,
	}
	if !k.Rotation.ReplacedBy.IsZero() {
		e.ReplacedBy = k.Rotation.ReplacedBy.String()
	}
	return e
}

// stamp returns a time in RFC 3339, and "" for one that is not set.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}

const exportPage = 500

// exportKeys answers GET /export: a key a line, of the tenant that is meant as in
// the audit log, or the one key that ?key= names. A key that is changed meanwhile is
// shown as it is when its turn comes; one made meanwhile is left out.
func (p *Plane) exportKeys(ctx *fasthttp.RequestCtx) {
	pages, err := func() (*exportReader, error) {
		operator, err := p.operator(ctx, wire.Read)
		if err != nil {
			return nil, err
		}
		c := &wire.Call{RequestCtx: ctx, Operator: operator}
		if err := c.OnlyParams("tenant", "key"); err != nil {
			return nil, err
		}
		tenant, err := tenantParam(c)
		if err != nil {
			return nil, err
		}
		key, err := c.CursorParam("key")
		if err != nil {
			return nil, wire.Invalid("key", "must be the ID of a key")
		}
		pages := &exportReader{from: p.options.Scanner, tenant: tenant, now: p.options.Now()}
		if !key.IsZero() {
			one, err := p.options.Auditor.ByID(tenant, key)
			if err != nil {
				return nil, err
			}
			pages.from = &onlyKey{Scanner: p.options.Scanner, keys: []apikey.Key{one}}
		}
		// The first page before the status: a store that cannot answer is 503.
		if err := pages.fill(); err != nil && err != io.EOF {
			return nil, err
		}
		return pages, nil
	}()
	if err != nil {
		p.fail(ctx, writeError, wire.AsError(err, nil))
		return
	}
	ctx.SetContentType("application/x-ndjson")
	ctx.SetBodyStream(&timedBody{ReadCloser: io.NopCloser(pages), conn: ctx}, -1)
}

// onlyKey is a Scanner that finds one key, once.
type onlyKey struct {
	Scanner
	keys []apikey.Key
}

// Scan returns the key, and nothing the second time.
func (o *onlyKey) Scan(string, apikey.ID, int) ([]apikey.Key, error) {
	found := o.keys
	o.keys = nil
	return found, nil
}

// An exportReader is the text of an export. A fault of the store makes Read
// fail, which cuts the connection: what was sent is then seen not to be all.
type exportReader struct {
	from   Scanner
	tenant string
	now    time.Time
	last   apikey.ID
	text   bytes.Buffer
}

// Read reads the next lines.
func (r *exportReader) Read(b []byte) (int, error) {
	if r.text.Len() == 0 {
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	return r.text.Read(b)
}

// fill reads the next page, and gives io.EOF after the last.
func (r *exportReader) fill() error {
	keys, err := r.from.Scan(r.tenant, r.last, exportPage)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return io.EOF
	}
	ids := make([]apikey.ID, len(keys))
	for i := range keys {
		ids[i] = keys[i].ID
	}
	uses, err := r.from.Uses(ids)
	if err != nil {
		return err
	}
	r.last = ids[len(ids)-1]
	r.text.Reset()
	e := json.NewEncoder(&r.text)
	e.SetEscapeHTML(false)
	for i := range keys {
		if err := e.Encode(export(&keys[i], uses[i], r.now)); err != nil {
			return err
		}
	}
	return nil
}
