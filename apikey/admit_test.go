package apikey

import (
	"testing"
	"time"
)

// at returns an instant that far from the one most of these tests start at.
func at(offset time.Duration) time.Time {
	return time.Date(2026, 2, 28, 23, 59, 59, 0, time.UTC).Add(offset)
}

// sample returns a key with every field set that an operator can set.
func sample(t *testing.T) Key {
	t.Helper()
	return Key{
		ID: ID{1}, Digest: Digest{2}, Hint: Hint{"head", "tail"},
		Tenant: "acme", Subject: "team 7", Name: "CI", Environment: "test",
		AllowedIPs: list(t, "192.0.2.7", "10.0.0.0/8"), Scopes: []string{"read", "write"}, Pin: Pin{"2026-01-01", at(-2 * time.Hour), at(-time.Minute)},
		CreatedAt: at(-time.Hour), UpdatedAt: at(-time.Minute), ExpiresAt: at(time.Hour),
		Rotation: Rotation{EveryDays: 1, NextAt: at(time.Minute), WebhookURL: "https://example.org/hook"},
	}
}

func TestState(t *testing.T) {
	const ns, h = time.Nanosecond, time.Hour
	expiring := Key{ExpiresAt: at(0)}
	rotated := Key{ExpiresAt: at(h), Rotation: Rotation{ReplacedBy: ID{9}, GraceEndsAt: at(0)}}
	both := Key{ExpiresAt: at(-h), Rotation: Rotation{ReplacedBy: ID{9}, GraceEndsAt: at(0)}}
	for _, tc := range []struct {
		name string
		key  Key
		now  time.Time
		want State
	}{
		{"no limits", Key{}, at(1e6 * h), StateActive},
		{"just before expiry", expiring, at(-ns), StateActive},
		{"exactly at expiry", expiring, at(0), StateExpired},
		{"at expiry by a clock of another zone", expiring, at(0).In(time.FixedZone("", 3600)), StateExpired},
		{"just before the grace ends", rotated, at(-ns), StateActive},
		{"exactly when the grace ends", rotated, at(0), StateRotated},
		{"rotated before it expired", rotated, at(h), StateRotated},
		{"expired within its grace", both, at(-ns), StateExpired},
		{"expired within its grace, which ended since", both, at(0), StateRotated},
		{"revoked", Key{RevokedAt: at(0)}, at(h), StateRevoked},
		{"revoked by a clock that was ahead", Key{RevokedAt: at(h)}, at(0), StateRevoked},
		{"revoked outlasts expired", Key{RevokedAt: at(0), ExpiresAt: at(-h)}, at(h), StateRevoked},
		{"revoked outlasts rotated", Key{RevokedAt: at(0), Rotation: rotated.Rotation}, at(h), StateRevoked},
		{"revoked outlasts swept", Key{RevokedAt: at(0), EndedAt: at(-h), ExpiresAt: at(-h)}, at(h), StateRevoked},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.key.State(tc.now); got != tc.want {
				t.Errorf("State(%s) = %s, want %s", tc.now, got, tc.want)
			}
		})
	}
}

func TestStateNames(t *testing.T) {
	for i, want := range []string{"active", "revoked", "expired", "rotated", "unknown"} {
		if got := State(i).String(); got != want {
			t.Errorf("State(%d) = %s, want %s", i, got, want)
		}
	}
}

func TestEndsAt(t *testing.T) {
	grace := func(end time.Time) Rotation { return Rotation{ReplacedBy: ID{9}, GraceEndsAt: end} }
	for _, tc := range []struct {
		name string
		key  Key
		live bool
		want time.Time
	}{
		{"never", Key{}, true, time.Time{}},
		{"at expiry", Key{ExpiresAt: at(1)}, true, at(1)},
		{"when the grace ends", Key{Rotation: grace(at(1))}, true, at(1)},
		{"when the grace ends before expiry", Key{ExpiresAt: at(2), Rotation: grace(at(1))}, true, at(1)},
		{"at expiry before the grace ends", Key{ExpiresAt: at(1), Rotation: grace(at(2))}, true, at(1)},
		{"not again once revoked", Key{ExpiresAt: at(1), RevokedAt: at(0)}, false, time.Time{}},
		{"not again once swept", Key{ExpiresAt: at(1), EndedAt: at(1)}, false, time.Time{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.key.EndsAt(); !got.Equal(tc.want) {
				t.Errorf("EndsAt() = %s, want %s", got, tc.want)
			}
			if got := tc.key.Live(); got != tc.live {
				t.Errorf("Live() = %t, want %t", got, tc.live)
			}
		})
	}
}

