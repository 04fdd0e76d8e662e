package apikey

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// MaxAllowedIPs is the most entries an allowlist may have.
const MaxAllowedIPs = 256

// An Allowlist holds the addresses a key may be used from. The empty list
// admits every address.
type Allowlist []AllowedIP

// An AllowedIP is an address or a block of them.
type AllowedIP struct {
	Block  netip.Prefix // masked, never an IPv4-mapped IPv6 block
	Single bool         // written as a bare address; decides only how it is shown
}

// String returns the canonical text: an address where one was given, else CIDR.
func (a AllowedIP) String() string {
	if a.Single {
		return a.Block.Addr().String()
	}
	return a.Block.String()
}

// Admits reports whether the list lets addr in. An IPv4-mapped IPv6 address
// counts as the IPv4 address it holds. The zero Addr stands for a client whose
// address is unknown: only an empty list admits it. An address with a zone is
// scoped to one link and matches no entry.
func (l Allowlist) Admits(addr netip.Addr) bool {
	if len(l) == 0 {
		return true
	}
	if !addr.IsValid() || addr.Zone() != "" {
		return false
	}
	addr = addr.Unmap()
	for i := range l {
		if l[i].Block.Contains(addr) {
			return true
		}
	}
	return false
}

// Strings returns the entries in canonical text, nil for the empty list.
func (l Allowlist) Strings() []string {
	if len(l) == 0 {
		return nil
	}
	out := make([]string, len(l))
	for i, a := range l {
		out[i] = a.String()
	}
	return out
}

// ParseAllowlist reads the entries as ParseAllowedIP does. An error names the
// place of the entry it is about.
func ParseAllowlist(entries []string) (Allowlist, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	if len(entries) > MaxAllowedIPs {
		return nil, fmt.Errorf("has %d entries, at most %d are allowed", len(entries), MaxAllowedIPs)
	}
	list := make(Allowlist, len(entries))
	for i, e := range entries {
		a, err := ParseAllowedIP(e)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
		list[i] = a
	}
	return list, nil
}

// ParseAllowedIP reads an IPv4 or IPv6 address or CIDR block (RFC 4632, RFC
// 4291). IPv4-mapped forms are unmapped, because a client that connects over
// IPv4 to a dual-stack listener shows up mapped. Zones are refused, and so is
// a block with bits set beyond its prefix, which is more often a slip than
// meant: the message gives the block that was probably intended.
func ParseAllowedIP(s string) (AllowedIP, error) {
	if len(s) > len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255/128") {
		return AllowedIP{}, errors.New("is too long for an address or CIDR block")
	}
	if strings.Contains(s, "%") {
		return AllowedIP{}, fmt.Errorf("%q has a zone, which only means something on one host; leave it out", s)
	}
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return AllowedIP{}, fmt.Errorf("%q is not an IP address or CIDR block", s)
		}
		addr = addr.Unmap()
		return AllowedIP{Block: netip.PrefixFrom(addr, addr.BitLen()), Single: true}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return AllowedIP{}, fmt.Errorf("%q is not an IP address or CIDR block", s)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return AllowedIP{}, fmt.Errorf("%q covers more than the IPv4-mapped range; write the IPv4 or IPv6 block meant", s)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if m := p.Masked(); m != p {
		return AllowedIP{}, fmt.Errorf("%q has bits set beyond its prefix; write %s", s, m)
	}
	return AllowedIP{Block: p}, nil
}
