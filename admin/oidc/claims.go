package oidc

import (
	"slices"
	"strings"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// claims are what a verified token says.
type claims map[string]any

// maxSubject is the longest subject there is (OpenID Connect Core, section 2).
const maxSubject = 255

// ambiguous reports whether a claim could be taken for one that was checked:
// Go's decoder, which go-oidc uses, does not tell "aud" from "Aud".
func (c claims) ambiguous() bool {
	for name := range c {
		for _, checked := range []string{"iss", "sub", "aud", "exp", "nbf", "iat"} {
			if name != checked && strings.EqualFold(name, checked) {
				return true
			}
		}
	}
	return false
}

// otherKind reports whether a token that does not call itself an access token is
// one of another kind, which providers sign with the same keys: an ID token
// (OpenID Connect Core, sections 2 and 3.3.2.11), or a security event such as a
// logout (RFC 8417, section 2.2).
func (c claims) otherKind() bool {
	for _, mark := range []string{"nonce", "at_hash", "c_hash", "events"} {
		if _, there := c[mark]; there {
			return true
		}
	}
	return false
}

// operator returns the operator that the claims make of their subject.
func (c claims) operator(roleClaim, tenantClaim string) (wire.Operator, error) {
	subject, _ := c["sub"].(string)
	if subject == "" || len(subject) > maxSubject || !printable(subject) {
		return wire.Operator{}, errRefused()
	}
	role, ok := c.role(roleClaim)
	if !ok {
		return wire.Operator{}, wire.Forbidden("the token makes nobody an operator: its claim " + roleClaim +
			" has none of the roles admin, issuer and viewer")
	}
	tenant, _ := c.find(tenantClaim).(string)
	if tenant != apikey.AnyTenant && !apikey.ValidTenant(tenant) {
		return wire.Operator{}, wire.Forbidden("the token makes nobody an operator: its claim " + tenantClaim +
			" is neither a tenant nor *")
	}
	// No configured operator has a space in its name, so the audit log cannot
	// mistake one for the other.
	return wire.Operator{Name: "oidc " + subject, Role: role, Tenant: tenant}, nil
}

// role returns the strongest role that the claim names, as text with spaces
// between the roles, or as a list.
func (c claims) role(claim string) (wire.Role, bool) {
	var named []string
	switch value := c.find(claim).(type) {
	case string:
		named = strings.Split(value, " ")
	case []any:
		for _, item := range value {
			text, ok := item.(string)
			if !ok {
				return "", false
			}
			named = append(named, text)
		}
	}
	for _, role := range []wire.Role{wire.RoleAdmin, wire.RoleIssuer, wire.RoleViewer} {
		if slices.Contains(named, string(role)) {
			return role, true
		}
	}
	return "", false
}

// find returns the claim of that name, dots and all, or else the one that the
// name is a path to; nil if there is neither.
func (c claims) find(name string) any {
	if value, there := c[name]; there {
		return value
	}
	var value any = map[string]any(c)
	for step := range strings.SplitSeq(name, ".") {
		members, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = members[step]
	}
	return value
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e })
}
