package apikey

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const µs, day = time.Microsecond, 24 * time.Hour

// differ reports how a change differs from the one wanted.
func differ(t *testing.T, got, want Change) {
	t.Helper()
	if diff := cmp.Diff(got, want, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("change (-got +want):\n%s", diff)
	}
}

// onField reports whether err is about the field, or nil for no field.
func onField(err error, f Field) bool {
	if f == "" {
		return err == nil
	}
	fe, ok := errors.AsType[*FieldError](err)
	return ok && fe.Field == f && fe.Error() == string(f)+" "+fe.Problem
}

func TestInstant(t *testing.T) {
	now := time.Now() // has a monotonic reading, which would make equal times differ
	for _, tc := range []struct {
		name     string
		in, want time.Time
	}{
		{"cut to the microsecond, not rounded", at(1999), at(1000)},
		{"in UTC", at(0).In(time.FixedZone("", 3600)), at(0)},
		{"not set stays not set", time.Time{}.In(time.FixedZone("", 3600)), time.Time{}},
		{"as it is read back", now, time.UnixMicro(now.UnixMicro()).UTC()},
	} {
		if got := Instant(tc.in); got != tc.want {
			t.Errorf("%s: Instant(%s) = %#v, want %#v", tc.name, tc.in, got, tc.want)
		}
	}
}

func TestIssue(t *testing.T) {
	secret := NewSecretFormat("lk").New("test", counting())
	spec := Spec{
		Tenant: "acme", Subject: "team 7", Name: "CI", Environment: "test",
		AllowedIPs: list(t, "10.0.0.0/8"), Scopes: []string{"read"}, APIVersion: "2026-01-01",
		ExpiresAt: at(2*µs + 999).In(time.FixedZone("", 3600)),
	}
	got, err := Issue(spec, Credentials{ID{1}, secret}, at(µs+999))
	if err != nil {
		t.Fatal(err)
	}
	spec.AllowedIPs[0], spec.Scopes[0] = AllowedIP{}, "admin" // the key keeps no reference to them
	want := Key{
		ID: ID{1}, Digest: DigestOf([]byte(secret)), Hint: Hint{"lk_test_003A", "56Du"},
		Tenant: "acme", Subject: "team 7", Name: "CI", Environment: "test",
		AllowedIPs: list(t, "10.0.0.0/8"), Scopes: []string{"read"}, Pin: Pin{Version: "2026-01-01"},
		CreatedAt: at(µs), UpdatedAt: at(µs), ExpiresAt: at(2 * µs),
	}
	differ(t, got, Change{Action: ActionCreated, Keys: []Key{want}})
}

func TestIssueRefuses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spec  Spec
		field Field
	}{
		{"nothing but a tenant is needed", Spec{Tenant: "acme"}, ""},
		{"expiry a microsecond away", Spec{Tenant: "acme", ExpiresAt: at(µs)}, ""},
		{"expiry now", Spec{Tenant: "acme", ExpiresAt: at(0)}, FieldExpiresAt},
		{"expiry in the same microsecond", Spec{Tenant: "acme", ExpiresAt: at(999)}, FieldExpiresAt},
		{"expiry in the past", Spec{Tenant: "acme", ExpiresAt: at(-time.Hour)}, FieldExpiresAt},
		{"no tenant", Spec{}, FieldTenant},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Issue(tc.spec, Credentials{}, at(0)); !onField(err, tc.field) {
				t.Errorf("Issue(%+v) = %v, want an error on %q", tc.spec, err, tc.field)
			}
		})
	}
}

func TestNewCredentials(t *testing.T) {
	var entropy [40]byte
	for i := range entropy {
		entropy[i] = byte(i)
	}
	f := NewSecretFormat("lk")
	got := NewCredentials(f, "test", at(0), entropy)
	want := Credentials{NewID(at(0), [8]byte{32, 33, 34, 35, 36, 37, 38, 39}), f.New("test", counting())}
	if got != want {
		t.Errorf("NewCredentials() = %v, want %v", got, want)
	}
}

