// Package gate decides whether a request may pass.
//
// It knows keys, addresses and the time it is given, never HTTP: package proxy
// takes the credential out of the request and turns the verdict into a
// response, package cache finds the key, and package apikey judges it.
package gate

import (
	"errors"
	"net/netip"
	"time"

	"latchkey/apikey"
)

// Keys finds a key by the digest of its secret. An unknown digest gives
// apikey.ErrNotFound.
type Keys interface {
	Lookup(*apikey.Digest) (*apikey.Grant, error)
}

// A Gate judges requests. Its methods may be called by any goroutine.
type Gate struct {
	keys   Keys
	format apikey.SecretFormat
}

// New returns a gate over the keys, whose own secrets have the given format.
func New(keys Keys, format apikey.SecretFormat) *Gate {
	return &Gate{keys, format}
}

// A Request is what a verdict depends on.
type Request struct {
	Secret []byte         // the credential as presented; empty if there is none
	Client netip.Addr     // who sent it; the zero Addr if that is unknown
	Now    time.Time      // when it was received
	Demand *apikey.Demand // what the route asks for

	// digest is here rather than on Decide's stack because its address is
	// passed through an interface: a local one would be allocated.
	digest apikey.Digest
}

// Decide gives the verdict on a request, and what of the key it was judged by where
// one was found. An
// error is never a verdict: it says that the store could not be asked, and the
// request must be answered as a fault of ours, neither admitted nor refused.
//
// Decide runs once per request and does not allocate when the key is cached
// (TestDecideAllocs). It keeps no reference to r.
//
// The look-up is by SHA-256 of the secret, so how long it takes says nothing
// about how much of a guess was right.
func (g *Gate) Decide(r *Request) (apikey.Verdict, *apikey.Grant, error) {
	if len(r.Secret) == 0 {
		return apikey.MissingKey, nil, nil
	}
	if g.format.Screen(r.Secret) == apikey.ScreenBroken {
		return apikey.InvalidKey, nil, nil
	}
	r.digest = apikey.DigestOf(r.Secret)
	key, err := g.keys.Lookup(&r.digest)
	if errors.Is(err, apikey.ErrNotFound) {
		return apikey.InvalidKey, nil, nil
	}
	if err != nil {
		return apikey.InvalidKey, nil, err
	}
	return key.Admit(r.Demand, r.Client, r.Now), key, nil
}

// Within returns a gate to which the keys of all tenants but one are unknown, so that
// nobody can tell them from keys that never were. apikey.AnyTenant stands for all
// tenants.
func (g *Gate) Within(tenant string) *Gate {
	if tenant == apikey.AnyTenant {
		return g
	}
	return New(&tenantKeys{g.keys, tenant}, g.format)
}

// tenantKeys are the keys of one tenant.
type tenantKeys struct {
	Keys
	tenant string
}

// Lookup finds a key of the tenant.
func (t *tenantKeys) Lookup(d *apikey.Digest) (*apikey.Grant, error) {
	key, err := t.Keys.Lookup(d)
	if err == nil && key.Tenant != t.tenant {
		return nil, apikey.ErrNotFound
	}
	return key, err
}

// Mask returns the text with what is spelt like one of the gateway's own secrets,
// mistyped or not, made unreadable.
func (g *Gate) Mask(text []byte) []byte { return g.format.Mask(text) }

// Recognises reports whether a credential is spelt like one of the gateway's
// own secrets, mistyped or not.
func (g *Gate) Recognises(secret []byte) bool {
	return g.format.Screen(secret) != apikey.ScreenForeign
}
