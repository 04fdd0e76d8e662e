package admin

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// An Auditor reads the audit log, newest first, and finds out what stands beside
// it about one key.
type Auditor interface {
	Audit(apikey.AuditQuery) ([]apikey.Event, error)
	ByID(tenant string, id apikey.ID) (apikey.Key, error)
	Uses([]apikey.ID) ([]apikey.Use, error)
}

// event is an event of the audit log on the wire.
type event struct {
	Revision  uint64         `json:"revision,omitempty"`
	Cursor    string         `json:"cursor,omitempty"` // what ?before= takes to go on behind it
	At        string         `json:"at"`
	Actor     string         `json:"actor"`
	Action    apikey.Action  `json:"action"`
	KeyID     string         `json:"key_id,omitempty"`
	Signing   string         `json:"signing_key_id,omitempty"` // in place of key_id
	Tenant    string         `json:"tenant"`
	Fields    []apikey.Field `json:"fields"` // what changed
	Route     string         `json:"route,omitempty"`
	Address   string         `json:"address,omitempty"`
	RequestID string         `json:"request_id,omitempty"`
}

// actionUsed marks a last use among the events.
const actionUsed apikey.Action = "used"

const (
	defaultEvents = 100
	mostEvents    = 1000
)

// audit answers GET /audit.
func (p *Plane) audit(ctx *fasthttp.RequestCtx) {
	out, err := func() ([]event, error) {
		operator, err := p.operator(ctx, wire.Read)
		if err != nil {
			return nil, err
		}
		q, err := readAuditQuery(&wire.Call{RequestCtx: ctx, Operator: operator})
		if err != nil {
			return nil, err
		}
		return p.events(q)
	}()
	if err != nil {
		p.fail(ctx, writeError, wire.AsError(err, nil))
		return
	}
	wire.WriteJSON(ctx, 200, out)
}

// events returns the events that are asked for. In front of those of one key
// stands its last use, which is no event: the log would be full of nothing else.
func (p *Plane) events(q apikey.AuditQuery) ([]event, error) {
	out := []event{}
	if !q.Key.IsZero() && q.Before == (apikey.Place{}) {
		last, err := p.lastUse(q)
		if err != nil {
			return nil, err
		}
		out = append(out, last...)
	}
	events, err := p.options.Auditor.Audit(q)
	for _, e := range events {
		out = append(out, showEvent(e))
	}
	return out, err
}

func showEvent(e apikey.Event) event {
	shown := event{Revision: e.Revision, Cursor: e.Place.String(), At: e.At.Format(time.RFC3339Nano), Actor: e.Actor, Action: e.Action,
		Signing: e.SigningKey, Tenant: e.Tenant, Fields: append([]apikey.Field{}, e.Fields...), RequestID: e.RequestID}
	if !e.Key.IsZero() {
		shown.KeyID = e.Key.String()
	}
	if e.Address.IsValid() {
		shown.Address = e.Address.String()
	}
	return shown
}

// lastUse returns when the key was last used, nothing if it never was, not since
// the time asked for, or is not the tenant's.
func (p *Plane) lastUse(q apikey.AuditQuery) ([]event, error) {
	key, err := p.options.Auditor.ByID(q.Tenant, q.Key)
	if errors.Is(err, apikey.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	uses, err := p.options.Auditor.Uses([]apikey.ID{q.Key})
	if err != nil || uses[0].At.IsZero() || uses[0].At.Before(q.Since) {
		return nil, err
	}
	shown := event{At: uses[0].At.Format(time.RFC3339Nano), Actor: "key " + key.ID.String(), Action: actionUsed,
		KeyID: key.ID.String(), Tenant: key.Tenant, Fields: []apikey.Field{}, Route: uses[0].Route}
	if uses[0].Address.IsValid() {
		shown.Address = uses[0].Address.String()
	}
	return []event{shown}, nil
}

// tenantParam returns the tenant that a call on many keys is about. An operator
// of all tenants who names none means all of them.
func tenantParam(c *wire.Call) (string, error) {
	named, err := c.Param("tenant", "")
	if err != nil {
		return "", err
	}
	if named != "" {
		return c.Tenant("tenant", named)
	}
	if c.QueryArgs().Has("tenant") { // a script's variable that is not set is not all tenants
		return "", wire.BadRequest("tenant", "is empty; name a tenant or leave it out")
	}
	return c.Reach()
}

// readAuditQuery reads the parameters.
func readAuditQuery(c *wire.Call) (q apikey.AuditQuery, err error) {
	if err := c.OnlyParams("tenant", "key", "since", "before", "limit"); err != nil {
		return q, err
	}
	if q.Tenant, err = tenantParam(c); err != nil {
		return q, err
	}
	if q.Key, err = c.CursorParam("key"); err != nil {
		return q, wire.Invalid("key", "must be the ID of a key")
	}
	since, err := c.Param("since", "")
	if err != nil {
		return q, err
	}
	if since != "" || c.QueryArgs().Has("since") {
		var ok bool
		if q.Since, ok = wire.ParseTime(since); !ok {
			return q, wire.Invalid("since", "must be a time such as 2027-01-31T00:00:00Z")
		}
	}
	before, err := c.Param("before", "0")
	if err != nil {
		return q, err
	}
	if q.Before, err = parsePlace(before); err != nil {
		return q, wire.Invalid("before", "must be the cursor of an event, or its revision")
	}
	q.Limit, err = c.IntParam("limit", defaultEvents, 1, mostEvents)
	return q, err
}

// parsePlace reads a cursor: a revision, with an ordinal behind a dot or without.
func parsePlace(text string) (p apikey.Place, err error) {
	revision, ordinal, dotted := strings.Cut(text, ".")
	if p.Revision, err = strconv.ParseUint(revision, 10, 64); err != nil {
		return p, err
	}
	if dotted {
		n, err := strconv.ParseUint(ordinal, 10, 32)
		if err != nil {
			return p, err
		}
		p.Ordinal = uint32(n)
	}
	if text != p.String() && text != strconv.FormatUint(p.Revision, 10) {
		return p, errPlace
	}
	return p, nil
}

// errPlace reports a cursor in another spelling than its own.
var errPlace = errors.New("not a cursor")