// admissions has one row per rule of Admit. Rows with a trespass on several
// rules fix which one the caller is told of.
var admissions = []struct {
	name   string
	edit   func(*Key)
	demand Demand
	from   string
	want   Verdict
}{
	{"nothing is demanded", func(*Key) {}, Demand{}, "10.1.2.3", Allowed},
	{"all is met", func(*Key) {}, Demand{[]string{"write", "read"}, []string{"other", "acme"}, []string{"live", "test"}}, "192.0.2.7", Allowed},
	{"a mapped address is IPv4", func(*Key) {}, Demand{}, "::ffff:10.1.2.3", Allowed},
	{"no allowlist", func(k *Key) { k.AllowedIPs = nil }, Demand{}, "2001:db8::1", Allowed},
	{"an unknown address", func(*Key) {}, Demand{}, "", IPNotAllowed},
	{"an unknown address without an allowlist", func(k *Key) { k.AllowedIPs = nil }, Demand{}, "", Allowed},
	{"another address", func(*Key) {}, Demand{}, "203.0.113.9", IPNotAllowed},
	{"one scope is missing", func(*Key) {}, Demand{Scopes: []string{"read", "admin", "write"}}, "10.1.2.3", InsufficientScope},
	{"scopes match in full", func(*Key) {}, Demand{Scopes: []string{"rea"}}, "10.1.2.3", InsufficientScope},
	{"no scopes are not all scopes", func(k *Key) { k.Scopes = nil }, Demand{Scopes: []string{"read"}}, "10.1.2.3", InsufficientScope},
	{"no scopes will do where none is demanded", func(k *Key) { k.Scopes = nil }, Demand{}, "10.1.2.3", Allowed},
	{"another tenant", func(*Key) {}, Demand{Tenants: []string{"Acme", "acm"}}, "10.1.2.3", KeyNotAllowedHere},
	{"another environment", func(*Key) {}, Demand{Environments: []string{"live"}}, "10.1.2.3", KeyNotAllowedHere},
	{"no environment is live", func(k *Key) { k.Environment = "" }, Demand{Environments: []string{"live"}}, "10.1.2.3", Allowed},
	{"no environment is not test", func(k *Key) { k.Environment = "" }, Demand{Environments: []string{"test"}}, "10.1.2.3", KeyNotAllowedHere},
	{"just before expiry", func(k *Key) { k.ExpiresAt = at(time.Microsecond) }, Demand{}, "10.1.2.3", Allowed},
	{"exactly at expiry", func(k *Key) { k.ExpiresAt = at(0) }, Demand{}, "10.1.2.3", ExpiredKey},
	{"within the grace", func(k *Key) { k.Rotation.GraceEndsAt = at(time.Microsecond) }, Demand{}, "10.1.2.3", Allowed},
	{"after the grace", func(k *Key) { k.Rotation.GraceEndsAt = at(0) }, Demand{}, "10.1.2.3", RotatedKey},
	{"revoked", func(k *Key) { k.RevokedAt = at(-1) }, Demand{}, "10.1.2.3", RevokedKey},
	{"the key's end is told before its address", func(k *Key) { k.ExpiresAt = at(0) }, unmet, "203.0.113.9", ExpiredKey},
	{"the address is told before the place", func(*Key) {}, unmet, "203.0.113.9", IPNotAllowed},
	{"the tenant is told before the scopes", func(*Key) {}, Demand{Scopes: []string{"admin"}, Tenants: []string{"other"}}, "10.1.2.3", KeyNotAllowedHere},
	{"the environment is told before the scopes", func(*Key) {}, Demand{Scopes: []string{"admin"}, Environments: []string{"live"}}, "10.1.2.3", KeyNotAllowedHere},
}

// unmet is a demand of which the sample meets nothing.
var unmet = Demand{[]string{"admin"}, []string{"other"}, []string{"live"}}

func TestAdmit(t *testing.T) {
	for _, tc := range admissions {
		t.Run(tc.name, func(t *testing.T) {
			k := sample(t)
			tc.edit(&k)
			if got := k.Grant().Admit(&tc.demand, client(tc.from), at(0)); got != tc.want {
				t.Errorf("Admit(%+v, %s) = %s, want %s", tc.demand, tc.from, got, tc.want)
			}
		})
	}
}

func TestAdmitAllocs(t *testing.T) {
	for _, tc := range admissions {
		t.Run(tc.name, func(t *testing.T) {
			k, d, from, now := new(sample(t)), &tc.demand, client(tc.from), at(0)
			tc.edit(k)
			g := k.Grant()
			var verdict Verdict
			if got := testing.AllocsPerRun(100, func() { verdict = g.Admit(d, from, now) }); got != 0 {
				t.Errorf("Admit allocates %v times, want 0", got)
			}
			if verdict != tc.want {
				t.Errorf("Admit = %s, want %s", verdict, tc.want)
			}
		})
	}
}

// The names are on the wire: clients match them.
func TestVerdictNames(t *testing.T) {
	want := []string{"allowed", "missing_api_key", "invalid_api_key", "revoked_api_key", "expired_api_key",
		"rotated_api_key", "ip_not_allowed", "insufficient_scope", "key_not_allowed_here"}
	got := Verdicts()
	if len(got) != len(want) {
		t.Fatalf("Verdicts() has %d, want %d", len(got), len(want))
	}
	for i, v := range got {
		if int(v) != i || v.String() != want[i] {
			t.Errorf("verdict %d is %d, %s, want %s", i, v, v, want[i])
		}
	}
	if next := Verdict(len(want)).String(); next != "unknown" {
		t.Errorf("the verdict after the last is %s, missing from Verdicts()", next)
	}
}
