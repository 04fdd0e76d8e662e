package apikey

import (
	"fmt"
	"slices"
	"time"
)

// A Spec is what a new key is to be.
type Spec struct {
	Tenant      string
	Subject     string
	Name        string
	Environment string
	AllowedIPs  Allowlist
	Scopes      []string
	APIVersion  string
	ExpiresAt   time.Time // zero means never

	RotateEveryDays int    // days between scheduled rotations; zero means none
	WebhookURL      string // where they deliver the new secret; one needs the other
	WebhookSecret   Secret // what those deliveries are signed with
}

// Credentials are a new key's ID and secret.
type Credentials struct {
	ID     ID
	Secret string
}

// Format keeps secrets out of logs: whatever the verb, credentials print as
// their ID.
func (c Credentials) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "credentials of key %s", c.ID) }

// NewCredentials makes the credentials of a key created at now. The first 32
// bytes of entropy become the secret, the last 8 part of the ID.
func NewCredentials(f SecretFormat, environment string, now time.Time, entropy [40]byte) Credentials {
	return Credentials{
		ID:     NewID(now, [8]byte(entropy[32:])),
		Secret: f.New(environment, [32]byte(entropy[:32])),
	}
}

// Issue returns the change that creates a key. It fails with a *FieldError if
// the spec has a value no key can have.
func Issue(spec Spec, c Credentials, now time.Time) (Change, error) {
	k, err := Adopt(spec, c.ID, DigestOf([]byte(c.Secret)), HintOf(c.Secret), now)
	if err != nil {
		return Change{}, err
	}
	return Change{Action: ActionCreated, Keys: []Key{k}, WebhookSecret: spec.WebhookSecret}, nil
}

// Adopt returns the new key of a secret that was made elsewhere and is known by
// its digest. It fails as Issue does.
func Adopt(spec Spec, id ID, digest Digest, hint Hint, now time.Time) (Key, error) {
	now = Instant(now)
	k := Key{
		ID: id, Digest: digest, Hint: hint,
		Tenant: spec.Tenant, Subject: spec.Subject, Name: spec.Name, Environment: spec.Environment,
		AllowedIPs: slices.Clone(spec.AllowedIPs), Scopes: slices.Clone(spec.Scopes), Pin: Pin{Version: spec.APIVersion},
		CreatedAt: now, UpdatedAt: now, ExpiresAt: Instant(spec.ExpiresAt),
	}
	if spec.RotateEveryDays > 0 {
		k.Rotation = Rotation{EveryDays: spec.RotateEveryDays, NextAt: now.AddDate(0, 0, spec.RotateEveryDays), WebhookURL: spec.WebhookURL}
	}
	if ended(k.ExpiresAt, now) {
		return Key{}, &FieldError{FieldExpiresAt, "must be in the future"}
	}
	return k, k.Validate()
}
