package wire

import (
	"bytes"
	"encoding/json"

	"github.com/valyala/fasthttp"
)

// RequestID returns the ID that the admin plane gave the call.
func RequestID(ctx *fasthttp.RequestCtx) string {
	return string(ctx.Response.Header.Peek("X-Request-Id"))
}

// WriteJSON answers with a status and a JSON body.
func WriteJSON(ctx *fasthttp.RequestCtx, status int, body any) { writeBytes(ctx, status, encode(body)) }

// encode returns the body as JSON with a line feed behind it.
func encode(body any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(body); err != nil {
		// Bodies are structs of strings and numbers, which always encode.
		panic("encode answer: " + err.Error())
	}
	return b.Bytes()
}

func writeBytes(ctx *fasthttp.RequestCtx, status int, body []byte) {
	ctx.SetStatusCode(status)
	ctx.Response.Header.SetContentType("application/json")
	ctx.SetBody(body)
}
