package admin

import (
	"net/netip"
	"slices"
	"time"

	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// A Question is about a request to the data plane that nobody has sent.
type Question struct {
	Method, Path, Host string
	Secret             []byte
	Client             netip.Addr
	Now                time.Time
	Tenant             string // whose keys may be told of
}

// An Explanation says what would become of the request.
type Explanation struct {
	Status  int
	Outcome string
	Detail  string
	Allowed []string  // methods, where the method is what is wrong
	Route   *Rule     // nil where none is for it
	Key     apikey.ID // zero unless a key was asked for and found
}

// A Rule is what a route of the configuration asks of a request.
type Rule struct {
	Name         string   `json:"name"`
	Path         string   `json:"path"`
	Hosts        []string `json:"hosts,omitempty"`
	Methods      []string `json:"methods,omitempty"`
	Public       bool     `json:"public,omitempty"`
	Scopes       []string `json:"scopes,omitempty"`
	Tenants      []string `json:"tenants,omitempty"`
	Environments []string `json:"environments,omitempty"`
}

// explanation is an answer on the wire.
type explanation struct {
	Passes  bool      `json:"passes"`
	Outcome string    `json:"outcome"`
	Status  int       `json:"status,omitempty"`
	Detail  string    `json:"detail,omitempty"`
	Allowed []string  `json:"allowed_methods,omitempty"`
	Route   *Rule     `json:"route,omitempty"`
	Key     *exported `json:"key,omitempty"`
}

// explain answers POST /explain: what would become of a request. Neither the secret
// nor the path of the question, which may have one in it, is in the answer or the log.
func (p *Plane) explain(ctx *fasthttp.RequestCtx) {
	out, err := func() (explanation, error) {
		operator, err := p.operator(ctx, wire.Read)
		if err != nil {
			return explanation{}, err
		}
		c := &wire.Call{RequestCtx: ctx, Operator: operator, Now: p.options.Now()}
		q, err := readQuestion(c)
		if err != nil {
			return explanation{}, err
		}
		e, err := p.options.Explain(q)
		if err != nil {
			return explanation{}, err
		}
		return p.shown(&e, &q)
	}()
	if err != nil {
		p.fail(ctx, writeError, wire.AsError(err, nil))
		return
	}
	wire.WriteJSON(ctx, 200, out)
}

// readQuestion reads the body. There is no key in it for a request without one.
func readQuestion(c *wire.Call) (q Question, err error) {
	if q.Tenant, err = c.Reach(); err != nil {
		return q, err
	}
	b, err := c.ReadBody(false)
	if err != nil {
		return q, err
	}
	q.Now = c.Now
	q.Method = b.Require("method").Text("method", 1, 64, false).Value
	q.Path = b.Require("path").Text("path", 1, wire.MaxBody, false).Value
	q.Host = b.Require("host").Text("host", 1, 512, false).Value
	q.Secret = []byte(b.Text("key", 1, wire.MaxBody, false).Value)
	if ip := b.Text("ip", 1, 64, false); ip.Set {
		if q.Client, err = netip.ParseAddr(ip.Value); err != nil || q.Client.Zone() != "" {
			b.Refuse("ip", "must be an address such as 192.0.2.7")
		}
		q.Client = q.Client.Unmap()
	}
	return q, b.Err()
}

// shown puts an explanation into words for the operator who asked. Which further
// tenants a route is for is not for one of them to know.
func (p *Plane) shown(e *Explanation, q *Question) (explanation, error) {
	out := explanation{Passes: e.Status == 0, Outcome: e.Outcome, Status: e.Status, Detail: e.Detail, Allowed: e.Allowed}
	if e.Route != nil {
		route := *e.Route
		if q.Tenant != apikey.AnyTenant {
			route.Tenants = slices.DeleteFunc(slices.Clone(route.Tenants), func(t string) bool { return t != q.Tenant })
		}
		out.Route = &route
	}
	if !e.Key.IsZero() {
		key, err := p.options.Auditor.ByID(q.Tenant, e.Key)
		if err != nil {
			return explanation{}, err
		}
		uses, err := p.options.Auditor.Uses([]apikey.ID{e.Key})
		if err != nil {
			return explanation{}, err
		}
		shown := export(&key, uses[0], q.Now)
		out.Key = &shown
	}
	return out, nil
}
