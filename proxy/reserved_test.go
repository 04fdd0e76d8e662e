package proxy

import (
	"testing"

	"latchkey/proxy/gate"
)

func TestEditsCannotTouchWhatIsTheGateways(t *testing.T) {
	for _, name := range []string{"X-Latchkey-Tenant", "X_Latchkey_Tenant", "x.latchkey.key.id", "X-Api-Version", "X_Api_Version", "X-Request-Id", "X_REQUEST_ID",
		"X-Forwarded-For", "X_Forwarded_For", "Forwarded", "X-Real-IP", "Proxy", "Host", "Content-Length", "content_length", "Transfer-Encoding",
		"Connection", "Keep-Alive", "Proxy-Authorization", "Te", "Trailer", "Upgrade", "Expect", "Date"} {
		t.Run(name, func(t *testing.T) {
			for _, r := range []*Route{
				{RequestEdits: Edits{Set: map[string]string{name: "evil"}}},
				{RequestEdits: Edits{Remove: []string{name}}},
				{ResponseEdits: Edits{Set: map[string]string{name: "evil"}}},
				{ResponseEdits: Edits{Remove: []string{name}}},
			} {
				r.Name, r.Path = "all", "/"
				if _, err := newSettings(Options{Gate: &gate.Gate{}, Routes: []*Route{r}}); err == nil {
					t.Errorf("a route with %+v %+v is taken", r.RequestEdits, r.ResponseEdits)
				}
			}
		})
	}
}
