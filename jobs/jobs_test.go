package jobs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"latchkey/apikey"
	"latchkey/keystore"
)

// epoch is when the tests' keys are made.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)

// ops is the operator behind the tests' changes.
var ops = apikey.Origin{At: epoch, Actor: "ops"}

// credentials returns the n-th key's ID and secret.
func credentials(n int) apikey.Credentials {
	var entropy [40]byte
	binary.BigEndian.PutUint32(entropy[:], uint32(n))
	binary.BigEndian.PutUint32(entropy[36:], uint32(n))
	return apikey.NewCredentials(apikey.NewSecretFormat("lk"), apikey.EnvironmentLive, epoch, entropy)
}

// newKey returns the n-th key, which expires after a time; zero means never.
func newKey(t *testing.T, n int, after time.Duration) apikey.Key {
	t.Helper()
	spec := apikey.Spec{Tenant: "acme"}
	if after > 0 {
		spec.ExpiresAt = epoch.Add(after)
	}
	c, err := apikey.Issue(spec, credentials(n), epoch)
	if err != nil {
		t.Fatal(err)
	}
	return c.Keys[0]
}

// newKeys returns keys number from to to-1, which expire after a time.
func newKeys(t *testing.T, from, to int, after time.Duration) (keys []apikey.Key) {
	t.Helper()
	for n := from; n < to; n++ {
		keys = append(keys, newKey(t, n, after))
	}
	return keys
}

// fakeEnds keeps keys in memory.
type fakeEnds struct {
	mu      sync.Mutex
	keys    []apikey.Key
	findErr error              // of DueEnds
	failing map[apikey.ID]bool // Change fails for these
	before  func(*apikey.Key)  // called with the key that is about to be changed, if set

	finds   []int // what each DueEnds found
	changed []apikey.ID
	origins []apikey.Origin
}

var errDisk = errors.New("disk is gone")

func (f *fakeEnds) DueEnds(now time.Time, limit int) ([]apikey.ID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.findErr != nil {
		return nil, f.findErr
	}
	var ids []apikey.ID
	for _, k := range f.keys {
		if end := k.EndsAt(); !end.IsZero() && !end.After(now) && len(ids) < limit {
			ids = append(ids, k.ID)
		}
	}
	f.finds = append(f.finds, len(ids))
	return ids, nil
}

func (f *fakeEnds) Change(by apikey.Origin, tenant string, id apikey.ID, decide func(apikey.Key) (apikey.Change, error)) (apikey.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.keys, func(k apikey.Key) bool { return k.ID == id })
	if i < 0 || tenant != apikey.AnyTenant {
		return apikey.Change{}, apikey.ErrNotFound
	}
	if f.failing[id] {
		return apikey.Change{}, errDisk
	}
	if f.before != nil {
		f.before(&f.keys[i])
	}
	c, err := decide(f.keys[i])
	if err != nil {
		return apikey.Change{}, err
	}
	f.keys[i] = c.Keys[0]
	f.changed = append(f.changed, id)
	f.origins = append(f.origins, by)
	return c, nil
}

