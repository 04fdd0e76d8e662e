package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
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

// Scopes that let a key call the admin plane for its own tenant.
const (
	scopeRead  = "keys:read"
	scopeWrite = "keys:write"
)

// A TokenVerifier verifies the access tokens of an identity provider. A token
// that is not for it to judge is not ours, and no error either. Its errors are
// *wire.Error, and 503 where it could not tell. It may be called by any goroutine.
type TokenVerifier interface {
	Verify(ctx context.Context, token string) (o wire.Operator, ours bool, err error)
}

// verifyTimeout bounds how long a call waits for the identity provider, well
// within the time that the server gives its answer.
const verifyTimeout = 10 * time.Second

// authenticate returns the operator whose token the call carries, in
// Authorization or one of the given fields: one of the identity provider, a static
// one, or a key of ours that may manage keys.
func (p *Plane) authenticate(ctx *fasthttp.RequestCtx, now time.Time, fields []string) (wire.Operator, error) {
	token, bearer, err := credential(&ctx.Request.Header, fields)
	if err != nil {
		return wire.Operator{}, err
	}
	if bearer && p.options.Tokens != nil {
		// Not a child of ctx, which fasthttp reuses, and which ends only when the
		// server stops: calls under way are then waited for.
		verify, cancel := context.WithTimeout(context.Background(), verifyTimeout)
		defer cancel()
		if o, ours, err := p.options.Tokens.Verify(verify, string(token)); ours {
			return o, err
		}
	}
	digest := apikey.DigestOf(token)
	if o, ok := p.staticOperator(&digest); ok {
		return o, nil
	}
	if p.options.Finder == nil {
		return wire.Operator{}, errUnknown()
	}
	key, err := p.options.Finder.Lookup(&digest)
	if errors.Is(err, apikey.ErrNotFound) {
		return wire.Operator{}, errUnknown()
	}
	if err != nil {
		return wire.Operator{}, err
	}
	return keyOperator(key, clientAddr(ctx), now)
}

// staticOperator returns the operator whose token has the digest.
func (p *Plane) staticOperator(digest *apikey.Digest) (wire.Operator, bool) {
	// Every operator is compared, and each in constant time, so that how long
	// it takes says nothing about whose token came close.
	found := -1
	operators := p.callers.Load().Operators
	for i := range operators {
		if subtle.ConstantTimeCompare(digest[:], operators[i].TokenDigest[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return wire.Operator{}, false
	}
	return operators[found].Operator, true
}

func errUnknown() *wire.Error { return errCredentials("the credentials are not known here") }

// keyOperator returns the operator that a key is. A key that admits nobody, or
// not from here, is as good as none.
func keyOperator(key *apikey.Grant, from netip.Addr, now time.Time) (wire.Operator, error) {
	if key.Admit(&apikey.Demand{}, from, now) != apikey.Allowed {
		return wire.Operator{}, errUnknown()
	}
	o := wire.Operator{Name: "key " + key.ID.String(), Tenant: key.Tenant, Key: true, Scopes: key.Scopes}
	switch {
	case slices.Contains(key.Scopes, scopeWrite):
		o.Role = wire.RoleIssuer
	case slices.Contains(key.Scopes, scopeRead):
		o.Role = wire.RoleViewer
	default:
		return wire.Operator{}, wire.Forbidden("this key may not manage keys: it lacks the scopes " + scopeRead + " and " + scopeWrite)
	}
	return o, nil
}

// credential returns the one credential that a call carries, however often, and
// whether Authorization has it. An Authorization of another scheme than Bearer
// counts as a credential that nobody has.
func credential(h *fasthttp.RequestHeader, fields []string) (token []byte, bearer bool, err error) {
	var tokens [][]byte
	for name, value := range h.All() {
		if bytes.EqualFold(name, []byte("Authorization")) {
			scheme, token, _ := bytes.Cut(value, []byte(" "))
			if !bytes.EqualFold(scheme, []byte("Bearer")) {
				token = nil
			}
			bearer = true
			tokens = append(tokens, bytes.Clone(bytes.TrimSpace(token)))
		}
		for _, field := range fields {
			if bytes.EqualFold(bytes.ReplaceAll(name, []byte("_"), []byte("-")), []byte(field)) {
				tokens = append(tokens, bytes.Clone(value))
			}
		}
	}
	if len(tokens) == 0 {
		return nil, false, errCredentials("credentials are required: Authorization: Bearer <token>")
	}
	for _, other := range tokens[1:] {
		if !bytes.Equal(tokens[0], other) {
			return nil, false, errCredentials("the call carries two different credentials; send one")
		}
	}
	return tokens[0], bearer, nil
}

// certsField is the header field of the CERTS-TOKEN.
const certsField = "CERTS-TOKEN"

// authenticateCerts returns the operator behind the CERTS-TOKEN, for the calls
// that take it and nothing else. Another credential beside it is refused, and so is one in
// the dialect's own fields.
func authenticateCerts(ctx *fasthttp.RequestCtx, certs *StaticOperator, fields []string) (wire.Operator, error) {
	tokens := ctx.Request.Header.PeekAll(certsField)
	if len(tokens) != 1 || len(tokens[0]) == 0 {
		return wire.Operator{}, errCredentials("one " + certsField + " is required")
	}
	if _, _, err := credential(&ctx.Request.Header, append(slices.Clone(fields), certsField)); err != nil {
		return wire.Operator{}, err
	}
	digest := sha256.Sum256(tokens[0])
	if certs == nil || subtle.ConstantTimeCompare(digest[:], certs.TokenDigest[:]) != 1 {
		return wire.Operator{}, errCredentials("the " + certsField + " is not known here")
	}
	return certs.Operator, nil
}
