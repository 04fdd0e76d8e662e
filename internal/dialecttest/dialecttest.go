// Package dialecttest runs a dialect's golden exchanges.
//
// A file testdata/*.txtar holds one story: pairs of files "N.request" and
// "N.response", sent in order to an admin plane over a real listener and a real
// store that begins empty. Clock and entropy are fixed, so answers are compared
// whole. Every answer is also checked against the dialect's OpenAPI document,
// and so is every request that succeeds. go test -update writes the answers.
package dialecttest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/tools/txtar"

	"latchkey/admin"
	"latchkey/admin/wire"
	"latchkey/apikey"
	"latchkey/keystore"
)

// Operators are the callers the stories know, by token.
func Operators() map[string]wire.Operator {
	return map[string]wire.Operator{
		"root-token":       {Name: "root", Role: wire.RoleAdmin, Tenant: apikey.AnyTenant},
		"acme-admin-token": {Name: "acme-admin", Role: wire.RoleAdmin, Tenant: "acme"},

		"acme-token":   {Name: "acme-issuer", Role: wire.RoleIssuer, Tenant: "acme"},
		"viewer-token": {Name: "acme-viewer", Role: wire.RoleViewer, Tenant: "acme"},
		"globex-token": {Name: "globex-issuer", Role: wire.RoleIssuer, Tenant: "globex"},
	}
}

// A Plane is an admin plane on a real listener, over a store in memory.
type Plane struct {
	Addr  string
	Store *keystore.Store
	Now   time.Time // moves on by a second with every call

	full    bool // the disk
	calls   uint64
	written atomic.Int64 // to the store's log
}

// Start runs an admin plane with the dialects until the test ends.
func Start(t testing.TB, dialects ...*wire.Dialect) *Plane {
	t.Helper()
	return StartWith(t, func(*admin.Options) {}, dialects...)
}

// StartWith is Start with options that the function has changed.
func StartWith(t testing.TB, change func(*admin.Options), dialects ...*wire.Dialect) *Plane {
	t.Helper()
	p := &Plane{Now: time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)}
	store, err := keystore.Open("store", keystore.Options{FS: &disk{vfs.NewMem(), p}})
	if err != nil {
		t.Fatal(err)
	}
	p.Store = store
	o := admin.Options{
		Keys: &wire.KeyService{Reader: store, Writer: store, Receipts: store, Format: apikey.NewSecretFormat("lk"), Entropy: func() [40]byte {
			p.calls++
			e := [40]byte(bytes.Repeat([]byte{byte(p.calls)}, 40))
			if p.calls > 255 {
				binary.BigEndian.PutUint64(e[:], p.calls)
			}
			return e
		}},
		Finder:  finder{store},
		Auditor: store, Importer: store, Scanner: store, SpoolDir: t.TempDir(),
		Callers: admin.Callers{Certs: &admin.StaticOperator{Operator: wire.Operator{Name: "certs", Role: wire.RoleIssuer, Tenant: apikey.AnyTenant},
			TokenDigest: sha256.Sum256([]byte("certs-token"))}},
		Gatherer: prometheus.NewRegistry(),
		Now: func() time.Time {
			p.Now = p.Now.Add(time.Second)
			return p.Now
		},
	}
	for _, d := range dialects {
		o.Mounts = append(o.Mounts, admin.Mount{Dialect: d})
	}
	for token, operator := range Operators() {
		o.Callers.Operators = append(o.Callers.Operators, admin.StaticOperator{Operator: operator, TokenDigest: sha256.Sum256([]byte(token))})
	}
	change(&o)
	plane, err := admin.New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.Addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- plane.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(plane.Shutdown(ctx), <-served, store.Close()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// finder finds keys without a cache.
type finder struct{ *keystore.Store }

// Lookup implements admin.Finder.
func (f finder) Lookup(d *apikey.Digest) (*apikey.Grant, error) {
	key, err := f.ByDigest(d)
	if err != nil {
		return nil, err
	}
	return key.Grant(), nil
}

// disk is a file system whose disk can be full.
type disk struct {
	vfs.FS
	plane *Plane
}

// Create makes a file, and has what is written to it counted if it is a log.
func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, c)
	return d.logged(name, f), err
}

// ReuseForWrite is Create with a file that is there.
func (d *disk) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(old, name, c)
	return d.logged(name, f), err
}

func (d *disk) logged(name string, f vfs.File) vfs.File {
	if f == nil || filepath.Ext(name) != ".log" {
		return f
	}
	return loggedFile{f, &d.plane.written}
}

// GetDiskUsage reports no room while the disk is full.
func (d *disk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	if d.plane.full {
		return vfs.DiskUsage{}, nil
	}
	return vfs.DiskUsage{AvailBytes: 1 << 40}, nil
}