func TestSweepRecordsEndsOnce(t *testing.T) {
	graced := newKey(t, 1, 0)
	c, err := graced.Rotate(credentials(2), time.Hour, epoch)
	if err != nil {
		t.Fatal(err)
	}
	revoked, err := newKey(t, 3, time.Hour).Revoke(epoch)
	if err != nil {
		t.Fatal(err)
	}
	keys := &fakeEnds{keys: []apikey.Key{newKey(t, 0, time.Hour), c.Keys[0], c.Keys[1], revoked.Keys[0],
		newKey(t, 4, time.Hour+time.Microsecond), newKey(t, 5, 0)}}
	now := epoch.Add(time.Hour)
	for range 2 {
		if err := Sweep(keys).Pass(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	if want := []apikey.ID{keys.keys[0].ID, keys.keys[1].ID}; !slices.Equal(keys.changed, want) {
		t.Errorf("changed %v, want %v: the expired key and the one whose grace ended, at the very instant", keys.changed, want)
	}
	for i, want := range []apikey.State{apikey.StateExpired, apikey.StateRotated} {
		if k := keys.keys[i]; !k.EndedAt.Equal(now) || k.State(now) != want {
			t.Errorf("key %d: ended at %s as %s, want %s as %s", i, k.EndedAt, k.State(now), now, want)
		}
	}
	if by := keys.origins[0]; by.Actor != "sweep" || !by.At.Equal(now) || by.Address.IsValid() {
		t.Errorf("recorded by %+v, want by the sweep, at %s, from within", by, now)
	}
}

func TestSweepTakesBatches(t *testing.T) {
	for _, tc := range []struct {
		name string
		keys int
		want []int // keys found per look
	}{
		{"nothing due", 0, []int{0}},
		{"less than a batch", batch - 1, []int{batch - 1}},
		{"exactly a batch", batch, []int{batch, 0}},
		{"more than two batches", 2*batch + 1, []int{batch, batch, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keys := &fakeEnds{keys: newKeys(t, 0, tc.keys, time.Hour)}
			if err := Sweep(keys).Pass(t.Context(), epoch.Add(2*time.Hour)); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(keys.finds, tc.want) || len(keys.changed) != tc.keys {
				t.Errorf("found %v and changed %d, want %v and %d", keys.finds, len(keys.changed), tc.want, tc.keys)
			}
		})
	}
}

func TestSweepLeavesChangedKeysAlone(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*apikey.Key)
	}{
		{"revoked meanwhile", func(k *apikey.Key) { k.RevokedAt = epoch }},
		{"ended meanwhile", func(k *apikey.Key) { k.EndedAt = epoch }},
		{"given more time meanwhile", func(k *apikey.Key) { k.ExpiresAt = epoch.Add(9 * time.Hour) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keys := &fakeEnds{keys: newKeys(t, 0, 3, time.Hour)}
			middle := keys.keys[1]
			tc.change(&middle)
			keys.before = func(k *apikey.Key) {
				if k.ID == middle.ID {
					tc.change(k)
				}
			}
			if err := Sweep(keys).Pass(t.Context(), epoch.Add(2*time.Hour)); err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(keys.changed, func(a, b apikey.ID) int { return bytes.Compare(a[:], b[:]) }) // they are changed at once
			if want := []apikey.ID{keys.keys[0].ID, keys.keys[2].ID}; !slices.Equal(keys.changed, want) {
				t.Errorf("changed %v, want the others: %v", keys.changed, want)
			}
			if got := keys.keys[1]; !got.EndedAt.Equal(middle.EndedAt) || !got.RevokedAt.Equal(middle.RevokedAt) {
				t.Errorf("the key became %+v, want %+v", got, middle)
			}
		})
	}
}

func TestSweepSurfacesErrors(t *testing.T) {
	now := epoch.Add(2 * time.Hour)
	keys := &fakeEnds{keys: newKeys(t, 0, 3, time.Hour), findErr: errDisk}
	if err := Sweep(keys).Pass(t.Context(), now); !errors.Is(err, errDisk) {
		t.Errorf("looking failed: error %v, want %v", err, errDisk)
	}
	id := keys.keys[1].ID
	keys.findErr, keys.failing = nil, map[apikey.ID]bool{id: true}
	if err := Sweep(keys).Pass(t.Context(), now); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), id.String()) {
		t.Errorf("changing failed: error %v, want %v with the key's ID", err, errDisk)
	}
	keys.failing = nil
	if err := Sweep(keys).Pass(t.Context(), now); err != nil {
		t.Error(err)
	}
	if len(keys.changed) != 3 {
		t.Errorf("%d keys recorded once the fault was over, want 3", len(keys.changed))
	}
}

