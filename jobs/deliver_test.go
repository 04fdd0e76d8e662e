package jobs

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"latchkey/apikey"
	"latchkey/keystore"
)

// A receiver is a webhook on a real listener.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []*http.Request
	bodies []string
	answer http.HandlerFunc // nil answers 204
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := new(receiver)
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	r.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.StartTLS()
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	r.mu.Lock()
	r.got, r.bodies = append(r.got, req), append(r.bodies, string(body))
	answer := r.answer
	r.mu.Unlock()
	if answer != nil {
		answer(w, req)
		return
	}
	w.WriteHeader(204)
}

func (r *receiver) will(answer http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *receiver) calls() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

// url returns the webhook's URL: the host of the test server's certificate.
func (r *receiver) url(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(r.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return "https://example.com:" + port + "/hooks?token=canary"
}

// resolver answers look-ups in turn, and the last answer again and again.
type resolver struct {
	mu      sync.Mutex
	answers [][]netip.Addr
	asked   int
}

func (r *resolver) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer := r.answers[min(r.asked, len(r.answers)-1)]
	r.asked++
	return answer, nil
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// A world is a store with a key on a schedule, and its webhook.
type world struct {
	t        *testing.T
	disk     vfs.FS
	store    *keystore.Store
	hook     *receiver
	key      apikey.Key
	secret   apikey.Secret
	now      time.Time
	logs     strings.Builder
	webhooks *Webhooks
	courier  *Courier
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, disk: vfs.NewMem(), hook: newReceiver(t), now: epoch, secret: apikey.NewWebhookSecret([32]byte{7})}
	w.open()
	t.Cleanup(func() { _ = w.store.Close() })
	c, err := apikey.Issue(apikey.Spec{Tenant: "acme", Name: "CI", Scopes: []string{"stock:read"}, RotateEveryDays: 30,
		WebhookURL: w.hook.url(t), WebhookSecret: w.secret}, credentials(1), epoch)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.Create(ops, c); err != nil {
		t.Fatal(err)
	}
	w.key = c.Keys[0]
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.store, err = keystore.Open("store", keystore.Options{FS: w.disk}); err != nil {
		w.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(w.hook.Certificate())
	w.webhooks = NewWebhooks(WebhookOptions{AllowPrivate: true, RootCAs: roots, Timeout: 2 * time.Second,
		Resolver: &resolver{answers: [][]netip.Addr{addrs("127.0.0.1")}}})
	w.courier = NewCourier(w.store, w.store, w.webhooks, slog.New(slog.NewTextHandler(&w.logs, nil)))
}

// rotate runs a pass of Rotate, deliver one of Deliver.
func (w *world) rotate() { w.t.Helper(); w.pass(Rotate(w.store, apikey.NewSecretFormat("lk"))) }

func (w *world) deliver() { w.t.Helper(); w.pass(w.courier.Deliver()) }

func (w *world) pass(j Job) {
	w.t.Helper()
	if err := j.Pass(context.Background(), w.now); err != nil {
		w.t.Fatalf("%s: %v", j.Name, err)
	}
}

// live returns the tenant's keys in use.
func (w *world) live() []apikey.Key {
	w.t.Helper()
	page, err := w.store.List(apikey.Query{Tenant: "acme", Limit: 100})
	if err != nil {
		w.t.Fatal(err)
	}
	return page.Keys
}

// old returns the key as it stands.
func (w *world) old() apikey.Key {
	w.t.Helper()
	k, err := w.store.ByID("acme", w.key.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

// waiting requires that the key goes on as if nothing were, with a replacement
// that waits.
func (w *world) waiting() {
	w.t.Helper()
	k := w.old()
	if k.State(w.now.Add(48*time.Hour)) != apikey.StateActive || k.Rotation.Pending.IsZero() || len(w.live()) != 1 {
		w.t.Errorf("the key is %+v, beside %d others; want it active and waiting", k.Rotation, len(w.live())-1)
	}
}

type payload struct {
	Event          string    `json:"event"`
	OldKeyID       string    `json:"old_key_id"`
	NewKeyID       string    `json:"new_key_id"`
	NewKey         string    `json:"new_key"`
	NewKeyPrefix   string    `json:"new_key_prefix"`
	ProjectID      string    `json:"project_id"`
	RotatedAt      time.Time `json:"rotated_at"`
	GraceExpiresAt time.Time `json:"grace_expires_at"`
}

// payload returns the n-th message that the webhook got.
func (w *world) payload(n int) (p payload) {
	w.t.Helper()
	d := json.NewDecoder(strings.NewReader(w.hook.bodies[n]))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) find(secret string) (*apikey.Key, error) {
	digest := apikey.DigestOf([]byte(secret))
	return w.store.ByDigest(&digest)
}

func TestScheduledRotation(t *testing.T) {
	w := newWorld(t)
	w.now = epoch.AddDate(0, 0, 30).Add(-time.Microsecond)
	w.rotate()
	w.deliver()
	if w.hook.calls() != 0 || !w.old().Rotation.Pending.IsZero() {
		t.Fatal("the rotation began before its time")
	}
	w.now = w.now.Add(time.Hour)
	w.rotate()
	w.rotate() // what is begun is not begun again
	w.waiting()
	w.hook.will(func(rw http.ResponseWriter, _ *http.Request) {
		if k, err := w.find(w.payload(0).NewKey); !errors.Is(err, apikey.ErrNotFound) {
			t.Errorf("while it is delivered the new key is %+v, %v; want it unknown", k, err)
		}
		rw.WriteHeader(201)
	})
	w.deliver()
	w.hook.will(nil)
	w.deliver()
	if w.hook.calls() != 1 {
		t.Fatalf("the webhook was called %d times, want once", w.hook.calls())
	}
	p, old := w.payload(0), w.old()
	heir, err := w.find(p.NewKey)
	if err != nil {
		t.Fatalf("the delivered key: %v", err)
	}
	grace := w.now.Add(24 * time.Hour)
	want := payload{"api_key.auto_rotated", w.key.ID.String(), heir.ID.String(), p.NewKey, p.NewKey[:12], "acme", apikey.Instant(w.now), apikey.Instant(grace)}
	if p != want {
		t.Errorf("the webhook got %+v, want %+v", p, want)
	}
	if old.Rotation.ReplacedBy != heir.ID || old.State(grace.Add(-time.Second)) != apikey.StateActive || old.State(grace) != apikey.StateRotated {
		t.Errorf("the old key is %+v", old.Rotation)
	}
	if heir.Name != "CI (rotated)" || !slices.Equal(heir.Scopes, w.key.Scopes) || heir.Rotation.WebhookURL != w.key.Rotation.WebhookURL ||
		!heir.Rotation.NextAt.Equal(apikey.Instant(w.now.AddDate(0, 0, 30))) || !heir.Rotation.Pending.IsZero() {
		t.Errorf("the new key is %+v", heir)
	}
	wantSigned(t, w.hook.got[0].Header, w.hook.bodies[0], string(w.secret))

	// Long after its time, the replacement is rotated in its turn, once, and the
	// message is signed with the same secret.
	w.now = w.now.AddDate(1, 0, 0)
	w.rotate()
	w.deliver()
	w.rotate()
	w.deliver()
	if w.hook.calls() != 2 || w.payload(1).OldKeyID != heir.ID.String() {
		t.Fatalf("the webhook was called %d times, the last time about %s", w.hook.calls(), w.payload(w.hook.calls()-1).OldKeyID)
	}
	wantSigned(t, w.hook.got[1].Header, w.hook.bodies[1], string(w.secret))
	if strings.Contains(w.logs.String(), p.NewKey) || strings.Contains(w.logs.String(), "canary") {
		t.Errorf("the log shows a secret:\n%s", w.logs.String())
	}
}

// wantSigned checks both signatures as a receiver would.
func wantSigned(t *testing.T, h http.Header, body, secret string) {
	t.Helper()
	sum := func(key, text string) []byte {
		m := hmac.New(sha256.New, []byte(key))
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	id, at := h.Get("webhook-id"), h.Get("webhook-timestamp")
	for name, want := range map[string]string{
		"webhook-signature":    "v1," + base64.StdEncoding.EncodeToString(sum(string(raw), id+"."+at+"."+body)),
		"X-Strait-Signature":   "v1=" + hex.EncodeToString(sum(secret, at+"."+body)),
		"X-Strait-Timestamp":   at,
		"X-Strait-Delivery-Id": id,
		"X-Strait-Event":       "api_key.auto_rotated",
		"Content-Type":         "application/json",
	} {
		if got := h.Get(name); got != want || got == "" {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestAWebhookThatDoesNotTakeIt lets a delivery fail in many ways. The old key
// goes on, the new one admits nobody, and the next try, with the same ID, is not
// before its time.
func TestAWebhookThatDoesNotTakeIt(t *testing.T) {
	elsewhere := newReceiver(t)
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc
	}{
		{"answers 500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }},
		{"answers 410", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(410) }},
		{"redirects", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}},
		{"hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"hangs in the middle of its head", func(w http.ResponseWriter, r *http.Request) {
			c := hijack(t, w)
			_, _ = io.WriteString(c, "HTTP/1.1 200")
			<-r.Context().Done()
			c.Close()
		}},
		{"hangs up", func(w http.ResponseWriter, _ *http.Request) { hijack(t, w).Close() }},
		{"answers nonsense", func(w http.ResponseWriter, _ *http.Request) {
			c := hijack(t, w)
			_, _ = io.WriteString(c, "220 smtp.example ESMTP\r\n")
			c.Close()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.now = epoch.AddDate(0, 0, 30)
			w.rotate()
			w.hook.will(tc.answer)
			w.deliver()
			w.waiting()
			calls := w.hook.calls()
			w.deliver()
			if w.hook.calls() != calls {
				t.Error("the next try was at once")
			}
			w.hook.will(nil)
			w.now = w.now.Add(12 * time.Second)
			w.deliver()
			last := w.hook.calls() - 1
			if last < calls {
				t.Fatalf("after 12 seconds there was no further try; the log: %s", w.logs.String())
			}
			if a, b := w.hook.got[0].Header.Get("webhook-id"), w.hook.got[last].Header.Get("webhook-id"); a != b || w.payload(0).NewKey != w.payload(last).NewKey {
				t.Errorf("the tries have the IDs %s and %s, or different keys", a, b)
			}
			if _, err := w.find(w.payload(last).NewKey); err != nil || len(w.live()) != 2 {
				t.Errorf("the key delivered in the end: %v, of %d", err, len(w.live()))
			}
			if strings.Contains(w.logs.String(), w.payload(0).NewKey) || strings.Contains(w.logs.String(), "canary") {
				t.Errorf("the log shows a secret:\n%s", w.logs.String())
			}
		})
	}
	if elsewhere.calls() != 0 {
		t.Error("a redirect was followed")
	}
}

func hijack(t *testing.T, w http.ResponseWriter) net.Conn {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
	}
	return c
}

func TestADeliveryIsAbandonedAfterADay(t *testing.T) {
	w := newWorld(t)
	w.hook.will(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(503) })
	w.now = epoch.AddDate(0, 0, 30)
	w.rotate()
	begun := w.now
	for w.now.Before(begun.Add(24*time.Hour + time.Minute)) {
		w.deliver()
		w.now = w.now.Add(time.Minute)
	}
	if n := w.hook.calls(); n < 25 || n > 45 {
		t.Errorf("%d tries in a day", n)
	}
	k := w.old()
	if !k.Rotation.Pending.IsZero() || k.State(w.now) != apikey.StateActive || len(w.live()) != 1 {
		t.Errorf("after a day the key is %+v", k.Rotation)
	}
	if wait := k.Rotation.NextAt.Sub(begun.Add(24 * time.Hour)); wait < 23*time.Hour || wait > 25*time.Hour {
		t.Errorf("the next rotation is due at %s", k.Rotation.NextAt)
	}
	events, err := w.store.Audit(apikey.AuditQuery{Tenant: "acme", Key: k.ID, Limit: 10})
	var actions []apikey.Action
	for _, e := range events {
		actions = append(actions, e.Action)
	}
	if want := []apikey.Action{apikey.ActionRotationAbandoned, apikey.ActionRotationBegun, apikey.ActionCreated}; err != nil || !slices.Equal(actions, want) {
		t.Errorf("the audit log has %v, %v, want %v", actions, err, want)
	}
	if !strings.Contains(w.logs.String(), "abandoned") {
		t.Error("the log does not say so")
	}
	first := w.payload(0).NewKey
	w.hook.will(nil)
	w.now = k.Rotation.NextAt
	w.rotate()
	w.deliver()
	if last := w.payload(w.hook.calls() - 1).NewKey; last == first || len(w.live()) != 2 {
		t.Error("the next rotation did not make a key of its own")
	}
	if _, err := w.find(first); !errors.Is(err, apikey.ErrNotFound) {
		t.Errorf("the abandoned key: %v", err)
	}
}

// forgetfulKeys fails its first change, as a crash would between the webhook's
// answer and what is made of it.
type forgetfulKeys struct {
	*keystore.Store
	fail bool
}

func (f *forgetfulKeys) Change(by apikey.Origin, tenant string, id apikey.ID, decide func(apikey.Key) (apikey.Change, error)) (apikey.Change, error) {
	if f.fail {
		f.fail = false
		return apikey.Change{}, errDisk
	}
	return f.Store.Change(by, tenant, id, decide)
}

func TestADeliverySurvivesRestarts(t *testing.T) {
	w := newWorld(t)
	w.now = epoch.AddDate(0, 0, 30)
	w.rotate()
	restart := func() {
		t.Helper()
		if err := w.store.Close(); err != nil {
			t.Fatal(err)
		}
		w.open()
	}
	restart()
	w.rotate()
	w.waiting()
	w.courier = NewCourier(w.store, &forgetfulKeys{w.store, true}, w.webhooks, slog.New(slog.DiscardHandler))
	if err := w.courier.Deliver().Pass(context.Background(), w.now); !errors.Is(err, errDisk) {
		t.Errorf("a change that fails: %v", err)
	}
	if err := w.courier.Deliver().Pass(context.Background(), w.now); err != nil || w.hook.calls() != 1 {
		t.Errorf("at once it was tried again: %d calls, %v", w.hook.calls(), err)
	}
	restart()
	w.waiting()
	w.now = w.now.Add(12 * time.Second)
	w.deliver()
	if w.hook.calls() != 1 || len(w.live()) != 2 {
		t.Errorf("%d calls, %d keys; a webhook that has the key is not asked again", w.hook.calls(), len(w.live()))
	}
	if _, err := w.find(w.payload(0).NewKey); err != nil {
		t.Errorf("the key that it has: %v", err)
	}
}

// TestATakenReplacementIsNeverAbandoned has the change behind a delivery fail for
// longer than a delivery lives.
func TestATakenReplacementIsNeverAbandoned(t *testing.T) {
	w := newWorld(t)
	w.now = epoch.AddDate(0, 0, 30)
	w.rotate()
	keys := &forgetfulKeys{w.store, true}
	w.courier = NewCourier(w.store, keys, w.webhooks, slog.New(slog.DiscardHandler))
	for day := w.now.Add(25 * time.Hour); w.now.Before(day); w.now = w.now.Add(10 * time.Minute) {
		keys.fail = true
		_ = w.courier.Deliver().Pass(context.Background(), w.now) // fails, on purpose
	}
	w.hook.will(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) })
	keys.fail = false
	w.now = w.now.Add(2 * time.Hour)
	w.deliver()
	if _, err := w.find(w.payload(0).NewKey); err != nil || w.hook.calls() != 1 {
		t.Errorf("the key that the webhook took a day ago: %v, after %d calls", err, w.hook.calls())
	}
}

