package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/apikey"
	"latchkey/proxy/gate"
)

const page = "https://app.example"

// corsFields returns the fields of an answer that are about CORS.
func corsFields(h http.Header) map[string][]string {
	out := map[string][]string{}
	for name, values := range h {
		if strings.HasPrefix(name, "Access-Control-") || name == "Vary" {
			out[name] = values
		}
	}
	return out
}

// startCORS runs a proxy whose upstream has ideas of its own about CORS.
func startCORS(t *testing.T) *harness {
	return start(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("access-control-allow-credentials", "true")
		w.Header().Set("Access-Control-Expose-Headers", "X-Theirs")
		w.Header().Set("X-Theirs", "kept")
		io.WriteString(w, "served")
	}, func(o *Options) {
		named := &CORS{Origins: []string{page, "http://localhost:3000"}, Methods: []string{"PUT", "DELETE"}, Headers: []string{"X-API-Key"},
			Expose: []string{"X-Request-Id", "X-Total"}, Credentials: true, MaxAge: 10 * time.Minute}
		o.Routes = []*Route{
			{Name: "named", Path: "/named", CORS: named, Demand: apikey.Demand{Scopes: []string{"s"}}},
			{Name: "any", Path: "/any", CORS: &CORS{Origins: []string{"*"}, Expose: []string{"X-Total"}}, Public: true},
			{Name: "put", Path: "/put", Methods: []string{"PUT"}, CORS: named},
			{Name: "get", Path: "/put", Methods: []string{"GET"}, Public: true},
			{Name: "none", Path: "/none", Public: true},
			{Name: "listed", Path: "/listed", Methods: []string{"GET"}, Public: true},
			{Name: "options", Path: "/listed", Methods: []string{"OPTIONS"}},
			{Name: "closed", Path: "/closed", CORS: named, Maintenance: &Maintenance{}},
		}
	})
}

func TestPreflights(t *testing.T) {
	h := startCORS(t)
	full := map[string][]string{
		"Access-Control-Allow-Origin":      {page},
		"Access-Control-Allow-Credentials": {"true"},
		"Access-Control-Allow-Methods":     {"PUT, DELETE"},
		"Access-Control-Allow-Headers":     {"X-API-Key"},
		"Access-Control-Max-Age":           {"600"},
		"Vary":                             {"Origin"},
	}
	refused := map[string][]string{"Vary": {"Origin"}}
	for _, tc := range []struct {
		name, target, origin, method string
		want                         map[string][]string
	}{
		{"of an origin that is allowed, without a key", "/named", page, "PUT", full},
		{"of an origin that is not", "/named", "https://evil.example", "PUT", refused},
		{"of an origin that only begins so", "/named", page + ".evil.example", "PUT", refused},
		{"of another port", "/named", page + ":8443", "PUT", refused},
		{"of the origin null", "/named", "null", "PUT", refused},
		{"where any origin may", "/any", "https://evil.example", "GET", map[string][]string{"Access-Control-Allow-Origin": {"*"}}},
		{"where any origin may, null too", "/any", "null", "POST", map[string][]string{"Access-Control-Allow-Origin": {"*"}}},
		{"of a route that lists methods", "/put", page, "PUT", full},
		{"of a route in maintenance", "/closed", page, "GET", full},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res, body := h.raw("OPTIONS " + tc.target + " HTTP/1.1\r\nHost: a\r\nOrigin: " + tc.origin +
				"\r\nAccess-Control-Request-Method: " + tc.method + "\r\nAccess-Control-Request-Headers: x-api-key\r\n\r\n")
			if res.StatusCode != 204 || body != "" || res.Header["Content-Length"] != nil {
				t.Errorf("got %d %q, Content-Length %q, want an empty 204", res.StatusCode, body, res.Header["Content-Length"])
			}
			if diff := cmp.Diff(tc.want, corsFields(res.Header)); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
	if h.last() != nil {
		t.Error("the upstream was asked")
	}
	h.settle()
	if got := h.metric("latchkey_requests_total", map[string]string{"route": "put", "verdict": "preflight"}); got != 1 {
		t.Errorf("preflights counted for the route of the method = %v, want 1", got)
	}
}

// TestWhatIsNoPreflight: only where a page's origin may ask is a request taken
// out of its turn. All others find the route of their own method.
func TestWhatIsNoPreflight(t *testing.T) {
	h := startCORS(t)
	const origin, asks = "Origin: " + page, "Access-Control-Request-Method: "
	for _, tc := range []struct {
		name, target string
		fields       []string
		status       int
	}{
		{"OPTIONS without an origin", "/named", []string{asks + "PUT"}, 401},
		{"OPTIONS without a method", "/named", []string{origin}, 401},
		{"OPTIONS with an empty method", "/named", []string{origin, asks}, 401},
		{"OPTIONS with two origins", "/named", []string{origin, origin, asks + "PUT"}, 401},
		{"a method that the path does not take", "/put", []string{origin, asks + "DELETE"}, 405},
		{"a route without CORS leaves it to the upstream", "/none", []string{origin, asks + "PUT"}, 200},
		{"a route without CORS does not take OPTIONS for the method asked for", "/put", []string{origin, asks + "GET"}, 405},
		{"nor does it lend OPTIONS its lack of a key", "/listed", []string{origin, asks + "GET"}, 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res, body := h.raw("OPTIONS " + tc.target + " HTTP/1.1\r\nHost: a\r\n" + lines(tc.fields) + "\r\n")
			if res.StatusCode != tc.status {
				t.Errorf("got %d %s, want %d", res.StatusCode, body, tc.status)
			}
		})
	}
}

