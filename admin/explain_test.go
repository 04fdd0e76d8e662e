package admin_test

import (
	"strings"
	"testing"

	"latchkey/admin"
	"latchkey/internal/dialecttest"
)

// TestExplainReadsItsQuestion has the data plane answer with what it was asked.
func TestExplainReadsItsQuestion(t *testing.T) {
	const secret = "lk_live_secret-of-the-question"
	var asked admin.Question
	calls := 0
	p := dialecttest.StartWith(t, func(o *admin.Options) {
		o.Explain = func(q admin.Question) (admin.Explanation, error) {
			asked = q
			calls++
			return admin.Explanation{Outcome: "allowed", Route: &admin.Rule{Name: "r", Path: "/r", Tenants: []string{"acme", "globex"}}}, nil
		}
	}, dialects(t)...)
	for _, tc := range []struct {
		name, token, body string
		status            int
		contains          string
	}{
		{"all fields", "root-token", `{"method":"PUT","path":"/r?q","host":"h","ip":"::ffff:192.0.2.7","key":"` + secret + `"}`, 200, `"tenants":["acme","globex"]`},
		{"an operator of one tenant", "acme-token", `{"method":"PUT","path":"/r","host":"h"}`, 200, `"tenants":["acme"]`},
		{"of all, for one", "root-token\nX-Latchkey-Tenant: globex", `{"method":"PUT","path":"/r","host":"h"}`, 200, `"tenants":["globex"]`},
		{"for another's tenant", "acme-token\nX-Latchkey-Tenant: globex", `{"method":"PUT","path":"/r","host":"h"}`, 403, "acts for one tenant only"},
		{"without credentials", "no-such-token", `{"method":"PUT","path":"/r","host":"h"}`, 401, ""},
		{"without a method", "root-token", `{"path":"/r","host":"h"}`, 400, "method"},
		{"without a path", "root-token", `{"method":"PUT","host":"h"}`, 400, "path"},
		{"without a host", "root-token", `{"method":"PUT","path":"/r"}`, 400, "host"},
		{"an unknown field", "root-token", `{"method":"PUT","path":"/r","host":"h","secret":"` + secret + `"}`, 400, `secret`},
		{"no address", "root-token", `{"method":"PUT","path":"/r","host":"h","ip":"192.0.2","key":"` + secret + `"}`, 400, "ip must be an address"},
		{"a block", "root-token", `{"method":"PUT","path":"/r","host":"h","ip":"192.0.2.0/24"}`, 400, "ip must be an address"},
		{"an address with a zone", "root-token", `{"method":"PUT","path":"/r","host":"h","ip":"fe80::1%eth0"}`, 400, "ip must be an address"},
		{"a key that is no text", "root-token", `{"method":"PUT","path":"/r","host":"h","key":1}`, 400, "key"},
		{"two objects", "root-token", `{"method":"PUT","path":"/r","host":"h"}{}`, 400, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			asked, calls = admin.Question{}, 0
			_, res, body := p.Do(t, "POST /explain\nAuthorization: Bearer "+tc.token+"\nContent-Type: application/json\n\n"+tc.body)
			if res.StatusCode != tc.status || !strings.Contains(string(body), tc.contains) {
				t.Errorf("%d %s, want %d with %q", res.StatusCode, body, tc.status, tc.contains)
			}
			if strings.Contains(string(body), secret) {
				t.Errorf("the answer has the secret: %s", body)
			}
			if want := tc.status == 200; (calls == 1) != want {
				t.Errorf("the data plane was asked %d times", calls)
			}
			if tc.name == "all fields" && (asked.Method != "PUT" || asked.Path != "/r?q" || asked.Host != "h" || string(asked.Secret) != secret ||
				asked.Client.String() != "192.0.2.7" || asked.Tenant != "*" || !asked.Now.Equal(p.Now)) {
				t.Errorf("asked %+v", asked)
			}
		})
	}
}