// Do sends the request in the form
//
//	METHOD TARGET
//	Name: value
//
//	body
//
// on a connection of its own. Host and Content-Length are added.
func (p *Plane) Do(t testing.TB, request string) (*http.Request, *http.Response, []byte) {
	t.Helper()
	head, body, _ := strings.Cut(request, "\n\n")
	body = strings.TrimSuffix(body, "\n")
	line, fields, _ := strings.Cut(strings.TrimSuffix(head, "\n"), "\n")
	var raw bytes.Buffer
	fmt.Fprintf(&raw, "%s HTTP/1.1\r\nHost: admin.test\r\nConnection: close\r\n", line)
	for f := range strings.Lines(fields) {
		raw.WriteString(strings.TrimSuffix(f, "\n") + "\r\n")
	}
	if body != "" {
		fmt.Fprintf(&raw, "Content-Length: %d\r\n", len(body))
	}
	raw.WriteString("\r\n" + body)
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw.Bytes())))
	if err != nil {
		t.Fatalf("request %q: %v", line, err)
	}
	c, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(raw.Bytes()); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), req)
	if err != nil {
		t.Fatalf("answer to %q: %v", line, err)
	}
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("answer to %q: %v", line, err)
	}
	return req, res, answer
}

// Raw sends the text on a connection of its own, says that nothing follows, and
// returns what comes back.
func (p *Plane) Raw(t testing.TB, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.SetDeadline(time.Now().Add(10*time.Second)), c.(*net.TCPConn).CloseWrite()); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// Run runs the stories in testdata. The base path is where the dialect's
// document is mounted.
func Run(t *testing.T, d *wire.Dialect) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden exchanges in testdata: %v", err)
	}
	contract := LoadContract(t, d)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runStory(t, d, contract, file) })
	}
}

func runStory(t *testing.T, d *wire.Dialect, contract *Contract, file string) {
	p := Start(t, d)
	story, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := &txtar.Archive{Comment: story.Comment}
	for _, f := range story.Files {
		name, kind, _ := strings.Cut(f.Name, ".")
		if kind != "request" {
			continue
		}
		text := string(f.Data)
		p.full = strings.HasPrefix(text, "# disk full\n")
		text = strings.TrimPrefix(text, "# disk full\n")
		if after, ok := strings.CutPrefix(text, "# later "); ok {
			wait, rest, _ := strings.Cut(after, "\n")
			d, err := time.ParseDuration(wait)
			if err != nil {
				t.Fatal(err)
			}
			p.Now, text = p.Now.Add(d), rest
		}
		req, res, body := p.Do(t, text)
		contract.Check(t, name, req, res, body)
		out.Files = append(out.Files, f, txtar.File{Name: name + ".response", Data: render(res, body)})
	}
	got := txtar.Format(out)
	// The flag is the tests' own, so that every dialect's tests have it.
	if update := flag.Lookup("update"); update != nil && update.Value.String() == "true" {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(txtar.Format(story)), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// render writes what a caller would notice of an answer.
func render(res *http.Response, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d\n", res.StatusCode)
	for _, name := range []string{"Allow", "Cache-Control", "Content-Type", "Idempotent-Replayed", "Link", "Location", "Retry-After", "Www-Authenticate"} {
		for _, v := range res.Header[name] {
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	id := res.Header.Get("X-Request-Id")
	if id == "" {
		b.WriteString("X-Request-Id is missing\n")
	} else {
		body = bytes.ReplaceAll(body, []byte(id), []byte("<X-Request-Id>"))
	}
	if len(body) > 0 {
		b.WriteString("\n")
		b.Write(body)
	}
	return b.Bytes()
}

// A Contract is a dialect's OpenAPI document.
type Contract struct{ router routers.Router }

// LoadContract reads a dialect's document.
func LoadContract(t testing.TB, d *wire.Dialect) *Contract {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(d.OpenAPI)
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	return &Contract{router}
}

// Check holds an exchange against the document.
func (c *Contract) Check(t testing.TB, name string, req *http.Request, res *http.Response, body []byte) {
	t.Helper()
	req.URL.Scheme, req.URL.Host = "http", "admin.test"
	lookup := req
	if res.StatusCode == 405 { // undocumented by nature: hold it against a method that is
		lookup = req.Clone(context.Background())
		lookup.Method, _, _ = strings.Cut(res.Header.Get("Allow"), ",")
	}
	route, params, err := c.router.FindRoute(lookup)
	if err != nil {
		t.Errorf("%s: %s %s is not in the OpenAPI document: %v", name, req.Method, req.URL, err)
		return
	}
	in := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route, Options: &openapi3filter.Options{
		MultiError: true, IncludeResponseStatus: true, SkipSettingDefaults: true,
		AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
		ExcludeRequestBody: req.Header.Get("Content-Type") == "", // which is allowed
	}}
	if res.StatusCode < 300 {
		if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
			t.Errorf("%s: the request succeeded but is not in the OpenAPI document: %v", name, err)
		}
	}
	if err := openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: res.StatusCode, Header: res.Header,
		Body: io.NopCloser(bytes.NewReader(body)), Options: in.Options,
	}); err != nil {
		t.Errorf("%s: the answer is not in the OpenAPI document: %v", name, err)
	}
}