// TestASlowHostHoldsUpNoOther has more deliveries due to one host than a pass
// makes, and one to another behind them.
func TestASlowHostHoldsUpNoOther(t *testing.T) {
	w := newWorld(t)
	w.now = epoch.AddDate(0, 0, 29)
	for n := range 3 * deliveriesAHost {
		c, err := apikey.Issue(apikey.Spec{Tenant: "globex", RotateEveryDays: 1, WebhookURL: "https://slow.example/", WebhookSecret: w.secret},
			credentials(100+n), epoch)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.Create(ops, c); err != nil {
			t.Fatal(err)
		}
	}
	w.rotate()
	w.now = w.now.Add(48 * time.Hour)
	w.rotate()
	slow := &slowPoster{to: w.webhooks}
	w.courier = NewCourier(w.store, w.store, slow, slog.New(slog.DiscardHandler))
	w.deliver()
	if slow.calls.Load() != deliveriesAHost || w.hook.calls() != 1 {
		t.Errorf("the slow host was called %d times in a pass, want %d; the other one %d times", slow.calls.Load(), deliveriesAHost, w.hook.calls())
	}
}

// TestAPanicInADeliveryIsItsOwn panics where a message is posted: the pass says so, and
// goes on.
func TestAPanicInADeliveryIsItsOwn(t *testing.T) {
	w := newWorld(t)
	w.now = epoch.AddDate(0, 0, 29)
	w.rotate()
	w.now = w.now.Add(48 * time.Hour)
	w.rotate()
	courier := NewCourier(w.store, w.store, panicPoster{}, slog.New(slog.DiscardHandler))
	if err := courier.Deliver().Pass(t.Context(), w.now); !errors.Is(err, errPanicked) || strings.Contains(err.Error(), "canary") {
		t.Errorf("the pass gave %v, want %v", err, errPanicked)
	}
}

