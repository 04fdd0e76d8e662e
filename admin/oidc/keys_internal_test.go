package oidc

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// TestSharedSecretsSignNothing has the secret among the keys, where a provider
// that publishes it by mistake would put it.
func TestSharedSecretsSignNothing(t *testing.T) {
	secret := []byte(strings.Repeat("s", 64))
	for _, a := range []jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512} {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: a, Key: jose.JSONWebKey{Key: secret, KeyID: "a"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign([]byte(`{"iss":"https://issuer.example"}`))
		if err != nil {
			t.Fatal(err)
		}
		token, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		s := newKeySet("https://issuer.example", time.Now)
		s.keys, s.fetched = []jose.JSONWebKey{{Key: secret, KeyID: "a"}}, time.Now()
		if payload, fault := s.verify(context.Background(), token); payload != nil || fault != nil {
			t.Errorf("%s: %s, %v", a, payload, fault)
		}
	}
}
