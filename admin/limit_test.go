package admin

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

func TestFailureLimit(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var l failureLimit
	fail := func(addr string, n int) {
		for range n {
			l.failed(netip.MustParseAddr(addr), now)
		}
	}
	fail("192.0.2.1", maxFailures)
	fail("192.0.2.2", maxFailures-1)
	fail("2001:db8::1", maxFailures)
	for _, tc := range []struct {
		name, addr string
		after      time.Duration
		blocked    bool
	}{
		{"an address at the limit", "192.0.2.1", 0, true},
		{"one below it", "192.0.2.2", 0, false},
		{"one that did nothing", "192.0.2.3", 0, false},
		{"another address of the same /64", "2001:db8::ffff:1", 0, true},
		{"an address of another /64", "2001:db8:0:1::1", 0, false},
		{"just before the window ends", "192.0.2.1", failedWindow - 1, true},
		{"once the window is over", "192.0.2.1", failedWindow, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wait := l.blocked(netip.MustParseAddr(tc.addr), now.Add(tc.after))
			if (wait > 0) != tc.blocked || wait > failedWindow {
				t.Errorf("blocked = %s, want blocked %t", wait, tc.blocked)
			}
		})
	}
	fail("192.0.2.1", maxFailures)
	if l.blocked(netip.MustParseAddr("192.0.2.1"), now.Add(-time.Hour)) != 0 {
		t.Error("a clock that was set back an hour blocks for an hour")
	}
}

func TestFailureLimitIsBounded(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var l failureLimit
	for n := range uint32(3 * maxAddresses) {
		l.failed(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n))), now)
	}
	if len(l.counts) > maxAddresses+1 {
		t.Errorf("%d addresses are kept, want at most %d", len(l.counts), maxAddresses+1)
	}
	if l.blocked(netip.MustParseAddr("203.0.113.1"), now) == 0 {
		t.Error("an address beyond the table is not limited at all")
	}
	if l.blocked(netip.AddrFrom4([4]byte{0, 0, 0, 1}), now) != 0 {
		t.Error("an address in the table shares the count of those beyond")
	}
}
