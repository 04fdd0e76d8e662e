package jwt

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-jose/go-jose/v4"

	"latchkey/apikey"
	"latchkey/keystore"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, fs vfs.FS) *keystore.Store {
	t.Helper()
	s, err := keystore.Open("store", keystore.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// by is the origin of what is done at a time.
func by(at time.Time) apikey.Origin { return apikey.Origin{At: at, Actor: "ops"} }

func signer(t *testing.T, ring Keyring) *Signer {
	t.Helper()
	s, err := NewSigner(ring, by(now))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// verified checks a token as an upstream would, by the published set alone, and
// returns its claims and key ID.
func verified(t *testing.T, set []byte, token string) (Claims, string) {
	t.Helper()
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(set, &keys); err != nil {
		t.Fatal(err)
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := signed.Verify(&keys)
	if err != nil {
		t.Fatalf("by the published keys: %v", err)
	}
	var c Claims
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	return c, signed.Signatures[0].Header.KeyID
}

func TestTokensOutliveRestartsAndRotations(t *testing.T) {
	disk := vfs.NewMem()
	store := open(t, disk)
	s := signer(t, store)
	claims := Claims{Issuer: Issuer, Subject: "acme", ID: "k", IssuedAt: now.Unix(), Expires: now.Add(time.Hour).Unix()}
	first, err := s.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	store = open(t, disk)
	defer store.Close()
	s = signer(t, store)
	again, err := s.Sign(claims)
	if err != nil || again != first {
		t.Errorf("after a restart another key signs (%v)", err)
	}
	if err := s.Rotate(by(now.Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	second, err := s.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	_, firstID := verified(t, s.KeySet(), first)
	got, secondID := verified(t, s.KeySet(), second)
	if got != claims || firstID == secondID {
		t.Errorf("claims %+v, want %+v; key IDs %s and %s, want two", got, claims, firstID, secondID)
	}
	reopened := signer(t, store)
	if !bytes.Equal(reopened.KeySet(), s.KeySet()) {
		t.Error("the set is another after it was read back")
	}
}

// TestWithdrawal takes the key that signed a token out of the set: by the set alone the
// token is no longer good, those of other keys are, and a restart changes neither.
func TestWithdrawal(t *testing.T) {
	store := open(t, vfs.NewMem())
	defer store.Close()
	s := signer(t, store)
	sign := func() (token, id string) {
		t.Helper()
		token, err := s.Sign(Claims{Subject: "acme"})
		if err != nil {
			t.Fatal(err)
		}
		_, id = verified(t, s.KeySet(), token)
		return token, id
	}
	first, firstID := sign()
	if err := s.Withdraw(by(now), firstID); !errors.Is(err, apikey.ErrSigns) {
		t.Errorf("to withdraw the key that signs gave %v, want ErrSigns", err)
	}
	if err := s.Rotate(by(now.Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	second, secondID := sign()
	verified(t, s.KeySet(), first)
	if err := s.Withdraw(by(now), firstID); err != nil {
		t.Fatal(err)
	}
	if err := s.Withdraw(by(now), firstID); !errors.Is(err, apikey.ErrNotFound) {
		t.Errorf("to withdraw it again gave %v, want ErrNotFound", err)
	}
	for _, set := range [][]byte{s.KeySet(), signer(t, store).KeySet()} {
		var keys jose.JSONWebKeySet
		if err := json.Unmarshal(set, &keys); err != nil {
			t.Fatal(err)
		}
		if len(keys.Keys) != 1 || keys.Keys[0].KeyID != secondID || bytes.Contains(set, []byte(firstID)) {
			t.Errorf("the set is %s, want %s alone", set, secondID)
		}
		verified(t, set, second)
	}
}

// TestTheClockIsSetBack rotates at a time before the present key's: the new key signs all
// the same, now and after a restart.
func TestTheClockIsSetBack(t *testing.T) {
	store := open(t, vfs.NewMem())
	defer store.Close()
	s := signer(t, store)
	id := func(s *Signer) string {
		t.Helper()
		token, err := s.Sign(Claims{Subject: "acme"})
		if err != nil {
			t.Fatal(err)
		}
		_, id := verified(t, s.KeySet(), token)
		return id
	}
	before := id(s)
	if err := s.Rotate(by(now.Add(-time.Hour))); err != nil {
		t.Fatal(err)
	}
	after := id(s)
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(s.KeySet(), &set); err != nil || len(set.Keys) != 2 || set.Keys[1].KeyID != after {
		t.Errorf("the set is %s, %v; want %s, which signs, to be the last", s.KeySet(), err, after)
	}
	if again := id(signer(t, store)); after == before || again != after {
		t.Errorf("%s signs, %s after the rotation, %s after a restart", before, after, again)
	}
}

// A blindRing makes changes, and cannot be read while it is blind.
type blindRing struct {
	*keystore.Store
	blind bool
}

func (r *blindRing) SigningKeys() ([]apikey.SigningKey, error) {
	if r.blind {
		return nil, errBlind
	}
	return r.Store.SigningKeys()
}

var errBlind = errors.New("cannot be read")

// TestASetThatCouldNotBeRead has a withdrawal that is made and not published, since the
// store cannot be read: that is no success, and made up for by the next try.
func TestASetThatCouldNotBeRead(t *testing.T) {
	store := open(t, vfs.NewMem())
	defer store.Close()
	ring := &blindRing{Store: store}
	s := signer(t, ring)
	if err := s.Rotate(by(now.Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	keys, err := store.SigningKeys()
	if err != nil {
		t.Fatal(err)
	}
	withdrawn := keys[0].ID
	ring.blind = true
	for range 2 { // the second finds nothing to withdraw, and that is not what is wrong
		if err := s.Withdraw(by(now), withdrawn); !errors.Is(err, errBlind) || errors.Is(err, apikey.ErrNotFound) {
			t.Errorf("Withdraw gave %v, want %v", err, errBlind)
		}
	}
	ring.blind = false
	if err := s.Withdraw(by(now), withdrawn); !errors.Is(err, apikey.ErrNotFound) {
		t.Errorf("Withdraw gave %v, want ErrNotFound", err)
	}
	if bytes.Contains(s.KeySet(), []byte(withdrawn)) {
		t.Error("a key that is not there is published")
	}
}

func TestTheSetHasNoPrivateHalf(t *testing.T) {
	store := open(t, vfs.NewMem())
	defer store.Close()
	s := signer(t, store)
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(s.KeySet(), &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 1 {
		t.Fatalf("%d keys, want 1", len(set.Keys))
	}
	for name := range set.Keys[0] {
		switch name {
		case "kty", "crv", "x", "kid", "alg", "use":
		default:
			t.Errorf("the set publishes %q", name)
		}
	}
}
