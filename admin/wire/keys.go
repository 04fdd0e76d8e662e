package wire

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"time"

	"latchkey/apikey"
)

// Reader finds keys. The tenant apikey.AnyTenant means whosever they are.
type Reader interface {
	ByID(tenant string, id apikey.ID) (apikey.Key, error)
	List(apikey.Query) (apikey.Page, error)
	Uses([]apikey.ID) ([]apikey.Use, error) // the zero Use for a key never used
}

// Writer changes keys. It returns once the change is on disk and in force.
type Writer interface {
	Create(apikey.Origin, apikey.Change) error
	Change(by apikey.Origin, tenant string, id apikey.ID, decide func(apikey.Key) (apikey.Change, error)) (apikey.Change, error)
}

// Receipts finds what was kept of a call that made a key.
type Receipts interface {
	Receipt(apikey.ReceiptName) (apikey.Receipt, error)
}

// A KeyService is what a dialect does with keys, the same in all of them.
type KeyService struct {
	Reader   Reader
	Writer   Writer
	Receipts Receipts
	Format   apikey.SecretFormat

	// Entropy makes the randomness of a key. It is nil, which means crypto/rand,
	// but in tests that compare whole answers.
	Entropy func() [40]byte
}

// Made is what a call has brought about, with what is shown of it this once.
type Made struct {
	Key           *apikey.Key
	Secret        string
	WebhookSecret apikey.Secret // empty where the key has no webhook
	Replaced      *apikey.Key   // the key that this one replaces, if it does
}

// A Show makes an answer of what a call has brought about.
type Show func(Made) (status int, body any)

// Issue makes a key and answers the call.
func (s *KeyService) Issue(c *Call, spec apikey.Spec, show Show) error {
	return s.issue(c, spec, nil, show)
}

// IssueSigned makes a key whose secret is what sign returns for its ID and 256 random bits,
// in base64url, and answers the call.
func (s *KeyService) IssueSigned(c *Call, spec apikey.Spec, sign func(id apikey.ID, random string) (string, error), show Show) error {
	return s.issue(c, spec, sign, show)
}

func (s *KeyService) issue(c *Call, spec apikey.Spec, sign func(id apikey.ID, random string) (string, error), show Show) error {
	return s.once(c, func(keep keeper) error {
		if err := c.Operator.mayGrant(spec.Scopes); err != nil {
			return err
		}
		entropy := s.entropy()
		credentials := apikey.NewCredentials(s.Format, spec.Environment, c.Now, entropy)
		if sign != nil {
			var err error
			if credentials.Secret, err = sign(credentials.ID, base64.RawURLEncoding.EncodeToString(entropy[:32])); err != nil {
				return err
			}
		}
		if spec.WebhookURL != "" {
			entropy := s.entropy()
			spec.WebhookSecret = apikey.NewWebhookSecret([32]byte(entropy[:32]))
		}
		change, err := apikey.Issue(spec, credentials, c.Now)
		if err != nil {
			return err
		}
		change.Receipt = keep(show(Made{Key: &change.Keys[0], Secret: credentials.Secret, WebhookSecret: spec.WebhookSecret}))
		return s.Writer.Create(c.Origin(), change)
	})
}

func (s *KeyService) entropy() (e [40]byte) {
	if s.Entropy != nil {
		return s.Entropy()
	}
	rand.Read(e[:]) // never fails: crypto/rand ends the process instead
	return e
}

// Get returns the key with the ID.
func (s *KeyService) Get(c *Call, id apikey.ID) (apikey.Key, error) {
	tenant, err := c.Reach()
	if err != nil {
		return apikey.Key{}, err
	}
	return s.Reader.ByID(tenant, id)
}

// List returns a page of keys. Cursors that name no key of the tenant are the
// caller's mistake.
func (s *KeyService) List(q apikey.Query) (apikey.Page, error) {
	page, err := s.Reader.List(q)
	if errors.Is(err, apikey.ErrNotFound) {
		return apikey.Page{}, errorf(400, "the cursor names no key of this list")
	}
	return page, err
}

// Update changes the key and returns it as it is now.
func (s *KeyService) Update(c *Call, id apikey.ID, edit apikey.Edit) (apikey.Key, error) {
	change, err := s.change(c, id, func(k apikey.Key) (apikey.Change, error) { return k.Update(edit, c.Now) })
	if err != nil {
		return apikey.Key{}, err
	}
	return change.Keys[0], nil
}

// Revoke ends the key. One that is revoked already gives apikey.ErrNotLive.
func (s *KeyService) Revoke(c *Call, id apikey.ID) error {
	_, err := s.change(c, id, func(k apikey.Key) (apikey.Change, error) { return k.Revoke(c.Now) })
	return err
}

// Rotate replaces the key by one that inherits everything but ID and secret, and
// answers the call.
func (s *KeyService) Rotate(c *Call, id apikey.ID, grace time.Duration, show Show) error {
	return s.once(c, func(keep keeper) error {
		_, err := s.change(c, id, func(k apikey.Key) (apikey.Change, error) {
			// Who rotates a key gets its scopes into their hands.
			if err := c.Operator.mayGrant(k.Scopes); err != nil {
				return apikey.Change{}, err
			}
			credentials := apikey.NewCredentials(s.Format, k.Environment, c.Now, s.entropy())
			change, err := k.Rotate(credentials, grace, c.Now)
			if err == nil {
				change.Receipt = keep(show(Made{Key: &change.Keys[1], Secret: credentials.Secret, Replaced: &change.Keys[0]}))
			}
			return change, err
		})
		return err
	})
}

// Uses returns when each of the keys was last used.
func (s *KeyService) Uses(keys []apikey.Key) ([]apikey.Use, error) {
	ids := make([]apikey.ID, len(keys))
	for i := range keys {
		ids[i] = keys[i].ID
	}
	return s.Reader.Uses(ids)
}

func (s *KeyService) change(c *Call, id apikey.ID, decide func(apikey.Key) (apikey.Change, error)) (apikey.Change, error) {
	tenant, err := c.Reach()
	if err != nil {
		return apikey.Change{}, err
	}
	return s.Writer.Change(c.Origin(), tenant, id, decide)
}