func TestUpdate(t *testing.T) {
	name, version, ips, none := "new", "2026-02-01", list(t, "2001:db8::/32"), Allowlist(nil)
	long := strings.Repeat("n", MaxName+1)
	for _, tc := range []struct {
		name  string
		edit  Edit
		want  func(*Key)
		field Field
	}{
		{"nothing is a change all the same", Edit{}, func(*Key) {}, ""},
		{"the name alone", Edit{Name: &name}, func(k *Key) { k.Name = "new" }, ""},
		{"an empty name clears it", Edit{Name: new("")}, func(k *Key) { k.Name = "" }, ""},
		{"the allowlist alone", Edit{AllowedIPs: &ips}, func(k *Key) { k.AllowedIPs = list(t, "2001:db8::/32") }, ""},
		{"an empty allowlist lifts the restriction", Edit{AllowedIPs: &none}, func(k *Key) { k.AllowedIPs = nil }, ""},
		{"the version, with its window", Edit{APIVersion: &version, DowngradeWindow: time.Hour},
			func(k *Key) { k.Pin = Pin{"2026-02-01", at(µs), at(time.Hour + µs)} }, ""},
		{"a window alone changes nothing", Edit{DowngradeWindow: time.Hour}, func(*Key) {}, ""},
		{"a name too long", Edit{Name: &long}, nil, FieldName},
		{"all or nothing", Edit{Name: &name, AllowedIPs: &ips, APIVersion: new("2025-01-01")}, nil, FieldAPIVersion},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := sample(t)
			got, err := k.Update(tc.edit, at(µs+999))
			if !onField(err, tc.field) {
				t.Fatalf("Update() = %v, want an error on %q", err, tc.field)
			}
			want := Change{}
			if tc.want != nil {
				after := sample(t)
				tc.want(&after)
				after.UpdatedAt = at(µs)
				want = Change{Action: ActionUpdated, Keys: []Key{after}}
			}
			differ(t, got, want)
			differ(t, Change{Keys: []Key{k}}, Change{Keys: []Key{sample(t)}}) // a Key is a value
		})
	}
	got, _ := sample(t).Update(Edit{AllowedIPs: &ips}, at(0))
	if ips[0] = (AllowedIP{}); got.Keys[0].AllowedIPs[0] == ips[0] {
		t.Error("the updated key shares its allowlist with the edit")
	}
}

func TestMovePin(t *testing.T) {
	first := Pin{Version: "2026-02-01"}
	moved := Pin{"2026-02-01", at(0), at(72 * time.Hour)}
	for _, tc := range []struct {
		name    string
		pin     Pin
		version string
		now     time.Time
		want    Pin
		field   Field
	}{
		{"up opens a window", first, "2026-03-01", at(999), Pin{"2026-03-01", at(0), at(time.Hour)}, ""},
		{"up again opens another", moved, "2026-03-01", at(day), Pin{"2026-03-01", at(day), at(day + time.Hour)}, ""},
		{"up after the window closed", moved, "2026-03-01", at(100 * day), Pin{"2026-03-01", at(100 * day), at(100*day + time.Hour)}, ""},
		{"to pin what was not pinned opens one", Pin{}, "2026-02-01", at(0), Pin{"2026-02-01", at(0), at(time.Hour)}, ""},
		{"the same version changes nothing", moved, "2026-02-01", at(100 * day), moved, ""},
		{"down within the window, which stays", moved, "2026-01-01", at(72*time.Hour - 1), Pin{"2026-01-01", at(72*time.Hour - µs), at(72 * time.Hour)}, ""},
		{"down exactly at its end", moved, "2026-01-01", at(72 * time.Hour), moved, FieldAPIVersion},
		{"down from the version of creation", first, "2026-01-01", at(0), Pin{Version: "2026-01-01", ChangedAt: at(0)}, ""},
		{"what is pinned stays pinned", first, "", at(0), first, FieldAPIVersion},
		{"a version is a date", first, "2026-02-30", at(0), first, FieldAPIVersion},
		{"not a line of a header", first, "2027-01-01\r\nX-Evil: 1", at(0), first, FieldAPIVersion},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.pin.Move(tc.version, time.Hour, tc.now)
			if got != tc.want || !onField(err, tc.field) {
				t.Errorf("Move(%q) = %+v, %v, want %+v, error on %q", tc.version, got, err, tc.want, tc.field)
			}
		})
	}
}