// panicPoster does no more than that.
type panicPoster struct{}

func (panicPoster) Post(context.Context, string, Message) error { panic("canary") }

// slowPoster fails for one host.
type slowPoster struct {
	to    Poster
	calls atomic.Int64
}

func (s *slowPoster) Post(ctx context.Context, url string, m Message) error {
	if strings.Contains(url, "slow.example") {
		s.calls.Add(1)
		return errors.New("it takes too long")
	}
	return s.to.Post(ctx, url, m)
}

func TestAKeyThatEndsMeanwhile(t *testing.T) {
	revoke := func(w *world) {
		if _, err := w.store.Change(ops, "acme", w.key.ID, func(k apikey.Key) (apikey.Change, error) { return k.Revoke(w.now) }); err != nil {
			w.t.Error(err)
		}
	}
	for _, tc := range []struct {
		name  string
		begin func(*world)
		calls int
	}{
		{"revoked before", func(w *world) { revoke(w) }, 0},
		{"rotated by hand before", func(w *world) {
			if _, err := w.store.Change(ops, "acme", w.key.ID, func(k apikey.Key) (apikey.Change, error) {
				return k.Rotate(credentials(9), time.Hour, w.now)
			}); err != nil {
				w.t.Error(err)
			}
		}, 0},
		{"revoked while the webhook answers", func(w *world) {
			w.hook.will(func(rw http.ResponseWriter, _ *http.Request) { revoke(w) })
		}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.now = epoch.AddDate(0, 0, 30)
			w.rotate()
			due, err := w.store.Deliveries(w.now, 9)
			if err != nil || len(due) != 1 {
				t.Fatal(due, err)
			}
			tc.begin(w)
			w.deliver()
			if w.hook.calls() != tc.calls {
				t.Errorf("%d calls, want %d", w.hook.calls(), tc.calls)
			}
			if k, err := w.find(due[0].Heir.Secret); !errors.Is(err, apikey.ErrNotFound) {
				t.Errorf("the replacement is %+v, %v; want it unknown", k, err)
			}
			if left, err := w.store.Deliveries(w.now.AddDate(1, 0, 0), 9); err != nil || len(left) != 0 {
				t.Errorf("what is left to deliver: %v, %v", left, err)
			}
		})
	}
}

