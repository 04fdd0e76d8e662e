package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"latchkey/config"
)

// firstStart runs a gateway without a configuration file until the test is done with
// it, and returns what it logged.
func firstStart(t *testing.T, store string, use func(a *App)) (log string, err error) {
	t.Helper()
	cfg, err := serveConfig("")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Proxy.Listen, cfg.Admin.Listen, cfg.Store.Path = []string{"127.0.0.1:0"}, "127.0.0.1:0", store
	var b bytes.Buffer // written through a slog.Handler, which locks
	a, err := New(cfg, slog.New(slog.NewJSONHandler(&b, nil)))
	if err != nil {
		return b.String(), err
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	use(a)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	return b.String(), nil
}

// TestFirstStart starts a gateway that nothing was said to: it serves nothing, and
// whoever can read a file of its user is its operator.
func TestFirstStart(t *testing.T) {
	if host := config.Default().Admin.Listen; host != "127.0.0.1:8081" {
		t.Errorf("the admin plane listens on %s", host)
	}
	store := filepath.Join(t.TempDir(), "data")
	file := store + ".operator-token"
	status := func(url, token string) int {
		req, err := http.NewRequest("GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	var tokens [2]string
	for i := range tokens {
		log, err := firstStart(t, store, func(a *App) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(file)
			if err != nil || info.Mode() != 0o600 {
				t.Errorf("the token's file: %v, %v", info.Mode(), err)
			}
			tokens[i] = strings.TrimSpace(string(text))
			admin := "http://" + a.Addrs()[1].String()
			if got := status(admin+"/export", tokens[i]); got != 200 {
				t.Errorf("start %d: an export with the token: %d", i, got)
			}
			if got := status(admin+"/export", "another-token-than-that"); got != 401 {
				t.Errorf("start %d: an export with another: %d", i, got)
			}
			if got := status("http://"+a.Addrs()[0].String()+"/", tokens[i]); got != 404 {
				t.Errorf("start %d: the data plane: %d", i, got)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(log, `"token_file":"`+file+`"`) || strings.Contains(log, tokens[i]) {
			t.Errorf("start %d: the log names the file and not the token:\n%s", i, log)
		}
	}
	if len(tokens[0]) != 64 || tokens[0] != tokens[1] {
		t.Errorf("the token has %d characters, and is the same after a restart: %t", len(tokens[0]), tokens[0] == tokens[1])
	}
}

// TestOperatorsEndTheFirst configures an operator where one was made before: the log says
// that the token of that one is good no longer.
func TestOperatorsEndTheFirst(t *testing.T) {
	cfg := testConfig(t, "http://127.0.0.1:1")
	file := cfg.Store.Path + ".operator-token"
	if err := os.WriteFile(file, []byte("a-token-of-some-length\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	a, err := New(cfg, slog.New(slog.NewJSONHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if text := log.String(); !strings.Contains(text, "delete its token") || !strings.Contains(text, `"token_file":"`+file+`"`) {
		t.Errorf("the log does not say so:\n%s", text)
	}
}

// TestFirstStartTrustsNoOthersFile has something in the token's place that others can
// have put there.
func TestFirstStartTrustsNoOthersFile(t *testing.T) {
	for name, put := range map[string]func(file string) error{
		"readable by others": func(file string) error {
			if err := os.WriteFile(file, []byte("a-token-of-some-length\n"), 0o644); err != nil {
				return err
			}
			return os.Chmod(file, 0o644) // whatever the umask
		},
		"a link": func(file string) error {
			if err := os.WriteFile(file+".x", []byte("a-token-of-some-length\n"), 0o600); err != nil {
				return err
			}
			return os.Symlink(file+".x", file)
		},
		"empty": func(file string) error { return os.WriteFile(file, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			store := filepath.Join(t.TempDir(), "data")
			if err := put(store + ".operator-token"); err != nil {
				t.Fatal(err)
			}
			if _, err := firstStart(t, store, func(*App) {}); err == nil || !strings.Contains(err.Error(), "operator") {
				t.Errorf("started with %v, want an error about the operator", err)
			}
		})
	}
}

// placed is a listener that says it is elsewhere.
type placed struct {
	net.Listener
	at net.Addr
}

func (p placed) Addr() net.Addr { return p.at }

// TestNoFirstOperatorOnOthersSockets has a socket passed on that the configuration
// does not know to be open to others.
func TestNoFirstOperatorOnOthersSockets(t *testing.T) {
	cfg := config.Default()
	cfg.Store.Path = filepath.Join(t.TempDir(), "data")
	for _, tc := range []struct {
		at   net.Addr
		want bool
	}{
		{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 1}, true},
		{&net.TCPAddr{IP: net.IPv6loopback, Port: 1}, true},
		{&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, false},
		{&net.TCPAddr{IP: net.IPv6zero, Port: 1}, false},
		{&net.UnixAddr{Name: "/run/x"}, false},
	} {
		local := listener{Listener: placed{at: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}}
		a := &App{cfg: &cfg, logger: slog.New(slog.DiscardHandler), listeners: []listener{local, {Listener: placed{at: tc.at}}, local}}
		c, err := a.withOperator(cfg.Admin)
		if got := err == nil && len(c.Operators) == 1; got != tc.want {
			t.Errorf("%v: an operator was made: %t, %v", tc.at, got, err)
		}
	}
}
