package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"latchkey/admin/jwt"
	"latchkey/admin/peach"
	"latchkey/admin/strait"
	"latchkey/admin/truvera"
	"latchkey/admin/wire"
	"latchkey/apikey"
	"latchkey/internal/dialecttest"
)

// A speaker says the same things in one dialect.
type speaker struct {
	name         string
	create       string // the request, for a key named CI
	id           func(body []byte) string
	list         string
	revoke       func(id string) string
	revokedCodes int // the status of a revocation
}

const auth = "\nAuthorization: Bearer acme-token\nContent-Type: application/json\n"

func speakers() []speaker {
	field := func(name string) func([]byte) string {
		return func(body []byte) string {
			var fields map[string]any
			if err := json.Unmarshal(body, &fields); err != nil {
				return err.Error()
			}
			return fmt.Sprint(fields[name])
		}
	}
	return []speaker{
		{"truvera", "POST /keys" + auth + "\n" + `{"alias": "CI"}`, field("key"), "GET /keys" + auth,
			func(id string) string { return "DELETE /keys/" + id + auth }, 200},
		{"strait", "POST /v1/api-keys" + auth + "\n" + `{"name": "CI", "expires_in_days": 365}`, field("id"), "GET /v1/api-keys" + auth,
			func(id string) string { return "DELETE /v1/api-keys/" + id + auth }, 204},
		{"peach", "POST /api/keys" + auth + "\n" + `{"userId": "u-1", "description": "CI"}`, field("id"), "GET /api/keys" + auth,
			func(id string) string { return "DELETE /api/keys/" + id + auth }, 204},
	}
}

// TestOneKeyInThreeDialects creates a key in each dialect, finds it by the same
// ID in each, and revokes it in each. Whichever way it went, the key that is left
// is the same, but for what a dialect alone can say.
func TestOneKeyInThreeDialects(t *testing.T) {
	var want *apikey.Key
	for _, maker := range speakers() {
		for _, ender := range speakers() {
			t.Run(maker.name+" then "+ender.name, func(t *testing.T) {
				p := startAll(t)
				begun := p.Now
				_, res, body := p.Do(t, maker.create)
				if res.StatusCode != http.StatusCreated && res.StatusCode != http.StatusOK {
					t.Fatalf("create: %s %s", res.Status, body)
				}
				text := maker.id(body)
				id, err := apikey.ParseID(text)
				if err != nil {
					t.Fatalf("create gave the ID %s: %v", text, err)
				}
				for _, reader := range speakers() {
					if _, _, body := p.Do(t, reader.list); !strings.Contains(string(body), text) {
						t.Errorf("%s does not list the key: %s", reader.name, body)
					}
				}
				if _, res, body := p.Do(t, ender.revoke(text)); res.StatusCode != ender.revokedCodes {
					t.Fatalf("revoke: %s %s", res.Status, body)
				}
				for _, reader := range speakers() {
					if _, _, body := p.Do(t, reader.list); strings.Contains(string(body), text) {
						t.Errorf("%s goes on listing the key: %s", reader.name, body)
					}
				}
				got, err := p.Store.ByID("acme", id)
				if err != nil {
					t.Fatal(err)
				}
				if got.State(p.Now) != apikey.StateRevoked || got.CreatedAt.Before(begun) {
					t.Errorf("the key is %s, made at %s", got.State(p.Now), got.CreatedAt)
				}
				if want == nil {
					want = &got
				}
				// Subject, pin and expiry are each something one dialect sets or asks for.
				same := cmp.Options{cmpopts.IgnoreFields(apikey.Key{}, "Digest", "Hint", "Subject", "Pin", "ExpiresAt")}
				if diff := cmp.Diff(*want, got, same); diff != "" {
					t.Errorf("the key that is left (-first way +this way):\n%s", diff)
				}
			})
		}
	}
}

func startAll(t *testing.T) *dialecttest.Plane { return dialecttest.Start(t, dialects(t)...) }

func dialects(t *testing.T) []*wire.Dialect {
	signer, err := jwt.NewSigner(ring{}, apikey.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	return []*wire.Dialect{
		truvera.New(truvera.Options{Signer: signer, Lifetime: time.Hour, TemporaryLifetime: time.Hour}),
		strait.New(strait.Options{Grace: time.Hour}),
		peach.New(peach.Options{Prefix: "/api", APIVersions: []string{"2024-05-22"}}),
	}
}

// ring has one key.
type ring struct{}

func (ring) SigningKeys() ([]apikey.SigningKey, error) {
	return []apikey.SigningKey{apikey.NewSigningKey("k", [32]byte{}, time.Time{})}, nil
}
func (ring) AddSigningKey(apikey.Origin, apikey.SigningKey) error { return nil }
func (ring) RemoveSigningKey(apikey.Origin, string) error         { return nil }