func TestAnswersToPagesOfOtherOrigins(t *testing.T) {
	h := startCORS(t)
	good, poor := h.issue(apikey.Spec{Scopes: []string{"s"}}), h.issue(apikey.Spec{})
	readable := map[string][]string{
		"Access-Control-Allow-Origin":      {page},
		"Access-Control-Allow-Credentials": {"true"},
		"Access-Control-Expose-Headers":    {"X-Request-Id, X-Total"},
		"Vary":                             {"Origin"},
	}
	hidden := map[string][]string{"Vary": {"Origin"}}
	any := map[string][]string{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Expose-Headers": {"X-Total"}}
	for _, tc := range []struct {
		name, target, origin, key string
		status                    int
		want                      map[string][]string
	}{
		{"the upstream's fields are replaced", "/named", page, good, 200, readable},
		{"and dropped for others", "/named", "https://evil.example", good, 200, hidden},
		{"and where there is no origin", "/named", "", good, 200, hidden},
		{"a 401 can be read", "/named", page, "", 401, readable},
		{"a 401 for a bad key can be read", "/named", page, "nonsense", 401, readable},
		{"a 403 can be read", "/named", page, poor, 403, readable},
		{"a 401 for others cannot", "/named", "https://evil.example", "", 401, hidden},
		{"maintenance can be read", "/closed", page, "", 503, readable},
		{"any origin is answered with *", "/any", page, "", 200, any},
		{"and so is none, so that caches may keep it", "/any", "", "", 200, map[string][]string{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Expose-Headers": {"X-Total"}}},
		{"without CORS the upstream's are passed on", "/none", page, "", 200, map[string][]string{
			"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Credentials": {"true"}, "Access-Control-Expose-Headers": {"X-Theirs"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var fields []string
			if tc.origin != "" {
				fields = append(fields, "Origin: "+tc.origin)
			}
			if tc.key != "" {
				fields = append(fields, "X-API-Key: "+tc.key)
			}
			res, body := h.get(tc.target, fields...)
			if res.StatusCode != tc.status {
				t.Errorf("got %d %s, want %d", res.StatusCode, body, tc.status)
			}
			if diff := cmp.Diff(tc.want, corsFields(res.Header)); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCORSThatCannotBeMeantIsRefused(t *testing.T) {
	for _, tc := range []struct {
		name string
		r    Route
	}{
		{"any origin with credentials", Route{CORS: &CORS{Origins: []string{page, "*"}, Credentials: true}}},
		{"a second writer of its fields", Route{CORS: &CORS{Origins: []string{page}},
			ResponseEdits: Edits{Set: map[string]string{"access-control-allow-origin": "*"}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.r.Name, tc.r.Path = "all", "/"
			if _, err := newSettings(Options{Gate: &gate.Gate{}, Routes: []*Route{&tc.r}}); err == nil {
				t.Error("the route is taken")
			}
		})
	}
}
