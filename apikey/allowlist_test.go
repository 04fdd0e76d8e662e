package apikey

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// list parses entries that are known to be good.
func list(t *testing.T, entries ...string) Allowlist {
	t.Helper()
	l, err := ParseAllowlist(entries)
	if err != nil {
		t.Fatalf("ParseAllowlist(%q): %v", entries, err)
	}
	return l
}

// client parses a client's address; none stands for one that is unknown.
func client(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

func TestParseAllowedIPAccepts(t *testing.T) {
	for _, tc := range []struct {
		name, text, want, block string
		single                  bool
	}{
		{"an IPv4 address", "192.0.2.7", "192.0.2.7", "192.0.2.7/32", true},
		{"an IPv4 block", "192.0.2.0/24", "192.0.2.0/24", "192.0.2.0/24", false},
		{"a block of one address stays a block", "192.0.2.7/32", "192.0.2.7/32", "192.0.2.7/32", false},
		{"all of IPv4", "0.0.0.0/0", "0.0.0.0/0", "0.0.0.0/0", false},
		{"all of IPv6", "::/0", "::/0", "::/0", false},
		{"an IPv6 address in canonical text", "2001:DB8:0:0:0::7", "2001:db8::7", "2001:db8::7/128", true},
		{"an IPv6 block", "2001:db8::/32", "2001:db8::/32", "2001:db8::/32", false},
		{"a mapped address is IPv4", "::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7/32", true},
		{"a mapped address in hexadecimal is IPv4", "::FFFF:c000:207", "192.0.2.7", "192.0.2.7/32", true},
		{"a mapped block is IPv4", "::ffff:192.0.2.0/120", "192.0.2.0/24", "192.0.2.0/24", false},
		{"a mapped block of one", "::ffff:192.0.2.7/128", "192.0.2.7/32", "192.0.2.7/32", false},
		{"the whole mapped range is all of IPv4", "::ffff:0:0/96", "0.0.0.0/0", "0.0.0.0/0", false},
		{"the longest spelling", "0000:0000:0000:0000:0000:ffff:255.255.255.255/128", "255.255.255.255/32", "255.255.255.255/32", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseAllowedIP(tc.text)
			if want := (AllowedIP{netip.MustParsePrefix(tc.block), tc.single}); err != nil || got != want {
				t.Errorf("ParseAllowedIP(%s) = %+v, %v, want %+v, nil", tc.text, got, err, want)
			}
			if got.String() != tc.want {
				t.Errorf("ParseAllowedIP(%s).String() = %s, want %s", tc.text, got, tc.want)
			}
		})
	}
}

func TestParseAllowedIPRefuses(t *testing.T) {
	for _, tc := range []struct{ name, text, problem string }{
		{"nothing", "", "is not an IP address or CIDR block"},
		{"a host name", "localhost", "is not an IP address or CIDR block"},
		{"a port", "192.0.2.7:80", "is not an IP address or CIDR block"},
		{"a space around", " 192.0.2.7", "is not an IP address or CIDR block"},
		{"a leading zero, octal to some", "010.0.0.1", "is not an IP address or CIDR block"},
		{"three numbers", "10.0.1", "is not an IP address or CIDR block"},
		{"no prefix length", "10.0.0.0/", "is not an IP address or CIDR block"},
		{"a prefix too long", "10.0.0.0/33", "is not an IP address or CIDR block"},
		{"a prefix too long for IPv6", "2001:db8::/129", "is not an IP address or CIDR block"},
		{"a negative prefix", "10.0.0.0/-1", "is not an IP address or CIDR block"},
		{"a netmask", "10.0.0.0/255.0.0.0", "is not an IP address or CIDR block"},
		{"two prefixes", "10.0.0.0/8/8", "is not an IP address or CIDR block"},
		{"a zone", "fe80::1%eth0", "has a zone"},
		{"a zone in a block", "fe80::%eth0/64", "has a zone"},
		{"a zone in a mapped address", "::ffff:192.0.2.7%1", "has a zone"},
		{"host bits", "10.1.2.3/8", "write 10.0.0.0/8"},
		{"host bits one below the prefix", "192.0.2.1/31", "write 192.0.2.0/31"},
		{"host bits with /0", "10.0.0.0/0", "write 0.0.0.0/0"},
		{"host bits in IPv6", "2001:db8::1/64", "write 2001:db8::/64"},
		{"host bits in a mapped block", "::ffff:10.1.2.3/104", "write 10.0.0.0/8"},
		{"a mapped block wider than IPv4", "::ffff:0:0/95", "covers more than the IPv4-mapped range"},
		{"a mapped address over all of IPv6", "::ffff:1.2.3.4/0", "covers more than the IPv4-mapped range"},
		{"one more than the longest spelling", "0000:0000:0000:0000:0000:ffff:255.255.255.255/0128", "is too long"},
		{"a megabyte", strings.Repeat("1", 1<<20), "is too long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseAllowedIP(tc.text)
			if err == nil || !strings.Contains(err.Error(), tc.problem) || got != (AllowedIP{}) {
				t.Fatalf("ParseAllowedIP(%.60q) = %s, %v, want nothing and an error with %q", tc.text, got, err, tc.problem)
			}
			if len(err.Error()) > 200 {
				t.Errorf("ParseAllowedIP(%.60q): the error has %d bytes, want at most 200", tc.text, len(err.Error()))
			}
		})
	}
}

