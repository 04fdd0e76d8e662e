package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"latchkey/config"
)

// reloadFile is a configuration with a route to the target, whose answers say what
// the version is, and an operator whose token is in a file.
const reloadFile = `
proxy: {listen: ["127.0.0.1:0"], access_log: {enabled: false}}
routes: [{name: all, path: "/{rest:*}", upstream: up, auth: none, response_headers: {set: {X-Version: "%s"}}}]
upstreams: {up: {targets: [%q]}}
store: {path: %q}
admin: {listen: "127.0.0.1:0", operators: [{name: root, role: admin, tenant: "*", token_file: %q}]}
`

func TestReload(t *testing.T) {
	dir, target := t.TempDir(), upstreamOK(t).URL
	file, token := filepath.Join(dir, "latchkey.yaml"), filepath.Join(dir, "token")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure := func(version, store string) {
		t.Helper()
		write(file, fmt.Sprintf(reloadFile, version, target, filepath.Join(dir, store), token))
	}
	write(token, testToken)
	configure("1", "store")
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, cfg)
	g.app.reloading.path = file
	version := func(want string) {
		t.Helper()
		res, err := http.Get(g.proxy + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if got := res.Header.Get("X-Version"); got != want {
			t.Errorf("the answer is of version %s, want %s", got, want)
		}
	}
	reload := func(status int, says string) {
		t.Helper()
		res, err := call(http.DefaultClient, "POST", g.admin+"/reload", "")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if res.StatusCode != status || !strings.Contains(string(body), says) || err != nil {
			t.Errorf("reload answers %s %s, %v; want %d and %q", res.Status, body, err, status, says)
		}
	}
	version("1")
	configure("2", "store")
	version("1")
	reload(204, "")
	version("2")
	write(file, "proxy: {listen: [}")
	reload(422, "latchkey.yaml:1")
	version("2")
	configure("3", "elsewhere")
	reload(422, "changes of store take a restart")
	version("2")
	// Another token for the operator: the old one is none from then on.
	configure("3", "store")
	write(token, "another-token-of-the-operator")
	reload(204, "")
	version("3")
	reload(401, "")
}
