package truvera

import (
	"errors"

	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// fieldNames are Truvera's names for the fields of a key.
func fieldNames() map[apikey.Field]string {
	return map[apikey.Field]string{
		apikey.FieldTenant:     "subaccount",
		apikey.FieldSubject:    "selectedTeamId",
		apikey.FieldName:       "alias",
		apikey.FieldAllowedIPs: "ips",
	}
}

// failure is the body of an answer to a failed call.
type failure struct {
	Status  int    `json:"status"`
	Type    string `json:"type"`
	Message string `json:"message"`
}

func writeError(ctx *fasthttp.RequestCtx, e *wire.Error) {
	wire.WriteJSON(ctx, e.Status, failure{e.Status, typeOf(e.Status), e.Error()})
}

func typeOf(status int) string {
	switch status {
	case 401:
		return "Unauthorized"
	case 403:
		return "Forbidden"
	case 404:
		return "NotFound"
	case 405:
		return "MethodNotAllowed"
	case 409:
		return "Conflict"
	case 413:
		return "PayloadTooLarge"
	case 415:
		return "UnsupportedMediaType"
	case 429:
		return "TooManyRequests"
	case 500:
		return "InternalServerError"
	case 503:
		return "ServiceUnavailable"
	case 507:
		return "InsufficientStorage"
	}
	return "BadRequest"
}

// translate gives errors their status. A key that is over is gone here.
func translate(err error) error {
	if errors.Is(err, apikey.ErrNotLive) {
		return wire.NotFound()
	}
	return wire.Translate(err, fieldNames())
}