// TestAPanicIsOneKeysFailure panics in the change of one key: the others are changed, and
// the pass says so.
func TestAPanicIsOneKeysFailure(t *testing.T) {
	for at := range 3 {
		keys := &fakeEnds{keys: newKeys(t, 0, 3, time.Hour)}
		bad := keys.keys[at].ID
		keys.before = func(k *apikey.Key) {
			if k.ID == bad {
				panic("canary")
			}
		}
		err := Sweep(keys).Pass(t.Context(), epoch.Add(2*time.Hour))
		if !errors.Is(err, errPanicked) || !strings.Contains(err.Error(), bad.String()) || strings.Contains(err.Error(), "canary") || len(keys.changed) != 2 {
			t.Errorf("key %d: %d others changed, %v", at, len(keys.changed), err)
		}
	}
}

func TestSweepStopsBetweenBatches(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	keys := &fakeEnds{keys: newKeys(t, 0, 2*batch, time.Hour), before: func(*apikey.Key) { stop() }}
	for range 2 { // the second pass begins after the end
		if err := Sweep(keys).Pass(ctx, epoch.Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if len(keys.changed) != batch {
		t.Errorf("%d keys recorded, want those of one batch, %d", len(keys.changed), batch)
	}
}

// openStore returns a store in memory that holds the keys.
func openStore(t *testing.T, keys []apikey.Key) *keystore.Store {
	t.Helper()
	store, err := keystore.Open("store", keystore.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := store.Create(ops, apikey.Change{Action: apikey.ActionCreated, Keys: keys}); err != nil {
		t.Fatal(err)
	}
	return store
}

// actions returns what the audit log says was done to a key.
func actions(t *testing.T, store *keystore.Store, id apikey.ID) (done []apikey.Action) {
	t.Helper()
	events, err := store.Audit(apikey.AuditQuery{Tenant: apikey.AnyTenant, Key: id, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		done = append(done, e.Action)
	}
	slices.Reverse(done) // oldest first
	return done
}

// live returns how many keys are listed among those in use.
func live(t *testing.T, store *keystore.Store) int {
	t.Helper()
	page, err := store.List(apikey.Query{Tenant: "acme", Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	return page.Total
}

// Two sweeps at once and a third one later record every end once, at the time
// of the first, and touch nothing else.
func TestSweepOverStore(t *testing.T) {
	const each = batch + 44
	expiring, rotating := newKeys(t, 0, each, time.Hour), newKeys(t, each, 2*each, 0)
	staying := newKeys(t, 2*each, 2*each+10, 5*time.Hour)
	store := openStore(t, slices.Concat(expiring, rotating, staying))
	for i, k := range rotating {
		heir := credentials(3*each + i)
		if _, err := store.Change(ops, "acme", k.ID, func(k apikey.Key) (apikey.Change, error) {
			return k.Rotate(heir, 30*time.Minute, epoch)
		}); err != nil {
			t.Fatal(err)
		}
	}

	now := epoch.Add(2 * time.Hour)
	var sweeps sync.WaitGroup
	for range 2 {
		sweeps.Go(func() {
			if err := Sweep(store).Pass(t.Context(), now); err != nil {
				t.Error(err)
			}
		})
	}
	sweeps.Wait()
	if err := Sweep(store).Pass(t.Context(), now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}

	if got, want := live(t, store), each+len(staying); got != want { // each: what the rotated keys were replaced by
		t.Errorf("%d keys are listed as live, want %d", got, want)
	}
	const made, rotated, ended = apikey.ActionCreated, apikey.ActionRotated, apikey.ActionEnded
	for _, tc := range []struct {
		name  string
		keys  []apikey.Key
		want  []apikey.Action
		ended time.Time
		state apikey.State
	}{
		{"expired", expiring, []apikey.Action{made, ended}, now, apikey.StateExpired},
		{"rotated", rotating, []apikey.Action{made, rotated, ended}, now, apikey.StateRotated},
		{"not due", staying, []apikey.Action{made}, time.Time{}, apikey.StateActive},
	} {
		for _, k := range tc.keys {
			if got := actions(t, store, k.ID); !slices.Equal(got, tc.want) {
				t.Fatalf("%s key %s: audit log %v, want %v", tc.name, k.ID, got, tc.want)
			}
			k, err := store.ByID("acme", k.ID)
			if err != nil || !k.EndedAt.Equal(tc.ended) || k.State(now) != tc.state {
				t.Fatalf("%s key %s: ended at %s as %s, %v; want at %s as %s", tc.name, k.ID, k.EndedAt, k.State(now), err, tc.ended, tc.state)
			}
		}
	}
}

// racedStore lets an operator be faster than the sweep: once, between finding
// keys and changing them.
type racedStore struct {
	*keystore.Store
	first func(apikey.ID)
}

func (r *racedStore) DueEnds(now time.Time, limit int) ([]apikey.ID, error) {
	ids, err := r.Store.DueEnds(now, limit)
	if r.first != nil && len(ids) > 0 {
		r.first(ids[0])
		r.first = nil
	}
	return ids, err
}

func TestSweepOverStoreLosesToOperator(t *testing.T) {
	store := openStore(t, newKeys(t, 0, batch+1, time.Hour))
	now := epoch.Add(2 * time.Hour)
	var lost apikey.ID
	raced := &racedStore{store, func(id apikey.ID) {
		lost = id
		if _, err := store.Change(ops, "acme", id, func(k apikey.Key) (apikey.Change, error) { return k.Revoke(now) }); err != nil {
			t.Error(err)
		}
	}}
	if err := Sweep(raced).Pass(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if got, want := actions(t, store, lost), []apikey.Action{apikey.ActionCreated, apikey.ActionRevoked}; !slices.Equal(got, want) {
		t.Errorf("audit log of the revoked key: %v, want %v", got, want)
	}
	if k, err := store.ByID("acme", lost); err != nil || !k.EndedAt.IsZero() || k.State(now) != apikey.StateRevoked {
		t.Errorf("the revoked key: ended at %s, %s, %v; want it as the operator left it", k.EndedAt, k.State(now), err)
	}
	if got := live(t, store); got != 0 {
		t.Errorf("%d keys are listed as live, want 0", got)
	}
}

func TestSweepOfClosedStore(t *testing.T) {
	store := openStore(t, newKeys(t, 0, 1, time.Hour))
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(store).Pass(t.Context(), epoch); !errors.Is(err, keystore.ErrClosed) {
		t.Errorf("error %v, want %v", err, keystore.ErrClosed)
	}
}

// A trace notes at which second after the start each pass began.
type trace struct {
	start time.Time
	began []int
}

func (tr *trace) job(name string, every time.Duration, pass func(n int) error) Job {
	return Job{Name: name, Every: every, Pass: func(_ context.Context, now time.Time) error {
		tr.began = append(tr.began, int(now.Sub(tr.start)/time.Second))
		return pass(len(tr.began))
	}}
}

// runFor runs jobs for a time, and returns what they logged and how long it
// took until Run returned.
func runFor(d time.Duration, jobs ...Job) (log string, took time.Duration) {
	var out bytes.Buffer
	start := time.Now()
	ctx, stop := context.WithTimeout(context.Background(), d)
	defer stop()
	NewRunner(slog.New(slog.NewTextHandler(&out, nil)), jobs...).Run(ctx)
	return out.String(), time.Since(start)
}

func TestRunKeepsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick, slow := &trace{start: time.Now()}, &trace{start: time.Now()}
		log, took := runFor(9500*time.Millisecond,
			quick.job("quick", 2*time.Second, func(int) error { return nil }),
			slow.job("slow", 2*time.Second, func(int) error { time.Sleep(2 * time.Second); return nil }))
		if want := []int{0, 2, 4, 6, 8}; !slices.Equal(quick.began, want) {
			t.Errorf("passes began at %v s, want %v", quick.began, want)
		}
		if want := []int{0, 4, 8}; !slices.Equal(slow.began, want) {
			t.Errorf("passes of 2 s began at %v s, want %v: the time runs from the end of a pass", slow.began, want)
		}
		if log != "" {
			t.Errorf("log %q, want none", log)
		}
		if took != 10*time.Second { // the slow pass of 8 s ends then
			t.Errorf("Run took %s, want 10s", took)
		}
	})
}

func TestRunRetriesAtNextTime(t *testing.T) {
	const secret = "lk_live_secret"
	for _, tc := range []struct {
		name string
		fail func() error
		want string // in the log
		n    int    // times
	}{
		{"a pass that fails", func() error { return fmt.Errorf("sweep: %w", errDisk) }, `level=ERROR msg="background job failed" job=failing error="sweep: disk is gone"`, 1},
		{"a pass that panics", func() error { panic(secret) }, `level=ERROR msg="background job panicked" job=failing stack=`, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failing, other := &trace{start: time.Now()}, &trace{start: time.Now()}
				log, _ := runFor(3500*time.Millisecond,
					failing.job("failing", time.Second, func(n int) error {
						if n <= 2 {
							return tc.fail()
						}
						return nil
					}),
					other.job("other", time.Second, func(int) error { return nil }))
				want := []int{0, 1, 2, 3}
				if !slices.Equal(failing.began, want) || !slices.Equal(other.began, want) {
					t.Errorf("passes began at %v s, those of another job at %v s, want %v", failing.began, other.began, want)
				}
				if n := strings.Count(log, tc.want); n != tc.n || strings.Count(log, "level=") != tc.n {
					t.Errorf("log %q, want %q %d times and no more", log, tc.want, tc.n)
				}
				if strings.Contains(log, secret) {
					t.Errorf("the log quotes the value of the panic: %q", log)
				}
			})
		})
	}
}

// A full disk has passes fail every second for as long as it lasts. The log is not
// to be what fills it.
func TestFailuresAreLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failing := &trace{start: time.Now()}
		log, _ := runFor(150*time.Second+time.Millisecond, failing.job("failing", time.Second, func(int) error { return errDisk }))
		if n := strings.Count(log, "\n"); n != 3 || strings.Count(log, "failures_not_logged=59") != 2 {
			t.Errorf("log of %d failures: %q, want a line at once and one a minute, with 59 failures in between", len(failing.began), log)
		}
	})
}