func TestWebhooksLeadWhereTheyMay(t *testing.T) {
	hook := newReceiver(t)
	roots := x509.NewCertPool()
	roots.AddCert(hook.Certificate())
	post := func(o WebhookOptions, url string) error {
		o.RootCAs, o.Timeout = roots, 2*time.Second
		return NewWebhooks(o).Post(context.Background(), url, Message{ID: "msg_1", Event: "e", Secret: apikey.NewWebhookSecret([32]byte{})})
	}
	for _, tc := range []struct {
		name    string
		addrs   []netip.Addr
		private bool
		reached bool
	}{
		{"a loopback address", addrs("127.0.0.1"), false, false},
		{"where private ones are allowed", addrs("127.0.0.1"), true, true},
		{"a private address", addrs("10.0.0.1"), false, false},
		{"a mapped loopback address", addrs("::ffff:127.0.0.1"), false, false},
		{"the metadata service", addrs("169.254.169.254"), false, false},
		{"a public address beside a private one", addrs("93.184.216.34", "127.0.0.1"), false, false},
		{"no address", nil, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before, names := hook.calls(), &resolver{answers: [][]netip.Addr{tc.addrs}}
			err := post(WebhookOptions{AllowPrivate: tc.private, Resolver: names}, hook.url(t))
			if reached := hook.calls() > before; reached != tc.reached || (err == nil) != tc.reached || names.asked != 1 {
				t.Errorf("reached: %t, %v, after %d look-ups; want %t after one", reached, err, names.asked, tc.reached)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("the error quotes the URL: %v", err)
			}
		})
	}
	// A name that is bound anew between two look-ups: there is one look-up.
	rebinding := &resolver{answers: [][]netip.Addr{addrs("127.0.0.1"), addrs("127.0.0.2")}}
	if err := post(WebhookOptions{AllowPrivate: true, Resolver: rebinding}, hook.url(t)); err != nil || rebinding.asked != 1 {
		t.Errorf("a name that is bound anew: %v, %d look-ups", err, rebinding.asked)
	}
	for _, url := range []string{"http://example.com/", "https://127.0.0.1/", "https://user@example.com/", ""} {
		names := &resolver{answers: [][]netip.Addr{addrs("127.0.0.1")}}
		if err := post(WebhookOptions{Resolver: names}, url); err == nil || names.asked > 0 {
			t.Errorf("%s: %v, %d look-ups", url, err, names.asked)
		}
	}
	// Somebody else's certificate.
	w := NewWebhooks(WebhookOptions{AllowPrivate: true, Resolver: &resolver{answers: [][]netip.Addr{addrs("127.0.0.1")}}})
	before := hook.calls()
	if err := w.Post(context.Background(), hook.url(t), Message{Secret: apikey.NewWebhookSecret([32]byte{})}); err == nil || hook.calls() != before {
		t.Errorf("a certificate nobody vouches for: %v", err)
	}
}

