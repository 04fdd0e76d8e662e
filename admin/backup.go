package admin

import (
	"io"

	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// backup answers POST /backup with the store as one archive. It has every tenant's
// keys and the key that unseals them, so it is for administrators of all tenants.
func (p *Plane) backup(ctx *fasthttp.RequestCtx) {
	archive, err := func() (io.ReadCloser, error) {
		operator, err := p.operator(ctx, wire.Administer)
		if err != nil {
			return nil, err
		}
		if operator.Tenant != apikey.AnyTenant {
			return nil, wire.Forbidden("a backup is of all tenants, and this operator acts for one")
		}
		return p.options.Backup(p.options.Now())
	}()
	if err != nil {
		p.fail(ctx, writeError, wire.AsError(err, nil))
		return
	}
	ctx.SetContentType("application/x-tar")
	ctx.SetBodyStream(&timedBody{ReadCloser: archive, conn: ctx}, -1)
}
