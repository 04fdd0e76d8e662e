package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"

	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
)

// A StaticOperator is an operator known by a token. Only the token's SHA-256 is
// kept.
type StaticOperator struct {
	wire.Operator
	TokenDigest [sha256.Size]byte
}

// errCredentials says why nobody was recognised, and no more: which part of a
// credential was wrong is not for the caller to know.
func errCredentials(message string) *wire.Error { return &wire.Error{Status: 401, Message: message} }

// authenticate returns the operator whose token the call carries, in
// Authorization or one of the given fields.
func authenticate(ctx *fasthttp.RequestCtx, operators []StaticOperator, fields []string) (wire.Operator, error) {
	tokens := credentials(&ctx.Request.Header, fields)
	if len(tokens) == 0 {
		return wire.Operator{}, errCredentials("credentials are required: Authorization: Bearer <token>")
	}
	for _, other := range tokens[1:] {
		if !bytes.Equal(tokens[0], other) {
			return wire.Operator{}, errCredentials("the call carries two different credentials; send one")
		}
	}
	// Every operator is compared, and each in constant time, so that how long
	// it takes says nothing about whose token came close.
	digest := sha256.Sum256(tokens[0])
	found := -1
	for i := range operators {
		if subtle.ConstantTimeCompare(digest[:], operators[i].TokenDigest[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return wire.Operator{}, errCredentials("the credentials are not known here")
	}
	return operators[found].Operator, nil
}

// credentials returns every credential a call carries. An Authorization of
// another scheme than Bearer counts as one that nobody has.
func credentials(h *fasthttp.RequestHeader, fields []string) (tokens [][]byte) {
	for name, value := range h.All() {
		if bytes.EqualFold(name, []byte("Authorization")) {
			scheme, token, _ := bytes.Cut(value, []byte(" "))
			if !bytes.EqualFold(scheme, []byte("Bearer")) {
				token = nil
			}
			tokens = append(tokens, bytes.Clone(bytes.TrimSpace(token)))
		}
		for _, field := range fields {
			if bytes.EqualFold(bytes.ReplaceAll(name, []byte("_"), []byte("-")), []byte(field)) {
				tokens = append(tokens, bytes.Clone(value))
			}
		}
	}
	return tokens
}

// certsField is the header field of the CERTS-TOKEN.
const certsField = "CERTS-TOKEN"

// authenticateCerts returns the operator behind the CERTS-TOKEN, for the calls
// that take it and nothing else.
func authenticateCerts(ctx *fasthttp.RequestCtx, certs *StaticOperator) (wire.Operator, error) {
	tokens := ctx.Request.Header.PeekAll(certsField)
	if len(tokens) != 1 || len(tokens[0]) == 0 {
		return wire.Operator{}, errCredentials("one " + certsField + " is required")
	}
	digest := sha256.Sum256(tokens[0])
	if certs == nil || subtle.ConstantTimeCompare(digest[:], certs.TokenDigest[:]) != 1 {
		return wire.Operator{}, errCredentials("the " + certsField + " is not known here")
	}
	return certs.Operator, nil
}
