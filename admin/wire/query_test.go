package wire_test

import (
	"regexp"
	"testing"
	"time"

	"latchkey/admin/wire"
	"latchkey/internal/wiretest"
)

// FuzzParams holds the readers of parameters against a reading of the query by
// other means.
func FuzzParams(f *testing.F) {
	for _, seed := range []string{"", "n=5&c=yes", "n=05", "n=+5", "n=%35", "n=5&n=5", "id=0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d2e", "id=", "c=&n", "n=%zz&%6e=5", "id=00000000-0000-0000-0000-000000000000"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		c := wiretest.Call(query, nil)
		read := map[string]any{}
		if n, err := c.IntParam("n", 7, -3, 1000); !wiretest.Refused(t, err) {
			if read["n"] = n; n < -3 || n > 1000 {
				t.Fatalf("%q: n is read as %d", query, n)
			}
		}
		if s, err := c.ChoiceParam("c", "no", "yes", "no"); !wiretest.Refused(t, err) {
			if read["c"] = s; s != "yes" && s != "no" {
				t.Fatalf("%q: c is read as %s", query, s)
			}
		}
		if id, err := c.CursorParam("id"); !wiretest.Refused(t, err) {
			read["id"] = id
		}
		if err := wiretest.CheckQuery(query, read, map[string]any{"n": 7, "c": "no"}); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzParseTime holds it against the grammar of RFC 3339 (section 5.6), and against
// what is shown of the time.
func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{"2027-01-31T00:00:00Z", "2027-01-31T0:00:00Z", "2027-01-31T00:00:00,5Z", "9999-12-31T23:59:59-23:59", "2028-02-29T00:00:00+24:00", "2027-01-31T23:59:60Z", "2027-01-31t00:00:00z", "0001-01-01T00:00:00Z", "2027-01-31T00:00:00+00:60"} {
		f.Add(seed)
	}
	grammar := regexp.MustCompile(`^\d{4}-\d\d-\d\dT([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)
	f.Fuzz(func(t *testing.T, text string) {
		at, ok := wire.ParseTime(text)
		want, err := time.Parse(time.RFC3339, text)
		if !ok {
			if grammar.MatchString(text) && err == nil && want.UTC().Year() > 0 && want.UTC().Year() < 10000 && !want.IsZero() {
				t.Fatalf("%q is refused", text)
			}
			return
		}
		shown := at.Format(time.RFC3339Nano)
		again, ok := wire.ParseTime(shown)
		if !grammar.MatchString(text) || err != nil || !at.Equal(want) || at.Location() != time.UTC || !ok || !again.Equal(at) || !grammar.MatchString(shown) {
			t.Fatalf("%q is read as %s", text, shown)
		}
	})
}
