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
	f := NewFailures()
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
			for range 100_000 {
				f.Add(addr, now)
			}
		})
	}
	all.Wait()
	if f.Wait(addr, 800_000, now) == 0 || f.Wait(addr, 800_001, now) != 0 {
		t.Error("800,000 failures are not counted as such")
	}
}

// TestManyAddressesBlockNoOther has more addresses fail than there are places: who has not
// failed too often never has to wait, and who has does all the while.
func TestManyAddressesBlockNoOther(t *testing.T) {
	now, guesser := time.Unix(1772000000, 0), parse("203.0.113.9")
	for _, tc := range []struct {
		name             string
		addresses, times int
		addr             func(n int) netip.Addr
	}{
		{"a million, once each", 1_000_000, 1, func(n int) netip.Addr {
			return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(n))))
		}},
		{"every /64 of a /48, as often as is allowed", 1 << 16, limit, func(n int) netip.Addr {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 1, byte(n >> 8), byte(n), 15: 1})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := NewFailures()
			for range limit {
				f.Add(guesser, now)
			}
			for n := range tc.addresses {
				for range tc.times {
					f.Add(tc.addr(n), now)
				}
			}
			if tc.times == 1 && f.Wait(guesser, limit, now) == 0 {
				t.Error("who failed too often before them is forgotten")
			}
			waiting := 0
			for n := range 1_000_000 { // of which some share three bytes with those above
				if f.Wait(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(n)<<8|1<<7))), limit, now) != 0 {
					waiting++
				}
			}
			if waiting > 5 { // by chance it is one in four million
				t.Errorf("%d of a million others have to wait", waiting)
			}
		})
	}
}

// TestTheOneWithFewestFailuresIsForgotten fills one set of places.
func TestTheOneWithFewestFailuresIsForgotten(t *testing.T) {
	f, now := NewFailures(), time.Unix(1772000000, 0)
	home, _ := f.find(parse("192.0.2.1"), now)
	var same []netip.Addr
	for n := uint32(0); len(same) < 5; n++ {
		addr := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
		if places, _ := f.find(addr, now); places == home {
			same = append(same, addr)
		}
	}
	for i, addr := range same[:4] {
		for range 4 - i {
			f.Add(addr, now)
		}
	}
	f.Add(same[4], now)
	for i, want := range []int{4, 3, 2, 0, 1} {
		if f.Wait(same[i], want+1, now) != 0 || want > 0 && f.Wait(same[i], want, now) == 0 {
			t.Errorf("address %d does not have %d failures", i, want)
		}
	}
	now = now.Add(time.Minute)
	for _, addr := range same[1:] { // what is over goes before anything else
		f.Add(addr, now)
	}
	for i, addr := range same[1:] {
		if f.Wait(addr, 1, now) == 0 {
			t.Errorf("address %d was forgotten in a new minute", i+1)
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