// Which changes a key allows, by what became of it.
func TestChangesByState(t *testing.T) {
	grace := func(end time.Time) func(*Key) {
		return func(k *Key) { k.Rotation = Rotation{ReplacedBy: ID{9}, GraceEndsAt: end} }
	}
	for _, tc := range []struct {
		name                          string
		edit                          func(*Key)
		update, rotate, revoke, swept bool
	}{
		{"active", func(*Key) {}, true, true, true, false},
		{"just before expiry", func(k *Key) { k.ExpiresAt = at(time.Microsecond) }, true, true, true, false},
		{"exactly at expiry", func(k *Key) { k.ExpiresAt = at(0) }, false, false, true, true},
		{"never expiring", func(k *Key) { k.ExpiresAt = time.Time{} }, true, true, true, false},
		{"rotated, within its grace", grace(at(time.Microsecond)), true, false, true, false},
		{"rotated, its grace over", grace(at(0)), false, false, true, true},
		{"swept already", func(k *Key) { k.ExpiresAt, k.EndedAt = at(-2), at(-1) }, false, false, true, false},
		{"swept by a clock that stepped back since", func(k *Key) { k.ExpiresAt, k.EndedAt = at(1), at(1) }, false, false, true, false},
		{"revoked", func(k *Key) { k.RevokedAt = at(-1) }, false, false, false, false},
		{"revoked and past its expiry", func(k *Key) { k.RevokedAt, k.ExpiresAt = at(-2), at(-1) }, false, false, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := sample(t)
			tc.edit(&k)
			check := func(what string, c Change, err error, want bool) {
				if got := err == nil; got != want || !got && (!errors.Is(err, ErrNotLive) || c.Keys != nil) {
					t.Errorf("%s = %d keys, %v, want it allowed %t", what, len(c.Keys), err, want)
				}
			}
			c, err := k.Update(Edit{Name: new("new")}, at(0))
			check("Update", c, err, tc.update)
			c, err = k.Rotate(Credentials{ID{8}, "s"}, time.Hour, at(0))
			check("Rotate", c, err, tc.rotate)
			c, err = k.Revoke(at(0))
			check("Revoke", c, err, tc.revoke)
			if c, got := k.Sweep(at(0)); got != tc.swept || got != (len(c.Keys) == 1) {
				t.Errorf("Sweep = %d keys, %t, want %t", len(c.Keys), got, tc.swept)
			}
		})
	}
}

func TestRevoke(t *testing.T) {
	k := sample(t)
	got, err := k.Revoke(at(µs + 999))
	if err != nil {
		t.Fatal(err)
	}
	want := sample(t)
	want.RevokedAt, want.UpdatedAt = at(µs), at(µs)
	differ(t, got, Change{Action: ActionRevoked, Keys: []Key{want}})
	if k.State(at(0)) != StateActive {
		t.Error("Revoke changed its receiver")
	}
}

// The replacement takes over the pin with its window: rotation is no way down.
func TestRotate(t *testing.T) {
	secret := NewSecretFormat("lk").New("test", counting())
	for _, tc := range []struct {
		name  string
		grace time.Duration
		edit  func(k *Key)
		next  time.Time
	}{
		{"with a grace", time.Minute, func(*Key) {}, at(µs + day)},
		{"with a grace of zero", 0, func(*Key) {}, at(µs + day)},
		{"without a schedule", time.Minute, func(k *Key) { k.Rotation = Rotation{} }, time.Time{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := sample(t)
			tc.edit(&k)
			got, err := k.Rotate(Credentials{ID{8}, secret}, tc.grace, at(µs+999))
			if err != nil {
				t.Fatal(err)
			}
			old, heir := sample(t), sample(t)
			tc.edit(&old)
			tc.edit(&heir)
			old.UpdatedAt, old.Rotation.NextAt = at(µs), time.Time{}
			old.Rotation.ReplacedBy, old.Rotation.GraceEndsAt = ID{8}, at(µs+tc.grace)
			if tc.grace == 0 {
				old.EndedAt = at(µs) // a clock that steps back revives nothing
			}
			heir.ID, heir.Digest, heir.Hint = ID{8}, DigestOf([]byte(secret)), Hint{"lk_test_003A", "56Du"}
			heir.Name, heir.CreatedAt, heir.UpdatedAt, heir.Rotation.NextAt = "CI (rotated)", at(µs), at(µs), tc.next
			differ(t, got, Change{Action: ActionRotated, Keys: []Key{old, heir}})

			ended := at(µs + tc.grace)
			if got := got.Keys[0].State(ended.Add(-1)); tc.grace > 0 && got != StateActive {
				t.Errorf("the old key is %s just before its grace ends, want active", got)
			}
			if got := got.Keys[0].State(ended); got != StateRotated {
				t.Errorf("the old key is %s when its grace ends, want rotated", got)
			}
			if _, err := got.Keys[1].Rotate(Credentials{ID{7}, "s"}, 0, at(µs)); err != nil {
				t.Errorf("rotating the replacement: %v", err)
			}
		})
	}
}

