package apikey

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

func TestWebhookURLsThatNobodyCanDial(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		ok         bool
	}{
		{"a host", "https://hooks.example/x?token=1", true},
		{"a port", "https://hooks.example:8443/", true},
		{"an empty port", "https://hooks.example:/", true},
		{"the highest port", "https://hooks.example:65535/", true},
		{"no port that there is", "https://hooks.example:65536/", false},
		{"port zero", "https://hooks.example:0/", false},
		{"a port beyond all numbers", "https://hooks.example:99999999999999999999/", false},
		{"a public address", "https://[2606:4700::1]:443/", true},
		{"a private address", "https://10.0.0.1/", false},
		{"a mapped private address", "https://[::ffff:10.0.0.1]/", false},
		{"a zone", "https://[fe80::1%25eth0]/", false},
		{"another scheme", "http://hooks.example/", false},
		{"a password", "https://u:p@hooks.example/", false},
		{"a fragment", "https://hooks.example/#f", false},
		{"no host", "https:///x", false},
	} {
		if problem := CheckWebhookURL(tc.text, false); (problem == "") != tc.ok {
			t.Errorf("%s: %q is %q, fine: %t", tc.name, tc.text, problem, tc.ok)
		}
	}
}

// FuzzCheckWebhookURL requires of a URL that is taken that it can be called, over
// TLS, at no address that is not public, and that leave for private ones takes
// away nothing.
func FuzzCheckWebhookURL(f *testing.F) {
	for _, text := range []string{"https://hooks.example/x?token=1", "https://127.0.0.1/", "https://[::ffff:10.0.0.1]/", "https://h:99999/", "https://h:/", "https:h", "HTTPS://H/", "https://h\\@127.0.0.1/", "https://%31%32%37.0.0.1/",
		"https://[fe80::1%25eth0]/", "https://u@h/", "https://h#", "https://h?#", "https://127.1/", "https://0x7f.0.0.1/", "https://h/%zz", "https://1.2.3.4.:1/"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		any, public := CheckWebhookURL(text, true), CheckWebhookURL(text, false)
		if public == "" && any != "" {
			t.Fatalf("%q: %s, but only where private addresses are allowed", text, any)
		}
		if any != "" {
			return
		}
		req, err := http.NewRequest(http.MethodPost, text, nil)
		if err != nil {
			t.Fatalf("%q is taken, but: %v", text, err)
		}
		u := req.URL
		if u.Scheme != "https" || u.User != nil || u.Fragment != "" || u.Hostname() == "" || len(text) > MaxWebhookURL {
			t.Fatalf("%q is taken: %+v", text, u)
		}
		port := u.Port()
		if n, err := strconv.Atoi(port); port != "" && (err != nil || n < 1 || n > 65535) {
			t.Fatalf("%q is taken, whose port is %s", text, port)
		}
		if _, _, err := net.SplitHostPort(net.JoinHostPort(u.Hostname(), "443")); err != nil {
			t.Fatalf("%q is taken, but its host cannot be dialled: %v", text, err)
		}
		if again, err := url.Parse(u.String()); err != nil || again.Hostname() != u.Hostname() {
			t.Fatalf("%q leads to another host when it is written again: %q, %v", text, u, err)
		}
		if addr, err := netip.ParseAddr(strings.Trim(u.Hostname(), "[]")); public == "" && err == nil && !PublicAddr(addr) {
			t.Fatalf("%q is taken, which leads to %s", text, addr)
		}
	})
}
