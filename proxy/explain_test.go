package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/apikey"
	"latchkey/internal/nettest"
)

// explainSite is a proxy with routes of every kind and keys in every state.
func explainSite(t *testing.T) (h *harness, secrets map[string]string) {
	h = start(t, nil, func(o *Options) {
		o.Routes = append(o.Routes,
			&Route{Name: "scoped", Path: "/scoped/{id}", Methods: []string{"GET", "PUT"}, Demand: apikey.Demand{Scopes: []string{"a", "b"}}},
			&Route{Name: "tenant", Path: "/tenant", Demand: apikey.Demand{Tenants: []string{"globex"}}},
			&Route{Name: "public", Path: "/public", Public: true},
			&Route{Name: "closed", Path: "/closed", Maintenance: &Maintenance{Detail: "until noon"}},
			&Route{Name: "named", Path: "/named", Hosts: []string{"other.test"}},
		)
	})
	h.get("/public") // so that it serves, and can be ended
	over := time.Now().Add(-time.Minute)
	elsewhere, err := apikey.ParseAllowlist([]string{"192.0.2.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	return h, map[string]string{
		"none": "", "bad": "no-such-secret", "mistyped": "lk_live_x",
		"plain":   h.issue(apikey.Spec{}),
		"one":     h.issue(apikey.Spec{Scopes: []string{"a"}}),
		"both":    h.issue(apikey.Spec{Scopes: []string{"b", "a"}}),
		"globex":  h.issue(apikey.Spec{Tenant: "globex"}),
		"revoked": h.issue(apikey.Spec{}, func(k *apikey.Key) { k.RevokedAt = over }),
		"expired": h.issue(apikey.Spec{}, func(k *apikey.Key) { k.ExpiresAt = over }),
		"rotated": h.issue(apikey.Spec{}, func(k *apikey.Key) { k.Rotation.GraceEndsAt = over }),
		"away":    h.issue(apikey.Spec{AllowedIPs: elsewhere}),
	}
}

// TestExplainAgreesWithWhatHappens makes every request and asks what would become of
// it: status, code and detail are those of the answer.
func TestExplainAgreesWithWhatHappens(t *testing.T) {
	h, secrets := explainSite(t)
	outcomes := map[string]int{}
	for name, secret := range secrets {
		for _, line := range []string{"GET /x", "GET /scoped/1", "PUT /scoped/1?q=1", "DELETE /scoped/1", "GET /tenant", "GET /public", "GET /closed", "GET /named",
			"GET /a//b", "GET /a%2fb", "get /x", "TRACE /x", "GET x", "GET /scoped/../x"} {
			method, target, _ := strings.Cut(line, " ")
			for _, host := range []string{"api.test", "other.test:80", "two words"} {
				credential := ""
				if secret != "" {
					credential = "X-API-Key: " + secret + "\r\n"
				}
				res, body := h.raw(line + " HTTP/1.1\r\nHost: " + host + "\r\n" + credential + "\r\n")
				e, err := h.proxy.Explain(Question{Method: method, Target: target, Host: host, Secret: []byte(secret),
					Client: netip.MustParseAddr("127.0.0.1"), Now: time.Now(), Tenant: apikey.AnyTenant})
				if err != nil {
					t.Fatal(err)
				}
				got, want := [3]string{"0", "", ""}, [3]string{"0", "", ""}
				if e.Status != 0 {
					got = [3]string{fmt.Sprint(e.Status), e.Outcome, e.Detail}
				}
				if res.StatusCode != 200 {
					var p problem
					if err := json.Unmarshal([]byte(body), &p); err != nil {
						t.Fatalf("%s: %v", body, err)
					}
					want = [3]string{fmt.Sprint(p.Status), p.Code, p.Detail}
				}
				if got != want {
					t.Errorf("%s of %s with the key %s: explained as %q, answered with %q", line, host, name, got, want)
				}
				if allow := res.Header.Get("Allow"); allow != strings.Join(e.Allowed, ", ") {
					t.Errorf("%s: allowed %q, answered with %q", line, e.Allowed, allow)
				}
				outcomes[e.Outcome]++
			}
		}
	}
	for _, v := range append(apikey.Verdicts(), apikey.Allowed) {
		if outcomes[v.String()] == 0 {
			t.Errorf("nothing was %s", v)
		}
	}
	made, logged := 1+len(secrets)*14*3, func() int { return strings.Count(h.log.String(), `"msg":"request"`) }
	nettest.Until(t, "all requests are in the access log", func() bool { return logged() >= made })
	if lines := logged(); lines != made {
		t.Errorf("%d requests in the access log, want those that were made, %d", lines, made)
	}
}

// TestExplainKnowsOneTenant holds explanations about another tenant's keys to be
// those about a key that never was.
func TestExplainKnowsOneTenant(t *testing.T) {
	h, secrets := explainSite(t)
	unknown := apikey.NewSecretFormat("lk").New("live", [32]byte{200})
	for _, target := range []string{"/x", "/scoped/1", "/tenant", "/public", "/closed", "/nowhere"} {
		ask := func(secret, tenant string) Explanation {
			e, err := h.proxy.Explain(Question{Method: "GET", Target: target, Host: "api.test", Secret: []byte(secret),
				Client: netip.MustParseAddr("127.0.0.1"), Now: time.Now(), Tenant: tenant})
			if err != nil {
				t.Fatal(err)
			}
			e.Route = nil // the same pointer in all
			return e
		}
		want := ask(unknown, "initech")
		for name, secret := range secrets {
			if secret == "" {
				continue
			}
			if diff := cmp.Diff(want, ask(secret, "initech")); diff != "" {
				t.Errorf("%s with the key %s (-unknown +another's):\n%s", target, name, diff)
			}
		}
	}
	e, err := h.proxy.Explain(Question{Method: "GET", Target: "/x", Host: "h", Secret: []byte(secrets["globex"]), Now: time.Now(), Tenant: "globex"})
	if err != nil || e.Key.IsZero() || e.Outcome != "allowed" {
		t.Errorf("its own key: %+v, %v", e, err)
	}
}

// TestExplainSaysWhenItCannotTell has the store fail.
func TestExplainSaysWhenItCannotTell(t *testing.T) {
	h, secrets := explainSite(t)
	h.source.mu.Lock()
	h.source.err = errors.New("the disk is gone")
	h.source.mu.Unlock()
	for _, tenant := range []string{"acme", apikey.AnyTenant} {
		if e, err := h.proxy.Explain(Question{Method: "GET", Target: "/x", Host: "h", Secret: []byte(secrets["plain"]), Now: time.Now(), Tenant: tenant}); err == nil {
			t.Errorf("explained as %+v, want an error", e)
		}
	}
}

// TestExplainReadsOneRequest has line ends in what makes up the head.
func TestExplainReadsOneRequest(t *testing.T) {
	h, _ := explainSite(t)
	for _, q := range []Question{
		{Method: "GET", Target: "/x HTTP/1.1\r\nHost: other.test\r\nX: ", Host: "api.test"},
		{Method: "GET", Target: "/x", Host: "api.test\r\nContent-Length: 5"},
		{Method: "GET / HTTP/1.1\r\nX:", Target: "/x", Host: "api.test"},
		{Method: "GET", Target: "/" + strings.Repeat("x", 20<<10), Host: "api.test"},
		{Method: "", Target: "/x", Host: "api.test"},
		{Method: "GET", Target: "", Host: "api.test"},
		{Method: "GET", Target: "/x", Host: ""},
	} {
		e, err := h.proxy.Explain(q)
		if err != nil || !slices.Contains([]string{"bad_request", "head_too_large", "bad_host"}, e.Outcome) {
			t.Errorf("%.40q: %s, %v", fmt.Sprint(q.Method, q.Target, q.Host), e.Outcome, err)
		}
	}
}
