package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"latchkey/admin"
	"latchkey/config"
)

const (
	defaultServer = "http://127.0.0.1:8081"
	callTimeout   = 30 * time.Second // of a call that streams nothing
)

// A remote is how a command reaches the admin plane, as its flags, the
// environment and the profile say, in this order.
type remote struct {
	server    string
	tokenFile string
	tenant    string
	output    string
	plaintext bool // also to another machine
}

// tenantFlags adds the flags of commands that are about the keys of a tenant, or of all.
func (r *remote) tenantFlags(c *cobra.Command) {
	r.flags(c)
	c.PersistentFlags().StringVar(&r.tenant, "tenant", "", "act for this `tenant`, for operators of all of them")
}

// flags adds the flags that every command has which calls the admin plane.
func (r *remote) flags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&r.server, "server", "", "`URL` of the admin plane (default LATCHKEY_SERVER, the profile's server, "+defaultServer+")")
	f.StringVar(&r.tokenFile, "token-file", "", "`file` with the operator's token, 0600 (default LATCHKEY_TOKEN, the profile's token)")
	f.BoolVar(&r.plaintext, "allow-public-plaintext", false, "send the token over plain HTTP to another machine (or the profile's allow_public_plaintext)")
	f.StringVarP(&r.output, "output", "o", "table", "`format` of what is printed: table or json")
}

// json reports whether the output is for programs.
func (r *remote) json() (bool, error) {
	switch r.output {
	case "json", "table":
		return r.output == "json", nil
	}
	return false, usageError{fmt.Errorf("--output is table or json, not %q", r.output)}
}

