package wire

import (
	"crypto/rand"
	"errors"
	"time"

	"latchkey/apikey"
)

// Reader finds keys. The tenant apikey.AnyTenant means whosever they are.
type Reader interface {
	ByID(tenant string, id apikey.ID) (apikey.Key, error)
	List(apikey.Query) (apikey.Page, error)
}

// Writer changes keys. It returns once the change is on disk and in force.
type Writer interface {
	Create(apikey.Origin, apikey.Change) error
	Change(by apikey.Origin, tenant string, id apikey.ID, decide func(apikey.Key) (apikey.Change, error)) (apikey.Change, error)
}

// A KeyService is what a dialect does with keys, the same in all of them.
type KeyService struct {
	Reader Reader
	Writer Writer
	Format apikey.SecretFormat

	// Entropy makes the randomness of a key. It is nil, which means crypto/rand,
	// but in tests that compare whole answers.
	Entropy func() [40]byte
}

// Issue makes a key and returns it with its secret, which is kept nowhere.
func (s *KeyService) Issue(c *Call, spec apikey.Spec) (apikey.Key, string, error) {
	return s.issue(c, spec, apikey.NewCredentials(s.Format, spec.Environment, c.Now, s.entropy()))
}

// IssueSigned makes a key whose secret is what sign returns for its ID.
func (s *KeyService) IssueSigned(c *Call, spec apikey.Spec, sign func(apikey.ID) (string, error)) (apikey.Key, string, error) {
	credentials := apikey.NewCredentials(s.Format, spec.Environment, c.Now, s.entropy())
	var err error
	if credentials.Secret, err = sign(credentials.ID); err != nil {
		return apikey.Key{}, "", err
	}
	return s.issue(c, spec, credentials)
}

func (s *KeyService) issue(c *Call, spec apikey.Spec, credentials apikey.Credentials) (apikey.Key, string, error) {
	if err := c.Operator.mayGrant(spec.Scopes); err != nil {
		return apikey.Key{}, "", err
	}
	change, err := apikey.Issue(spec, credentials, c.Now)
	if err != nil {
		return apikey.Key{}, "", err
	}
	if err := s.Writer.Create(c.Origin(), change); err != nil {
		return apikey.Key{}, "", err
	}
	return change.Keys[0], credentials.Secret, nil
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
// returns the old key, the new one and its secret.
func (s *KeyService) Rotate(c *Call, id apikey.ID, grace time.Duration) (old, heir apikey.Key, secret string, err error) {
	var credentials apikey.Credentials
	change, err := s.change(c, id, func(k apikey.Key) (apikey.Change, error) {
		// Who rotates a key gets its scopes into their hands.
		if err := c.Operator.mayGrant(k.Scopes); err != nil {
			return apikey.Change{}, err
		}
		credentials = apikey.NewCredentials(s.Format, k.Environment, c.Now, s.entropy())
		return k.Rotate(credentials, grace, c.Now)
	})
	if err != nil {
		return apikey.Key{}, apikey.Key{}, "", err
	}
	return change.Keys[0], change.Keys[1], credentials.Secret, nil
}

func (s *KeyService) change(c *Call, id apikey.ID, decide func(apikey.Key) (apikey.Change, error)) (apikey.Change, error) {
	tenant, err := c.Reach()
	if err != nil {
		return apikey.Change{}, err
	}
	return s.Writer.Change(c.Origin(), tenant, id, decide)
}
