package gate

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"latchkey/apikey"
	"latchkey/cache"
)

var (
	now    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	format = apikey.NewSecretFormat("lk")
	home   = netip.MustParseAddr("10.1.2.3")
)

// memory is a source of keys that can be made to fail.
type memory struct {
	keys map[apikey.Digest]*apikey.Key
	err  error
}

func (m *memory) ByDigest(d *apikey.Digest) (*apikey.Key, error) {
	if m.err != nil {
		return nil, m.err
	}
	if k, ok := m.keys[*d]; ok {
		return k, nil
	}
	return nil, apikey.ErrNotFound
}

// issue puts a key of the spec into the source and returns its secret.
func (m *memory) issue(t testing.TB, n byte, spec apikey.Spec, change func(*apikey.Key)) string {
	t.Helper()
	if spec.Tenant == "" {
		spec.Tenant = "acme"
	}
	c := apikey.NewCredentials(format, spec.Environment, now, [40]byte{n, 1, 2, 3})
	ch, err := apikey.Issue(spec, c, now)
	if err != nil {
		t.Fatal(err)
	}
	k := ch.Keys[0]
	if change != nil {
		change(&k)
	}
	if m.keys == nil {
		m.keys = map[apikey.Digest]*apikey.Key{}
	}
	m.keys[k.Digest] = &k
	return c.Secret
}

func newGate(t testing.TB, m *memory) *Gate {
	t.Helper()
	keys, err := cache.New(m, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keys.Close)
	return New(keys, format)
}

func TestDecide(t *testing.T) {
	var m memory
	plain := m.issue(t, 1, apikey.Spec{Scopes: []string{"a", "b"}}, nil)
	bound := m.issue(t, 2, apikey.Spec{AllowedIPs: apikey.Allowlist{{Block: netip.MustParsePrefix("10.1.0.0/16")}}}, nil)
	revoked := m.issue(t, 3, apikey.Spec{}, func(k *apikey.Key) { k.RevokedAt = now.Add(-time.Hour) })
	expired := m.issue(t, 4, apikey.Spec{}, func(k *apikey.Key) { k.ExpiresAt = now })
	rotated := m.issue(t, 5, apikey.Spec{}, func(k *apikey.Key) {
		k.Rotation = apikey.Rotation{ReplacedBy: apikey.ID{1}, GraceEndsAt: now}
	})
	testing1 := m.issue(t, 6, apikey.Spec{Environment: "test"}, nil)
	mistyped := []byte(plain)
	mistyped[20] ^= 1
	never := apikey.NewCredentials(format, "", now, [40]byte{99}).Secret

	for _, tc := range []struct {
		name   string
		secret string
		client netip.Addr
		demand apikey.Demand
		want   apikey.Verdict
	}{
		{"a good key", plain, home, apikey.Demand{}, apikey.Allowed},
		{"no credential", "", home, apikey.Demand{}, apikey.MissingKey},
		{"a mistyped key", string(mistyped), home, apikey.Demand{}, apikey.InvalidKey},
		{"a key cut short", plain[:30], home, apikey.Demand{}, apikey.InvalidKey},
		{"a made-up key with a good checksum", never, home, apikey.Demand{}, apikey.InvalidKey},
		{"a foreign credential that is unknown", "hunter2", home, apikey.Demand{}, apikey.InvalidKey},
		{"a revoked key", revoked, home, apikey.Demand{}, apikey.RevokedKey},
		{"a key at the instant it expires", expired, home, apikey.Demand{}, apikey.ExpiredKey},
		{"a replaced key after its grace", rotated, home, apikey.Demand{}, apikey.RotatedKey},
		{"an address on the allowlist", bound, home, apikey.Demand{}, apikey.Allowed},
		{"the same address, IPv4-mapped", bound, netip.MustParseAddr("::ffff:10.1.2.3"), apikey.Demand{}, apikey.Allowed},
		{"an address off the allowlist", bound, netip.MustParseAddr("10.2.0.1"), apikey.Demand{}, apikey.IPNotAllowed},
		{"an unknown address and an allowlist", bound, netip.Addr{}, apikey.Demand{}, apikey.IPNotAllowed},
		{"an unknown address and no allowlist", plain, netip.Addr{}, apikey.Demand{}, apikey.Allowed},
		{"every scope held", plain, home, apikey.Demand{Scopes: []string{"b", "a"}}, apikey.Allowed},
		{"a scope missing", plain, home, apikey.Demand{Scopes: []string{"a", "c"}}, apikey.InsufficientScope},
		{"a key without scopes where one is asked for", bound, home, apikey.Demand{Scopes: []string{"a"}}, apikey.InsufficientScope},
		{"the tenant asked for", plain, home, apikey.Demand{Tenants: []string{"other", "acme"}}, apikey.Allowed},
		{"another tenant", plain, home, apikey.Demand{Tenants: []string{"other"}}, apikey.KeyNotAllowedHere},
		{"no environment is live", plain, home, apikey.Demand{Environments: []string{"live"}}, apikey.Allowed},
		{"a test key where live is asked for", testing1, home, apikey.Demand{Environments: []string{"live"}}, apikey.KeyNotAllowedHere},
		{"a dead key is not told what else is wrong", revoked, home, apikey.Demand{Scopes: []string{"x"}, Tenants: []string{"other"}}, apikey.RevokedKey},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGate(t, &m)
			for _, where := range []string{"from the store", "again"} {
				r := Request{Secret: []byte(tc.secret), Client: tc.client, Now: now, Demand: &tc.demand}
				got, key, err := g.Decide(&r)
				if got != tc.want || err != nil {
					t.Errorf("%s: Decide = %s, %v, want %s", where, got, err, tc.want)
				}
				if got == apikey.Allowed && key == nil {
					t.Errorf("%s: allowed without a key", where)
				}
			}
		})
	}
}

