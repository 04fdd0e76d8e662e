package admin

import (
	"net/netip"
	"sync"
	"time"
)

const (
	maxFailures  = 20          // failed authentications from one address in a window
	failedWindow = time.Minute // from the first of them, whoever's it was
	maxAddresses = 1 << 16     // counted one by one; those beyond share a count
)

// A failureLimit counts failed authentications by address, IPv6 by /64: that is
// what one subscriber has (RFC 6177). Its memory is bounded. The zero value is
// ready to use.
type failureLimit struct {
	mu     sync.Mutex
	ends   time.Time
	counts map[netip.Prefix]int
}

// blocked returns how long the address has to wait, zero if it may try.
func (l *failureLimit) blocked(addr netip.Addr, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roll(now)
	if l.counts[l.place(addr)] < maxFailures {
		return 0
	}
	return l.ends.Sub(now)
}

// failed counts a failed authentication.
func (l *failureLimit) failed(addr netip.Addr, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roll(now)
	l.counts[l.place(addr)]++
}

// roll begins a new window once the last one is over, and at once if the clock
// was set back behind it.
func (l *failureLimit) roll(now time.Time) {
	if l.counts == nil || !now.Before(l.ends) || l.ends.Sub(now) > failedWindow {
		l.counts, l.ends = map[netip.Prefix]int{}, now.Add(failedWindow)
	}
}

// place returns what an address is counted under: its block, or where the table
// is full and lacks it, the zero Prefix, which all such addresses share.
func (l *failureLimit) place(addr netip.Addr) netip.Prefix {
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	block, err := addr.WithZone("").Prefix(bits)
	if err != nil { // an unknown address
		return netip.Prefix{}
	}
	if _, known := l.counts[block]; !known && len(l.counts) >= maxAddresses {
		return netip.Prefix{}
	}
	return block
}
