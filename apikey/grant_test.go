package apikey

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestGrant(t *testing.T) {
	k := sample(t)
	want := &Grant{Digest: k.Digest, ID: k.ID, Tenant: "acme", Subject: "team 7", Environment: "test", Version: "2026-01-01",
		AllowedIPs: k.AllowedIPs, Scopes: []string{"read", "write"}}
	got := k.Grant()
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b AllowedIP) bool { return a == b }), cmpopts.IgnoreUnexported(Grant{})); diff != "" {
		t.Error(diff)
	}
	if got.State(at(0)) != StateActive || got.State(at(time.Hour)) != StateExpired {
		t.Errorf("%s and %s, want it to expire", got.State(at(0)), got.State(at(time.Hour)))
	}
	k.Scopes[0] = "admin"
	if got.Scopes[0] != "read" {
		t.Error("a grant changes with its key")
	}
	if got := (&Key{Tenant: "acme"}).Grant(); got.Scopes != nil || got.Tenant != "acme" || got.EnvironmentName() != EnvironmentLive {
		t.Errorf("%+v", got)
	}
}

// TestStateByTimes holds State to the same question put to the key's times.
func TestStateByTimes(t *testing.T) {
	asked := func(k *Key, now time.Time) State {
		switch reached := func(end time.Time) bool { return !end.IsZero() && !now.Before(end) }; {
		case !k.RevokedAt.IsZero():
			return StateRevoked
		case !k.EndedAt.IsZero() && !k.Rotation.GraceEndsAt.IsZero() && !k.Rotation.GraceEndsAt.After(k.EndedAt):
			return StateRotated
		case !k.EndedAt.IsZero():
			return StateExpired
		case reached(k.Rotation.GraceEndsAt):
			return StateRotated
		case reached(k.ExpiresAt):
			return StateExpired
		}
		return StateActive
	}
	rng := rand.New(rand.NewPCG(5, 5))
	instant := func() time.Time { // also before 1970, and at its first moment
		if rng.IntN(3) == 0 {
			return time.Time{}
		}
		return time.UnixMicro(rng.Int64N(5) - 2).UTC()
	}
	seen := map[State]int{}
	for range 100_000 {
		k := &Key{RevokedAt: instant(), EndedAt: instant(), ExpiresAt: instant(), Rotation: Rotation{GraceEndsAt: instant()}}
		if rng.IntN(2) == 0 {
			k.RevokedAt = time.Time{}
		}
		now := time.Unix(0, rng.Int64N(8000)-4000)
		want := asked(k, now)
		if got := k.Grant().State(now); got != want || k.State(now) != want {
			t.Fatalf("%+v at %s: %s and %s, want %s", k, now, got, k.State(now), want)
		}
		seen[want]++
	}
	if len(seen) != 4 {
		t.Errorf("only %v came up", seen)
	}
}
