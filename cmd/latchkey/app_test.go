package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"latchkey/config"
	"latchkey/internal/nettest"
	"latchkey/keystore"
)

const testToken = "token-of-the-test-operator"

// testConfig is a gateway on free ports in front of the target, with one route
// for everything.
func testConfig(t testing.TB, target string) *config.Config {
	t.Helper()
	return demoConfig(t.TempDir(), "127.0.0.1:0", "127.0.0.1:0", strings.TrimPrefix(target, "http://"), testToken)
}

// gateway is an App that runs until the test ends.
type gateway struct {
	t     testing.TB
	app   *App
	proxy string // URL of the data plane
	admin string // URL of the admin plane
}

func startGateway(t testing.TB, cfg *config.Config) *gateway {
	t.Helper()
	app, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, app.Close()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return &gateway{t, app, "http://" + app.Addrs()[0].String(), "http://" + app.Addrs()[1].String()}
}

func upstreamOK(t testing.TB) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
	t.Cleanup(s.Close)
	return s
}

// issued is the part of an issued key that tests need.
type issued struct{ ID, Key string }

// issue makes a key through the admin plane.
func issue(client *http.Client, admin string) (issued, error) {
	var k issued
	res, err := call(client, "POST", admin+"/api/keys", `{"userId": "u"}`)
	if err != nil {
		return k, err
	}
	defer res.Body.Close()
	if res.StatusCode != 201 {
		return k, fmt.Errorf("create answered %s", res.Status)
	}
	return k, json.NewDecoder(res.Body).Decode(&k)
}

// revoke ends a key through the admin plane.
func revoke(client *http.Client, admin, id string) error {
	res, err := call(client, "DELETE", admin+"/api/keys/"+id, "")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != 204 {
		return fmt.Errorf("delete answered %s", res.Status)
	}
	return nil
}

func call(client *http.Client, method, url, body string) (*http.Response, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	return client.Do(req)
}

// use sends a request with a key and returns the status and code of the answer.
func use(client *http.Client, proxy, key string) (int, string, error) {
	req, err := http.NewRequest("GET", proxy+"/", nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("X-API-Key", key)
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	var p struct{ Code string }
	if body, err := io.ReadAll(res.Body); err != nil {
		return 0, "", err
	} else if res.StatusCode != 200 {
		if err := json.Unmarshal(body, &p); err != nil {
			return 0, "", err
		}
	}
	return res.StatusCode, p.Code, nil
}

// TestFailuresByAddress has the configured limit turn away an address that has tried an
// unknown key.
func TestFailuresByAddress(t *testing.T) {
	cfg := testConfig(t, upstreamOK(t).URL)
	cfg.Proxy.Limits.FailuresPerIP = 1
	g := startGateway(t, cfg)
	k, err := issue(http.DefaultClient, g.admin)
	if err != nil {
		t.Fatal(err)
	}
	nettest.Until(t, "a good key is refused from there", func() bool { // at the latest in a new minute of the clock
		unknown, _, err := use(http.DefaultClient, g.proxy, "no-key-of-anybody")
		good, code, err2 := use(http.DefaultClient, g.proxy, k.Key)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		return unknown != 200 && good == 429 && code == "too_many_failures"
	})
}

func TestIssueUseRevoke(t *testing.T) {
	g := startGateway(t, testConfig(t, upstreamOK(t).URL))
	k, err := issue(http.DefaultClient, g.admin)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if status, code, err := use(http.DefaultClient, g.proxy, k.Key); status != 200 || err != nil {
			t.Fatalf("before: %d %s, %v", status, code, err)
		}
	}
	if err := revoke(http.DefaultClient, g.admin, k.ID); err != nil {
		t.Fatal(err)
	}
	if status, code, err := use(http.DefaultClient, g.proxy, k.Key); status != 401 || code != "revoked_api_key" || err != nil {
		t.Fatalf("the very next request: %d %s, %v", status, code, err)
	}
}

