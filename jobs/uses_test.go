package jobs

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"latchkey/apikey"
)

// useTable keeps what it is told, unless it is to fail.
type useTable struct {
	mu    sync.Mutex
	last  map[apikey.ID]apikey.Use
	calls int
	fail  bool
}

func (u *useTable) PutUses(uses []apikey.Use) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.calls++; u.fail {
		return errDisk
	}
	if u.last == nil {
		u.last = map[apikey.ID]apikey.Use{}
	}
	for _, use := range uses {
		u.last[use.Key] = use
	}
	return nil
}

func useOf(n int, at time.Time) apikey.Use {
	return apikey.Use{Key: apikey.ID{byte(n), byte(n >> 8), byte(n >> 16), 15: byte(n)}, At: at, Address: netip.MustParseAddr("192.0.2.1"), Route: "orders"}
}

func TestUsesAreFlushedOnce(t *testing.T) {
	var u Uses
	table := new(useTable)
	flush := func(want error) {
		t.Helper()
		if err := u.Flush(table).Pass(context.Background(), epoch); (err == nil) != (want == nil) {
			t.Errorf("flush: %v, want %v", err, want)
		}
	}
	flush(nil)
	if table.calls != 0 {
		t.Error("nothing was written")
	}
	for n := range 10_000 {
		u.Record(useOf(n, epoch))
		u.Record(useOf(n, epoch.Add(time.Second)))
	}
	flush(nil)
	if len(table.last) != 10_000 || table.last[useOf(77, epoch).Key] != useOf(77, epoch.Add(time.Second)) {
		t.Errorf("%d keys, one of them %+v", len(table.last), table.last[useOf(77, epoch).Key])
	}
	calls := table.calls
	flush(nil)
	if table.calls != calls {
		t.Error("what was flushed is written again")
	}
	// While the disk is full, uses are kept, the newest of each key.
	table.fail = true
	u.Record(useOf(1, epoch.Add(2*time.Second)))
	u.Record(useOf(2, epoch.Add(2*time.Second)))
	flush(errDisk)
	u.Record(useOf(1, epoch.Add(3*time.Second)))
	flush(errDisk)
	table.fail = false
	flush(nil)
	for n, want := range map[int]time.Duration{1: 3 * time.Second, 2: 2 * time.Second} {
		if got := table.last[useOf(n, epoch).Key].At; !got.Equal(epoch.Add(want)) {
			t.Errorf("key %d was used at %s, want %s later than %s", n, got, want, epoch)
		}
	}
}

// TestUsesAreRecordedWhileFlushed records into shards that are empty when they are
// flushed, which the race detector looks at.
func TestUsesAreRecordedWhileFlushed(t *testing.T) {
	var u Uses
	flush := u.Flush(discard{})
	var all sync.WaitGroup
	var done atomic.Bool
	all.Go(func() {
		for n := 0; !done.Load(); n++ {
			u.Record(apikey.Use{Key: apikey.ID{0: byte(n), 1: byte(n >> 8), 15: byte(n)}})
		}
	})
	for range 2000 {
		if err := flush.Pass(context.Background(), time.Time{}); err != nil {
			t.Error(err)
		}
	}
	done.Store(true)
	all.Wait()
}

// discard keeps nothing.
type discard struct{}

func (discard) PutUses([]apikey.Use) error { return nil }

func TestUsesHaveBounds(t *testing.T) {
	var u Uses
	for n := range useRoom + 10 {
		use := useOf(n, epoch)
		use.Key[15] = 1 // one shard
		u.Record(use)
	}
	if s := &u.shards[1]; len(s.last) != useRoom || s.dropped != 10 {
		t.Errorf("a shard has %d keys and dropped %d", len(s.last), s.dropped)
	}
}

func TestRecordAllocs(t *testing.T) {
	var u Uses
	use := useOf(1, epoch)
	u.Record(use)
	if n := testing.AllocsPerRun(1000, func() { u.Record(use) }); n != 0 {
		t.Errorf("recording allocates %v times", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	var u Uses
	b.RunParallel(func(p *testing.PB) {
		for n := 0; p.Next(); n++ {
			u.Record(useOf(n%10_000, epoch))
		}
	})
}
