package oidc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"latchkey/admin/oidc"
	"latchkey/admin/wire"
	"latchkey/internal/oidctest"
)

// madeUp returns a token signed by the provider under a name for its key that
// nobody has heard of.
func madeUp(t testing.TB, p *oidctest.Provider, n int) string {
	private, _ := p.Key()
	key := jose.JSONWebKey{Key: private, KeyID: fmt.Sprintf("made-up-%d", n)}
	return oidctest.Sign(t, jose.SigningKey{Algorithm: jose.RS256, Key: key}, nil, good(p))
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func TestProviderThatCannotBeAskedIsAFault(t *testing.T) {
	for name, broken := range map[string]http.HandlerFunc{
		"it hangs up":        oidctest.HangUp,
		"it answers 500":     answer(500, "oops"),
		"it answers 404":     answer(404, "{}"),
		"it answers no JSON": answer(200, "<html>"),
		"it redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		},
		"it is another issuer": answer(200, `{"issuer": "https://other.example", "jwks_uri": "https://other.example/keys"}`),
	} {
		t.Run(name, func(t *testing.T) {
			p, c := oidctest.Start(t), &clock{}
			v, token := verifier(p, c), p.Token(t, ada())
			p.Break(broken)
			if got := verdict(t, v, token); got != 503 {
				t.Errorf("%d, want 503", got)
			}
			p.Break(nil)
			asked := p.Asked(oidctest.DiscoveryPath)
			c.advance(9 * time.Second)
			if got := verdict(t, v, token); got != 503 || p.Asked(oidctest.DiscoveryPath) != asked {
				t.Errorf("after nine seconds: %d and %d more requests, want 503 and none", got, p.Asked(oidctest.DiscoveryPath)-asked)
			}
			c.advance(2 * time.Second)
			if got := verdict(t, v, token); got != 200 {
				t.Errorf("after eleven: %d, want 200", got)
			}
		})
	}
}

func TestKeysThatCannotBeHadAreAFault(t *testing.T) {
	for name, keys := range map[string]string{
		"none":       `{"keys": []}`,
		"no set":     `[]`,
		"symmetric":  `{"keys": [{"kty": "oct", "k": "AAAA", "kid": "a"}]}`,
		"not for us": `{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "use": "enc"}]}`,
		"over 1 MiB": `{"more": "` + strings.Repeat("a", 1<<20) + `", "keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := oidctest.Start(t)
			token := p.Token(t, ada())
			p.Break(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == oidctest.KeysPath {
					io.WriteString(w, keys)
					return
				}
				fmt.Fprintf(w, `{"issuer": %q, "jwks_uri": %q}`, p.URL, p.URL+oidctest.KeysPath)
			})
			if got := verdict(t, verifier(p, &clock{}), token); got != 503 {
				t.Errorf("%d, want 503", got)
			}
			if p.Asked(oidctest.KeysPath) != 1 {
				t.Error("the keys were not asked for")
			}
		})
	}
}

// TestFaultsQuoteNothing looks for what the provider answered and what the token
// says in the error that is logged.
func TestFaultsQuoteNothing(t *testing.T) {
	p := oidctest.Start(t)
	token := p.Token(t, ada())
	p.Break(answer(500, "canary"))
	_, _, err := verifier(p, &clock{}).Verify(context.Background(), token)
	var fault *wire.Error
	if !errors.As(err, &fault) || fault.Unwrap() == nil {
		t.Fatalf("%v is no fault with a cause", err)
	}
	text := fault.Error() + fault.Unwrap().Error()
	for _, secret := range []string{"canary", token, token[:20], "ada", "acme"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q quotes %q", text, secret)
		}
	}
}

func TestKeysOutliveTheProviderForAnHour(t *testing.T) {
	p, c := oidctest.Start(t), &clock{}
	v := verifier(p, c)
	ofTwoHours := ada()
	ofTwoHours.Lifetime = 2 * time.Hour
	token := p.Token(t, ofTwoHours)
	if got := verdict(t, v, token); got != 200 {
		t.Fatal(got)
	}
	p.Break(oidctest.HangUp)
	for _, tc := range []struct {
		after time.Duration
		want  int
	}{
		{4 * time.Minute, 200}, {55 * time.Minute, 200}, {2 * time.Minute, 503},
	} {
		c.advance(tc.after)
		if got := verdict(t, v, token); got != tc.want {
			t.Errorf("%s later: %d, want %d", tc.after, got, tc.want)
		}
	}
	if got := verdict(t, v, madeUp(t, p, 1)); got != 503 {
		t.Errorf("a key that may be new: %d, want 503", got)
	}
	p.Break(nil)
	c.advance(11 * time.Second)
	if got := verdict(t, v, token); got != 200 {
		t.Errorf("once it is back: %d, want 200", got)
	}
}

// TestMadeUpKeyNames counts what a flood of them asks of the provider.
func TestMadeUpKeyNames(t *testing.T) {
	p, c := oidctest.Start(t), &clock{}
	v, token := verifier(p, c), p.Token(t, ada())
	if got := verdict(t, v, token); got != 200 {
		t.Fatal(got)
	}
	const seconds, each = 60, 20
	for n := range seconds {
		c.advance(time.Second)
		var callers sync.WaitGroup
		for m := range each {
			callers.Go(func() {
				if got := verdict(t, v, madeUp(t, p, n*each+m)); got != 401 {
					t.Errorf("a made-up name: %d, want 401", got)
				}
			})
		}
		callers.Wait()
	}
	if n := p.Asked(oidctest.KeysPath); n < 2 || n > 1+seconds/10 {
		t.Errorf("%d made-up names in %d seconds made %d requests for keys, want at most 1 and %d", seconds*each, seconds, n, seconds/10)
	}
	if n := p.Asked(oidctest.DiscoveryPath); n != 1 {
		t.Errorf("and %d for the discovery document, want 1", n)
	}
	if got := verdict(t, v, token); got != 200 {
		t.Errorf("a good token beside them: %d, want 200", got)
	}
}

// TestTamperedTokensAskForNothing: the key they name is known.
func TestTamperedTokensAskForNothing(t *testing.T) {
	p, c := oidctest.Start(t), &clock{}
	v, token := verifier(p, c), p.Token(t, ada())
	verdict(t, v, token)
	p.Break(oidctest.HangUp)
	c.advance(time.Minute)
	if got := verdict(t, v, token[:len(token)-8]+"AAAAAAAA"); got != 401 || p.Asked(oidctest.KeysPath) != 1 {
		t.Errorf("%d and %d requests for keys, want 401 and 1", got, p.Asked(oidctest.KeysPath))
	}
}

// TestHangingProviderHoldsNobody shows that a caller waits no longer than it
// wants to, and that the fetch it began goes on for those after it.
func TestHangingProviderHoldsNobody(t *testing.T) {
	p := oidctest.Start(t)
	v, token := verifier(p, &clock{}), p.Token(t, ada())
	release, answered := make(chan struct{}), make(chan struct{})
	p.Break(func(w http.ResponseWriter, r *http.Request) {
		<-release
		p.Break(nil)
		fmt.Fprintf(w, `{"issuer": %q, "jwks_uri": %q}`, p.URL, p.URL+oidctest.KeysPath)
		close(answered)
	})
	ctx, leave := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer leave()
	var fault *wire.Error
	if _, ours, err := v.Verify(ctx, token); !ours || !errors.As(err, &fault) || fault.Status != 503 {
		t.Errorf("ours %t, %v, want a fault", ours, err)
	}
	close(release)
	<-answered
	if got := verdict(t, v, token); got != 200 {
		t.Errorf("the next caller: %d, want 200", got)
	}
	if n := p.Asked(oidctest.DiscoveryPath); n != 1 {
		t.Errorf("%d discoveries, want 1", n)
	}
}

func TestProviderThatIsDownAtTheStart(t *testing.T) {
	v := oidc.New(oidc.Options{Issuer: "http://127.0.0.1:1", Audience: audience, RoleClaim: "roles", TenantClaim: "tenant"})
	p := oidctest.Start(t)
	token := p.Sign(t, nil, with(good(p), "iss", "http://127.0.0.1:1"))
	if got := verdict(t, v, token); got != 503 {
		t.Errorf("%d, want 503", got)
	}
	if got := verdict(t, v, p.Token(t, ada())); got != notOurs {
		t.Errorf("a token of another issuer: %d, want that it is left to others", got)
	}
}
