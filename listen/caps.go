package listen

import (
	"net/netip"
	"sync"

	"latchkey/throttle"
)

// Caps bounds how many connections are open at once, over all listeners that
// share it. It remembers only addresses with a connection open, so its memory
// is bounded by them. A nil *Caps bounds nothing.
type Caps struct {
	total, perAddress int // zero means no limit

	mu    sync.Mutex
	open  int
	taken map[netip.Prefix]int // connections counted to an address, one or more
}

// NewCaps bounds connections in total and from one address; zero means no
// limit. An IPv6 address is its /64, which is what one client is given at
// least: it could come from a new address of it for each connection.
func NewCaps(total, perAddress int) *Caps {
	return &Caps{total: total, perAddress: perAddress, taken: map[netip.Prefix]int{}}
}

// enter takes one of all places and reports whether there was one. It is given
// back by leave.
func (c *Caps) enter() bool {
	if c == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total > 0 && c.open >= c.total {
		return false
	}
	c.open++
	return true
}

// claim counts a connection to its address and reports whether there was room.
// What it returns is for leave, and zero if nothing was counted.
func (c *Caps) claim(addr netip.Addr) (netip.Prefix, bool) {
	if c == nil || c.perAddress == 0 {
		return netip.Prefix{}, true
	}
	place := throttle.Block(addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken[place] >= c.perAddress {
		return netip.Prefix{}, false
	}
	c.taken[place]++
	return place, true
}

// leave gives back what enter and claim took.
func (c *Caps) leave(place netip.Prefix) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	if n := c.taken[place]; n > 1 {
		c.taken[place] = n - 1
	} else {
		delete(c.taken, place)
	}
}