// client returns a client for the admin plane that is meant.
func (r *remote) client() (*client, error) {
	if _, err := r.json(); err != nil {
		return nil, err
	}
	profile, err := loadProfile()
	if err != nil {
		return nil, err
	}
	server := cmp.Or(r.server, os.Getenv("LATCHKEY_SERVER"), profile.Server, defaultServer)
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, usageError{errors.New("the server is not a URL such as " + defaultServer + "; look at --server, LATCHKEY_SERVER and the profile")}
	}
	if u.Scheme == "http" && !config.IsLoopback(u.Hostname()) && !r.plaintext && !profile.AllowPublicPlaintext {
		return nil, usageError{fmt.Errorf("%s is another machine, and over plain HTTP whoever is on the way reads the token and the keys; "+
			"use https, or --allow-public-plaintext where the way is safe", u.Redacted())}
	}
	token, err := r.token(profile)
	if err != nil {
		return nil, err
	}
	return &client{server: strings.TrimSuffix(u.String(), "/"), token: token, tenant: r.tenant, prefixed: strings.Trim(u.Path, "/") != "", http: &http.Client{
		// A token is for the server that was named, and for no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// token returns the operator's token from the first place that has one.
func (r *remote) token(profile *config.Profile) (string, error) {
	token, place := os.Getenv("LATCHKEY_TOKEN"), "LATCHKEY_TOKEN"
	var err error
	switch {
	case r.tokenFile != "":
		place = "--token-file"
		token, err = config.ReadTokenFile(r.tokenFile)
	case token != "":
	case profile.TokenFile != "":
		place = "token_file of the profile"
		token, err = config.ReadTokenFile(profile.TokenFile)
	case profile.Token != "":
		place, token = "token of the profile", profile.Token
	default:
		return "", errors.New("no operator's token: name a file with --token-file, or set LATCHKEY_TOKEN or token_file in the profile")
	}
	if err == nil {
		_, err = config.TokenDigest(token)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", place, err)
	}
	return token, nil
}

// loadProfile reads the user's profile, which need not be there.
func loadProfile() (*config.Profile, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return new(config.Profile), nil // without a home there is no profile
	}
	p, err := config.LoadProfile(filepath.Join(dir, "latchkey", "profile.yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		return new(config.Profile), nil
	}
	return p, err
}

// A client calls the admin plane.
type client struct {
	server, token, tenant string
	prefixed              bool // the server's URL has a path
	http                  *http.Client
}

// A callError is an answer that is not what was asked for.
type callError struct {
	status  int
	message string
	foreign bool // the answer is that of no dialect
	astray  bool // the server's URL has a path, under which there may be nothing
}

// Error says what the admin plane said.
func (e *callError) Error() string { return e.message }

// An unreachableError reports that there was no answer.
type unreachableError struct{ error }

// Unwrap returns what stood in the way.
func (e unreachableError) Unwrap() error { return e.error }

// stream makes a call and returns the answer, whose status is 2xx, or one of those
// also named. The caller closes its body.
func (c *client) stream(ctx context.Context, method, path, contentType string, body io.Reader, also ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.server+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if c.tenant != "" {
		req.Header.Set("X-Latchkey-Tenant", c.tenant)
	}
	res, err := c.http.Do(req)
	if err != nil {
		var at *url.Error // whose text has the method and the whole URL
		if errors.As(err, &at) {
			err = at.Err
		}
		if file := new(fs.PathError); errors.As(err, &file) { // what was to be sent could not be read
			return nil, file
		}
		return nil, unreachableError{fmt.Errorf("no answer from %s: %w; is it running there? see --server", c.server, err)}
	}
	ours := res.Header.Get(admin.PlaneField) == "admin"
	if ours && res.StatusCode/100 == 2 {
		return res, nil
	}
	for _, status := range also {
		if ours && res.StatusCode == status && isLines(res) {
			return res, nil
		}
	}
	defer res.Body.Close()
	if res.StatusCode/100 == 2 {
		return nil, c.foreign(res)
	}
	return nil, c.refusal(res)
}

// foreign reports that something answered which is no admin plane.
func (c *client) foreign(res *http.Response) error {
	return fmt.Errorf("%s answered %d, and not as an admin plane does; nothing is known to have been done; see --server", c.server, res.StatusCode)
}

// isLines reports whether an answer is one line a key.
func isLines(res *http.Response) bool {
	return res.Header.Get("Content-Type") == "application/x-ndjson"
}

// refusal makes an error of an answer, in the form of whichever dialect it is.
func (c *client) refusal(res *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // what there is of it
	var form struct {
		Error                 struct{ Message string }
		Message, Detail, Type string
	}
	_ = json.Unmarshal(text, &form) // what is not JSON says nothing
	reason := cmp.Or(form.Error.Message, form.Message, form.Detail)
	switch {
	case strings.HasPrefix(form.Type, "urn:latchkey:problem:"):
		return fmt.Errorf("%s is the data plane (it answered %d); the admin plane has an address of its own, see --server", c.server, res.StatusCode)
	case reason == "":
		return c.foreign(res)
	}
	astray := c.prefixed && (res.StatusCode == 404 || res.StatusCode == 405)
	if astray {
		reason += "; the server's URL has a path, which is mostly wrong: see --server"
	}
	if wait := res.Header.Get("Retry-After"); res.StatusCode == 429 && wait != "" {
		reason += " " + wait + " seconds"
	}
	lines := strings.Split(reason, "\n")
	for i := range lines { // a configuration can have several problems
		lines[i] = printable(lines[i])
	}
	return &callError{status: res.StatusCode, foreign: form.Detail != "", astray: astray,
		message: fmt.Sprintf("the admin plane answered %d: %s", res.StatusCode, strings.Join(lines, "\n"))}
}

// call makes a call with a JSON body, if there is one, and reads the answer into
// what into points to, unless it is nil.
func (c *client) call(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var text io.Reader
	contentType := ""
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		text, contentType = bytes.NewReader(b), "application/json"
	}
	res, err := c.stream(ctx, method, path, contentType, text)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return fmt.Errorf("read the answer of the admin plane: %w", err)
	}
	return nil
}

// dialectCall is call for a path that is there only while a dialect is.
func (c *client) dialectCall(ctx context.Context, dialect, method, path string, body, into any) error {
	err := c.call(ctx, method, path, body, into)
	if e := (*callError)(nil); errors.As(err, &e) && e.status == 404 && e.foreign {
		hint := ""
		if e.astray {
			hint = "; the server's URL has a path as well, see --server"
		}
		return fmt.Errorf("nothing answers %s there; this command needs admin.%s enabled, under that path%s", path, dialect, hint)
	}
	return err
}
