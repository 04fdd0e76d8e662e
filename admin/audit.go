package admin

import (
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// An Auditor reads the audit log, newest first.
type Auditor interface {
	Audit(apikey.AuditQuery) ([]apikey.Event, error)
}

// event is an event of the audit log on the wire.
type event struct {
	Revision  uint64         `json:"revision"`
	At        string         `json:"at"`
	Actor     string         `json:"actor"`
	Action    apikey.Action  `json:"action"`
	KeyID     string         `json:"key_id"`
	Tenant    string         `json:"tenant"`
	Fields    []apikey.Field `json:"fields"` // what changed
	Address   string         `json:"address,omitempty"`
	RequestID string         `json:"request_id,omitempty"`
}

const (
	defaultEvents = 100
	mostEvents    = 1000
)

// audit answers GET /audit.
func (p *Plane) audit(ctx *fasthttp.RequestCtx) {
	now := p.options.Now()
	events, err := func() ([]apikey.Event, error) {
		operator, err := p.caller(ctx, now, false, nil)
		if err != nil {
			return nil, err
		}
		q, err := readAuditQuery(&wire.Call{RequestCtx: ctx, Operator: operator, Now: now})
		if err != nil {
			return nil, err
		}
		return p.options.Auditor.Audit(q)
	}()
	if err != nil {
		p.fail(ctx, writeError, wire.AsError(err, nil))
		return
	}
	out := make([]event, len(events))
	for i, e := range events {
		out[i] = event{Revision: e.Revision, At: e.At.Format(time.RFC3339Nano), Actor: e.Actor, Action: e.Action,
			KeyID: e.Key.String(), Tenant: e.Tenant, Fields: append([]apikey.Field{}, e.Fields...), RequestID: e.RequestID}
		if e.Address.IsValid() {
			out[i].Address = e.Address.String()
		}
	}
	wire.WriteJSON(ctx, 200, out)
}

// readAuditQuery reads the parameters. An operator of all tenants who names none
// means all of them.
func readAuditQuery(c *wire.Call) (q apikey.AuditQuery, err error) {
	tenant, err := c.Param("tenant", "")
	if err != nil {
		return q, err
	}
	if q.Tenant, err = c.Reach(); tenant != "" {
		q.Tenant, err = c.Tenant("tenant", tenant)
	}
	if err != nil {
		return q, err
	}
	if q.Key, err = c.CursorParam("key"); err != nil {
		return q, wire.Invalid("key", "must be the ID of a key")
	}
	since, err := c.Param("since", "")
	if err != nil {
		return q, err
	}
	if since != "" {
		if q.Since, err = time.Parse(time.RFC3339, since); err != nil {
			return q, wire.Invalid("since", "must be a time such as 2027-01-31T00:00:00Z")
		}
	}
	before, err := c.Param("before", "0")
	if err != nil {
		return q, err
	}
	if q.Before, err = strconv.ParseUint(before, 10, 64); err != nil {
		return q, wire.Invalid("before", "must be the revision of an event")
	}
	q.Limit, err = c.IntParam("limit", defaultEvents, 1, mostEvents)
	return q, err
}
