package listen

import (
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// v2 returns a version 2 header: its signature and what follows.
func v2(rest string) string { return "\r\n\r\n\x00\r\nQUIT\n" + rest }

const (
	v2TCP4 = "\xc0\x00\x02\x01\xc0\x00\x02\x02\x10\x01\x00\x50" // 192.0.2.1:4097 to 192.0.2.2:80
	v2TCP6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x10\x01\x00\x50"
	v2Mapped = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x02\x10\x01\x00\x50"
)

func TestPROXYHeaders(t *testing.T) {
	const own, closed = "own", "closed" // the peer's own address; no answer
	for _, tc := range []struct{ name, header, want string }{
		{"v1 TCP4", "PROXY TCP4 192.0.2.1 192.0.2.2 4097 80\r\n", "192.0.2.1:4097"},
		{"v1 TCP6", "PROXY TCP6 2001:db8::1 2001:db8::2 4097 80\r\n", "[2001:db8::1]:4097"},
		{"v1 TCP6 mapped counts as IPv4", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 4097 80\r\n", "192.0.2.1:4097"},
		{"v1 UNKNOWN keeps the peer", "PROXY UNKNOWN\r\n", own},
		{"v1 UNKNOWN and whatever follows", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", own},
		{"v2 TCP4", v2("\x21\x11\x00\x0c" + v2TCP4), "192.0.2.1:4097"},
		{"v2 TCP6", v2("\x21\x21\x00\x24" + v2TCP6), "[2001:db8::1]:4097"},
		{"v2 TCP6 mapped counts as IPv4", v2("\x21\x21\x00\x24" + v2Mapped), "192.0.2.1:4097"},
		{"v2 with a TLV", v2("\x21\x11\x00\x11" + v2TCP4 + "\x04\x00\x02ab"), "192.0.2.1:4097"},
		{"v2 LOCAL keeps the peer", v2("\x20\x00\x00\x00"), own},
		{"v2 LOCAL with an address keeps the peer", v2("\x20\x11\x00\x0c" + v2TCP4), own},

		{"none", "", closed},
		{"garbage", "\x16\x03\x01\x02\x00\x01\r\n", closed},
		{"another word", "PROXZ TCP4 192.0.2.1 192.0.2.2 4097 80\r\n", closed},
		{"a longer word", "PROXYS TCP4 192.0.2.1 192.0.2.2 4097 80\r\n", closed},
		{"v1 lower case", "PROXY tcp4 192.0.2.1 192.0.2.2 4097 80\r\n", closed},
		{"v1 a bare LF", "PROXY TCP4 192.0.2.1 192.0.2.2 4097 80\n", closed},
		{"v1 a field short", "PROXY TCP4 192.0.2.1 192.0.2.2 4097\r\n", closed},
		{"v1 a field too many", "PROXY TCP4 192.0.2.1 192.0.2.2 4097 80 x\r\n", closed},
		{"v1 two spaces", "PROXY  TCP4 192.0.2.1 192.0.2.2 4097 80\r\n", closed},
		{"v1 IPv6 in TCP4", "PROXY TCP4 2001:db8::1 2001:db8::2 4097 80\r\n", closed},
		{"v1 no address", "PROXY TCP4 localhost 192.0.2.2 4097 80\r\n", closed},
		{"v1 a zone", "PROXY TCP6 fe80::1%eth0 fe80::2 4097 80\r\n", closed},
		{"v1 a port too high", "PROXY TCP4 192.0.2.1 192.0.2.2 65536 80\r\n", closed},
		{"v1 oversized", "PROXY UNKNOWN " + strings.Repeat("x", 107) + "\r\n", closed},
		{"v1 without an end", "PROXY TCP4 " + strings.Repeat("1", 4096), closed},
		{"v2 version 1", v2("\x11\x11\x00\x0c" + v2TCP4), closed},
		{"v2 an unknown command", v2("\x22\x11\x00\x0c" + v2TCP4), closed},
		{"v2 an unknown family", v2("\x21\x41\x00\x0c" + v2TCP4), closed},
		{"v2 an unknown transport", v2("\x21\x13\x00\x0c" + v2TCP4), closed},
		{"v2 UDP", v2("\x21\x12\x00\x0c" + v2TCP4), closed},
		{"v2 unspecified", v2("\x21\x00\x00\x00"), closed},
		{"v2 Unix", v2("\x21\x31\x00\xd8" + strings.Repeat("\x00", 216)), closed},
		{"v2 a length too short for the address", v2("\x21\x11\x00\x0b" + v2TCP4), closed},
		{"v2 oversized", v2("\x21\x11\xff\xff" + v2TCP4 + strings.Repeat("\x00", 0xffff-12)), closed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := startSite(t, Options{ProxyProtocol: true, Trusted: loopback})
			c := s.dial()
			want := map[string]string{own: c.LocalAddr().String() + " via 127.0.0.1: hello", closed: ""}[tc.want]
			if tc.want != own && tc.want != closed {
				want = tc.want + " via 127.0.0.1: hello"
			}
			if got := answer(t, c, tc.header+"hello\n"); got != want {
				t.Errorf("answered %q, want %q", got, want)
			}
			if refused := s.counters.BadHeader.Load(); (refused == 1) != (tc.want == closed) {
				t.Errorf("%d bad headers counted", refused)
			}
		})
	}
}

// TestATruncatedHeaderIsNone ends the connection at every byte of a header.
func TestATruncatedHeaderIsNone(t *testing.T) {
	for _, header := range []string{"PROXY TCP4 192.0.2.1 192.0.2.2 4097 80\r\n", v2("\x21\x11\x00\x11" + v2TCP4 + "\x04\x00\x02ab")} {
		for n := range len(header) {
			s := startSite(t, Options{ProxyProtocol: true, Trusted: loopback})
			c := s.dial()
			if _, err := io.WriteString(c, header[:n]); err != nil {
				t.Fatal(err)
			}
			c.(interface{ CloseWrite() error }).CloseWrite()
			if got := answer(t, c, ""); got != "" {
				t.Errorf("%d bytes of %q: answered %q, want the connection closed", n, header, got)
			}
			if s.counters.BadHeader.Load() != 1 || s.counters.Accepted.Load() != 0 {
				t.Errorf("%d bytes of %q: not counted as a bad header", n, header)
			}
		}
	}
}

// TestAHeaderMayComeInPieces: TCP keeps no borders, and a header that is slow
// but in time is as good as any.
func TestAHeaderMayComeInPieces(t *testing.T) {
	for _, header := range []string{"PROXY TCP4 192.0.2.1 192.0.2.2 4097 80\r\n", v2("\x21\x11\x00\x0c" + v2TCP4)} {
		s := startSite(t, Options{ProxyProtocol: true, Trusted: loopback})
		c := s.dial()
		if _, err := io.Copy(c, iotest.OneByteReader(slowly{strings.NewReader(header + "hello\n")})); err != nil {
			t.Fatal(err)
		}
		if got := answer(t, c, ""); got != "192.0.2.1:4097 via 127.0.0.1: hello" {
			t.Errorf("%q byte by byte: answered %q", header, got)
		}
	}
}

// slowly takes a millisecond for each read, so that each byte is a segment.
type slowly struct{ r io.Reader }

func (s slowly) Read(p []byte) (int, error) {
	<-time.After(time.Millisecond)
	return s.r.Read(p)
}

// TestAnUntrustedPeerAnnouncesNobody: its header is passed on as the bytes it
// is, whole or not, and its address stays its own.
func TestAnUntrustedPeerAnnouncesNobody(t *testing.T) {
	for name, o := range map[string]Options{
		"not in the list":      {ProxyProtocol: true, Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		"in the list, but off": {Trusted: loopback},
	} {
		for _, sent := range []string{"PROXY TCP4 192.0.2.1 192.0.2.2 4097 80\r", "PROXY", "hello"} {
			s := startSite(t, o)
			c := s.dial()
			if got, want := answer(t, c, sent+"\n"), c.LocalAddr().String()+" via 127.0.0.1: "+sent; got != want {
				t.Errorf("%s: answered %q, want %q", name, got, want)
			}
		}
	}
}

// TestBytesAfterTheHeaderAreAllThere sends more than the header's buffer holds
// in one piece with it.
func TestBytesAfterTheHeaderAreAllThere(t *testing.T) {
	s := startSite(t, Options{ProxyProtocol: true, Trusted: loopback})
	long := strings.Repeat("0123456789", 10_000)
	if got := answer(t, s.dial(), "PROXY TCP4 192.0.2.1 192.0.2.2 4097 80\r\n"+long+"\n"); got != "192.0.2.1:4097 via 127.0.0.1: "+long {
		t.Errorf("%d bytes came back, want %d after the address", len(got), len(long))
	}
}

// FuzzHeader holds what a trusted proxy may send to two rules: a header is
// refused or leaves a valid address without zone, and no byte behind it is lost.
func FuzzHeader(f *testing.F) {
	f.Add("PROXY TCP4 192.0.2.1 192.0.2.2 4097 80\r\n")
	f.Add("PROXY TCP6 fe80::1%eth0 fe80::2 4097 80\r\n")
	f.Add("PROXY UNKNOWN\r\n")
	f.Add(v2("\x21\x11\x00\x0c" + v2TCP4))
	f.Add(v2("\x20\x21\x00\x24" + v2TCP6))
	const mark = "\x00the rest"
	f.Fuzz(func(t *testing.T, header string) {
		c := &conn{Conn: fakeConn{strings.NewReader(header + mark)}, remote: fakeAddr()}
		if c.readHeader() != nil {
			return
		}
		if addr := addrOf(c.RemoteAddr()); !addr.IsValid() || addr.Zone() != "" || addr.Is4In6() {
			t.Errorf("%q announces %v", header, c.RemoteAddr())
		}
		rest, err := io.ReadAll(c)
		if err != nil || !strings.HasSuffix(header+mark, string(rest)) {
			t.Errorf("%q left %q, %v", header, rest, err)
		}
	})
}
