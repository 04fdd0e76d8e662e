// Package throttle limits how often one address may fail to authenticate.
//
// It counts addresses one by one, in a table of fixed size (512 KiB). Where there are more
// than it has room for it forgets the one with the fewest failures of the four places that
// an address can have. So those who have failed often stay, and nobody is turned away for what
// others did: to have itself forgotten, a client must fail from many addresses, each of
// which may fail as often as is allowed anyway.
package throttle

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Failures counts failed authentications by address, IPv6 by /64: that is what one
// subscriber has (RFC 6177). Each minute of the clock counts anew. Its methods may be
// called by any goroutine.
type Failures struct {
	seed   maphash.Seed // so that nobody outside can tell who shares places with whom
	mu     sync.Mutex   // of Add; who waits does not lock
	places [1 << 14]set
}

// A set is the places that an address can have. A place holds a minute in 16 bits, a
// mark of the address in 24 and its failures in 24. Two addresses in one set have the same
// mark with a chance of 1 in 16 million.
type set [4]atomic.Uint64

const (
	countBits = 24
	markBits  = 24
	mostCount = 1<<countBits - 1
)

// NewFailures returns a count of no failures.
func NewFailures() *Failures { return &Failures{seed: maphash.MakeSeed()} }

// Wait returns how long the address has to wait, since it has failed as often as is
// allowed within the present minute; zero if it may try. A limit of zero or less is none.
func (f *Failures) Wait(addr netip.Addr, limit int, now time.Time) time.Duration {
	if limit <= 0 {
		return 0
	}
	places, whose := f.find(addr, now)
	for i := range places {
		if at := places[i].Load(); at>>countBits == whose && at&mostCount >= uint64(min(limit, mostCount)) {
			return now.Truncate(time.Minute).Add(time.Minute).Sub(now)
		}
	}
	return 0
}

// Add counts a failure.
func (f *Failures) Add(addr netip.Addr, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	places, whose := f.find(addr, now)
	minute := whose >> markBits
	least, fewest := 0, uint64(mostCount)
	for i := range places {
		at := places[i].Load()
		count := at & mostCount
		switch {
		case at>>countBits == whose:
			if count < mostCount {
				places[i].Store(at + 1)
			}
			return
		case at>>(countBits+markBits) != minute:
			count = 0 // of another minute, which is over
		}
		if count < fewest {
			least, fewest = i, count
		}
	}
	places[least].Store(whose<<countBits | 1)
}

// find returns the places that an address can have, and what all of them but the count says
// where it is the address's in the present minute.
func (f *Failures) find(addr netip.Addr, now time.Time) (*set, uint64) {
	hash := maphash.Comparable(f.seed, Block(addr))
	mark, minute := hash>>(64-markBits), uint64(now.Unix()/60)&0xffff
	return &f.places[hash%uint64(len(f.places))], minute<<markBits | mark
}

// Block returns what an address is counted as: itself, or its /64 in IPv6. Those that are
// not known are one block, 0.0.0.0/0: they are not to go uncounted.
func Block(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	block, err := addr.Prefix(bits)
	if err != nil || !addr.IsValid() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return block
}
