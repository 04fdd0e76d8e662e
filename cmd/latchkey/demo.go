package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"latchkey/config"
)

func demoCommand() *cobra.Command {
	var listen, adminListen string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Try the gateway: a sample upstream, a key, and lines to paste",
		Long: "Run the gateway over a temporary store in front of a sample upstream, issue a key,\n" +
			"and print curl lines that show it admitted, refused and revoked. Ctrl-C ends it;\nnothing is left behind.",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			err := demo(c.Context(), listen, adminListen, c.OutOrStdout(), c.ErrOrStderr())
			if at := (*listenError)(nil); errors.As(err, &at) {
				flag := "--listen"
				if at.field == "admin.listen" {
					flag = "--admin-listen"
				}
				return fmt.Errorf("%s HOST:PORT: %s", flag, at.problem)
			}
			return err
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:8080", "the `address` of the data plane")
	c.Flags().StringVar(&adminListen, "admin-listen", "127.0.0.1:8081", "the `address` of the admin plane")
	return c
}

// demo runs the demonstration until ctx ends.
func demo(ctx context.Context, listen, adminListen string, stdout, stderr io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "latchkey-demo-")
	if err != nil {
		return fmt.Errorf("make a temporary store: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	sample, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("start the sample upstream: %w", err)
	}
	defer sample.Close()
	go func() { _ = http.Serve(sample, http.HandlerFunc(sampleUpstream)) }() // ends when sample is closed

	token := "demo-" + rand.Text()
	app, err := New(demoConfig(dir, listen, adminListen, sample.Addr().String(), token),
		slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, app.Close()) }()
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { ended <- app.Run(ctx) }()

	// The addresses as they came to be, so that port 0 works.
	lines := demoLines{Proxy: app.Addrs()[0].String(), Admin: app.Addrs()[1].String(), Token: token}
	if err := lines.issue(ctx); err != nil {
		stop()
		return errors.Join(err, <-ended)
	}
	if err := demoText().Execute(stdout, lines); err != nil {
		stop()
		return errors.Join(err, <-ended)
	}
	return <-ended
}

func demoConfig(dir, listen, adminListen, target, token string) *config.Config {
	c := config.Default()
	c.Proxy.Listen = []string{listen}
	c.Proxy.AccessLog.Enabled = false
	route := config.DefaultRoute()
	route.Name, route.Path, route.Upstream = "sample", "/{rest:*}", "sample"
	c.Routes = []config.Route{route}
	u := config.DefaultUpstream()
	u.Targets = []config.Target{{URL: "http://" + target, Weight: 1}}
	c.Upstreams = map[string]config.Upstream{"sample": u}
	c.Store.Path = dir + "/store"
	c.Admin.Listen = adminListen
	c.Admin.Operators = []config.Operator{{Name: "demo", Role: config.RoleAdmin, Tenant: "*",
		TokenSHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(token)))}}
	return &c
}

// sampleUpstream answers every request with what it was told about it.
func sampleUpstream(w http.ResponseWriter, r *http.Request) {
	told := map[string]string{}
	for name, values := range r.Header {
		if strings.HasPrefix(name, "X-") {
			told[name] = strings.Join(values, ", ")
		}
	}
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	// The client may be gone; nobody is left to tell.
	_ = e.Encode(map[string]any{"hello": "from the sample upstream", "method": r.Method, "path": r.URL.RequestURI(), "headers": told})
}

// demoLines is what the printed text is about.
type demoLines struct{ Proxy, Admin, Token, Key, ID string }

// issue makes the demonstration's key through the admin plane, as anyone would.
func (d *demoLines) issue(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+d.Admin+"/api/keys",
		strings.NewReader(`{"userId": "demo-user", "description": "made by latchkey demo"}`))
	if err != nil {
		return fmt.Errorf("issue a key: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+d.Token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("issue a key: %w", err)
	}
	defer res.Body.Close()
	var made struct{ ID, Key string }
	if err := json.NewDecoder(res.Body).Decode(&made); err != nil || res.StatusCode != http.StatusCreated {
		return fmt.Errorf("issue a key: the admin plane answered %s", res.Status)
	}
	d.ID, d.Key = made.ID, made.Key
	return nil
}

func demoText() *template.Template {
	return template.Must(template.New("demo").Parse(`Latchkey demo. Everything here is gone once you press Ctrl-C.

  data plane      http://{{.Proxy}}   in front of a sample upstream
  admin plane     http://{{.Admin}}
  operator token  {{.Token}}
  API key         {{.Key}}

Paste these into another terminal, one after the other.

# 1. With the key the request passes, and the upstream is told whose it is.
curl -i -H 'X-API-Key: {{.Key}}' http://{{.Proxy}}/hello

# 2. Without a key it is refused.
curl -i http://{{.Proxy}}/hello

# 3. An operator sees the key, its secret masked.
curl -i -H 'Authorization: Bearer {{.Token}}' http://{{.Admin}}/api/keys/{{.ID}}

# 4. An operator issues another one, for one address only.
curl -i -H 'Authorization: Bearer {{.Token}}' -H 'Content-Type: application/json' -d '{"userId": "u1", "whitelistedIPs": ["192.0.2.7"]}' http://{{.Admin}}/api/keys

# 5. The first key is revoked.
curl -i -X DELETE -H 'Authorization: Bearer {{.Token}}' http://{{.Admin}}/api/keys/{{.ID}}

# 6. The very next request with it is refused.
curl -i -H 'X-API-Key: {{.Key}}' http://{{.Proxy}}/hello
`))
}
