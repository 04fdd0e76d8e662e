package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"strings"
)

// clientAddr returns the address that allowlists are about: the peer's, unless
// the peer is a trusted proxy. Then X-Forwarded-For is read from the right, and
// the first address that is not itself a trusted proxy's is the client's: those
// further left were written by nobody we trust. An entry that is not an address
// leaves the client unknown, which no allowlist admits.
//
// Where a trusted proxy announced its client in a PROXY header, the peer is that
// client. A proxy of this kind passes requests on unread, so the client's own
// X-Forwarded-For counts for no more than if it had come directly: it is believed
// only of a client that is itself a trusted proxy.
func clientAddr(peer netip.Addr, trusted bool, proxies []netip.Prefix, h *head) netip.Addr {
	if !trusted {
		return peer
	}
	client := peer
	hops := strings.Split(strings.Join(h.values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop := strings.Trim(hops[i], " \t") // what HTTP knows as whitespace (RFC 9110, section 5.6.3)
		if hop == "" {
			continue
		}
		client = hopAddr(hop)
		if !contains(proxies, client) {
			return client
		}
	}
	return client
}

// hopAddr reads an entry of X-Forwarded-For: an address, with a port where some
// proxies write one. A zone makes it invalid.
func hopAddr(s string) netip.Addr {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		withPort, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}
		}
		addr = withPort.Addr()
	}
	if addr.Zone() != "" {
		return netip.Addr{}
	}
	return addr.Unmap()
}

func contains(blocks []netip.Prefix, addr netip.Addr) bool {
	for _, b := range blocks {
		if b.Contains(addr) {
			return true
		}
	}
	return false
}

const maxRequestID = 128

// appendRequestID appends the client's request ID if it is plain enough to be
// logged and sent on, and a random one otherwise.
func appendRequestID(b []byte, fields []field) []byte {
	for _, f := range fields {
		if is(f.name, "X-Request-Id") {
			if plainID(f.value) {
				return append(b, f.value...)
			}
			break
		}
	}
	// 128 random bits. They only tell requests apart, so they need not be hard to
	// guess.
	var id [16]byte
	binary.BigEndian.PutUint64(id[:], rand.Uint64())
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	return hex.AppendEncode(b, id[:])
}

func plainID(id []byte) bool {
	for _, c := range id {
		if !unreserved(c) {
			return false
		}
	}
	return len(id) > 0 && len(id) <= maxRequestID
}