// TestRevokedOverHTTPUnderLoad revokes keys while 64 connections use them. A
// request that was begun after the revocation was answered must be refused.
func TestRevokedOverHTTPUnderLoad(t *testing.T) {
	const connections = 64
	rounds := 1000
	if testing.Short() {
		rounds = 50
	}
	g := startGateway(t, testConfig(t, upstreamOK(t).URL))

	type target struct {
		request            []byte
		revoked            atomic.Bool // the revocation has been answered
		admitted, refused  atomic.Int64
		enoughUse, enoughR chan struct{}
	}
	var current atomic.Pointer[target]
	var served, violations atomic.Int64
	stop := make(chan struct{})
	var hammer sync.WaitGroup
	for range connections {
		c, err := net.Dial("tcp", strings.TrimPrefix(g.proxy, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		hammer.Go(func() {
			defer c.Close()
			r := bufio.NewReader(c)
			for {
				select {
				case <-stop:
					return
				default:
				}
				k := current.Load()
				if k == nil {
					runtime.Gosched() // nothing to hammer yet
					continue
				}
				mustRefuse := k.revoked.Load() // before the request is begun
				if _, err := c.Write(k.request); err != nil {
					t.Error(err)
					return
				}
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, res.Body)
				switch {
				case res.StatusCode == 200 && mustRefuse:
					violations.Add(1)
				case res.StatusCode == 200:
					if k.admitted.Add(1) == connections {
						close(k.enoughUse)
					}
				case res.StatusCode != 401:
					t.Errorf("answered %s", res.Status)
				}
				if res.StatusCode == 401 && mustRefuse && k.refused.Add(1) == connections {
					close(k.enoughR)
				}
				served.Add(1)
			}
		})
	}
	for range rounds {
		k, err := issue(http.DefaultClient, g.admin)
		if err != nil {
			t.Fatal(err)
		}
		next := &target{request: fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: %s\r\n\r\n", k.Key),
			enoughUse: make(chan struct{}), enoughR: make(chan struct{})}
		current.Store(next)
		<-next.enoughUse // the key is hot in every cache there is
		if err := revoke(http.DefaultClient, g.admin, k.ID); err != nil {
			t.Fatal(err)
		}
		next.revoked.Store(true)
		<-next.enoughR
	}
	close(stop)
	hammer.Wait()
	t.Logf("%d revocations, %d requests on %d connections", rounds, served.Load(), connections)
	if n := violations.Load(); n != 0 {
		t.Errorf("%d requests that were begun after the revocation was answered were admitted, want 0", n)
	}
}

// TestJWTsAreKeysLikeAnyOther issues a key in Truvera's dialect and uses it.
func TestJWTsAreKeysLikeAnyOther(t *testing.T) {
	g := startGateway(t, testConfig(t, upstreamOK(t).URL))
	res, err := call(http.DefaultClient, "POST", g.admin+"/keys", "{}")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var k struct{ Key, JWT string }
	if err := json.NewDecoder(res.Body).Decode(&k); err != nil {
		t.Fatal(err)
	}
	head, payload, _ := strings.Cut(k.JWT, ".")
	none := "eyJhbGciOiJub25lIn0." + payload[:strings.IndexByte(payload, '.')+1]
	for name, tc := range map[string]struct {
		token string
		want  int
	}{
		"as it was issued": {k.JWT, 200}, "with one bit changed": {head + "X." + payload, 401}, "with alg none": {none, 401},
	} {
		if status, code, err := use(http.DefaultClient, g.proxy, tc.token); status != tc.want || err != nil {
			t.Errorf("%s: %d %s, %v, want %d", name, status, code, err, tc.want)
		}
	}
	for _, call := range []struct {
		method, path string
		status       int
	}{{"GET", "/.well-known/jwks.json", 200}, {"POST", "/signing-keys/rotate", 204}} {
		res, err := callAdmin(g, call.method, call.path)
		if err != nil || res != call.status {
			t.Errorf("%s %s: %d, %v, want %d", call.method, call.path, res, err, call.status)
		}
	}
	if status, code, err := use(http.DefaultClient, g.proxy, k.JWT); status != 200 || err != nil {
		t.Errorf("after the signing key was rotated: %d %s, %v", status, code, err)
	}
}

func callAdmin(g *gateway, method, path string) (int, error) {
	res, err := call(http.DefaultClient, method, g.admin+path, "")
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

func TestAStoreBelongsToOneProcess(t *testing.T) {
	cfg := testConfig(t, upstreamOK(t).URL)
	startGateway(t, cfg)
	other := *cfg
	_, err := New(&other, slog.New(slog.DiscardHandler))
	if !errors.Is(err, keystore.ErrLocked) || strings.Contains(err.Error(), "\n") {
		t.Errorf("a second gateway on the store: %v, want one line saying that it is open", err)
	}
}

func TestTheStoreIsForItsOwnerAlone(t *testing.T) {
	cfg := testConfig(t, upstreamOK(t).URL)
	g := startGateway(t, cfg)
	if _, err := issue(http.DefaultClient, g.admin); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(cfg.Store.Path, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestHealthAndReadiness(t *testing.T) {
	cfg := testConfig(t, upstreamOK(t).URL)
	cfg.Admin.MetricsListen = "127.0.0.1:0"
	g := startGateway(t, cfg)
	open := "http://" + g.app.Addrs()[2].String()
	get := func(url string) (int, string) {
		res, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		if status, _ := get(g.admin + "/readyz"); status == 200 {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("never ready")
		}
	}
	for url, want := range map[string]int{
		g.admin + "/healthz": 200, g.admin + "/metrics": 401, g.admin + "/nothing": 404, g.admin + "/openapi/peach.yaml": 200, g.admin + "/openapi/strait.yaml": 200, g.admin + "/openapi/truvera.yaml": 200, g.admin + "/signing-keys/rotate": 405,
		open + "/healthz": 200, open + "/readyz": 200, open + "/metrics": 200, open + "/api/keys": 404,
	} {
		if got, body := get(url); got != want {
			t.Errorf("%s: %d %s, want %d", url, got, body, want)
		}
	}
	if _, body := get(open + "/metrics"); !strings.Contains(body, "latchkey_requests_total") {
		t.Error("/metrics lacks latchkey_requests_total")
	}
	g.app.ready.Store(false)
	if status, _ := get(g.admin + "/readyz"); status != 503 {
		t.Errorf("/readyz while not serving: %d, want 503", status)
	}
	g.app.ready.Store(true)
}

// TestStopBeforeTheStart ends Run before its listeners have got to serve.
func TestStopBeforeTheStart(t *testing.T) {
	for range 20 {
		app, err := New(testConfig(t, "http://127.0.0.1:1"), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		stop()
		if err := errors.Join(app.Run(ctx), app.Close()); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
}

// TestDemoLinesDoWhatTheySay runs the lines that demo prints.
func TestDemoLinesDoWhatTheySay(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- demo(ctx, "127.0.0.1:0", "127.0.0.1:0", w, io.Discard)
		w.Close()
	}()
	var statuses []int
	wantStatuses := []int{200, 401, 200, 201, 204, 401}
	lines := bufio.NewScanner(r)
	for len(statuses) < len(wantStatuses) && lines.Scan() {
		if strings.HasPrefix(lines.Text(), "curl ") {
			statuses = append(statuses, curl(t, lines.Text()))
		}
	}
	stop()
	go io.Copy(io.Discard, r)
	if err := <-ended; err != nil {
		t.Errorf("demo: %v", err)
	}
	if fmt.Sprint(statuses) != fmt.Sprint(wantStatuses) {
		t.Errorf("the printed lines gave %v, want %v", statuses, wantStatuses)
	}
}

// TestSecretsStayInside is a canary: what an operator or a client presents as a
// secret turns up in no log and no metric, and in no file of the store.
func TestSecretsStayInside(t *testing.T) {
	cfg := testConfig(t, upstreamOK(t).URL)
	cfg.Proxy.AccessLog.Enabled = true
	var log bytes.Buffer
	app, err := New(cfg, slog.New(slog.NewJSONHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx) }()
	proxy, admin := "http://"+app.Addrs()[0].String(), "http://"+app.Addrs()[1].String()
	var secrets []string
	for range 20 {
		k, err := issue(http.DefaultClient, admin)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, k.Key)
		for _, key := range []string{k.Key, k.Key[:len(k.Key)-1] + "_", strings.ToUpper(k.Key)} {
			if _, _, err := use(http.DefaultClient, proxy, key); err != nil {
				t.Fatal(err)
			}
		}
		if err := revoke(http.DefaultClient, admin, k.ID); err != nil {
			t.Fatal(err)
		}
		if _, _, err := use(http.DefaultClient, proxy, k.Key); err != nil {
			t.Fatal(err)
		}
	}
	res, err := call(http.DefaultClient, "GET", admin+"/metrics", "")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || !bytes.Contains(metrics, []byte("latchkey_requests_total")) {
		t.Fatalf("metrics: %v", err)
	}
	stop()
	if err := errors.Join(<-ended, app.Close()); err != nil {
		t.Fatal(err)
	}
	outputs := map[string][]byte{"the log": log.Bytes(), "the metrics": metrics}
	err = filepath.WalkDir(cfg.Store.Path, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			outputs[path], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(testToken))
	for where, output := range outputs {
		for _, secret := range append(secrets, testToken, fmt.Sprintf("%x", digest)) {
			if bytes.Contains(output, []byte(secret)) || bytes.Contains(output, []byte(secret[10:24])) {
				t.Errorf("a secret is in %s", where)
			}
		}
	}
	if !bytes.Contains(log.Bytes(), []byte("revoked_api_key")) {
		t.Error("the access log is empty; the canary proves nothing")
	}
}

// TestLastUseOutlivesTheGateway uses a key and stops the gateway at once: what
// was not flushed by the clock is flushed by the stop.
func TestLastUseOutlivesTheGateway(t *testing.T) {
	cfg := testConfig(t, upstreamOK(t).URL)
	var k issued
	began := time.Now()
	t.Run("serve", func(t *testing.T) {
		g := startGateway(t, cfg)
		var err error
		if k, err = issue(http.DefaultClient, g.admin); err != nil {
			t.Fatal(err)
		}
		if status, _, err := use(http.DefaultClient, g.proxy, k.Key); status != 200 || err != nil {
			t.Fatal(status, err)
		}
	})
	g := startGateway(t, cfg)
	res, err := call(http.DefaultClient, "GET", g.admin+"/v1/api-keys", "")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var keys []struct {
		ID         string
		LastUsedAt time.Time `json:"last_used_at"`
	}
	if err := json.NewDecoder(res.Body).Decode(&keys); err != nil || len(keys) != 1 || keys[0].ID != k.ID {
		t.Fatalf("%+v, %v", keys, err)
	}
	if at := keys[0].LastUsedAt; at.Before(began.Truncate(time.Microsecond)) || at.After(time.Now()) {
		t.Errorf("the key was last used at %s, want since %s", at, began)
	}
}
