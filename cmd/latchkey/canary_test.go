package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/apikey"
	"latchkey/config"
	"latchkey/jobs"
)

// canaryTokens are secrets that operators choose.
const (
	canaryCerts    = "certs-token-canary-5f1d6c0e9ab2"
	canaryImported = "imported-canary-b64c7a90d2e81f35"
	canaryHook     = "hook-canary-91ce07d4b8fa"
)

// A canary is a gateway with a secret in every place that can hold one, and all
// that it gave away since.
type canary struct {
	t       *testing.T
	cfg     *config.Config
	log     bytes.Buffer // written through a slog.Handler, which locks
	hook    *httptest.Server
	hookOK  bool
	dials   int
	gateway *gateway

	mu      sync.Mutex
	secrets map[string]string // by what they are
	outputs map[string][]byte // by what they are
}

func newCanary(t *testing.T) *canary {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/fail") {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, "ok")
	}))
	t.Cleanup(backend.Close)
	c := &canary{t: t, cfg: testConfig(t, backend.URL), secrets: map[string]string{}, outputs: map[string][]byte{}}
	c.hook = httptest.NewUnstartedServer(http.HandlerFunc(c.takeHook))
	c.hook.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	c.hook.StartTLS()
	t.Cleanup(c.hook.Close)
	t.Setenv("LATCHKEY_CANARY_CERTS", canaryCerts)
	c.cfg.Admin.CertsTokenEnv, c.cfg.Admin.AllowPrivateWebhooks = "LATCHKEY_CANARY_CERTS", true
	c.cfg.Proxy.AccessLog.Enabled = true
	c.cfg.Proxy.Credentials = append(c.cfg.Proxy.Credentials, config.Credential{Query: "api_key"})
	c.secrets["the operator's token"], c.secrets["the CERTS-TOKEN"], c.secrets["the imported secret"] = testToken, canaryCerts, canaryImported
	return c
}

// takeHook is the webhook: it learns the pending secret, and takes it or not.
func (c *canary) takeHook(w http.ResponseWriter, r *http.Request) {
	var m struct {
		Key string `json:"new_key"`
	}
	body, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(body, &m) // an empty secret fails the test below
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secrets["the pending secret"] = m.Key
	if !c.hookOK {
		http.Error(w, m.Key, 500) // and says it back
	}
}

// run runs the gateway for the time of a function, and keeps the files of its
// store: as they are meanwhile, its log and all, and once it is closed.
func (c *canary) run(name string, do func()) {
	c.t.Helper()
	app, err := New(c.cfg, slog.New(slog.NewJSONHandler(&c.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx) }()
	c.gateway = &gateway{c.t, app, "http://" + app.Addrs()[0].String(), "http://" + app.Addrs()[1].String()}
	do()
	c.keepFiles(name + ", running")
	stop()
	if err := errors.Join(<-ended, app.Close()); err != nil {
		c.t.Fatal(err)
	}
	c.keepFiles(name + ", closed")
}

func (c *canary) keepFiles(when string) {
	err := filepath.WalkDir(c.cfg.Store.Path, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var data []byte
			if data, err = os.ReadFile(path); errors.Is(err, os.ErrNotExist) {
				return nil // compacted away meanwhile
			}
			c.outputs["file "+filepath.Base(path)+" of the store "+when] = data
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// ask makes a call of the admin plane as the operator, unless a header has another
// credential.
func (c *canary) ask(method, path, body string, headers ...string) (int, []byte) {
	c.t.Helper()
	if !slices.Contains(headers, "CERTS-TOKEN") {
		headers = append([]string{"Authorization", "Bearer " + testToken}, headers...)
	}
	return c.send(c.gateway.admin, method, path, body, headers...)
}

func (c *canary) send(plane, method, path, body string, headers ...string) (int, []byte) {
	c.t.Helper()
	req, err := http.NewRequest(method, plane+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return c.dialer().DialContext(ctx, network, addr)
		}}}
	res, err := client.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if res.StatusCode >= 400 {
		c.outputs[fmt.Sprintf("answer %d, %s, number %d", res.StatusCode, method, len(c.outputs))] = fmt.Append(answer, res.Header)
	}
	return res.StatusCode, answer
}

// dialer dials from another address each time: too many failed authentications
// from one have all calls from there turned away.
func (c *canary) dialer() *net.Dialer {
	c.dials++
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(c.dials>>8), byte(c.dials))}}
}

