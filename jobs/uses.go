package jobs

import (
	"context"
	"errors"
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
// is kept for the next pass.
func (u *Uses) Flush(to UseStore) Job {
	return Job{Name: "flush_uses", Every: useEvery, Pass: func(_ context.Context, _ time.Time) error {
		var errs []error
		for i := range u.shards {
			errs = append(errs, u.shards[i].flush(to))
		}
		return errors.Join(errs...)
	}}
}

func (s *useShard) flush(to UseStore) error {
	s.mu.Lock()
	taken := s.last
	s.last = nil
	s.mu.Unlock()
	batch := make([]apikey.Use, 0, min(len(taken), useBatch))
	var failed error
	put := func() {
		if err := to.PutUses(batch); err != nil {
			failed = fmt.Errorf("write last uses: %w", err)
			s.restore(batch)
		}
		batch = batch[:0]
	}
	for _, use := range taken {
		if batch = append(batch, use); len(batch) == useBatch {
			put()
		}
	}
	if len(batch) > 0 {
		put()
	}
	return failed
}

// restore puts back uses that could not be written and were not overtaken.
func (s *useShard) restore(uses []apikey.Use) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = map[apikey.ID]apikey.Use{}
	}
	for _, use := range uses {
		switch _, newer := s.last[use.Key]; {
		case newer:
		case len(s.last) < useRoom:
			s.last[use.Key] = use
		default:
			s.dropped++
		}
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
