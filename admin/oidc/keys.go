package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"
)

const (
	askEvery     = 10 * time.Second // at the soonest, whatever tokens come
	refreshAfter = 5 * time.Minute  // so that a key the provider has withdrawn is not trusted for longer
	keepFor      = time.Hour        // where the provider cannot be asked for newer ones
)

// errSignature is for go-oidc alone, which needs an error for a signature that
// no key made.
var errSignature = errors.New("no key of the provider made the signature")

// A keySet is the provider's public keys. It asks for them when they are needed
// and it has none, or old ones, or none by the name that a token gives; but made-up
// names make it ask no oftener than askEvery.
type keySet struct {
	issuer string
	client *http.Client
	now    func() time.Time

	flight singleflight.Group
	url    string // where the keys are, empty until discovered; only the flight uses it

	mu      sync.Mutex
	keys    []jose.JSONWebKey
	fetched time.Time // when the keys came
	asked   time.Time // when the provider last answered, or turned out not to
	fault   error     // what came of that
}

func newKeySet(issuer string, now func() time.Time) *keySet {
	return &keySet{issuer: issuer, client: newClient(), now: now}
}

// verify returns what the token says if one of the keys signed it, nil if none
// did, and a fault if the keys needed to tell could not be had.
func (s *keySet) verify(ctx context.Context, token string) (payload []byte, fault error) {
	signed, err := jose.ParseSignedCompact(token, algorithms())
	if err != nil {
		return nil, nil
	}
	keys, fault := s.usable(ctx)
	if fault != nil {
		return nil, fault
	}
	payload, known := check(keys, signed)
	if payload != nil || known {
		return payload, nil
	}
	if fault := s.ask(ctx); fault != nil {
		return nil, fault
	}
	keys, _ = s.current()
	payload, _ = check(keys, signed)
	return payload, nil
}

// check returns what the token says if one of the keys signed it. known says
// that there is a key by the name that the token gives, so that asking for newer
// ones would not help.
func check(keys []jose.JSONWebKey, signed *jose.JSONWebSignature) (payload []byte, known bool) {
	head := signed.Signatures[0].Protected
	for i := range keys {
		if head.KeyID != "" && head.KeyID != keys[i].KeyID {
			continue
		}
		known = known || head.KeyID != ""
		if keys[i].Algorithm != "" && keys[i].Algorithm != head.Algorithm {
			continue
		}
		if payload, err := signed.Verify(keys[i].Key); err == nil {
			return payload, true
		}
	}
	return nil, known
}

// usable returns keys that are not too old.
func (s *keySet) usable(ctx context.Context) ([]jose.JSONWebKey, error) {
	keys, age := s.current()
	if keys != nil && age >= 0 && age < refreshAfter {
		return keys, nil
	}
	if keys != nil && age >= 0 && age < keepFor {
		// A provider that hangs does not hold up those whose keys are at hand.
		brief, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		ctx = brief
	}
	fault := s.ask(ctx)
	keys, age = s.current()
	if keys != nil && age < keepFor {
		return keys, nil
	}
	return nil, fault
}

func (s *keySet) current() (keys []jose.JSONWebKey, age time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys, s.now().Sub(s.fetched)
}

// ask has the keys fetched, unless that was tried just now: then what came of it
// stands. Any number of callers share one fetch, which goes on when they leave.
func (s *keySet) ask(ctx context.Context) error {
	done := s.flight.DoChan("", func() (any, error) { return nil, s.askOnce() })
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return fmt.Errorf("wait for the identity provider: %w", context.Cause(ctx))
	}
}

// askOnce runs in the flight, one at a time.
func (s *keySet) askOnce() error {
	s.mu.Lock()
	since, fault := s.now().Sub(s.asked), s.fault
	s.mu.Unlock()
	if since >= 0 && since < askEvery { // below zero the clock was set back
		return fault
	}
	keys, fault := s.fetch()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.fault = s.now(), fault
	if fault == nil {
		s.keys, s.fetched = keys, s.asked
	}
	return fault
}

// fetch forgets where the keys are if they cannot be had there: the provider may
// have moved them.
func (s *keySet) fetch() ([]jose.JSONWebKey, error) {
	if s.url == "" {
		url, err := discover(s.client, s.issuer)
		if err != nil {
			return nil, fmt.Errorf("discover the identity provider: %w", err)
		}
		s.url = url
	}
	keys, err := fetchKeys(s.client, s.url)
	if err != nil {
		s.url = ""
		return nil, fmt.Errorf("fetch the identity provider's keys: %w", err)
	}
	return keys, nil
}