// made notes a secret of an answer.
func (c *canary) made(what, field, method, path, body string, headers ...string) (fields map[string]any) {
	c.t.Helper()
	status, answer := c.ask(method, path, body, headers...)
	if err := json.Unmarshal(answer, &fields); err != nil || status > 299 {
		c.t.Fatalf("%s: %d %s", what, status, answer)
	}
	secret, _ := fields[field].(string)
	c.secrets[what] = secret
	return fields
}

// keep notes what a later reading call shows.
func (c *canary) keep(method, path string) {
	c.t.Helper()
	status, answer := c.ask(method, path, "")
	if status > 299 || len(answer) == 0 {
		c.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	c.outputs[fmt.Sprintf("%s %s, number %d", method, path, len(c.outputs))] = answer
}

// issueAll makes a key in every way there is, and returns the ID of the one that
// is rotated on schedule.
func (c *canary) issueAll() (scheduled string) {
	const typed = "application/json"
	c.made("Peach's key", "key", "POST", "/api/keys", `{"userId": "u"}`, "Content-Type", typed)
	c.made("Peach's key with an Idempotency-Key", "key", "POST", "/api/keys", `{"userId": "i"}`, "Idempotency-Key", "k-1")
	c.made("Truvera's JWT", "jwt", "POST", "/keys", `{"alias": "a"}`)
	c.made("Truvera's JWT with an Idempotency-Key", "jwt", "POST", "/keys", `{"alias": "i"}`, "Idempotency-Key", "k-2")
	c.made("the temporary key", "key", "POST", "/keys/temporary-key", `{"isTestmode": true}`, "CERTS-TOKEN", canaryCerts, "Idempotency-Key", "k-3")
	old := c.made("Strait's key", "key", "POST", "/v1/api-keys", `{"name": "r"}`)
	c.made("the rotated key", "key", "POST", "/v1/api-keys/"+old["id"].(string)+"/rotate", `{}`, "Idempotency-Key", "k-4")
	k := c.made("the scheduled key", "key", "POST", "/v1/api-keys", fmt.Sprintf(
		`{"name": "s", "rotation_interval_days": 1, "rotation_webhook_url": "%s/hook?token=%s"}`, c.hook.URL, canaryHook), "Idempotency-Key", "k-5")
	c.secrets["the webhook's secret"] = k["rotation_webhook_secret"].(string)
	if status, body := c.ask("POST", "/import", `{"secret": "`+canaryImported+`", "name": "old"}`); status != 200 || !bytes.Contains(body, []byte(`"id"`)) {
		c.t.Fatalf("import: %d %s", status, body)
	}
	return k["id"].(string)
}

// provoke makes calls that fail, with each secret wherever a call can have one.
func (c *canary) provoke() {
	for _, secret := range c.known() {
		quoted, _ := json.Marshal(secret)
		text := string(quoted)
		for _, body := range []string{`{"userId": {"x": ` + text + `}}`, `{"userId": ` + text, text, `{"userId": 1, "description": ` + text + `}`,
			`{"description": ` + text + `}`, `{"userId": ` + text + `, "x": 1}`, `{"apiVersion": ` + text + `}`, `{"userId": "` + strings.Repeat(secret, 12) + `"}`} {
			c.ask("POST", "/api/keys", body)
			c.ask("POST", "/keys", strings.ReplaceAll(body, "userId", "alias")+" x")
			c.ask("POST", "/v1/api-keys", strings.ReplaceAll(body, "userId", "scopes"))
			c.ask("POST", "/v1/api-keys", `{"name": "n", "expires_at": `+text+`, "rotation_webhook_url": "https://u:`+secret+`@h/", "rotation_interval_days": 1}`)
			c.ask("POST", "/import", `{"secret": `+text+`, "sha256": `+text+`}`+"\n"+body)
		}
		for _, target := range []string{"/api/keys?limit=" + secret, "/api/keys?startingAfter=" + secret, "/api/keys?status=" + secret, "/keys?offset=" + secret + "&api_key=" + secret,
			"/v1/api-keys?cursor=" + secret, "/audit?key=" + secret, "/audit?since=" + secret, "/api/keys/" + secret, "/keys/" + secret, "/" + secret, "/export?tenant=" + secret + "%20"} {
			c.ask("GET", target, "")
			c.send(c.gateway.admin, "DELETE", target, "", "Authorization", "Bearer "+secret+"x")
			c.send(c.gateway.admin, "BREW", target, "", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("u:"+secret)))
		}
		c.ask("POST", "/v1/api-keys/"+secret+"/rotate", `{}`)
		c.ask("POST", "/api/keys", `{}`, "Content-Type", secret, "X-API-KEY", secret)
		c.ask("POST", "/api/keys", `{}`, "Idempotency-Key", secret+" "+secret)
		c.ask("GET", "/api/keys", "", "X-Latchkey-Tenant", secret+" "+secret)
		c.send(c.gateway.admin, "POST", "/keys/temporary-key", "{}", "CERTS-TOKEN", secret+"x")
		for _, place := range []string{"/?api_key=" + secret, "/fail?api_key=" + secret, "/?api_key=" + secret + "x"} {
			c.send(c.gateway.proxy, "GET", place, "")
			c.send(c.gateway.proxy, "GET", place, "", "X-API-Key", secret, "Authorization", "Bearer "+secret)
		}
		c.send(c.gateway.proxy, "GET", "/fail", "", "X-API-Key", secret)
		if strings.HasPrefix(secret, c.cfg.Keys.Prefix+"_") { // others are not to be recognised in a path
			c.send(c.gateway.proxy, "GET", "/orders/"+secret+"/x", "")
			c.send(c.gateway.proxy, "GET", "/"+secret, "", "X-API-Key", secret)
		}
		for _, plane := range []string{c.gateway.admin, c.gateway.proxy} {
			for _, raw := range []string{"GET /" + secret + " HTTP/9.9\r\n\r\n", secret + "\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n" + secret + "\r\n\r\n", "POST /keys HTTP/1.1\r\nHost: a\r\nContent-Length: " + secret + "\r\n\r\n"} {
				c.raw(plane, raw)
			}
		}
	}
}

