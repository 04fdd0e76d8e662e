package keystore

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"latchkey/apikey"
)

// A digestFilter tells most digests the store does not have from those it may
// have, without a look-up. Pebble's own bloom filters cannot: Get does not ask
// them on the bottom level, where most of a settled store lies, so an absent
// key costs a read of a data block.
//
// It is a blocked Bloom filter (Putze, Sanders, Singler: "Cache-, Hash- and
// Space-Efficient Bloom Filters", 2007): a digest picks one 64-byte block and
// eight bits in it, so a question costs one cache miss. Digests are uniformly
// random, so their own bytes serve as hashes. At 12 bits a digest about one
// absent digest in 200 is let through to the store.
//
// A layer that has reached its capacity stays, and a new one of twice its size
// is put in front; nothing is ever rehashed or removed.
type digestFilter struct {
	layers atomic.Pointer[[]*filterLayer] // newest last
	ready  atomic.Bool                    // every digest of the store has been added

	mu    sync.Mutex // held by add
	count int        // digests in the newest layer
}

const (
	bitsPerDigest = 12
	bitsPerBlock  = 512
	wordsPerBlock = bitsPerBlock / 64
	minCapacity   = 1 << 16 // digests; 96 KiB
)

type filterLayer struct {
	words    []uint64
	capacity int
}

// newDigestFilter returns a filter that rules nothing out until it is ready.
func newDigestFilter(capacity int) *digestFilter {
	f := new(digestFilter)
	f.layers.Store(&[]*filterLayer{newFilterLayer(max(capacity, minCapacity))})
	return f
}

func newFilterLayer(capacity int) *filterLayer {
	blocks := (capacity*bitsPerDigest + bitsPerBlock - 1) / bitsPerBlock
	return &filterLayer{words: make([]uint64, blocks*wordsPerBlock), capacity: capacity}
}

// mayHave reports whether the digest may be in the store; false is certain.
func (f *digestFilter) mayHave(d *apikey.Digest) bool {
	if !f.ready.Load() {
		return true
	}
	for _, l := range *f.layers.Load() {
		if l.mayHave(d) {
			return true
		}
	}
	return false
}

// add puts the digest in. It returns before any question could need it: the
// store adds a digest before it commits the key.
func (f *digestFilter) add(d *apikey.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	layers := *f.layers.Load()
	for _, l := range layers {
		if l.mayHave(d) {
			return // it rules the digest in already
		}
	}
	last := layers[len(layers)-1]
	if f.count == last.capacity {
		last = newFilterLayer(2 * last.capacity)
		grown := append(append([]*filterLayer(nil), layers...), last)
		f.layers.Store(&grown)
		f.count = 0
	}
	block := last.block(d)
	for i := range 8 {
		word, bit := position(d, i)
		atomic.OrUint64(&block[word], bit)
	}
	f.count++
}

func (l *filterLayer) mayHave(d *apikey.Digest) bool {
	block := l.block(d)
	for i := range 8 {
		if word, bit := position(d, i); atomic.LoadUint64(&block[word])&bit == 0 {
			return false
		}
	}
	return true
}

// block returns the words of the digest's block, chosen by bytes 16 to 19.
func (l *filterLayer) block(d *apikey.Digest) []uint64 {
	h, blocks := uint64(binary.LittleEndian.Uint32(d[16:])), uint64(len(l.words)/wordsPerBlock)
	at := h * blocks >> 32 * wordsPerBlock
	return l.words[at : at+wordsPerBlock : at+wordsPerBlock]
}

// position returns the i-th of the digest's eight bits in its block, chosen by
// bytes 0 to 15.
func position(d *apikey.Digest, i int) (word int, bit uint64) {
	b := binary.LittleEndian.Uint16(d[2*i:])
	return int(b >> 6 & (wordsPerBlock - 1)), 1 << (b & 63)
}
