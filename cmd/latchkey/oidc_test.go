package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"latchkey/internal/oidctest"
)

// TestOperatorsByToken runs gateways that know no operator but those with an
// identity provider's tokens. They start while the provider is down. What a token
// says, and the token, turn up in no log.
func TestOperatorsByToken(t *testing.T) {
	p := oidctest.Start(t)
	client := oidctest.Client{ID: "c", Subject: "canary-subject", Audience: []string{"gateway"},
		Claims: map[string]any{"roles": "issuer", "tenant": "canary-tenant", "more": "canary-more"}}
	good := p.Token(t, client)
	client.Claims = map[string]any{"roles": "canary-role", "tenant": "canary-tenant"}
	without := p.Token(t, client)
	for _, tc := range []struct {
		name  string
		comes bool // the provider is up once the gateway runs
		want  []int
	}{
		{"the provider comes up", true, []int{201, 403, 401}},
		{"the provider stays down", false, []int{503, 503, 503}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := testConfig(t, "http://127.0.0.1:1")
			cfg.Admin.Operators = nil
			cfg.Admin.OIDC.Issuer, cfg.Admin.OIDC.Audience = p.URL, "gateway"
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			p.Break(oidctest.HangUp)
			var log bytes.Buffer
			app, err := New(cfg, slog.New(slog.NewJSONHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- app.Run(ctx) }()
			if tc.comes {
				p.Break(nil)
			}
			for i, token := range []string{good, without, good[:len(good)-8] + "AAAAAAAA"} {
				req, err := http.NewRequest("POST", "http://"+app.Addrs()[1].String()+"/api/keys", strings.NewReader(`{"userId": "u"}`))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+token)
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != tc.want[i] {
					t.Errorf("token %d: %s, want %d", i, res.Status, tc.want[i])
				}
			}
			stop()
			if err := errors.Join(<-ended, app.Close()); err != nil {
				t.Fatal(err)
			}
			text := log.String()
			if strings.Contains(text, "discover the identity provider") != !tc.comes {
				t.Errorf("provider up: %t, but the log has %s", tc.comes, text)
			}
			if tc.comes && !strings.Contains(text, `"operator":"oidc canary-subject"`) {
				t.Error("the log does not say who called")
			}
			head, rest, _ := strings.Cut(good, ".")
			for _, secret := range []string{"canary-more", "canary-role", "canary-tenant", head, rest[:40], good[len(good)-40:]} {
				if strings.Contains(text, secret) {
					t.Errorf("the log has %q", secret)
				}
			}
		})
	}
}
