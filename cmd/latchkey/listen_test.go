package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"latchkey/config"
	"latchkey/internal/nettest"
	"latchkey/jobs"
)

// TestWhoTheClientIsBehindAPROXYHeader sends a header and X-Forwarded-For and
// looks at what the upstream is told: the address allowlists go by.
func TestWhoTheClientIsBehindAPROXYHeader(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Forwarded-For"))
	}))
	defer upstream.Close()
	for _, tc := range []struct {
		name, trusted, header, forwarded string
		status                           int
		want                             string
	}{
		{"the announced client", "127.0.0.0/8", "PROXY TCP4 198.51.100.7 192.0.2.2 1 80\r\n", "", 200, "198.51.100.7"},
		{"its own X-Forwarded-For is not believed", "127.0.0.0/8", "PROXY TCP4 198.51.100.7 192.0.2.2 1 80\r\n", "203.0.113.1", 200, "198.51.100.7"},
		{"that of an announced trusted proxy is", "127.0.0.0/8", "PROXY TCP4 127.0.0.9 192.0.2.2 1 80\r\n", "203.0.113.1", 200, "203.0.113.1, 127.0.0.9"},
		{"and that of a proxy that speaks for itself", "127.0.0.0/8", "PROXY UNKNOWN\r\n", "203.0.113.1", 200, "203.0.113.1, 127.0.0.1"},
		{"an untrusted peer needs no header", "192.0.2.0/24", "", "203.0.113.1", 200, "127.0.0.1"},
		{"and its header is a malformed request", "192.0.2.0/24", "PROXY TCP4 198.51.100.7 192.0.2.2 1 80\r\n", "", 400, ""},
		{"a trusted proxy without a header is cut off", "127.0.0.0/8", "", "", 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := testConfig(t, upstream.URL)
			cfg.Proxy.ProxyProtocol, cfg.Proxy.TrustedProxies = true, []netip.Prefix{netip.MustParsePrefix(tc.trusted)}
			cfg.Routes[0].Auth = config.AuthNone
			g := startGateway(t, cfg)
			c, err := net.Dial("tcp", strings.TrimPrefix(g.proxy, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			request := tc.header + "GET / HTTP/1.1\r\nHost: a\r\n"
			if tc.forwarded != "" {
				request += "X-Forwarded-For: " + tc.forwarded + "\r\n"
			}
			if _, err := io.WriteString(c, request+"Connection: close\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if tc.status == 0 {
				if err == nil {
					t.Fatalf("answered %s, want the connection closed", res.Status)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != tc.status || tc.status == 200 && string(body) != tc.want {
				t.Errorf("answered %s, and the upstream was told %q, want %d and %q", res.Status, body, tc.status, tc.want)
			}
		})
	}
}

// certificateFiles makes a certificate for 127.0.0.1 that signs itself.
func certificateFiles(t *testing.T, dir string) (files config.TLS, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files = config.TLS{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	pool = x509.NewCertPool()
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool.AppendCertsFromPEM(cert)
	for name, content := range map[string][]byte{files.CertFile: cert,
		files.KeyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files, pool
}

// TestTLSOnBothPlanes asks over HTTPS, and once more after the certificate was
// replaced and the job had its pass.
func TestTLSOnBothPlanes(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Forwarded-Proto"))
	}))
	defer upstream.Close()
	cfg := testConfig(t, upstream.URL)
	cfg.Routes[0].Auth = config.AuthNone
	dir := t.TempDir()
	files, pool := certificateFiles(t, dir)
	cfg.Proxy.TLS, cfg.Admin.TLS = files, files
	g := startGateway(t, cfg)
	if len(g.app.certificates) != 2 {
		t.Fatalf("%d jobs for certificates, want one for each plane", len(g.app.certificates))
	}
	ask := func(pool *x509.CertPool) {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
		defer client.CloseIdleConnections()
		for plane, path := range map[string]string{g.proxy: "/", g.admin: "/healthz"} {
			res, err := client.Get("https" + strings.TrimPrefix(plane, "http") + path)
			if err != nil {
				t.Error(err)
				continue
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != 200 || res.Proto != "HTTP/1.1" || path == "/" && string(body) != "https" {
				t.Errorf("%s%s: %s %s %q", plane, path, res.Proto, res.Status, body)
			}
		}
	}
	ask(pool)
	_, pool = certificateFiles(t, dir)
	for _, job := range g.app.certificates {
		pass(t, job)
	}
	ask(pool)
}

func pass(t *testing.T, j jobs.Job) {
	t.Helper()
	if err := j.Pass(context.Background(), time.Now()); err != nil {
		t.Errorf("%s: %v", j.Name, err)
	}
}

// TestConnectionsAreCounted holds one connection too many against the metrics.
func TestConnectionsAreCounted(t *testing.T) {
	cfg := testConfig(t, upstreamOK(t).URL)
	cfg.Proxy.Limits.ConnectionsPerIP = 2
	g := startGateway(t, cfg)
	for range 3 {
		c, err := net.Dial("tcp", strings.TrimPrefix(g.proxy, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for deadline := time.Now().Add(10 * time.Second); g.app.counted["proxy"].AddressFull.Load() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no connection was refused")
		}
	}
	series := g.scrape().series
	for name, want := range map[string]string{
		`latchkey_connections_open{listener="proxy"}`:                        "2",
		`latchkey_connections_total{listener="proxy",result="accepted"}`:     "2",
		`latchkey_connections_total{listener="proxy",result="address_full"}`: "1",
		`latchkey_connections_total{listener="admin",result="address_full"}`: "0",
	} {
		if got := series[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestTheAdminPlaneHasNoMoreConnectionsThanItNeeds has one address open as many as it may,
// and one more; others are served all the while.
func TestTheAdminPlaneHasNoMoreConnectionsThanItNeeds(t *testing.T) {
	g := startGateway(t, testConfig(t, upstreamOK(t).URL))
	addr := strings.TrimPrefix(g.admin, "http://")
	for range 256 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	counters := g.app.counted["admin"]
	nettest.Until(t, "all of them are accepted", func() bool { return counters.Accepted.Load() >= 256 })
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) || counters.AddressFull.Load() != 1 {
		t.Errorf("one too many: %d bytes, %v; %d were refused", n, err, counters.AddressFull.Load())
	}
	other := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: 10 * time.Second}
	client := &http.Client{Transport: &http.Transport{DialContext: other.DialContext, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	res, err := client.Get(g.admin + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	if res.Body.Close(); res.StatusCode != 200 {
		t.Errorf("another address: %s", res.Status)
	}
}

// activate starts latchkey with sockets as systemd would. The shell knows the
// process ID that LISTEN_PID has to be.
func activate(t *testing.T, config, names string, sockets ...*os.File) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	latchkey := filepath.Join(t.TempDir(), "latchkey") // TestMain goes by the name
	if err := os.Symlink(self, latchkey); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // one that is to end may not
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, "/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" serve --config "$1"`, latchkey, config)
	c.Env = append(os.Environ(), fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_FDNAMES="+names)
	c.ExtraFiles = sockets
	return c
}

// openSocket returns a listening socket that is open as long as the test.
func openSocket(t *testing.T, address string) *os.File {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestARestartRefusesNoRequest stops and starts the gateway under clients that
// connect anew for each request. All are answered, if late.
func TestARestartRefusesNoRequest(t *testing.T) {
	restarts := 5
	if testing.Short() {
		restarts = 2
	}
	s := newCrashSite(t)
	sockets := []*os.File{openSocket(t, strings.TrimPrefix(s.proxy, "http://")), openSocket(t, strings.TrimPrefix(s.admin, "http://"))}
	run := func() (stop func()) {
		c := activate(t, s.config, "proxy:admin", sockets...)
		out := new(strings.Builder)
		c.Stderr = out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return func() {
			t.Helper()
			if err := c.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
			if err := c.Wait(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}
	}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	stop := run()
	k, err := issue(client, s.admin)
	if err != nil {
		t.Fatal(err)
	}
	var answered, failed atomic.Int64
	end := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				if status, _, err := use(client, s.proxy, k.Key); status != 200 || err != nil {
					t.Errorf("answered %d, %v", status, err)
					failed.Add(1)
				}
				answered.Add(1)
			}
		})
	}
	for range restarts {
		before := answered.Load()
		for answered.Load() < before+100 && failed.Load() == 0 { // in the middle of traffic
			<-time.After(time.Millisecond)
		}
		stop()
		stop = run()
	}
	before := answered.Load()
	for answered.Load() < before+100 && failed.Load() == 0 {
		<-time.After(time.Millisecond)
	}
	close(end)
	clients.Wait()
	stop()
	t.Logf("%d restarts, %d requests, %d failed", restarts, answered.Load(), failed.Load())
}

func TestSocketsThatMustNotServe(t *testing.T) {
	s := newCrashSite(t)
	for _, tc := range []struct{ name, address, socket, want string }{
		{"the admin plane in plain text on a public address", "0.0.0.0:0", "admin", "admin.listen: the inherited socket has the address"},
		{"one that nothing in the configuration is for", "127.0.0.1:0", "spare", `inherited socket 3 ("spare", `},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := activate(t, s.config, tc.socket, openSocket(t, tc.address)).CombinedOutput()
			if err == nil || !strings.Contains(string(out), tc.want) {
				t.Errorf("%v, said %s; want %s", err, out, tc.want)
			}
		})
	}
}
