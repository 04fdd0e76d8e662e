package throttle

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"
)

const limit = 20

func TestFailures(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 10, 0, time.UTC)
	var f *Failures
	for apart := false; !apart; {
		f = NewFailures()
		places := map[any]bool{}
		for _, addr := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "", "2001:db8::1", "2001:db8:0:1::1"} {
			places[f.place(parse(addr))] = true
		}
		apart = len(places) == 6 // or else by chance two share a count
	}
	fail := func(addr string, n int) {
		for range n {
			f.Add(parse(addr), now)
		}
	}
	fail("192.0.2.1", limit)
	fail("192.0.2.2", limit-1)
	fail("2001:db8::1", limit)
	fail("", limit)
	for _, tc := range []struct {
		name, addr string
		after      time.Duration
		want       time.Duration
	}{
		{"an address at the limit", "192.0.2.1", 0, 50 * time.Second},
		{"the same, mapped into IPv6", "::ffff:192.0.2.1", 0, 50 * time.Second},
		{"one below it", "192.0.2.2", 0, 0},
		{"one that did nothing", "192.0.2.3", 0, 0},
		{"an unknown address", "", 0, 50 * time.Second},
		{"another address of the same /64", "2001:db8::ffff:1", 0, 50 * time.Second},
		{"the same with a zone", "2001:db8::1%eth0", 0, 50 * time.Second},
		{"an address of another /64", "2001:db8:0:1::1", 0, 0},
		{"just before the minute ends", "192.0.2.1", 50*time.Second - 1, 1},
		{"once it is over", "192.0.2.1", 50 * time.Second, 0},
		{"the clock set back a minute", "192.0.2.1", -time.Minute, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if wait := f.Wait(parse(tc.addr), limit, now.Add(tc.after)); wait != tc.want {
				t.Errorf("has to wait for %s, want %s", wait, tc.want)
			}
		})
	}
	if wait := f.Wait(parse("192.0.2.1"), 0, now); wait != 0 {
		t.Errorf("has to wait for %s where there is no limit", wait)
	}
	now = now.Add(-time.Hour)
	if fail("192.0.2.1", limit-1); f.Wait(parse("192.0.2.1"), limit, now) != 0 {
		t.Error("what failed in another minute counts")
	}
}

func parse(addr string) netip.Addr {
	if addr == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(addr)
}

// TestFailuresAtOnce has many goroutines count the same address: none of their failures
// is lost.
func TestFailuresAtOnce(t *testing.T) {
	f, now, addr := NewFailures(), time.Unix(1772000000, 0), parse("192.0.2.1")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				f.Add(addr, now)
			}
		})
	}
	all.Wait()
	if f.Wait(addr, 8000, now) == 0 || f.Wait(addr, 8001, now) != 0 {
		t.Error("8,000 failures are not counted as 8,000")
	}
}

// TestManyAddressesBlockNoOther has more addresses fail than there are places, each
// less often than is allowed: nobody has to wait, whether among them or not.
func TestManyAddressesBlockNoOther(t *testing.T) {
	f, now := NewFailures(), time.Unix(1772000000, 0)
	for n := range uint32(3 * len(f.counts)) {
		f.Add(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n))), now)
	}
	for n := range uint32(4 * len(f.counts)) {
		if addr := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n))); f.Wait(addr, limit, now) != 0 {
			t.Fatalf("%s has to wait", addr)
		}
	}
}

func TestFailuresDoNotAllocate(t *testing.T) {
	f, now, addr := NewFailures(), time.Unix(1772000000, 0), parse("2001:db8::1")
	if n := testing.AllocsPerRun(100, func() {
		f.Add(addr, now)
		f.Wait(addr, limit, now)
	}); n > 0 {
		t.Errorf("%.0f allocations, want none", n)
	}
}

func BenchmarkWait(b *testing.B) {
	f, now, addr := NewFailures(), time.Unix(1772000000, 0), parse("192.0.2.1")
	for b.Loop() {
		f.Wait(addr, limit, now)
	}
}
