package keystore

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"latchkey/apikey"
)

// damagedDigests are digests whose rows lie in a damaged block. Pebble searches
// such a block for the flipped bit at every read, which takes milliseconds to
// seconds of a core; clients that go on asking would take it from all others. So
// for a while the answer is the one before.
type damagedDigests struct {
	some atomic.Bool // there is one, so that look-ups mostly take no lock
	mu   sync.Mutex
	kept map[apikey.Digest]damagedDigest
}

type damagedDigest struct {
	err   error
	until time.Time
}

const (
	damagedFor  = time.Minute
	damagedRoom = 1 << 14 // digests remembered at a time: about 2 MiB
)

// known returns what the last look-up of the digest met, if it is to hold still.
func (m *damagedDigests) known(d *apikey.Digest) error {
	if !m.some.Load() {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known, ok := m.kept[*d]
	if !ok || time.Now().After(known.until) {
		return nil
	}
	return known.err
}

// note remembers an error that comes of a damaged block; others it does not.
func (m *damagedDigests) note(d *apikey.Digest, err error) {
	if !pebble.IsCorruptionError(err) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept == nil || len(m.kept) >= damagedRoom {
		m.kept = map[apikey.Digest]damagedDigest{}
	}
	m.kept[*d] = damagedDigest{err, time.Now().Add(damagedFor)}
	m.some.Store(true)
}

// forget is for a digest whose row is written anew, and lies elsewhere then.
func (m *damagedDigests) forget(d *apikey.Digest) {
	if !m.some.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.kept, *d)
}
