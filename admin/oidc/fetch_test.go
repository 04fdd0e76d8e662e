package oidc

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestKeysAreAtTheIssuersSchemeOrHTTPS(t *testing.T) {
	for _, tc := range []struct {
		name  string
		start func(http.Handler) *httptest.Server
		keys  string
		ok    bool
	}{
		{"https of https", httptest.NewTLSServer, "https://keys.example/", true},
		{"http of https", httptest.NewTLSServer, "http://keys.example/", false},
		{"http of http", httptest.NewServer, "http://keys.example/", true},
		{"https of http", httptest.NewServer, "https://keys.example/", true},
		{"another scheme", httptest.NewServer, "file:///keys", false},
		{"no URL", httptest.NewServer, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var issuer string
			server := tc.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, `{"issuer": %q, "jwks_uri": %q}`, issuer, tc.keys)
			}))
			defer server.Close()
			issuer = server.URL
			at, err := discover(server.Client(), issuer)
			if tc.ok && (err != nil || at != tc.keys) || !tc.ok && err == nil {
				t.Errorf("discover() = %q, %v", at, err)
			}
		})
	}
}