// 245 characters and the 10 of the suffix are the most a name may have.
func TestRotatedNames(t *testing.T) {
	const suffix = " (rotated)"
	for _, tc := range []struct{ name, before, want string }{
		{"no name", "", suffix},
		{"again", "CI (rotated)", "CI (rotated) (rotated)"},
		{"just short enough", strings.Repeat("n", 245), strings.Repeat("n", 245) + suffix},
		{"one too long", strings.Repeat("n", 245) + "x", strings.Repeat("n", 245) + suffix},
		{"characters count, not bytes", strings.Repeat("é", 245), strings.Repeat("é", 245) + suffix},
		{"cut at a rune", "n" + strings.Repeat("日", 254), "n" + strings.Repeat("日", 244) + suffix},
		{"cut by no more than it must", "日" + strings.Repeat("n", 254), "日" + strings.Repeat("n", 244) + suffix},
		{"the longest, rotated before", strings.Repeat("é", 245) + suffix, strings.Repeat("é", 245) + suffix},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := sample(t)
			k.Name = tc.before
			c, err := k.Rotate(Credentials{ID{8}, "s"}, 0, at(0))
			if err != nil || c.Keys[1].Name != tc.want {
				t.Errorf("Rotate() of %q = %v, %v, want %q", tc.before, c.Keys, err, tc.want)
			}
		})
	}
	k := sample(t)
	k.Name = "é日😀"
	for i := range 60 {
		c, err := k.Rotate(Credentials{ID{byte(i)}, "s"}, 0, at(time.Duration(i)))
		if err != nil || !utf8.ValidString(c.Keys[1].Name) || !strings.HasPrefix(c.Keys[1].Name, "é日😀 (") {
			t.Fatalf("rotation %d: %+v, %v", i+1, c.Keys, err)
		}
		k = c.Keys[1]
	}
}

func TestRotateRefusesAnInvalidKey(t *testing.T) {
	k := sample(t)
	k.Scopes = []string{"a", "a"}
	if got, err := k.Rotate(Credentials{ID{8}, "s"}, 0, at(0)); !onField(err, FieldScopes) || got.Keys != nil {
		t.Errorf("Rotate() = %+v, %v, want nothing and an error on the scopes", got, err)
	}
}

// Sweep records what State said, and no clock can take it back.
func TestSweepIsForGood(t *testing.T) {
	grace := Rotation{ReplacedBy: ID{9}, GraceEndsAt: at(0)}
	for _, tc := range []struct {
		name string
		key  Key
		now  time.Time
		want State
	}{
		{"expired", Key{ExpiresAt: at(0)}, at(999), StateExpired},
		{"expired long ago", Key{ExpiresAt: at(0)}, at(day), StateExpired},
		{"rotated", Key{Rotation: grace}, at(0), StateRotated},
		{"rotated, then expired", Key{ExpiresAt: at(1000), Rotation: grace}, at(day), StateRotated},
		{"expired within its grace", Key{ExpiresAt: at(-µs), Rotation: grace}, at(-µs), StateExpired},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, ok := tc.key.Sweep(tc.now)
			if !ok {
				t.Fatalf("Sweep(%s) found nothing to do", tc.now)
			}
			want := tc.key
			want.EndedAt = Instant(tc.now)
			differ(t, c, Change{Action: ActionEnded, Keys: []Key{want}})
			swept := c.Keys[0]
			for _, now := range []time.Time{tc.now, at(-1000 * day), at(1000 * day)} {
				if got := swept.State(now); got != tc.want {
					t.Errorf("State(%s) after Sweep(%s) = %s, want %s", now, tc.now, got, tc.want)
				}
				if _, again := swept.Sweep(now); again {
					t.Errorf("Sweep(%s) swept the key again", now)
				}
			}
			if got := tc.key.State(tc.now); got != tc.want {
				t.Errorf("State(%s) before Sweep = %s, want %s", tc.now, got, tc.want)
			}
		})
	}
}

