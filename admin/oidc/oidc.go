// Package oidc decides whose access token of an OpenID provider a token is, and
// as which operator of the admin plane its bearer may act.
//
// It takes only tokens that are JWTs and name the configured issuer; of all
// others it says that they are not for it, and whoever asked goes on to what
// else a token can be. A token that is for it is verified to the end, by the
// provider's published keys and nothing that the token brings along: the
// algorithms are fixed, and headers such as jku, jwk and x5u are not read.
//
// A provider that cannot be asked is a fault and never a refusal (see
// wire.Unavailable). Nothing is asked before the first token comes, so that a
// gateway starts while its provider is down.
//
// Audience and times are checked by go-oidc, which lets a token begin to be
// good up to five minutes ahead of our clock. What a token says goes into no
// error and no log.
package oidc

import (
	"context"
	"time"

	openid "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"latchkey/admin/wire"
)

// Options configures New. All but Now are required; package config has their
// rules and defaults.
type Options struct {
	Issuer      string           // the provider's URL, exactly as its tokens and its discovery document name it
	Audience    string           // one of a token's audiences
	RoleClaim   string           // the claim that says the role, or the path to it, with dots
	TenantClaim string           // the claim that says the tenant, likewise
	Now         func() time.Time // nil means time.Now
}

// A Verifier verifies access tokens. Its methods may be called by any goroutine.
type Verifier struct {
	options Options
	keys    *keySet
}

// New returns a verifier, without asking the provider for anything.
func New(o Options) *Verifier {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Verifier{options: o, keys: newKeySet(o.Issuer, o.Now)}
}

// errRefused says as little as the refusal of any other credential.
func errRefused() *wire.Error {
	return &wire.Error{Status: 401, Message: "the credentials are not known here"}
}

// Verify returns the operator that the token's bearer is. ours says whether the
// token names our issuer; if not, nothing else is returned, and the token may be
// something else. The errors are *wire.Error: 401 for a token that is not good,
// 403 for a good one that makes nobody an operator, 503 where the provider could
// not be asked.
func (v *Verifier) Verify(ctx context.Context, token string) (o wire.Operator, ours bool, err error) {
	head, issuer, ok := peek(token)
	if !ok || issuer != v.options.Issuer {
		return wire.Operator{}, false, nil
	}
	o, err = v.operator(ctx, head, token)
	return o, true, err
}

func (v *Verifier) operator(ctx context.Context, head header, token string) (wire.Operator, error) {
	if !head.acceptable() {
		return wire.Operator{}, errRefused()
	}
	signature := attempt{keys: v.keys}
	verified, err := openid.NewVerifier(v.options.Issuer, &signature, &openid.Config{
		ClientID:             v.options.Audience,
		SupportedSigningAlgs: algorithmNames(),
		Now:                  v.options.Now,
	}).Verify(ctx, token)
	if signature.fault != nil {
		return wire.Operator{}, wire.Unavailable("the identity provider cannot be asked about the token; try again", signature.fault)
	}
	if err != nil {
		return wire.Operator{}, errRefused()
	}
	var c claims
	if verified.Claims(&c) != nil || c.ambiguous() || !head.accessToken && c.otherKind() {
		return wire.Operator{}, errRefused()
	}
	return c.operator(v.options.RoleClaim, v.options.TenantClaim)
}

// algorithms are those that a token may be signed with: asymmetric ones, so that
// no public key can pass for a secret.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}
}

func algorithmNames() (names []string) {
	for _, a := range algorithms() {
		names = append(names, string(a))
	}
	return names
}

// An attempt is the key set of one verification. It keeps the fault that kept it
// from the keys, because go-oidc passes errors on as text.
type attempt struct {
	keys  *keySet
	fault error
}

// VerifySignature implements go-oidc's KeySet.
func (a *attempt) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, fault := a.keys.verify(ctx, token)
	if fault != nil {
		a.fault = fault
		return nil, fault
	}
	if payload == nil {
		return nil, errSignature
	}
	return payload, nil
}
