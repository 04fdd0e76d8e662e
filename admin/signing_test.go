package admin_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"latchkey/admin"
	"latchkey/admin/jwt"
	"latchkey/admin/truvera"
	"latchkey/admin/wire"
	"latchkey/apikey"
	"latchkey/internal/dialecttest"
	"latchkey/keystore"
)

// TestATokenCannotBeMadeAgain signs what the store shows of a key, as whoever has stolen the
// signing key can: the gateway must not know what comes of it.
func TestATokenCannotBeMadeAgain(t *testing.T) {
	var signer *jwt.Signer
	p := dialecttest.StartWith(t, func(o *admin.Options) {
		var err error
		if signer, err = jwt.NewSigner(o.Importer.(*keystore.Store), apikey.Origin{At: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}); err != nil {
			t.Fatal(err)
		}
		o.Signer, o.Mounts = signer, []admin.Mount{{Dialect: truvera.New(truvera.Options{Signer: signer, Lifetime: time.Hour})}}
	})
	known := func(token string) bool {
		t.Helper()
		digest := apikey.DigestOf([]byte(token))
		_, err := p.Store.ByDigest(&digest)
		if err != nil && !errors.Is(err, apikey.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	var randoms []string
	for range 2 {
		var made struct{ JWT string }
		if _, _, body := p.Do(t, "POST /keys\nAuthorization: Bearer acme-token\nContent-Type: application/json\n\n{}"); json.Unmarshal(body, &made) != nil || !known(made.JWT) {
			t.Fatalf("POST /keys: %.40s", body)
		}
		var said jwt.Claims
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(made.JWT, ".")[1])
		if err == nil {
			err = json.Unmarshal(payload, &said)
		}
		if err != nil {
			t.Fatal(err)
		}
		again, err := signer.Sign(said)
		if err != nil || again != made.JWT {
			t.Fatalf("all that a token says does not make it again: %v", err)
		}
		bits, err := base64.RawURLEncoding.DecodeString(said.Random)
		if err != nil || len(bits) != 32 || slices.Contains(randoms, said.Random) {
			t.Errorf("%d random bytes, %v, or those of another token", len(bits), err)
		}
		randoms = append(randoms, said.Random)
		for _, guess := range []string{"", base64.RawURLEncoding.EncodeToString(make([]byte, 32))} {
			said.Random = guess
			if forged, err := signer.Sign(said); err != nil || known(forged) {
				t.Errorf("what lists show of a key makes its token again: %v", err)
			}
		}
	}
}

// TestWithdrawingASigningKey takes keys out of the published set. All tenants' tokens are
// signed with one key, so it takes an administrator of all of them.
func TestWithdrawingASigningKey(t *testing.T) {
	store, err := keystore.Open("signing", keystore.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	signer, err := jwt.NewSigner(store, apikey.Origin{At: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Actor: "serve"})
	if err != nil {
		t.Fatal(err)
	}
	p := dialecttest.StartWith(t, func(o *admin.Options) {
		o.Signer, o.Auditor = signer, store
		for _, role := range []wire.Role{wire.RoleIssuer, wire.RoleViewer} { // of all tenants
			o.Callers.Operators = append(o.Callers.Operators, admin.StaticOperator{TokenDigest: sha256.Sum256([]byte("all-" + role + "-token")),
				Operator: wire.Operator{Name: "all", Role: role, Tenant: apikey.AnyTenant}})
		}
	}, dialects(t)...)
	published := func() (ids []string) {
		t.Helper()
		var set struct {
			Keys []struct{ Kid string }
		}
		_, _, body := p.Do(t, "GET /.well-known/jwks.json\n")
		if err := json.Unmarshal(body, &set); err != nil {
			t.Fatal(err)
		}
		for _, k := range set.Keys {
			ids = append(ids, k.Kid)
		}
		return ids
	}
	as := func(token, call string) int {
		t.Helper()
		_, res, _ := p.Do(t, call+"\nAuthorization: Bearer "+token+"\n")
		return res.StatusCode
	}
	first := published()[0]
	if status := as("root-token", "DELETE /signing-keys/"+first); status != 409 {
		t.Errorf("the key that signs: %d, want 409", status)
	}
	for _, token := range []string{"acme-admin-token", "all-issuer-token"} {
		if status := as(token, "POST /signing-keys/rotate"); status != 403 {
			t.Errorf("%s rotates: %d, want 403", token, status)
		}
	}
	if status := as("root-token", "POST /signing-keys/rotate"); status != 204 {
		t.Fatalf("rotate: %d", status)
	}
	second := published()[1]
	for token, want := range map[string]int{"acme-admin-token": 403, "acme-token": 403, "all-issuer-token": 403, "all-viewer-token": 403, "nobody": 401} {
		for _, id := range []string{first, "no-such-key"} {
			if status := as(token, "DELETE /signing-keys/"+id); status != want {
				t.Errorf("%s: %d, want %d", token, status, want)
			}
		}
	}
	if ids := published(); len(ids) != 2 || ids[0] != first {
		t.Fatalf("published: %q, want %q and another", ids, first)
	}
	for i, want := range []int{204, 404} {
		if status := as("root-token", "DELETE /signing-keys/"+first); status != want {
			t.Errorf("the retired key, time %d: %d, want %d", i+1, status, want)
		}
	}
	if ids := published(); len(ids) != 1 || ids[0] == first {
		t.Errorf("published: %q, want the key that signs alone", ids)
	}

	// The audit log says who did it, to those who may know.
	var log []struct {
		Actor, Action, Tenant, Address string
		Key                            string `json:"key_id"`
		Signing                        string `json:"signing_key_id"`
		Request                        string `json:"request_id"`
	}
	_, _, body := p.Do(t, "GET /audit\nAuthorization: Bearer root-token\n")
	if err := json.Unmarshal(body, &log); err != nil || len(log) != 3 {
		t.Fatalf("the audit log has %s, %v", body, err)
	}
	for i, want := range []string{"root signing_key_withdrawn " + first, "root signing_key_added " + second, "serve signing_key_added " + first} {
		e := log[i]
		if got := e.Actor + " " + e.Action + " " + e.Signing; got != want || e.Tenant != "*" || e.Key != "" || (e.Address == "") != (e.Actor == "serve") || (e.Request == "") != (e.Actor == "serve") {
			t.Errorf("event %d: %+v, want %s", i, e, want)
		}
	}
	if _, _, body := p.Do(t, "GET /audit\nAuthorization: Bearer acme-admin-token\n"); strings.TrimSpace(string(body)) != "[]" {
		t.Errorf("an operator of one tenant is told of %s", body)
	}
}
