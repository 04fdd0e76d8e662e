package jobs

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/apikey"
)

const (
	useShards = 64
	// useRoom is how many keys a shard remembers between two flushes: half a
	// million in all, which at 5 seconds is more keys than a gateway of this size
	// can admit. It bounds the memory, at about 100 bytes a key, while the disk
	// is full.
	useRoom  = 8 << 10
	useEvery = 5 * time.Second
	useBatch = 4096
)

// Uses remembers when keys were used, from one flush to the next. Its methods
// may be called by any goroutine. The zero value is ready to use.
type Uses struct {
	shards [useShards]useShard
}

type useShard struct {
	mu      sync.Mutex
	last    map[apikey.ID]apikey.Use
	dropped uint64
	_       [40]byte // keeps the locks of two shards out of one cache line
}

// Record notes that a key was used. It runs once per admitted request and does
// not allocate for a key it knows (TestRecordAllocs). It keeps u's strings.
func (u *Uses) Record(use apikey.Use) {
	s := &u.shards[use.Key[15]%useShards]
	s.mu.Lock()
	if s.last == nil {
		s.last = map[apikey.ID]apikey.Use{}
	}
	if _, known := s.last[use.Key]; known || len(s.last) < useRoom {
		s.last[use.Key] = use
	} else {
		s.dropped++
	}
	s.mu.Unlock()
}

// UseStore keeps last uses.
type UseStore interface {
	PutUses([]apikey.Use) error
}

// Flush returns the job that writes what was recorded. What could not be written
// is kept for the next pass, and so is what would have come after it. Shards
// share batches, because each costs a sync.
func (u *Uses) Flush(to UseStore) Job {
	return Job{Name: "flush_uses", Every: useEvery, Pass: func(_ context.Context, _ time.Time) error {
		var (
			batch  = make([]apikey.Use, 0, useBatch)
			failed error
		)
		put := func() {
			if len(batch) == 0 {
				return
			}
			if failed == nil {
				failed = to.PutUses(batch)
			}
			if failed != nil {
				u.restore(batch)
			}
			batch = batch[:0]
		}
		for i := range u.shards {
			for _, use := range u.shards[i].take() {
				if batch = append(batch, use); len(batch) == useBatch {
					put()
				}
			}
		}
		put()
		if failed != nil {
			return fmt.Errorf("write last uses: %w", failed)
		}
		return nil
	}}
}

// take empties the shard. The room for as many is kept: keys that were used once are
// mostly used again, and a map that grows anew costs the requests that it grows under.
func (s *useShard) take() map[apikey.ID]apikey.Use {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.last
	if len(taken) == 0 {
		return nil // not the map, which goes on being written to
	}
	s.last = make(map[apikey.ID]apikey.Use, len(taken))
	return taken
}

// restore puts back uses that could not be written and were not overtaken.
func (u *Uses) restore(uses []apikey.Use) {
	for _, use := range uses {
		s := &u.shards[use.Key[15]%useShards]
		s.mu.Lock()
		switch _, newer := s.last[use.Key]; {
		case newer:
		case len(s.last) < useRoom:
			s.last[use.Key] = use // there is a map, since these were taken from it
		default:
			s.dropped++
		}
		s.mu.Unlock()
	}
}

// Dropped returns the counter of uses that were not recorded for want of room.
func (u *Uses) Dropped() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "latchkey_uses_dropped_total",
		Help: "Uses of keys that were not recorded because too many keys were used between two flushes, or the disk was full.",
	}, func() (n float64) {
		for i := range u.shards {
			u.shards[i].mu.Lock()
			n += float64(u.shards[i].dropped)
			u.shards[i].mu.Unlock()
		}
		return n
	})
}
