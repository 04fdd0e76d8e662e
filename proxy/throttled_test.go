package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"latchkey/apikey"
)

// TestTooManyUnknownKeys has one address try more unknown keys than it may: until the
// minute is over its requests are refused, whatever their key, and those of others are
// not.
func TestTooManyUnknownKeys(t *testing.T) {
	const limit = 3
	clock := newClock(time.Date(2026, 3, 1, 12, 0, 10, 0, time.UTC))
	now := clock.now()
	var o Options
	h := start(t, nil, func(options *Options) {
		options.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		options.Routes = append(options.Routes, &Route{Name: "open", Path: "/open", Public: true, Timeout: time.Second})
		options.FailuresPerIP, options.Now = limit, clock.now
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
	explained := func(from string, want string) {
		t.Helper()
		e, err := h.proxy.Explain(Question{Method: "GET", Target: "/", Host: "api.test", Secret: []byte(good), Client: netip.MustParseAddr(from), Now: clock.now(), Tenant: "acme"})
		if err != nil || e.Outcome != want || e.Route == nil {
			t.Errorf("what would become of a request from %s: %+v, %v, want %s", from, e, err, want)
		}
	}
	explained(attacker, "too_many_failures")
	explained(other, "allowed")
	try(neighbour, "/", good, 429, "too_many_failures")
	try(attacker, "/", "", 401, "missing_api_key")
	try(attacker, "/open", unknown, 200, "")
	try(other, "/", good, 200, "")
	if log := h.log.String(); strings.Contains(log, good) || strings.Contains(log, unknown) || !strings.Contains(log, `"outcome":"too_many_failures"`) {
		t.Error("the access log has a key, or lacks the outcome")
	}
	if log := h.log.String(); !strings.Contains(log, `"peer":"127.0.0.1"`) || !strings.Contains(log, `"client":"`+attacker+`"`) {
		t.Errorf("the access log does not name the client behind the proxy")
	}

	reload := func(limit int) {
		t.Helper()
		again := o
		again.FailuresPerIP, again.Routes = limit, nil
		for _, r := range o.Routes {
			copied := *r // as a configuration that is read again makes them
			again.Routes = append(again.Routes, &copied)
		}
		if err := h.proxy.Reload(again); err != nil {
			t.Fatal(err)
		}
	}
	reload(0)
	try(attacker, "/", good, 200, "")
	reload(limit)
	try(attacker, "/", good, 429, "too_many_failures")
	clock.pass(time.Minute)
	try(attacker, "/", good, 200, "")

	// Where nobody says who the client is, no client waits for another.
	for range limit + 1 {
		try("127.0.0.9", "/", unknown, 401, "invalid_api_key") // a trusted proxy
		try("_hidden", "/", unknown, 401, "invalid_api_key")
	}
}

// TestAHeldHeadIsNoOtherMinute begins requests in one minute and ends them in the next, in
// which as many unknown keys have been tried as may be: they are of the next.
func TestAHeldHeadIsNoOtherMinute(t *testing.T) {
	clock := newClock(time.Date(2026, 3, 1, 12, 0, 59, 0, time.UTC))
	h := start(t, nil, func(o *Options) { o.FailuresPerIP, o.Now = 2, clock.now })
	var held []net.Conn
	for range 5 {
		c, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		// The second request's head is begun with the first's end, so that it is known to have been.
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n"); err != nil {
			t.Fatal(err)
		}
		readStatus(t, c, 401)
		held = append(held, c)
	}
	clock.pass(5 * time.Second)
	for _, want := range []int{401, 401, 429} {
		if res, _ := h.get("/", "X-API-Key: unknown"); res.StatusCode != want {
			t.Errorf("%s, want %d", res.Status, want)
		}
	}
	for _, c := range held {
		if _, err := io.WriteString(c, "X-API-Key: unknown\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		readStatus(t, c, 429)
	}
}

// TestAKeyThatEndsWhileTheHeadIsHeldBack sends the key after its end, in a head that was
// begun before.
func TestAKeyThatEndsWhileTheHeadIsHeldBack(t *testing.T) {
	begun := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	clock := newClock(begun)
	h := start(t, nil, func(o *Options) { o.Now = clock.now })
	secret := h.issue(apikey.Spec{}, func(k *apikey.Key) { k.CreatedAt, k.ExpiresAt = begun.AddDate(0, -1, 0), begun.Add(time.Second) })
	c := h.dialRaw()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n"); err != nil {
		t.Fatal(err)
	}
	readStatus(t, c, 401)
	clock.pass(2 * time.Second)
	if _, err := io.WriteString(c, "X-API-Key: "+secret+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	readStatus(t, c, 401)
}

// readStatus reads an answer, of which the next is expected to begin with its end.
func readStatus(t *testing.T, c net.Conn, want int) {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != want {
		t.Errorf("%s, %v, want %d", res.Status, err, want)
	}
}

// A testClock stands still until it is told to go on.
type testClock struct{ nanos atomic.Int64 }

func newClock(at time.Time) *testClock {
	c := new(testClock)
	c.nanos.Store(at.UnixNano())
	return c
}

func (c *testClock) now() time.Time { return time.Unix(0, c.nanos.Load()).UTC() }

func (c *testClock) pass(d time.Duration) { c.nanos.Add(int64(d)) }
