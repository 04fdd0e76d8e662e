package proxy

import (
	"strings"
	"testing"

	"latchkey/proxy/upstream"
)

func TestOurs(t *testing.T) {
	for _, name := range []string{
		"X-Latchkey-Tenant", "x-latchkey-tenant", "X_LATCHKEY_TENANT", "X-Latchkey_Key-Id", "x_Latchkey-Made-Up", "X-Latchkey-",
		"X-Api-Version", "x_api_version", "X-Request-Id", "X-REQUEST_ID", "X-Forwarded-For", "X_Forwarded_For", "x-forwarded_for",
		"X-Forwarded-Proto", "X_forwarded_proto", "X-Forwarded-Host", "X_FORWARDED_HOST", "Forwarded", "FORWARDED",
	} {
		if !ours([]byte(name)) {
			t.Errorf("ours(%s) = false, want true", name)
		}
	}
	for _, name := range []string{"", "X-Latchkey", "X-Latchkeys-Tenant", "Y-X-Latchkey-Tenant", "X-Api-Versions", "X-Api-Key", "Forwarded-For", "Authorization"} {
		if ours([]byte(name)) {
			t.Errorf("ours(%s) = true, want false", name)
		}
	}
}

func TestSameField(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"x-a", "x-a", true}, {"X-a", "x-A", true}, {"x_a-b", "X-a_b", true},
		{"x-a", "x-ab", false}, {"x-a", "x-b", false}, {"x-a", "x.a", true}, {"x-a", "x~a", true}, {"x-1", "x-2", false}, {"x-a", "xaa", false},
	} {
		if got, back := sameField([]byte(tc.a), tc.b), sameField([]byte(tc.b), tc.a); got != tc.want || back != tc.want {
			t.Errorf("sameField(%s, %s) = %t, and %t the other way round, want %t", tc.a, tc.b, got, back, tc.want)
		}
	}
}

func TestHopByHop(t *testing.T) {
	for _, name := range []string{"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Proxy-Authenticate", "Proxy-Authorization", "Content-Length", "Expect", "Host"} {
		if !hopByHop([]byte(name)) || !hopByHop([]byte(strings.ToLower(name))) || !hopByHop([]byte(strings.ReplaceAll(name, "-", "_"))) {
			t.Errorf("hopByHop(%s) = false, want true whatever Connection says", name)
		}
	}
	for _, tc := range []struct {
		name, field string
		connection  []string // one Connection field each
		want        bool
	}{
		{"any other goes on", "X-A", nil, false},
		{"a field that Connection names", "X-A", []string{"x-a"}, true},
		{"in any case", "X-A", []string{"X-a"}, true},
		{"in a list", "X-A", []string{"close,\tx-b , X-A,,"}, true},
		{"in another Connection field", "X-A", []string{"close", "x-a"}, true},
		{"a field that Connection does not name", "X-A", []string{"x-b, x-ab", "close"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var h head
			framing := 0
			fields := []upstream.Field{{Name: []byte("X-Other"), Value: []byte("x-a")}}
			for _, c := range tc.connection {
				if f := h.note(field{[]byte("Connection"), []byte(c)}, &framing); f != nil {
					t.Fatal(f)
				}
				fields = append(fields, upstream.Field{Name: []byte("connection"), Value: []byte(c)})
			}
			if got := h.isNamed([]byte(tc.field)); got != tc.want {
				t.Errorf("of a request: isNamed(%s) with Connection %q = %t, want %t", tc.field, tc.connection, got, tc.want)
			}
			if got := isNamed(connectionOptions(fields), []byte(tc.field)); got != tc.want {
				t.Errorf("of a response: isNamed(%s) with Connection %q = %t, want %t", tc.field, tc.connection, got, tc.want)
			}
		})
	}
	if hopByHop([]byte("X-A")) {
		t.Error("X-A stays behind")
	}
}
