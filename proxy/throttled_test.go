package proxy

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"latchkey/apikey"
)

// TestTooManyUnknownKeys has one address try more unknown keys than it may: until the
// minute is over its requests are refused, whatever their key, and those of others are
// not.
func TestTooManyUnknownKeys(t *testing.T) {
	const limit = 3
	now := time.Date(2026, 3, 1, 12, 0, 10, 0, time.UTC)
	var o Options
	h := start(t, nil, func(options *Options) {
		options.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		options.Routes = append(options.Routes, &Route{Name: "open", Path: "/open", Public: true, Timeout: time.Second})
		options.FailuresPerIP, options.Now = limit, func() time.Time { return now }
		o = *options
	})
	issued := now.AddDate(0, -1, 0)
	good := h.issue(apikey.Spec{}, func(k *apikey.Key) { k.CreatedAt = issued })
	over := h.issue(apikey.Spec{}, func(k *apikey.Key) { k.CreatedAt, k.RevokedAt = issued, issued })
	unknown := apikey.NewCredentials(format, "", now, [40]byte{250}).Secret
	try := func(from, path, key string, status int, code string) *http.Response {
		t.Helper()
		fields := []string{"X-Forwarded-For: " + from}
		if key != "" {
			fields = append(fields, "X-API-Key: "+key)
		}
		res, body := h.get(path, fields...)
		if code != "" {
			wantProblem(t, res, body, status, code)
		} else if res.StatusCode != status {
			t.Errorf("%s from %s: %s, want %d", path, from, res.Status, status)
		}
		return res
	}
	const attacker, neighbour, other = "2001:db8::1", "2001:db8::2", "192.0.2.7"
	for range limit + 1 { // keys that are over, and none at all, are no guesses
		try(attacker, "/", over, 401, "revoked_api_key")
		try(attacker, "/", "", 401, "missing_api_key")
	}
	for _, key := range []string{unknown, "lk_live_mistyped", "of another kind"}[:limit] {
		try(attacker, "/", good, 200, "")
		try(attacker, "/", key, 401, "invalid_api_key")
	}
	res := try(attacker, "/", good, 429, "too_many_failures")
	if wait := res.Header.Get("Retry-After"); wait != "51" {
		t.Errorf("Retry-After is %q, want what is left of the minute and no less, 51", wait)
	}
	try(attacker, "/", unknown, 429, "too_many_failures")
	try(neighbour, "/", good, 429, "too_many_failures")
	try(attacker, "/", "", 401, "missing_api_key")
	try(attacker, "/open", unknown, 200, "")
	try(other, "/", good, 200, "")
	if log := h.log.String(); strings.Contains(log, good) || strings.Contains(log, unknown) || !strings.Contains(log, `"outcome":"too_many_failures"`) {
		t.Error("the access log has a key, or lacks the outcome")
	}

	o.FailuresPerIP = 0
	if err := h.proxy.Reload(o); err != nil {
		t.Fatal(err)
	}
	try(attacker, "/", good, 200, "")
	o.FailuresPerIP = limit
	if err := h.proxy.Reload(o); err != nil {
		t.Fatal(err)
	}
	try(attacker, "/", good, 429, "too_many_failures")
	now = now.Add(time.Minute)
	try(attacker, "/", good, 200, "")
}
