package apikey

import (
	"errors"
	"net/netip"
	"slices"
	"time"
)

// Errors that changes and look-ups share. Dialects match them with errors.Is.
var (
	// ErrNotFound reports that no key has the given ID or digest, or none that
	// the caller's tenant may know of: the two are not told apart.
	ErrNotFound = errors.New("key not found")
	// ErrExists reports that a key with the same digest or ID is already there.
	ErrExists = errors.New("key already exists")
	// ErrNotLive reports a change that makes sense only for a live key, asked
	// of one that is revoked, expired or already rotated.
	ErrNotLive = errors.New("key is no longer active")
	// ErrAnswered reports that the call has been answered before: the store has
	// a Receipt under the same name.
	ErrAnswered = errors.New("call was answered before")
	// ErrSigns reports that a signing key cannot be taken away, since it signs.
	ErrSigns = errors.New("this key signs the tokens that are issued; rotate it first")
	// ErrImporting reports that an import that is all or nothing is under way.
	ErrImporting = errors.New("another import that is all or nothing is under way; wait for it")
	// ErrBackingUp reports that a backup is under way.
	ErrBackingUp = errors.New("another backup is under way; wait for it")
	// ErrStoreFull reports that the disk has no room for a change. Nothing was
	// written; reads and admissions go on.
	ErrStoreFull = errors.New("key store is out of disk space")
)

// A FieldError says which field of a key was given a value it cannot have.
type FieldError struct {
	Field   Field
	Problem string // begins with a verb: "must be ..."
}

// Error returns "<field> <problem>".
func (e *FieldError) Error() string { return string(e.Field) + " " + e.Problem }

// A Field names a field of a Key for errors and the audit log. Dialects map it
// to their own name for it.
type Field string

// The fields an operator can set or change.
const (
	FieldTenant      Field = "tenant"
	FieldSubject     Field = "subject"
	FieldName        Field = "name"
	FieldEnvironment Field = "environment"
	FieldAllowedIPs  Field = "allowed_ips"
	FieldScopes      Field = "scopes"
	FieldAPIVersion  Field = "api_version"
	FieldExpiresAt   Field = "expires_at"
	FieldRevokedAt   Field = "revoked_at"
	FieldEndedAt     Field = "ended_at"
	FieldRotation    Field = "rotation"
)

// An Action says what was done to a key or a signing key, in the audit log.
type Action string

// The actions.
const (
	ActionCreated Action = "created"
	ActionUpdated Action = "updated"
	ActionRevoked Action = "revoked"
	ActionRotated Action = "rotated"
	ActionEnded   Action = "ended" // by the sweep

	ActionRotationBegun     Action = "rotation_begun"     // on schedule; see Key.BeginRotation
	ActionRotationAbandoned Action = "rotation_abandoned" // its webhook did not take the new key

	ActionSigningKeyAdded     Action = "signing_key_added" // and signs since, in place of the one before
	ActionSigningKeyWithdrawn Action = "signing_key_withdrawn"
)

// An Origin says who asked for a change, when and from where.
type Origin struct {
	At        time.Time
	Actor     string     // the operator's name, or the name of a job
	Address   netip.Addr // invalid when it came from within
	RequestID string
}

// An Event is one line of the audit log. It holds no secret.
type Event struct {
	Place // orders the log; the revision is that of the commit that made it
	Origin
	Action Action
	Key    ID      // zero where it is about a signing key
	Tenant string  // AnyTenant where it is about a signing key: all have their tokens signed with it
	Fields []Field // what changed; empty for a creation

	SigningKey string // the ID of the signing key that it is about; empty where it is about a key
}

// A Change is a validated change: the keys as they are to be, all or none, and
// what is kept beside them.
type Change struct {
	Action Action
	Keys   []Key // the key that was changed first, then any that came to be

	WebhookSecret Secret    // what deliveries about the new key are signed with; empty where there is nothing to sign
	Delivery      *Delivery // of the replacement that the first key waits for, where one was begun
	Receipt       *Receipt  // of the call that asked for the change, where it is to be kept
}

// Diff lists the fields in which two states of a key differ.
func Diff(before, after *Key) []Field {
	var out []Field
	add := func(f Field, differs bool) {
		if differs {
			out = append(out, f)
		}
	}
	add(FieldSubject, before.Subject != after.Subject)
	add(FieldName, before.Name != after.Name)
	add(FieldEnvironment, before.Environment != after.Environment)
	add(FieldAllowedIPs, !slices.Equal(before.AllowedIPs, after.AllowedIPs))
	add(FieldScopes, !slices.Equal(before.Scopes, after.Scopes))
	add(FieldAPIVersion, before.Pin != after.Pin)
	add(FieldExpiresAt, !before.ExpiresAt.Equal(after.ExpiresAt))
	add(FieldRevokedAt, !before.RevokedAt.Equal(after.RevokedAt))
	add(FieldEndedAt, !before.EndedAt.Equal(after.EndedAt))
	add(FieldRotation, before.Rotation != after.Rotation)
	return out
}
