// Package oidctest runs an OpenID provider for tests: zitadel's, over loopback,
// with discovery, a key set whose keys can be replaced, and JWT access tokens by
// client credentials. It also signs what no provider would, and can break down.
package oidctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// Where the provider publishes what a verifier asks for.
const (
	DiscoveryPath = "/.well-known/openid-configuration"
	KeysPath      = "/keys"
)

// A Provider is an OpenID provider that runs until the test ends.
type Provider struct {
	URL string // which is its issuer, too

	mu      sync.Mutex
	keys    []*key // the newest signs
	clients map[string]Client
	broken  http.HandlerFunc
	asked   map[string]int
}

// A Client is who a token is for. By its ID it gets tokens like these.
type Client struct {
	ID       string
	Subject  string
	Audience []string
	Claims   map[string]any
	Lifetime time.Duration // zero means an hour
	Opaque   bool          // the tokens are not JWTs
}

// Start runs a provider with one key, for RS256.
func Start(t testing.TB) *Provider {
	t.Helper()
	p := &Provider{clients: map[string]Client{}, asked: map[string]int{}}
	p.Rotate(t, jose.RS256)
	server := httptest.NewUnstartedServer(nil)
	p.URL = "http://" + server.Listener.Addr().String()
	provider, err := op.NewProvider(&op.Config{}, storage{provider: p}, op.StaticIssuer(p.URL), op.WithAllowInsecure())
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked[r.URL.Path]++
		broken := p.broken
		p.mu.Unlock()
		if broken != nil {
			broken(w, r)
			return
		}
		provider.ServeHTTP(w, r)
	})
	server.Start()
	t.Cleanup(server.Close)
	return p
}

// Asked returns how often the path was asked for.
func (p *Provider) Asked(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

// Break has the handler answer everything, until it is nil again.
func (p *Provider) Break(handler http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = handler
}

// HangUp is a way to break: connections are closed without an answer.
func HangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// Rotate makes a new key the one that signs. Those before stay published.
func (p *Provider) Rotate(t testing.TB, algorithm jose.SignatureAlgorithm) {
	t.Helper()
	k := &key{id: rand.Text(), algorithm: algorithm}
	var err error
	switch algorithm {
	case jose.ES256:
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.EdDSA:
		_, k.private, err = ed25519.GenerateKey(rand.Reader)
	default:
		k.private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append(p.keys, k)
}

// Withdraw stops publishing all keys but the one that signs.
func (p *Provider) Withdraw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = p.keys[len(p.keys)-1:]
}

// Token returns an access token for the client from the token endpoint.
func (p *Provider) Token(t testing.TB, c Client) string {
	t.Helper()
	p.mu.Lock()
	p.clients[c.ID] = c
	p.mu.Unlock()
	res, err := http.PostForm(p.URL+"/oauth/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {c.ID}, "client_secret": {"secret"}, "scope": {"keys"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != 200 {
		t.Fatalf("the token endpoint answered %s (%v)", res.Status, err)
	}
	return answer.Token
}

// Key returns the key that signs and its ID.
func (p *Provider) Key() (private crypto.Signer, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.keys[len(p.keys)-1]
	return k.private, k.id
}

// Sign returns a token with the claims, signed by the provider's key whatever
// they are. The header is added to alg, kid and typ, or replaces them.
func (p *Provider) Sign(t testing.TB, header map[jose.HeaderKey]any, claims map[string]any) string {
	t.Helper()
	p.mu.Lock()
	k := p.keys[len(p.keys)-1]
	p.mu.Unlock()
	return Sign(t, jose.SigningKey{Algorithm: k.algorithm, Key: jose.JSONWebKey{Key: k.private, KeyID: k.id}}, header, claims)
}

// Sign returns a token with the claims, signed by any key.
func Sign(t testing.TB, key jose.SigningKey, header map[jose.HeaderKey]any, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{ExtraHeaders: header}))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}