func TestBackoff(t *testing.T) {
	for _, tc := range []struct {
		failures int
		chance   float64
		want     time.Duration
	}{
		{1, 0.5, 10 * time.Second}, {1, 0, 8 * time.Second}, {1, 1, 12 * time.Second}, {2, 0.5, 20 * time.Second},
		{9, 0.5, 2560 * time.Second}, {10, 0.5, time.Hour}, {1000, 1, 72 * time.Minute},
	} {
		if got := backoff(tc.failures, tc.chance); got != tc.want {
			t.Errorf("backoff(%d, %v) = %s, want %s", tc.failures, tc.chance, got, tc.want)
		}
	}
}

// noSecrets is a store that has lost the secrets of webhooks.
type noSecrets struct{ *keystore.Store }

func (noSecrets) WebhookSecret(apikey.ID) (apikey.Secret, error) { return "", apikey.ErrNotFound }

// TestAMessageThatCannotBeMade is given up like one that no webhook takes: else the key would
// wait for ever, and never be rotated again.
func TestAMessageThatCannotBeMade(t *testing.T) {
	w := newWorld(t)
	w.courier = NewCourier(noSecrets{w.store}, w.store, w.webhooks, slog.New(slog.NewTextHandler(&w.logs, nil)))
	w.now = epoch.AddDate(0, 0, 30)
	w.rotate()
	begun := w.now
	for ; w.now.Sub(begun) < apikey.DeliveryPatience; w.now = w.now.Add(10 * time.Minute) {
		_ = w.courier.Deliver().Pass(context.Background(), w.now)
	}
	if k := w.old(); k.Rotation.Pending.IsZero() {
		t.Error("the rotation was given up before a day was over")
	}
	w.now = begun.Add(apikey.DeliveryPatience + time.Hour)
	_ = w.courier.Deliver().Pass(context.Background(), w.now)
	k := w.old()
	events, err := w.store.Audit(apikey.AuditQuery{Tenant: apikey.AnyTenant, Key: k.ID, Limit: 1})
	if !k.Rotation.Pending.IsZero() || err != nil || events[0].Action != apikey.ActionRotationAbandoned || w.hook.calls() != 0 {
		t.Errorf("after a day: %+v, %v, %v, %d calls", k.Rotation, events, err, w.hook.calls())
	}
}
