package apikey

import (
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits on a key's text, in characters.
const (
	MaxName        = 255
	MaxSubject     = 255
	MaxTenant      = 128
	MaxEnvironment = 64
	MaxScopes      = 64
	MaxScope       = 128
)

// Validate reports, as a *FieldError, a value no stored key may have. The
// tenant, subject, environment and scopes travel to upstreams in headers, so
// they are printable ASCII.
func (k *Key) Validate() error {
	switch {
	case !ValidTenant(k.Tenant):
		return &FieldError{FieldTenant, fmt.Sprintf("must be 1 to %d visible ASCII characters, and not %q", MaxTenant, AnyTenant)}
	case len(k.Subject) > MaxSubject || !printableASCII(k.Subject):
		return &FieldError{FieldSubject, fmt.Sprintf("must be at most %d printable ASCII characters without spaces around them: upstreams get it in a header", MaxSubject)}
	case utf8.RuneCountInString(k.Name) > MaxName || !printable(k.Name):
		return &FieldError{FieldName, fmt.Sprintf("must be at most %d characters, none of them a control character", MaxName)}
	case len(k.Environment) > MaxEnvironment || !visibleASCII(k.Environment):
		return &FieldError{FieldEnvironment, fmt.Sprintf("must be at most %d visible ASCII characters", MaxEnvironment)}
	case k.Pin.Version != "" && !validVersion(k.Pin.Version):
		return &FieldError{FieldAPIVersion, "must be a date, YYYY-MM-DD"}
	case len(k.AllowedIPs) > MaxAllowedIPs:
		return &FieldError{FieldAllowedIPs, fmt.Sprintf("must have at most %d entries", MaxAllowedIPs)}
	case len(k.Scopes) > MaxScopes:
		return &FieldError{FieldScopes, fmt.Sprintf("must be at most %d scopes", MaxScopes)}
	}
	for i, s := range k.Scopes {
		if !ValidScope(s) {
			return &FieldError{FieldScopes, fmt.Sprintf("entry %d must be 1 to %d visible ASCII characters without quotes or backslashes", i+1, MaxScope)}
		}
		if slices.Contains(k.Scopes[:i], s) {
			return &FieldError{FieldScopes, fmt.Sprintf("entry %d is there twice", i+1)}
		}
	}
	return nil
}

// ValidTenant reports whether s can name a tenant.
func ValidTenant(s string) bool {
	return s != "" && s != AnyTenant && len(s) <= MaxTenant && visibleASCII(s)
}

// ValidScope reports whether s is a scope token (RFC 6749, section 3.3).
func ValidScope(s string) bool {
	if s == "" || len(s) > MaxScope || !visibleASCII(s) {
		return false
	}
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			return false
		}
	}
	return true
}

func validVersion(s string) bool {
	_, err := time.Parse(time.DateOnly, s)
	return err == nil
}

func visibleASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s == "" || s[0] != ' ' && s[len(s)-1] != ' '
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}
