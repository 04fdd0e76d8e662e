package strait

import (
	"errors"

	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// fieldNames are Strait's names for the fields of a key.
func fieldNames() map[apikey.Field]string {
	return map[apikey.Field]string{
		apikey.FieldTenant:      "project_id",
		apikey.FieldEnvironment: "environment_id",
	}
}

// failure is the body of an answer to a failed call.
type failure struct {
	Error     problem `json:"error"`
	RequestID string  `json:"request_id"`
}

type problem struct {
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Details []detail `json:"details,omitempty"`
}

type detail struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// writeError answers a failed call. A value that a field cannot have is 422
// here, and all such values are listed.
func writeError(ctx *fasthttp.RequestCtx, e *wire.Error) {
	status := e.Status
	out := problem{Code: codeOf(status), Message: e.Error()}
	if e.Invalid {
		status, out.Code = 422, "validation_failed"
		for _, one := range append([]*wire.Error{e}, e.More...) {
			out.Details = append(out.Details, detail{one.Field, one.Message})
		}
	}
	wire.WriteJSON(ctx, status, failure{out, wire.RequestID(ctx)})
}

func codeOf(status int) string {
	switch status {
	case 401:
		return "authentication_required"
	case 403:
		return "forbidden"
	case 404:
		return "not_found"
	case 409:
		return "conflict"
	case 429:
		return "rate_limited"
	case 500:
		return "internal_error"
	case 503, 507:
		return "service_unavailable"
	}
	return "bad_request"
}

func translate(err error) error {
	if errors.Is(err, apikey.ErrNotLive) {
		return &wire.Error{Status: 409, Message: "the key is revoked, expired or already rotated"}
	}
	return wire.Translate(err, fieldNames())
}

// malformed turns an error about a value into one about the form of the call:
// Strait documents 422 for creating a key only. An Idempotency-Key that was used
// for another call is 422 everywhere.
func malformed(err error) error {
	var e *wire.Error
	if errors.As(err, &e) && e.Invalid && e.Status == 400 {
		plain := *e
		plain.Invalid = false
		return &plain
	}
	return err
}
