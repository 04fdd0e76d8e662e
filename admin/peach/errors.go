package peach

import (
	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// fieldNames are Peach's names for the fields of a key.
func fieldNames() map[apikey.Field]string {
	return map[apikey.Field]string{
		apikey.FieldTenant:     "companyId",
		apikey.FieldSubject:    "userId",
		apikey.FieldName:       "description",
		apikey.FieldAllowedIPs: "whitelistedIPs",
		apikey.FieldAPIVersion: "apiVersion",
	}
}

// failure is the body of an answer to a failed call.
type failure struct {
	Status  int    `json:"status"`
	Message string `json:"message"`
}

func writeError(ctx *fasthttp.RequestCtx, e *wire.Error) {
	wire.WriteJSON(ctx, e.Status, failure{e.Status, e.Error()})
}