func TestParseAllowlist(t *testing.T) {
	many := make([]string, MaxAllowedIPs+1)
	for i := range many {
		many[i] = "192.0.2.7"
	}
	for _, tc := range []struct {
		name    string
		entries []string
		want    []string
		problem string
	}{
		{"none means unrestricted", nil, nil, ""},
		{"empty means unrestricted", []string{}, nil, ""},
		{"order and spelling kept", []string{"2001:db8::/32", "192.0.2.7", "192.0.2.7/32"}, []string{"2001:db8::/32", "192.0.2.7", "192.0.2.7/32"}, ""},
		{"256 entries", many[:256], many[:256], ""},
		{"257 entries", many, nil, "has 257 entries, at most 256 are allowed"},
		{"the bad entry is named, from one", []string{"::1", "10.0.0.1/8"}, nil, `entry 2: "10.0.0.1/8" has bits set beyond its prefix; write 10.0.0.0/8`},
		{"an empty entry is not unrestricted", []string{""}, nil, "entry 1: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseAllowlist(tc.entries)
			if tc.problem == "" && err != nil || tc.problem != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.problem)) {
				t.Fatalf("ParseAllowlist(%q) = %v, want %q", tc.entries, err, tc.problem)
			}
			if diff := cmp.Diff(got.Strings(), tc.want); diff != "" {
				t.Errorf("ParseAllowlist(%q).Strings() (-got +want):\n%s", tc.entries, diff)
			}
		})
	}
}

func TestAllowlistAdmits(t *testing.T) {
	mixed := list(t, "10.2.0.0/16", "192.0.2.7", "2001:db8::/32", "fe80::/10")
	for _, tc := range []struct {
		name, client string
		list         Allowlist
		want         bool
	}{
		{"inside the block", "10.2.255.255", mixed, true},
		{"just outside the block", "10.3.0.0", mixed, false},
		{"the single address", "192.0.2.7", mixed, true},
		{"beside the single address", "192.0.2.6", mixed, false},
		{"inside the IPv6 block", "2001:db8::1", mixed, true},
		{"mapped IPv4 counts as IPv4", "::ffff:10.2.0.9", mixed, true},
		{"mapped IPv4 outside", "::ffff:10.3.0.0", mixed, false},
		{"link-local without a zone", "fe80::1", mixed, true},
		{"link-local with a zone", "fe80::1%eth0", mixed, false},
		{"a zone on a mapped address", "::ffff:10.2.0.9%eth0", mixed, false},
		{"IPv4-compatible is not IPv4", "::10.2.0.9", mixed, false},
		{"an unknown address", "", mixed, false},
		{"all of IPv4 admits IPv4", "203.0.113.9", list(t, "0.0.0.0/0"), true},
		{"all of IPv4 admits no IPv6", "2001:db8::1", list(t, "0.0.0.0/0"), false},
		{"all of IPv6 admits IPv6", "2001:db8::1", list(t, "::/0"), true},
		{"all of IPv6 admits no IPv4", "203.0.113.9", list(t, "::/0"), false},
		{"all of IPv6 admits no mapped IPv4", "::ffff:203.0.113.9", list(t, "::/0"), false},
		{"everything does not admit an unknown address", "", list(t, "0.0.0.0/0", "::/0"), false},
		{"a mapped entry admits IPv4", "192.0.2.9", list(t, "::ffff:192.0.2.0/120"), true},
		{"the empty list admits any address", "203.0.113.9", nil, true},
		{"the empty list admits an unknown address", "", Allowlist{}, true},
		{"the empty list admits a zone", "fe80::1%eth0", nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.list.Admits(client(tc.client)); got != tc.want {
				t.Errorf("%v.Admits(%s) = %t, want %t", tc.list, tc.client, got, tc.want)
			}
		})
	}
}

func FuzzParseAllowedIP(f *testing.F) {
	for _, s := range []string{"192.0.2.7", "10.0.0.0/8", "10.0.0.1/8", "::/0", "::ffff:0:0/96", "::ffff:0:0/95", "::FFFF:10.0.0.0/104",
		"2001:db8::1", "2001:db8::/32", "fe80::1%eth0", "::fffe:0:0/95", "0000:0000:0000:0000:0000:ffff:255.255.255.255/128", "010.0.0.1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAllowedIP(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err == nil && addr.Zone() == "" {
				t.Errorf("ParseAllowedIP(%q) refuses an address", text)
			}
			if a != (AllowedIP{}) {
				t.Errorf("ParseAllowedIP(%q) = %s with an error, want nothing", text, a)
			}
			return
		}
		addr := a.Block.Addr()
		if !a.Block.IsValid() || a.Block.Masked() != a.Block || addr.Is4In6() || addr.Zone() != "" || a.Single && !a.Block.IsSingleIP() {
			t.Errorf("ParseAllowedIP(%q) = %+v, want a masked block that is not mapped", text, a)
		}
		if got, err := ParseAllowedIP(a.String()); err != nil || got != a {
			t.Errorf("ParseAllowedIP(%q) = %+v, but its String %s gives %+v, %v", text, a, a, got, err)
		}
		if l := (Allowlist{a}); !l.Admits(addr) || !l.Admits(netip.AddrFrom16(addr.As16())) {
			t.Errorf("%s (from %q) does not admit its own address", a, text)
		}
	})
}
