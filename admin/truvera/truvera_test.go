package truvera

import (
	"flag"
	"testing"
	"time"

	"latchkey/admin/jwt"
	"latchkey/apikey"
	"latchkey/internal/dialecttest"
)

var _ = flag.Bool("update", false, "write the answers of the golden exchanges")

// ring has one key, always the same: what Ed25519 signs with it is too.
type ring struct{}

func (ring) SigningKeys() ([]apikey.SigningKey, error) {
	return []apikey.SigningKey{apikey.NewSigningKey("test-key", [32]byte{1, 2, 3}, time.Time{})}, nil
}

func (ring) AddSigningKey(apikey.Origin, apikey.SigningKey) error { return nil }
func (ring) RemoveSigningKey(apikey.Origin, string) error         { return nil }

func TestGoldenExchanges(t *testing.T) {
	signer, err := jwt.NewSigner(ring{}, apikey.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	dialecttest.Run(t, New(Options{Signer: signer, Lifetime: 365 * 24 * time.Hour, TemporaryLifetime: time.Hour}))
}
