package apikey

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestPublicAddr(t *testing.T) {
	for text, want := range map[string]bool{
		"93.184.216.34": true, "1.1.1.1": true, "2606:4700:4700::1111": true, "::ffff:1.1.1.1": true,
		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "100.64.0.1": false, "127.0.0.1": false, "127.255.255.255": false,
		"169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false, "172.32.0.1": true, "192.0.0.192": false,
		"192.0.2.1": false, "192.88.99.1": false, "192.168.0.1": false, "198.18.0.1": false, "198.51.100.1": false,
		"203.0.113.1": false, "224.0.0.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::7f00:1": false,
		"64:ff9b::7f00:1": false, "64:ff9b:1::1": false, "100::1": false, "2001::1": false, "2001:db8::1": false, "2002:7f00:1::": false,
		"3fff::1": false, "fc00::1": false, "fd00:ec2::254": false, "fe80::1": false, "fe80::1%eth0": false, "fec0::1": false, "ff02::1": false,
	} {
		if got := PublicAddr(netip.MustParseAddr(text)); got != want {
			t.Errorf("PublicAddr(%s) = %t, want %t", text, got, want)
		}
	}
	if PublicAddr(netip.Addr{}) {
		t.Error("no address is public")
	}
}

func TestCheckWebhookURL(t *testing.T) {
	for _, tc := range []struct {
		name, url string
		private   bool
		problem   string // part of it; empty if there is none
	}{
		{"a host", "https://hooks.example/", false, ""},
		{"a port, a path and a query", "https://hooks.example:8443/a/b?c=d", false, ""},
		{"a public address", "https://93.184.216.34/", false, ""},
		{"a scheme in capitals", "HTTPS://hooks.example/", false, ""},
		{"plain HTTP", "http://hooks.example/", false, "https"},
		{"no scheme", "hooks.example/", false, "https"},
		{"no host", "https:///path", false, "host"},
		{"a port and no host", "https://:443/", false, "host"},
		{"credentials", "https://a:b@hooks.example/", false, "user name"},
		{"a fragment", "https://hooks.example/#a", false, "fragment"},
		{"a space", "https://hooks.example/a b", false, "URL such as"},
		{"a line feed", "https://hooks.example/\n", false, "URL such as"},
		{"another script", "https://hooks.éxample/", false, "URL such as"},
		{"a bad escape", "https://hooks.example/%zz", false, "URL such as"},
		{"too long", "https://hooks.example/" + strings.Repeat("a", 2048), false, "2048"},
		{"a private address", "https://10.0.0.1/", false, "private"},
		{"a private address where they are allowed", "https://10.0.0.1/", true, ""},
		{"loopback in IPv6", "https://[::1]:8443/", false, "private"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := CheckWebhookURL(tc.url, tc.private)
			if (got == "") != (tc.problem == "") || !strings.Contains(got, tc.problem) {
				t.Errorf("CheckWebhookURL() = %q, want %q", got, tc.problem)
			}
		})
	}
}

func TestWebhookSecret(t *testing.T) {
	s := NewWebhookSecret([32]byte{31: 0xff})
	if text := string(s); text != "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAP8=" {
		t.Errorf("NewWebhookSecret() = %s", text)
	}
	if key, err := WebhookKey(s); err != nil || len(key) != 32 || key[31] != 0xff {
		t.Errorf("WebhookKey() = %x, %v", key, err)
	}
	shown := fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s)
	text, err := s.MarshalText()
	if err != nil || strings.Contains(shown+string(text), "whsec") {
		t.Errorf("a secret prints as %s and encodes as %s, %v", shown, text, err)
	}
	if c := (Credentials{ID{1}, "canary"}); strings.Contains(fmt.Sprintf("%v %+v %#v", c, c, c), "canary") {
		t.Error("credentials print their secret")
	}
}

func TestScheduledRotationBegins(t *testing.T) {
	c := Credentials{ID{9}, "secret"}
	with := func(edit func(*Key)) Key {
		k := sample(t)
		k.ExpiresAt = time.Time{}
		k.Rotation = Rotation{EveryDays: 30, NextAt: at(time.Hour), WebhookURL: "https://hooks.example/"}
		edit(&k)
		return k
	}
	for _, tc := range []struct {
		name string
		key  Key
		now  time.Time
		want bool
	}{
		{"at its time", with(func(*Key) {}), at(time.Hour), true},
		{"long after", with(func(*Key) {}), at(10000 * time.Hour), true},
		{"before", with(func(*Key) {}), at(time.Hour - time.Microsecond), false},
		{"without a schedule", with(func(k *Key) { k.Rotation = Rotation{NextAt: at(0)} }), at(time.Hour), false},
		{"begun already", with(func(k *Key) { k.Rotation.Pending = ID{8} }), at(time.Hour), false},
		{"rotated already", with(func(k *Key) { k.Rotation.ReplacedBy = ID{8} }), at(time.Hour), false},
		{"revoked", with(func(k *Key) { k.RevokedAt = at(0) }), at(time.Hour), false},
		{"expired", with(func(k *Key) { k.ExpiresAt = at(time.Hour) }), at(time.Hour), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.key.BeginRotation(c, tc.now)
			if (err == nil) != tc.want {
				t.Fatalf("BeginRotation() = %v, want it to begin: %t", err, tc.want)
			}
			if err == nil && (got.Keys[0].Rotation.Pending != c.ID || got.Delivery.Heir != c || got.Delivery.Key != tc.key.ID || len(got.Keys) != 1) {
				t.Errorf("BeginRotation() = %+v", got)
			}
		})
	}
	begun := with(func(k *Key) { k.Rotation.Pending = c.ID })
	if _, err := begun.CompleteRotation(Credentials{ID{7}, "x"}, at(time.Hour)); err != ErrNotLive {
		t.Errorf("completing another's rotation: %v", err)
	}
	if _, err := begun.AbandonRotation(ID{7}, at(time.Hour)); err != ErrNotLive {
		t.Errorf("abandoning another's rotation: %v", err)
	}
	for name, end := range map[string]func() (Change, error){
		"revoke":  func() (Change, error) { return begun.Revoke(at(time.Hour)) },
		"rotate":  func() (Change, error) { return begun.Rotate(Credentials{ID{6}, "y"}, 0, at(time.Hour)) },
		"abandon": func() (Change, error) { return begun.AbandonRotation(c.ID, at(time.Hour)) },
	} {
		got, err := end()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range got.Keys {
			if !k.Rotation.Pending.IsZero() {
				t.Errorf("after %s, key %s waits for %s", name, k.ID, k.Rotation.Pending)
			}
		}
	}
}
