// Package throttle limits how often one address may fail to authenticate.
//
// Addresses are counted in a table of fixed size, by a hash that nobody outside can
// compute: two of them share a count with a chance of 1 in 65,536, its memory (half a
// mebibyte) does not grow with their number, and there is nothing to wait for. A table
// of addresses would have to turn somebody away once it is full, and one client with a
// /48 of IPv6 has as many blocks as it has places.
package throttle

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// Failures counts failed authentications by address, IPv6 by /64: that is what one
// subscriber has (RFC 6177). Each minute of the clock counts anew. Its methods may be
// called by any goroutine.
type Failures struct {
	seed   maphash.Seed
	counts [1 << 16]atomic.Uint64 // the minute they are of, and how many: 32 bits each
}

// NewFailures returns a count of no failures.
func NewFailures() *Failures { return &Failures{seed: maphash.MakeSeed()} }

// Wait returns how long the address has to wait, since it has failed as often as is
// allowed within the present minute; zero if it may try. The zero Addr stands for all
// whose address is unknown. A limit of zero or less is none.
func (f *Failures) Wait(addr netip.Addr, limit int, now time.Time) time.Duration {
	if limit <= 0 {
		return 0
	}
	minute := minuteOf(now)
	if c := f.place(addr).Load(); c>>32 != minute || c&countMask < uint64(limit) {
		return 0
	}
	return now.Truncate(time.Minute).Add(time.Minute).Sub(now)
}

// Add counts a failure.
func (f *Failures) Add(addr netip.Addr, now time.Time) {
	minute, place := minuteOf(now), f.place(addr)
	for {
		before := place.Load()
		next := before + 1
		switch {
		case before>>32 != minute: // another minute is over, also where the clock was set back
			next = minute<<32 | 1
		case before&countMask == countMask:
			return
		}
		if place.CompareAndSwap(before, next) {
			return
		}
	}
}

const countMask = 1<<32 - 1

// minuteOf returns the minute of a time, in 32 bits.
func minuteOf(t time.Time) uint64 { return uint64(t.Unix()/60) & countMask }

// place returns where an address is counted.
func (f *Failures) place(addr netip.Addr) *atomic.Uint64 {
	bits := 32
	if addr = addr.Unmap(); addr.Is6() {
		bits = 64
	}
	block, _ := addr.Prefix(bits) // fails for the zero Addr, which is of no block
	return &f.counts[maphash.Comparable(f.seed, block)%uint64(len(f.counts))]
}
