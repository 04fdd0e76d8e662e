// Package cache keeps verified keys in memory, in front of the key store.
//
// It decides when a key held in memory may still be served: only while nothing
// about it has been changed. Once Changed has returned, no look-up that starts
// later is answered with what the store held before, whatever readers and
// ristretto's buffers do meanwhile. What a key admits is decided by its caller.
package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/dgraph-io/ristretto/v2"
	"golang.org/x/sync/singleflight"

	"latchkey/apikey"
)

// A Source is what the cache stands in front of. An unknown digest gives
// apikey.ErrNotFound; any other error is a fault and is passed on uncached.
type Source interface {
	ByDigest(*apikey.Digest) (*apikey.Key, error)
}

// shardCount is how many groups the digests fall into. A change makes the
// cached keys of its group be read again, so more groups mean fewer innocent
// ones; 16,384 revisions take 128 KiB.
const shardCount = 1 << 14

// A revision counts, in its low bits, the changes of its shard that are under way, and
// above them those that are over.
const (
	oneUnderWay = 1
	oneOver     = 1 << 16
	underWay    = oneOver - 1
)

// An entry is what a key grants as the store had it at some revision of its shard.
type entry struct {
	key      *apikey.Grant
	revision uint64
}

// Keys is a read-through cache of keys by digest. Its methods may be called by
// any goroutine.
//
// ristretto alone cannot keep the promise above: its Set is buffered and may be
// dropped, of two Sets of a new key the first wins, and a Del is overtaken by a
// Set still in the buffer. So nothing is ever removed. Instead every shard has
// a revision: a reader notes it before it reads the store and keeps it in the
// entry, a change raises it, and an entry of an older revision is no hit.
//
// While a change is under way, look-ups of its shard go to the store, each by itself,
// and nothing is kept. Otherwise one could be answered with the new key, which it read,
// and a later one with the old, which was kept by a reader between them; or by someone
// who joined a read that began before.
type Keys struct {
	source    Source
	cached    *ristretto.Cache[[]byte, entry]
	revisions [shardCount]atomic.Uint64
	fills     singleflight.Group
	counts    Counts
	hooks     hooks
}

// Counts are what became of the look-ups so far.
type Counts struct {
	Hits, Misses, Unknown, Failed atomic.Uint64
}

// hooks let a test stop a fill between its steps.
type hooks struct{ noted, read, stored func() }

// New returns a cache that holds up to about the given number of bytes of keys.
func New(source Source, bytes int64) (*Keys, error) {
	cached, err := ristretto.NewCache(&ristretto.Config[[]byte, entry]{
		MaxCost:            bytes,
		NumCounters:        counters(bytes),
		BufferItems:        64,
		IgnoreInternalCost: true, // cost counts it
		KeyToHash:          hash,
	})
	if err != nil {
		return nil, fmt.Errorf("make key cache: %w", err)
	}
	nop := func() {}
	return &Keys{source: source, cached: cached, hooks: hooks{nop, nop, nop}}, nil
}

// Close releases the cache.
func (c *Keys) Close() { c.cached.Close() }

// Counts returns the counts, which go on changing.
func (c *Keys) Counts() *Counts { return &c.counts }

// Lookup returns the key whose secret has the digest, from memory where it can.
// The key is shared and must not be written. Errors are those of the Source.
//
// A hit does not allocate (TestHitAllocs). The digest is not kept.
func (c *Keys) Lookup(digest *apikey.Digest) (*apikey.Grant, error) {
	revision := c.revision(digest).Load()
	e, ok := c.cached.Get(digest[:])
	// The whole digest is compared: ristretto tells keys apart by 16 bytes.
	if ok && e.revision == revision && e.key.Digest == *digest {
		c.counts.Hits.Add(1)
		return e.key, nil
	}
	return c.fill(*digest, revision)
}

// Changing makes every cached key of the digest's shard a miss, until Changed is
// called. It is called before a change becomes visible in the source.
func (c *Keys) Changing(digest *apikey.Digest) { c.revision(digest).Add(oneUnderWay) }

// Changed ends what Changing began. It is called after a change is visible in the
// source and before the change is answered.
func (c *Keys) Changed(digest *apikey.Digest) { c.revision(digest).Add(oneOver - oneUnderWay) }

func (c *Keys) revision(digest *apikey.Digest) *atomic.Uint64 {
	return &c.revisions[binary.LittleEndian.Uint16(digest[16:])%shardCount]
}

// fill reads the key from the source. Look-ups of one digest share a read, but
// only at one revision: a look-up that starts after a change must not be
// answered by a read that began before it.
func (c *Keys) fill(digest apikey.Digest, revision uint64) (*apikey.Grant, error) {
	if revision&underWay != 0 {
		return c.read(&digest)
	}
	name := binary.LittleEndian.AppendUint64(digest[:len(digest):len(digest)], revision)
	found, err, shared := c.fills.Do(string(name), func() (any, error) {
		c.hooks.noted()
		key, err := c.source.ByDigest(&digest)
		c.hooks.read()
		if err != nil {
			return nil, err
		}
		// A Set that is dropped, or loses to an older one, costs the next
		// look-up a read and nothing else. Unknown digests are not Set, so made-up
		// keys cannot push good ones out.
		grant := key.Grant()
		c.cached.Set(digest[:], entry{grant, revision}, cost(grant))
		c.hooks.stored()
		return grant, nil
	})
	if shared && errors.Is(err, apikey.ErrNotFound) {
		// The read may have begun before the key was issued, which raises no
		// revision. Look for ourselves.
		return c.read(&digest)
	}
	key, _ := found.(*apikey.Grant)
	return c.counted(key, err)
}

// read asks the source, and keeps nothing.
func (c *Keys) read(digest *apikey.Digest) (*apikey.Grant, error) {
	key, err := c.source.ByDigest(digest)
	if err != nil {
		return c.counted(nil, err)
	}
	return c.counted(key.Grant(), nil)
}

// counted counts what became of a look-up that the source answered.
func (c *Keys) counted(key *apikey.Grant, err error) (*apikey.Grant, error) {
	switch {
	case err == nil:
		c.counts.Misses.Add(1)
		return key, nil
	case errors.Is(err, apikey.ErrNotFound):
		c.counts.Unknown.Add(1)
	default:
		c.counts.Failed.Add(1)
	}
	return nil, err
}

// hash gives ristretto the place of a digest and 64 further bits to tell it
// from others there. Digests are uniform, so their own bytes serve.
func hash(digest []byte) (uint64, uint64) {
	return binary.LittleEndian.Uint64(digest), binary.LittleEndian.Uint64(digest[8:])
}

// overhead is what ristretto keeps of an entry besides the key: a map slot with
// its share of free ones, the cost and two hashes. Measured as the heap that
// 100,000 entries take (BenchmarkEntryBytes).
const overhead = 160

// cost is the memory a cached key takes, in bytes.
func cost(k *apikey.Grant) int64 {
	n := overhead + int(unsafe.Sizeof(*k))
	n += len(k.Tenant) + len(k.Subject) + len(k.Environment) + len(k.Version)
	n += len(k.AllowedIPs) * int(unsafe.Sizeof(apikey.AllowedIP{}))
	for _, s := range k.Scopes {
		n += len(s) + int(unsafe.Sizeof(s))
	}
	return int64(n)
}

// counters sizes ristretto's frequency sketch: a few counters for each key the
// cache can hold. More would only spill the sketch out of the processor's
// cache, which every hit touches.
func counters(bytes int64) int64 {
	return max(1<<10, 4*bytes/int64(overhead+unsafe.Sizeof(apikey.Grant{})))
}
