package proxy

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

func TestClientAddr(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48")}
	const unknown = "invalid IP"
	for _, tc := range []struct {
		name, peer string
		forwarded  []string // one X-Forwarded-For field each
		want       string
	}{
		{"without the field it is the peer", "192.0.2.1", nil, "192.0.2.1"},
		{"a peer that is not trusted is not listened to", "192.0.2.1", []string{"198.51.100.1"}, "192.0.2.1"},
		{"not even about garbage", "192.0.2.1", []string{"garbage"}, "192.0.2.1"},
		{"a trusted peer without the field is the client", "10.0.0.1", nil, "10.0.0.1"},
		{"a trusted peer is believed", "10.0.0.1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"the right-most that is not trusted", "10.0.0.1", []string{"203.0.113.9, 198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		{"what is further left is not read", "10.0.0.1", []string{"garbage, 10.9.9.9, 198.51.100.1"}, "198.51.100.1"},
		{"several fields are one list", "10.0.0.1", []string{"203.0.113.9", "198.51.100.1, 10.0.0.3", "10.0.0.2"}, "198.51.100.1"},
		{"all trusted: the first", "10.0.0.1", []string{"10.0.0.4, 10.0.0.3", "10.0.0.2"}, "10.0.0.4"},
		{"garbage leaves the client unknown", "10.0.0.1", []string{"198.51.100.1, garbage"}, unknown},
		{"also behind a trusted one", "10.0.0.1", []string{"198.51.100.1, unknown, 10.0.0.2"}, unknown},
		{"empty entries do not count", "10.0.0.1", []string{"198.51.100.1, , ", "", ",\t,"}, "198.51.100.1"},
		{"nothing but empty entries", "10.0.0.1", []string{"", ","}, "10.0.0.1"},
		{"spaces around an entry", "10.0.0.1", []string{"\t198.51.100.1 ,10.0.0.2"}, "198.51.100.1"},
		{"a port is left out", "10.0.0.1", []string{"198.51.100.1:4711, 10.0.0.2:80"}, "198.51.100.1"},
		{"IPv6", "2001:db8:1::1", []string{"2001:db8:2::1, 2001:db8:1::2"}, "2001:db8:2::1"},
		{"IPv6 with a port", "10.0.0.1", []string{"[2001:db8:2::1]:4711"}, "2001:db8:2::1"},
		{"IPv6 with a port and no brackets is another address", "10.0.0.1", []string{"2001:db8:2::1:4711"}, "2001:db8:2::1:4711"},
		{"mapped IPv4 is IPv4", "10.0.0.1", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"mapped IPv4 is trusted as IPv4", "10.0.0.1", []string{"198.51.100.1, ::ffff:10.0.0.2, [::ffff:10.0.0.3]:80"}, "198.51.100.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := &head{fields: []field{{[]byte("Forwarded"), []byte("for=203.0.113.8")}, {[]byte("X-Real-Ip"), []byte("203.0.113.8")},
				{[]byte("X_forwarded_for"), []byte("203.0.113.8")}}}
			for _, f := range tc.forwarded {
				h.fields = append(h.fields, field{[]byte("X-Forwarded-For"), []byte(f)})
			}
			peer := netip.MustParseAddr(tc.peer)
			if got := clientAddr(peer, contains(proxies, peer), proxies, h).String(); got != tc.want {
				t.Errorf("clientAddr(%s, %q) = %s, want %s", tc.peer, tc.forwarded, got, tc.want)
			}
		})
	}
}

func TestHopAddrTakesNothingButAnAddress(t *testing.T) {
	for _, hop := range []string{"198.51.100.0/24", "0xC6336401", "3325256705", "198.051.100.001", "198.51.100", "198.51.100.1 198.51.100.2",
		`"198.51.100.1"`, "198.51.100.1:", "198.51.100.1:http", "fe80::1%eth0", "[fe80::1%eth0]:80", "::ffff:198.51.100.1%eth0", "unknown", "_hidden", "h.example"} {
		if got := hopAddr(hop); got.IsValid() {
			t.Errorf("hopAddr(%s) = %s, want none", hop, got)
		}
	}
}

func TestAPeerWithoutAnAddressIsNotTrusted(t *testing.T) {
	if contains([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, netip.Addr{}) {
		t.Error("contains(everything, no address) = true, want false")
	}
}

func TestRequestID(t *testing.T) {
	requestID := func(given []byte) string {
		return string(appendRequestID(nil, []field{{[]byte("Host"), []byte("h")}, {[]byte("X-Request-Id"), given}}))
	}
	for _, given := range []string{"a-Z_0.9~", strings.Repeat("a", maxRequestID)} {
		if got := requestID([]byte(given)); got != given {
			t.Errorf("requestID(%q) = %q, want it kept", given, got)
		}
	}
	random := regexp.MustCompile("^[0-9a-f]{32}$")
	for _, given := range []string{"", strings.Repeat("a", maxRequestID+1), "a b", "a\r\nX: 1", `a"b`, "a\x1bb", "\u00e9", "a/b"} {
		if got, again := requestID([]byte(given)), requestID([]byte(given)); !random.MatchString(got) || got == again {
			t.Errorf("requestID(%q) = %q, then %q; want 128 random bits each", given, got, again)
		}
	}
}
