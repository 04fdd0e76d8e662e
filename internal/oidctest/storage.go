package oidctest

import (
	"context"
	"crypto"
	"errors"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// storage is as much of zitadel's storage as client credentials need. A call of
// anything else panics.
type storage struct {
	op.Storage
	provider *Provider
}

// key is a signing key. Published, it is its public half.
type key struct {
	id        string
	algorithm jose.SignatureAlgorithm
	private   crypto.Signer
}

func (k *key) ID() string                                  { return k.id }
func (k *key) SignatureAlgorithm() jose.SignatureAlgorithm { return k.algorithm }
func (k *key) Key() any                                    { return k.private }

type published struct{ *key }

func (k published) Algorithm() jose.SignatureAlgorithm { return k.algorithm }
func (k published) Use() string                        { return "sig" }
func (k published) Key() any                           { return k.private.Public() }

func (s storage) SigningKey(context.Context) (op.SigningKey, error) {
	s.provider.mu.Lock()
	defer s.provider.mu.Unlock()
	return s.provider.keys[len(s.provider.keys)-1], nil
}

func (s storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256}, nil
}

func (s storage) KeySet(context.Context) (set []op.Key, err error) {
	s.provider.mu.Lock()
	defer s.provider.mu.Unlock()
	for _, k := range s.provider.keys {
		set = append(set, published{k})
	}
	return set, nil
}

// grant is one client's token under way.
type grant struct{ Client }

func (g grant) GetSubject() string    { return g.Subject }
func (g grant) GetAudience() []string { return g.Audience }
func (g grant) GetScopes() []string   { return []string{"keys"} }

func (s storage) client(id string) (Client, error) {
	s.provider.mu.Lock()
	defer s.provider.mu.Unlock()
	c, ok := s.provider.clients[id]
	if !ok {
		return c, errors.New("there is no such client")
	}
	return c, nil
}

func (s storage) ClientCredentials(_ context.Context, id, secret string) (op.Client, error) {
	c, err := s.client(id)
	if err != nil || secret != "secret" {
		return nil, errors.New("client and secret do not match")
	}
	return registered{of: c}, nil
}

func (s storage) ClientCredentialsTokenRequest(_ context.Context, id string, _ []string) (op.TokenRequest, error) {
	c, err := s.client(id)
	return grant{c}, err
}

func (s storage) CreateAccessToken(_ context.Context, r op.TokenRequest) (string, time.Time, error) {
	lifetime := r.(grant).Lifetime
	if lifetime == 0 {
		lifetime = time.Hour
	}
	return "token", time.Now().Add(lifetime), nil
}

func (s storage) GetPrivateClaimsFromScopes(_ context.Context, _, client string, _ []string) (map[string]any, error) {
	c, err := s.client(client)
	return c.Claims, err
}

// registered is a Client as zitadel's provider sees it.
type registered struct {
	op.Client
	of Client
}

func (r registered) GetID() string            { return r.of.ID }
func (r registered) ClockSkew() time.Duration { return 0 }
func (r registered) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeClientCredentials}
}

func (r registered) AccessTokenType() op.AccessTokenType {
	if r.of.Opaque {
		return op.AccessTokenTypeBearer
	}
	return op.AccessTokenTypeJWT
}

func (r registered) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}
