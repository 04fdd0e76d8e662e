package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	openid "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	fetchTimeout = 10 * time.Second
	maxAnswer    = 1 << 20  // bytes of a document, unpacked
	maxHead      = 64 << 10 // bytes of its response's head
)

// newClient returns the client that asks the provider.
func newClient() *http.Client {
	base := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           1,
		IdleConnTimeout:        fetchTimeout,
		MaxResponseHeaderBytes: maxHead,
	}
	return &http.Client{Timeout: fetchTimeout, Transport: bounded{base}}
}

// bounded is a transport that takes nothing but an answer of 200 and of at most
// maxAnswer. So there are no redirects, which could lead from https to http, and
// no error quotes an answer.
type bounded struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, fmt.Errorf("it answered %d", res.StatusCode)
	}
	res.Body = http.MaxBytesReader(nil, res.Body, maxAnswer)
	return res, nil
}

// discover returns where the issuer publishes its keys (OpenID Connect
// Discovery, section 4).
func discover(client *http.Client, issuer string) (string, error) {
	provider, err := openid.NewProvider(openid.ClientContext(context.Background(), client), issuer)
	if mismatch := (*openid.IssuerMismatchError)(nil); errors.As(err, &mismatch) {
		return "", errors.New("its discovery document names another issuer than admin.oidc.issuer; they must be the same to the letter")
	}
	if err != nil {
		return "", err
	}
	var document struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&document); err != nil {
		return "", fmt.Errorf("read jwks_uri: %w", err)
	}
	at, err := url.Parse(document.Keys)
	from, issuerErr := url.Parse(issuer)
	if err != nil || issuerErr != nil || at.Host == "" || at.Scheme != "https" && at.Scheme != from.Scheme {
		return "", errors.New("its jwks_uri is no URL of the issuer's scheme")
	}
	return document.Keys, nil
}

// fetchKeys returns the provider's keys, from the URL where it publishes them.
func fetchKeys(client *http.Client, at string) ([]jose.JSONWebKey, error) {
	res, err := client.Get(at)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return readKeys(res.Body)
}

// readKeys returns the public keys for signatures in a JWK Set, at least one.
// What it does not understand is passed over (RFC 7517, section 5).
func readKeys(text io.Reader) (keys []jose.JSONWebKey, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(text).Decode(&set); err != nil {
		return nil, fmt.Errorf("read the JWK Set: %w", err)
	}
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) == nil && key.IsPublic() && key.Valid() && (key.Use == "" || key.Use == "sig") {
			keys = append(keys, key)
		}
	}
	if keys == nil {
		return nil, errors.New("the JWK Set has no public key for signatures")
	}
	return keys, nil
}
