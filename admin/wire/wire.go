// Package wire is what the admin plane's dialects share: how a call comes in,
// how a body is read strictly, how keys are reached, and which error is which
// status. A dialect adds its own names, shapes and defaults to that and no rule
// of its own; the rules about keys are in package apikey.
package wire

import (
	"net/netip"
	"slices"
	"time"

	"github.com/valyala/fasthttp"

	"latchkey/apikey"
)

// A Dialect is one product's way of speaking about keys, ready to be mounted.
type Dialect struct {
	Name    string
	OpenAPI []byte // the dialect's document, served at /openapi/<name>.yaml
	Routes  []Route

	// CredentialFields are the header fields besides Authorization that the
	// product's clients send their credential in. "_" counts as "-".
	CredentialFields []string

	// WriteError answers a call that failed, in the dialect's form. It sets
	// status, content type and body; other headers are the caller's.
	WriteError func(*fasthttp.RequestCtx, *Error)
}

// A Route is one call of a dialect.
type Route struct {
	Method string
	Path   string // a fasthttp/router pattern
	Access Access
	Handle func(*Call) error // an error is answered by the dialect's WriteError

	// Certs says that the call takes the CERTS-TOKEN, and no other credential.
	Certs bool
}

// Access is what a call needs.
type Access uint8

// The kinds of access.
const (
	Read Access = iota
	Write
	Administer // what is not about keys of a tenant
)

// A Role is what an operator may do.
type Role string

// The roles.
const (
	RoleAdmin  Role = "admin"  // everything
	RoleIssuer Role = "issuer" // read, issue, change and revoke keys
	RoleViewer Role = "viewer" // read
)

// May reports whether the role allows the access.
func (r Role) May(a Access) bool {
	return a == Read || r == RoleAdmin || a == Write && r == RoleIssuer
}

// An Operator is a caller of the admin plane that has proved who it is.
type Operator struct {
	Name   string
	Role   Role
	Tenant string // apikey.AnyTenant for all of them

	Key    bool     // it is a key itself, and grants no scope that it lacks
	Scopes []string // of that key
}

// mayGrant returns an error if the operator may not make a key with the scopes.
func (o *Operator) mayGrant(scopes []string) error {
	if !o.Key {
		return nil
	}
	for _, s := range scopes {
		if !slices.Contains(o.Scopes, s) {
			return Forbidden("a key cannot grant a scope that it lacks")
		}
	}
	return nil
}

// A Call is one authenticated call of the admin plane.
type Call struct {
	*fasthttp.RequestCtx
	Operator  Operator
	Keys      *KeyService
	Now       time.Time
	Client    netip.Addr
	RequestID string

	body []byte // as ReadBody read it
}

// Origin says who asks, for the audit log.
func (c *Call) Origin() apikey.Origin {
	return apikey.Origin{At: apikey.Instant(c.Now), Actor: c.Operator.Name, Address: c.Client, RequestID: c.RequestID}
}

// tenantField is the header in which an operator of all tenants names one.
const tenantField = "X-Latchkey-Tenant"

// Tenant returns the tenant that creating and listing are about: the operator's
// own, or the one that an operator of all tenants names in the dialect's own
// field or the header, or apikey.DefaultTenant. An empty name means none.
func (c *Call) Tenant(field, named string) (string, error) {
	headers := c.Request.Header.PeekAll(tenantField)
	if len(headers) > 1 {
		return "", BadRequest(tenantField, "is given more than once")
	}
	header := ""
	if len(headers) == 1 {
		header = string(headers[0])
	}
	if named != "" && header != "" && named != header {
		return "", BadRequest(tenantField, "names another tenant than "+field+"; name it once")
	}
	if named == "" {
		field, named = tenantField, header
	}
	switch {
	case c.Operator.Tenant == apikey.AnyTenant && named == "":
		return apikey.DefaultTenant, nil
	case c.Operator.Tenant == apikey.AnyTenant:
		if !apikey.ValidTenant(named) {
			return "", Invalid(field, "must be 1 to 128 visible ASCII characters, and not *")
		}
		return named, nil
	case named != "" && named != c.Operator.Tenant:
		return "", Forbidden("this operator acts for one tenant only, and not for the one named")
	}
	return c.Operator.Tenant, nil
}

// Reach returns the tenant whose keys a call on one key may touch, which is
// apikey.AnyTenant for an operator of all tenants who names none.
func (c *Call) Reach() (string, error) {
	if c.Operator.Tenant == apikey.AnyTenant && len(c.Request.Header.PeekAll(tenantField)) == 0 {
		return apikey.AnyTenant, nil
	}
	return c.Tenant("", "")
}