func TestDiff(t *testing.T) {
	edits := map[string]struct {
		edit func(*Key)
		want []Field
	}{
		"ID":          {func(k *Key) { k.ID = ID{5} }, nil},
		"Digest":      {func(k *Key) { k.Digest = Digest{5} }, nil},
		"Hint":        {func(k *Key) { k.Hint.Head = "x" }, nil},
		"Tenant":      {func(k *Key) { k.Tenant = "x" }, nil}, // no change can touch it
		"Subject":     {func(k *Key) { k.Subject = "x" }, []Field{FieldSubject}},
		"Name":        {func(k *Key) { k.Name = "x" }, []Field{FieldName}},
		"Environment": {func(k *Key) { k.Environment = "x" }, []Field{FieldEnvironment}},
		"AllowedIPs":  {func(k *Key) { k.AllowedIPs = k.AllowedIPs[:1] }, []Field{FieldAllowedIPs}},
		"Scopes":      {func(k *Key) { k.Scopes = []string{"write", "read"} }, []Field{FieldScopes}},
		"Pin":         {func(k *Key) { k.Pin.ChangedAt = at(1) }, []Field{FieldAPIVersion}},
		"CreatedAt":   {func(k *Key) { k.CreatedAt = at(1) }, nil},
		"UpdatedAt":   {func(k *Key) { k.UpdatedAt = at(1) }, nil},
		"ExpiresAt":   {func(k *Key) { k.ExpiresAt = time.Time{} }, []Field{FieldExpiresAt}},
		"RevokedAt":   {func(k *Key) { k.RevokedAt = at(1) }, []Field{FieldRevokedAt}},
		"EndedAt":     {func(k *Key) { k.EndedAt = at(1) }, []Field{FieldEndedAt}},
		"Rotation":    {func(k *Key) { k.Rotation.ReplacedBy = ID{5} }, []Field{FieldRotation}},
	}
	all := sample(t)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Key]()) {
		tc, ok := edits[f.Name]
		if !ok {
			t.Errorf("Key.%s is new: say here whether Diff tells of it", f.Name)
			continue
		}
		before, after := sample(t), sample(t)
		tc.edit(&after)
		tc.edit(&all)
		if diff := cmp.Diff(Diff(&before, &after), tc.want); diff != "" {
			t.Errorf("Diff() after a change of %s (-got +want):\n%s", f.Name, diff)
		}
	}
	before := sample(t)
	if got := Diff(&before, &before); got != nil {
		t.Errorf("Diff() of a key with itself = %v, want nil", got)
	}
	if got, want := len(Diff(&before, &all)), 10; got != want {
		t.Errorf("Diff() of all fields lists %d, want %d", got, want)
	}
	if got := Diff(&Key{}, &Key{Scopes: []string{}, AllowedIPs: Allowlist{}}); got != nil {
		t.Errorf("Diff() of nil and empty lists = %v, want nil", got)
	}
}