func TestStoreFaultIsNoVerdict(t *testing.T) {
	fault := errors.New("disk on fire")
	m := &memory{err: fault}
	g := newGate(t, m)
	secret := apikey.NewCredentials(format, "", now, [40]byte{7}).Secret
	r := Request{Secret: []byte(secret), Client: home, Now: now, Demand: &apikey.Demand{}}
	if v, k, err := g.Decide(&r); !errors.Is(err, fault) || v == apikey.Allowed || k != nil {
		t.Errorf("Decide = %s, %v, %v, want the fault and no admission", v, k, err)
	}
}

func TestExpiryIsDecidedByTheClockOnAHit(t *testing.T) {
	var m memory
	secret := m.issue(t, 1, apikey.Spec{ExpiresAt: now.Add(time.Second)}, nil)
	g := newGate(t, &m)
	for _, tc := range []struct {
		after time.Duration
		want  apikey.Verdict
	}{{0, apikey.Allowed}, {999 * time.Millisecond, apikey.Allowed}, {time.Second, apikey.ExpiredKey}, {time.Hour, apikey.ExpiredKey}} {
		r := Request{Secret: []byte(secret), Client: home, Now: now.Add(tc.after), Demand: &apikey.Demand{}}
		if got, _, err := g.Decide(&r); got != tc.want || err != nil {
			t.Errorf("after %s: Decide = %s, %v, want %s", tc.after, got, err, tc.want)
		}
	}
}

// warm returns a gate and a request whose key it has cached.
func warm(t testing.TB) (*Gate, *Request) {
	var m memory
	secret := m.issue(t, 1, apikey.Spec{Scopes: []string{"orders:read"}, AllowedIPs: apikey.Allowlist{{Block: netip.MustParsePrefix("10.0.0.0/8")}}}, nil)
	keys, err := cache.New(&m, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keys.Close)
	r := &Request{Secret: []byte(secret), Client: home, Now: now,
		Demand: &apikey.Demand{Scopes: []string{"orders:read"}, Environments: []string{"live"}}}
	g := New(keys, format)
	for keys.Counts().Hits.Load() == 0 {
		if v, _, err := g.Decide(r); v != apikey.Allowed || err != nil {
			t.Fatalf("Decide = %s, %v", v, err)
		}
	}
	return g, r
}

func TestDecideAllocs(t *testing.T) {
	g, r := warm(t)
	if n := testing.AllocsPerRun(1000, func() { g.Decide(r) }); n != 0 {
		t.Errorf("Decide on a cache hit allocates %v times, want 0", n)
	}
}

func BenchmarkDecideHit(b *testing.B) {
	g, r := warm(b)
	b.ReportAllocs()
	for b.Loop() {
		g.Decide(r)
	}
}

func BenchmarkDecideBadChecksum(b *testing.B) {
	g, r := warm(b)
	r.Secret[20] ^= 1
	b.ReportAllocs()
	for b.Loop() {
		g.Decide(r)
	}
}