// known are the secrets so far, in order.
func (c *canary) known() (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(c.secrets)) {
		out = append(out, c.secrets[what])
	}
	return out
}

// raw sends a text and keeps what comes back.
func (c *canary) raw(plane, text string) {
	c.t.Helper()
	conn, err := c.dialer().Dial("tcp", strings.TrimPrefix(plane, "http://"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		c.t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).CloseWrite() // the plane may have closed first
	answer, _ := io.ReadAll(conn)
	c.outputs[fmt.Sprintf("raw answer, number %d", len(c.outputs))] = answer
}

// rotate begins the scheduled rotation and tries to deliver its replacement once,
// as the jobs would at that time.
func (c *canary) rotate(at time.Time, trusted bool) {
	c.t.Helper()
	app := c.gateway.app
	o := jobs.WebhookOptions{AllowPrivate: true}
	if trusted {
		o.RootCAs = c.hook.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	}
	runner := []jobs.Job{jobs.Rotate(app.store, apikey.NewSecretFormat(c.cfg.Keys.Prefix)),
		jobs.NewCourier(app.store, app.store, jobs.NewWebhooks(o), app.logger).Deliver()}
	for _, j := range runner {
		if err := j.Pass(c.t.Context(), at); err != nil {
			c.t.Fatal(err)
		}
	}
}

// spellings are a secret, without its shown head and tail, as it could turn up.
func spellings(secret string) map[string][]byte {
	core := secret
	if parts := strings.Split(secret, "."); len(parts) == 3 {
		core = parts[2] // of a JWT, that is what the rest says nothing about
	}
	if len(core) > 40 {
		core = core[13 : len(core)-5]
	}
	sum := sha256.Sum256([]byte(secret))
	out := map[string][]byte{"as it is": []byte(core), "in hexadecimal": fmt.Appendf(nil, "%x", core),
		"as its digest in hexadecimal": fmt.Appendf(nil, "%x", sum)}
	for i := range 3 { // wherever in a longer text it begins
		whole := core[i:]
		whole = whole[:len(whole)/3*3]
		out[fmt.Sprintf("in base64 from %d", i)] = []byte(base64.StdEncoding.EncodeToString([]byte(whole)))
		out[fmt.Sprintf("in URL-safe base64 from %d", i)] = []byte(base64.URLEncoding.EncodeToString([]byte(whole)))
	}
	return out
}

// TestNoSecretGetsOut has a canary in every secret that the gateway is given or
// makes, provokes errors with them, and looks for them in all that comes out.
func TestNoSecretGetsOut(t *testing.T) {
	c := newCanary(t)
	var scheduled string
	later := time.Now().Add(49 * time.Hour)
	c.run("at first", func() {
		scheduled = c.issueAll()
		c.rotate(later, false) // the webhook's certificate is not trusted
		c.rotate(later.Add(time.Hour), true)
		c.provoke()
		c.readAll(scheduled)
	})
	c.hookOK = true
	c.run("after a restart", func() {
		c.rotate(later.Add(3*time.Hour), true)
		for n, path := range []string{"/api/keys", "/keys"} { // answered as before
			_, body := c.ask("POST", path, []string{`{"userId": "i"}`, `{"alias": "i"}`}[n], "Idempotency-Key", fmt.Sprint("k-", n+1))
			if !bytes.Contains(body, []byte(c.secrets[[]string{"Peach's key with an Idempotency-Key", "Truvera's JWT with an Idempotency-Key"}[n]])) {
				t.Errorf("POST %s with the Idempotency-Key of before is answered %s", path, body)
			}
		}
		c.provoke()
		c.readAll(scheduled)
	})
	c.outputs["the log"] = c.log.Bytes()
	for what, secret := range c.secrets {
		if len(secret) < 16 {
			t.Fatalf("%s is %q, which shows nothing", what, secret)
		}
		for spelling, text := range spellings(secret) {
			for where, output := range c.outputs {
				if i := bytes.Index(output, text); i >= 0 {
					t.Errorf("%s, %s, is in %s: …%s", what, spelling, where, output[max(0, i-150):min(len(output), i+len(text)+20)])
				}
			}
		}
	}
	// The webhook's URL is kept and shown, but with its token in no log.
	for where, output := range c.outputs {
		logged := where == "the log" || strings.Contains(where, "/metrics") || strings.Contains(where, "/audit") || strings.HasPrefix(where, "answer")
		if logged && bytes.Contains(output, []byte(canaryHook)) {
			t.Errorf("the token of the webhook's URL is in %s", where)
		}
	}
	for _, proof := range []string{`"admin call"`, `"request"`, "upstream_failed", "could not be delivered", "certificate", `"status":422`, "the webhook answered 500"} {
		if !bytes.Contains(c.log.Bytes(), []byte(proof)) {
			t.Errorf("the log lacks %s; the canary proves nothing", proof)
		}
	}
	t.Logf("%d secrets, %d outputs, %d bytes of log", len(c.secrets), len(c.outputs), c.log.Len())
}

// readAll keeps what all reading calls show now.
func (c *canary) readAll(id string) {
	for _, path := range []string{"/keys", "/v1/api-keys?include_revoked=true", "/api/keys?limit=100", "/api/keys/" + id, "/audit?limit=1000", "/audit?key=" + id,
		"/export", "/metrics", "/.well-known/jwks.json"} {
		c.keep("GET", path)
	}
}
