package admin

import (
	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// signingKeys answers a call that changes the keys that sign the tokens of all tenants.
func (p *Plane) signingKeys(change func(by apikey.Origin, kid string) error) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		operator, err := p.administrator(ctx)
		if err == nil {
			c := &wire.Call{RequestCtx: ctx, Operator: operator, Now: p.options.Now(), Client: clientAddr(ctx), RequestID: wire.RequestID(ctx)}
			kid, _ := ctx.UserValue("kid").(string)
			err = change(c.Origin(), kid)
		}
		if err != nil {
			p.fail(ctx, writeError, wire.AsError(err, nil))
			return
		}
		ctx.SetStatusCode(204)
	}
}