// fullStore refuses everything, and counts what it is asked.
type fullStore struct{ changes, puts int }

func (s *fullStore) DueEnds(time.Time, int) ([]apikey.ID, error) {
	return make([]apikey.ID, batch), nil
}

func (s *fullStore) Change(apikey.Origin, string, apikey.ID, func(apikey.Key) (apikey.Change, error)) (apikey.Change, error) {
	s.changes++
	return apikey.Change{}, apikey.ErrStoreFull
}

func (s *fullStore) PutUses([]apikey.Use) error {
	s.puts++
	return apikey.ErrStoreFull
}

// What a full disk refuses once it refuses again: a pass does not try every key.
func TestPassesGiveUpOnAFullDisk(t *testing.T) {
	var store fullStore
	if err := Sweep(&store).Pass(t.Context(), epoch); !errors.Is(err, apikey.ErrStoreFull) || store.changes != 1 {
		t.Errorf("sweep tried %d keys, %v; want one, and ErrStoreFull", store.changes, err)
	}
	var uses Uses
	for n := range 3 * useBatch {
		uses.Record(apikey.Use{Key: credentials(n).ID, At: epoch})
	}
	if err := uses.Flush(&store).Pass(t.Context(), epoch); !errors.Is(err, apikey.ErrStoreFull) || store.puts != 1 {
		t.Errorf("flush tried %d batches, %v; want one, and ErrStoreFull", store.puts, err)
	}
	kept := 0
	for i := range uses.shards {
		kept += len(uses.shards[i].last)
	}
	if kept != 3*useBatch {
		t.Errorf("%d uses are kept for the next pass, want %d", kept, 3*useBatch)
	}
}

func TestRunWaitsForPassUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := false
		log, took := runFor(time.Second, Job{Name: "long", Every: time.Second, Pass: func(ctx context.Context, _ time.Time) error {
			<-ctx.Done()
			time.Sleep(5 * time.Second)
			ended = true
			return ctx.Err()
		}})
		if !ended || took != 6*time.Second {
			t.Errorf("Run returned after %s, the pass ended: %t; want after the pass, at 6s", took, ended)
		}
		if log != "" {
			t.Errorf("log %q, want none: the pass was told to stop", log)
		}
	})
}