func TestValidate(t *testing.T) {
	n := strings.Repeat
	scopes := make([]string, MaxScopes+1)
	for i := range scopes {
		scopes[i] = fmt.Sprint("s", i)
	}
	for _, tc := range []struct {
		name string
		edit func(*Key)
		want Field
	}{
		{"every field set", func(*Key) {}, ""},
		{"nothing but a tenant", func(k *Key) { *k = Key{Tenant: "t"} }, ""},
		{"no tenant", func(k *Key) { k.Tenant = "" }, FieldTenant},
		{"every tenant", func(k *Key) { k.Tenant = "*" }, FieldTenant},
		{"128 characters of tenant", func(k *Key) { k.Tenant = n("~", 128) }, ""},
		{"129 characters of tenant", func(k *Key) { k.Tenant = n("~", 129) }, FieldTenant},
		{"a space in the tenant", func(k *Key) { k.Tenant = "a b" }, FieldTenant},
		{"a tenant beyond ASCII", func(k *Key) { k.Tenant = "é" }, FieldTenant},
		{"255 characters of subject", func(k *Key) { k.Subject = n("!", 255) }, ""},
		{"256 characters of subject", func(k *Key) { k.Subject = n("!", 256) }, FieldSubject},
		{"a space before the subject", func(k *Key) { k.Subject = " a" }, FieldSubject},
		{"a space after the subject", func(k *Key) { k.Subject = "a " }, FieldSubject},
		{"a subject of one space", func(k *Key) { k.Subject = " " }, FieldSubject},
		{"a header smuggled in the subject", func(k *Key) { k.Subject = "a\r\nX-Admin: 1" }, FieldSubject},
		{"a delete in the subject", func(k *Key) { k.Subject = "a\x7fb" }, FieldSubject},
		{"a subject beyond ASCII", func(k *Key) { k.Subject = "é" }, FieldSubject},
		{"255 characters of name, in more bytes", func(k *Key) { k.Name = n("é", 255) }, ""},
		{"256 characters of name", func(k *Key) { k.Name = n("n", 256) }, FieldName},
		{"a line end in the name", func(k *Key) { k.Name = "a\nb" }, FieldName},
		{"a control character beyond ASCII in the name", func(k *Key) { k.Name = "a\u0085b" }, FieldName},
		{"a name that is not UTF-8", func(k *Key) { k.Name = "a\xff" }, FieldName},
		{"64 characters of environment", func(k *Key) { k.Environment = n("e", 64) }, ""},
		{"65 characters of environment", func(k *Key) { k.Environment = n("e", 65) }, FieldEnvironment},
		{"a space in the environment", func(k *Key) { k.Environment = "a b" }, FieldEnvironment},
		{"256 allowed addresses", func(k *Key) { k.AllowedIPs = make(Allowlist, 256) }, ""},
		{"257 allowed addresses", func(k *Key) { k.AllowedIPs = make(Allowlist, 257) }, FieldAllowedIPs},
		{"64 scopes", func(k *Key) { k.Scopes = scopes[:64] }, ""},
		{"65 scopes", func(k *Key) { k.Scopes = scopes }, FieldScopes},
		{"128 characters of scope", func(k *Key) { k.Scopes = []string{n("s", 128)} }, ""},
		{"129 characters of scope", func(k *Key) { k.Scopes = []string{n("s", 129)} }, FieldScopes},
		{"an empty scope", func(k *Key) { k.Scopes = []string{"a", ""} }, FieldScopes},
		{"a space in a scope", func(k *Key) { k.Scopes = []string{"a b"} }, FieldScopes},
		{"a quote in a scope", func(k *Key) { k.Scopes = []string{`a"b`} }, FieldScopes},
		{"a backslash in a scope", func(k *Key) { k.Scopes = []string{`a\b`} }, FieldScopes},
		{"every mark RFC 6749 has in a scope", func(k *Key) { k.Scopes = []string{"!#[]~:/.*"} }, ""},
		{"a scope twice", func(k *Key) { k.Scopes = []string{"a", "b", "a"} }, FieldScopes},
		{"scopes differ by case", func(k *Key) { k.Scopes = []string{"a", "A"} }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := sample(t)
			tc.edit(&k)
			if err := k.Validate(); !onField(err, tc.want) {
				t.Errorf("Validate() = %v, want an error on %q", err, tc.want)
			}
		})
	}
}

func TestValidateNamesTheScope(t *testing.T) {
	for _, scopes := range [][]string{{"a", "b", "a"}, {"a", "b", ""}} {
		k := Key{Tenant: "t", Scopes: scopes}
		if err := k.Validate(); err == nil || !strings.Contains(err.Error(), "entry 3 ") {
			t.Errorf("Validate() of %q = %v, want it to name entry 3", scopes, err)
		}
	}
}
