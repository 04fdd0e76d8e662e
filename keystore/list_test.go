package keystore

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"latchkey/apikey"
)

// wantPages walks a list forwards, backwards and by offset, and requires that
// it holds exactly the given keys, newest first.
func wantPages(t testing.TB, s *Store, tenant string, which apikey.Which, want []apikey.Key, limit int) {
	t.Helper()
	ask := func(q apikey.Query, from, to int) {
		t.Helper()
		q.Tenant, q.Which, q.Limit = tenant, which, limit
		got, err := s.List(q)
		if err != nil {
			t.Errorf("List(%+v): %v", q, err)
			return
		}
		page := apikey.Page{Keys: append([]apikey.Key{}, want[from:to]...), Total: len(want)}
		if from < to {
			page.Newer, page.Older = from > 0, to < len(want)
		}
		if diff := cmp.Diff(page, got, netipValues); diff != "" {
			t.Errorf("List(%+v) (-want +got):\n%s", q, diff)
		}
	}
	n := len(want)
	ask(apikey.Query{}, 0, min(limit, n))
	for from := limit; from < n; from += limit {
		ask(apikey.Query{After: want[from-1].ID}, from, min(from+limit, n))
	}
	for to := n - 1; to > 0; to -= limit {
		ask(apikey.Query{Before: want[to].ID}, max(0, to-limit), to)
	}
	for _, offset := range []int{0, 1, n / 2, n - 1, n, n + 1} {
		from := min(max(0, offset), n)
		ask(apikey.Query{Offset: from}, from, min(from+limit, n))
	}
	if n > 0 {
		ask(apikey.Query{After: want[n-1].ID}, n, n)
		ask(apikey.Query{Before: want[0].ID}, 0, 0)
		ask(apikey.Query{Before: want[n-1].ID, After: want[0].ID, Offset: 1}, max(0, n-1-limit), n-1)
		ask(apikey.Query{After: want[0].ID, Offset: 1}, 1, min(1+limit, n))
	}
}

func TestListPages(t *testing.T) {
	for _, n := range []int{0, 1, 2, 5, 10, 11} {
		for _, limit := range []int{1, 2, 5, 10, 100} {
			t.Run(fmt.Sprintf("%d keys by %d", n, limit), func(t *testing.T) {
				s := openStore(t, vfs.NewMem())
				keys := manyKeys("acme", 0, n)
				for i := range keys { // in an order that is not that of their IDs
					mustCreate(t, s, keys[(7*i+3)%n])
				}
				mustCreate(t, s, manyKeys("acm", 1000, 3)...)
				mustCreate(t, s, manyKeys("acme2", 2000, 3)...)
				slices.Reverse(keys)
				wantPages(t, s, "acme", apikey.WhichLive, keys, limit)
				wantPages(t, s, "acme", apikey.WhichEnded, nil, limit)
				wantPages(t, s, "acme", apikey.WhichAll, keys, limit)
			})
		}
	}
}

// A cursor marks a place in time, whichever list its key is in by now.
func TestListCursorOfKeyThatEnded(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	keys := manyKeys("acme", 0, 5)
	mustCreate(t, s, keys...)
	mustChange(t, s, keys[2], revokeAt(epoch.Add(time.Hour)))
	for _, tc := range []struct {
		name string
		q    apikey.Query
		want []apikey.Key
	}{
		{"the older ones follow it", apikey.Query{After: keys[2].ID}, []apikey.Key{keys[1], keys[0]}},
		{"the newer ones precede it", apikey.Query{Before: keys[2].ID}, []apikey.Key{keys[4], keys[3]}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.q.Tenant, tc.q.Limit = "acme", 10
			page, err := s.List(tc.q)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, page.Keys, netipValues); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A foreign ID is an absent ID, wherever it is given.
func TestTenantsAreIsolated(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	mine, theirs, unknown := testKey("acme", 1), testKey("beta", 2), testKey("acme", 3)
	mustCreate(t, s, mine, theirs)
	for _, tc := range []struct {
		name   string
		tenant string
		id     apikey.ID
		want   error
	}{
		{"its own key", "acme", mine.ID, nil},
		{"another tenant's key", "acme", theirs.ID, apikey.ErrNotFound},
		{"another tenant's key, the other way", "beta", mine.ID, apikey.ErrNotFound},
		{"an unknown key", "acme", unknown.ID, apikey.ErrNotFound},
		{"a tenant that begins like its own", "acm", mine.ID, apikey.ErrNotFound},
		{"no tenant", "", mine.ID, apikey.ErrNotFound},
	} {
		for name, call := range map[string]func() error{
			"ByID": func() error { _, err := s.ByID(tc.tenant, tc.id); return err },
			"Change": func() error {
				_, err := s.Change(ops, tc.tenant, tc.id, func(k apikey.Key) (apikey.Change, error) {
					if tc.want != nil {
						t.Error("decide was shown a key of another tenant")
					}
					return k.Update(apikey.Edit{}, epoch.Add(time.Minute))
				})
				return err
			},
			"List After":  func() error { _, err := s.List(apikey.Query{Tenant: tc.tenant, Limit: 5, After: tc.id}); return err },
			"List Before": func() error { _, err := s.List(apikey.Query{Tenant: tc.tenant, Limit: 5, Before: tc.id}); return err },
		} {
			t.Run(tc.name+", "+name, func(t *testing.T) {
				if err := call(); !errors.Is(err, tc.want) {
					t.Errorf("gave %v, want %v", err, tc.want)
				}
				// Absent and foreign read the same.
				if err := call(); tc.want != nil && err.Error() != "key not found" {
					t.Errorf("gave %q, want the same text as for an absent key", err)
				}
			})
		}
	}
	t.Run("any tenant", func(t *testing.T) {
		for _, k := range []apikey.Key{mine, theirs} {
			if _, err := s.ByID(apikey.AnyTenant, k.ID); err != nil {
				t.Errorf("ByID(any, %s): %v", k.Name, err)
			}
		}
		if _, err := s.ByID(apikey.AnyTenant, unknown.ID); !errors.Is(err, apikey.ErrNotFound) {
			t.Errorf("an unknown key gave %v", err)
		}
	})
}

func TestByDigestUnknown(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	d := testKey("acme", 1).Digest
	for _, ready := range []bool{false, true} {
		s.filter.ready.Store(ready)
		if _, err := s.ByDigest(&d); !errors.Is(err, apikey.ErrNotFound) {
			t.Errorf("filter ready=%t: gave %v, want ErrNotFound", ready, err)
		}
	}
}

func TestDueBoundary(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	k := testKey("acme", 1)
	k.ExpiresAt = epoch.Add(time.Hour)
	mustCreate(t, s, k)
	for _, tc := range []struct {
		name string
		now  time.Time
		want int
	}{
		{"a microsecond before its end", k.ExpiresAt.Add(-time.Microsecond), 0},
		{"less than a microsecond before its end", k.ExpiresAt.Add(-1), 0},
		{"at its end", k.ExpiresAt, 1},
		{"after its end", k.ExpiresAt.Add(time.Hour), 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := s.DueEnds(tc.now, 10)
			if err != nil || len(got) != tc.want {
				t.Errorf("DueEnds gave %d keys, %v, want %d", len(got), err, tc.want)
			}
		})
	}
}
