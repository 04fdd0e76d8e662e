package admin

import (
	"io"

	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
)

// backup answers POST /backup with the store as one archive. It has every tenant's
// keys and the key that unseals them, so it is for administrators of all tenants.
func (p *Plane) backup(ctx *fasthttp.RequestCtx) {
	_, err := p.administrator(ctx)
	var archive io.ReadCloser
	if err == nil {
		archive, err = p.options.Backup(p.options.Now())
	}
	if err != nil {
		p.fail(ctx, writeError, wire.AsError(err, nil))
		return
	}
	ctx.SetContentType("application/x-tar")
	ctx.SetBodyStream(&timedBody{ReadCloser: archive, conn: ctx}, -1)
}
