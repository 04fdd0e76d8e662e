// Package archtest holds the house to its plan: which package may import what,
// and what no file may contain. It parses the files itself, so that it also
// sees what the present platform or build tags leave out.
package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// Limits of what is read in one go, in lines; the aim is 300 and 60.
const (
	maxFile     = 400
	maxFunction = 80
)

const module = "latchkey"

// A room says what the non-test files of a package may use. Anything it does
// not name is refused: packages of ours and other modules by omission, the
// standard library where without names it.
type room struct {
	ours    []string // packages of ours; "admin/*" stands for all below admin
	modules []string // other modules
	without []string // packages of the standard library, and all below them

	clockless bool   // no time.Now, time.Since or time.Until: the time is an argument
	values    string // a type of fixed values, kept in package-level variables and only compared
	testsOurs bool   // test files, too, import nothing of ours but this package
}

const (
	fasthttp   = "github.com/valyala/fasthttp"
	router     = "github.com/fasthttp/router"
	pebble     = "github.com/cockroachdb/pebble/v2"
	ristretto  = "github.com/dgraph-io/ristretto/v2"
	prometheus = "github.com/prometheus/client_golang"
)

// rooms is the plan. A package is found by its own name before a pattern.
func rooms() map[string]room {
	return map[string]room{
		"apikey": {
			without:   []string{"os", "net/http", "io/fs", "crypto/rand", "math/rand", "log"},
			clockless: true,
			testsOurs: true,
		},
		"keystore": {ours: []string{"apikey"}, modules: []string{pebble, prometheus, "golang.org/x/crypto"}},
		"cache":    {ours: []string{"apikey"}, modules: []string{ristretto, prometheus, "golang.org/x/sync"}},

		"throttle": {without: []string{"net/http", "log"}, clockless: true},

		"proxy/gate":     {ours: []string{"apikey"}, without: []string{"net/http", "log"}, clockless: true},
		"proxy/http1":    {},
		"proxy/rawsock":  {},
		"proxy/upstream": {ours: []string{"proxy/http1", "proxy/rawsock"}},
		"proxy": {
			ours:    []string{"apikey", "proxy/gate", "proxy/http1", "proxy/rawsock", "proxy/upstream", "throttle"},
			modules: []string{fasthttp, prometheus},
			values:  "fault",
		},

		"admin":      {ours: []string{"apikey", "admin/wire", "throttle"}, modules: []string{fasthttp, router, prometheus}},
		"admin/wire": {ours: []string{"apikey"}, modules: []string{fasthttp}},
		"admin/jwt":  {ours: []string{"apikey"}, modules: []string{"github.com/go-jose/go-jose/v4"}},
		"admin/oidc": {
			ours:    []string{"apikey", "admin/wire"},
			modules: []string{"github.com/coreos/go-oidc/v3", "github.com/go-jose/go-jose/v4", "golang.org/x/sync"},
		},
		"admin/*": {ours: []string{"apikey", "admin/wire", "admin/jwt"}, modules: []string{fasthttp}}, // the dialects

		"listen": {ours: []string{"throttle"}, modules: []string{"github.com/pires/go-proxyproto"}, without: []string{"net/http", "log"}},
		"trace":  {ours: []string{"proxy"}, modules: []string{prometheus, "go.opentelemetry.io/otel"}},
		"jobs":   {ours: []string{"apikey"}, modules: []string{prometheus}},
		"config": {modules: []string{"github.com/goccy/go-yaml"}},

		"cmd/latchkey": {
			ours: []string{"admin", "admin/*", "apikey", "cache", "config", "jobs", "keystore",
				"listen", "proxy", "proxy/gate", "proxy/upstream", "trace"},
			modules: []string{fasthttp, prometheus, "github.com/spf13/cobra", "github.com/spf13/pflag", "github.com/schollz/progressbar/v3",
				"golang.org/x/term", "C"},
		},
		"bench": {
			ours:    []string{"apikey", "keystore", "bench/*", "internal/freeport"},
			modules: []string{fasthttp, "github.com/spf13/cobra", "golang.org/x/sys", "golang.org/x/term"},
		},
		"bench/load":   {modules: []string{"github.com/HdrHistogram/hdrhistogram-go"}, without: []string{"net/http"}},
		"bench/origin": {without: []string{"net/http"}},
		"bench/soak":   {without: []string{"net"}},
		"bench/result": {ours: []string{"bench/load", "bench/soak"}, modules: []string{"gonum.org/v1/plot", "golang.org/x/perf"}, without: []string{"net"}},

		"internal/archtest":    {},
		"internal/http1oracle": {}, // part of fuzz targets
		"internal/dialecttest": { // part of the dialects' tests
			ours: []string{"admin", "admin/wire", "apikey", "keystore"},
			modules: []string{pebble, prometheus, "github.com/getkin/kin-openapi", "github.com/google/go-cmp",
				"golang.org/x/tools"},
		},
		"internal/freeport": {},
		"internal/nettest":  {},
		"internal/wiretest": {ours: []string{"admin/wire", "apikey"}, modules: []string{fasthttp}},              // part of the admin plane's tests
		"internal/oidctest": {modules: []string{"github.com/zitadel/oidc/v3", "github.com/go-jose/go-jose/v4"}}, // an identity provider for tests
	}
}

// TestHouse holds the module's files to the plan.
func TestHouse(t *testing.T) {
	problems, files := inspect(t, os.DirFS("../.."))
	if files < 50 {
		t.Errorf("%d files seen; is this the module's root?", files)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

// inspect returns what is wrong in the module at root, and how many Go files
// it read.
func inspect(t *testing.T, root fs.FS) (problems []string, files int) {
	t.Helper()
	packages := map[string][]*file{}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if d.IsDir() {
			if name != "." && (base == "testdata" || base == "vendor" || base[0] == '.' || base[0] == '_') {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		f, err := read(root, name)
		if err != nil {
			return err
		}
		packages[path.Dir(name)] = append(packages[path.Dir(name)], f)
		files++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg, members := range packages {
		problems = append(problems, inspectPackage(pkg, members)...)
	}
	slices.Sort(problems)
	return problems, files
}

// inspectPackage returns what is wrong in one package.
func inspectPackage(pkg string, files []*file) (problems []string) {
	r, found := roomOf(pkg)
	if !found {
		problems = append(problems, fmt.Sprintf("%s: the package has no row in the table of internal/archtest", pkg))
	}
	onlyTests := !slices.ContainsFunc(files, func(f *file) bool { return !f.test })
	if !slices.ContainsFunc(files, func(f *file) bool { return f.test == onlyTests && f.syntax.Doc.Text() != "" }) {
		problems = append(problems, fmt.Sprintf("%s: no file has a package doc comment", pkg))
	}
	for _, f := range files {
		if found {
			f.checkImports(pkg, &r)
		}
		f.checkDeclarations(&r)
		problems = append(problems, f.problems...)
	}
	return problems
}

func roomOf(pkg string) (room, bool) {
	rows := rooms()
	if r, ok := rows[pkg]; ok {
		return r, true
	}
	for pattern, r := range rows {
		if ok, _ := path.Match(pattern, pkg); ok {
			return r, true
		}
	}
	return room{}, false
}

// A file is a Go file, with what was found wrong in it.
type file struct {
	name     string
	test     bool
	lines    int
	imports  []*ast.ImportSpec
	syntax   *ast.File
	fset     *token.FileSet
	problems []string
}

// read parses the imports by themselves: they are there to be judged even
// where the rest of a file is not Go yet.
func read(root fs.FS, name string) (*file, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, err
	}
	f := &file{name: name, test: strings.HasSuffix(name, "_test.go"), lines: bytes.Count(text, []byte("\n")), fset: token.NewFileSet()}
	head, err := parser.ParseFile(f.fset, name, text, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	f.imports = head.Imports
	f.syntax, err = parser.ParseFile(f.fset, name, text, parser.ParseComments)
	return f, err
}

func (f *file) report(at token.Pos, format string, args ...any) {
	f.problems = append(f.problems, fmt.Sprintf("%s:%d: ", f.name, f.fset.Position(at).Line)+fmt.Sprintf(format, args...))
}

func (f *file) checkImports(pkg string, r *room) {
	for _, spec := range f.imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		inner, ours := strings.CutPrefix(imported, module+"/")
		first, _, _ := strings.Cut(imported, "/")
		switch {
		case f.test:
			if ours && r.testsOurs && inner != pkg {
				f.report(spec.Pos(), "the tests of %s import nothing of ours but %[1]s, not %s", pkg, inner)
			}
		case ours:
			if !slices.ContainsFunc(r.ours, func(p string) bool { ok, _ := path.Match(p, inner); return ok }) {
				f.report(spec.Pos(), "package %s may not import %s", pkg, imported)
			}
		case strings.Contains(first, ".") || first == "C":
			if !slices.ContainsFunc(r.modules, func(m string) bool { return within(imported, m) }) {
				f.report(spec.Pos(), "package %s may not import %s of another module", pkg, imported)
			}
		case slices.ContainsFunc(r.without, func(w string) bool { return within(imported, w) }):
			f.report(spec.Pos(), "package %s does without %s", pkg, imported)
		}
	}
}

// within reports whether an import path is another one or below it.
func within(imported, parent string) bool {
	return imported == parent || strings.HasPrefix(imported, parent+"/")
}

func (f *file) checkDeclarations(r *room) {
	if !f.test && f.lines > maxFile {
		f.report(f.syntax.Package, "the file has %d lines, more than %d", f.lines, maxFile)
	}
	for _, decl := range f.syntax.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			f.checkFunction(d)
		case *ast.GenDecl:
			if d.Tok == token.VAR && !f.test {
				for _, spec := range d.Specs {
					f.checkVariable(d, spec.(*ast.ValueSpec), r)
				}
			}
		}
	}
	if clock := f.local("time"); r.clockless && !f.test && clock != "" {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if name := selected(n, clock); slices.Contains([]string{"Now", "Since", "Until"}, name) {
				f.report(n.Pos(), "the package reads no clock, so no time.%s: take the time as an argument", name)
			}
			return true
		})
	}
}

func (f *file) checkFunction(d *ast.FuncDecl) {
	if d.Recv == nil && d.Name.Name == "init" {
		f.report(d.Pos(), "there are no init functions; do it in a constructor")
	}
	from, to := f.fset.Position(d.Pos()).Line, f.fset.Position(d.End()).Line
	if n := to - from + 1; !f.test && n > maxFunction {
		f.report(d.Pos(), "function %s has %d lines, more than %d", d.Name.Name, n, maxFunction)
	}
}

// checkVariable lets pass, at package level, only what nobody has a reason to
// write to: error values, embedded files, assertions that a type has an
// interface, the values a room names, and the flags of a command.
func (f *file) checkVariable(d *ast.GenDecl, v *ast.ValueSpec, r *room) {
	embeds := func(g *ast.CommentGroup) bool {
		return g != nil && slices.ContainsFunc(g.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
	}
	if embeds(d.Doc) || embeds(v.Doc) {
		return
	}
	for i, name := range v.Names {
		var value ast.Expr
		if i < len(v.Values) {
			value = v.Values[i]
		}
		switch {
		case name.Name == "_" && v.Type != nil && value != nil:
		case called(value, f.local("errors"), "New"):
		case r.values != "" && fixed(value, r.values):
		case f.syntax.Name.Name == "main" && called(value, f.local("flag"), ""):
		default:
			f.report(name.Pos(), "%s is a variable of the package; pass it in, or make it a constant or a function", name.Name)
		}
	}
}

// local returns the name by which the file calls a package, "" if it does not
// import it.
func (f *file) local(imported string) string {
	for _, spec := range f.imports {
		if spec.Path.Value == strconv.Quote(imported) {
			if spec.Name != nil {
				return spec.Name.Name
			}
			return path.Base(imported)
		}
	}
	return ""
}

// selected returns what n takes from the package known as pkg, or "". Of a
// package imported with a dot, every name may be meant.
func selected(n ast.Node, pkg string) string {
	switch n := n.(type) {
	case *ast.SelectorExpr:
		if x, ok := n.X.(*ast.Ident); ok && x.Name == pkg {
			return n.Sel.Name
		}
	case *ast.Ident:
		if pkg == "." {
			return n.Name
		}
	}
	return ""
}

// called reports whether e calls the function of the package known as pkg;
// the name "" stands for any function.
func called(e ast.Expr, pkg, function string) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok || pkg == "" {
		return false
	}
	name := selected(call.Fun, pkg)
	return name != "" && (function == "" || name == function)
}

// fixed reports whether e is &name{...}.
func fixed(e ast.Expr, name string) bool {
	pointer, ok := e.(*ast.UnaryExpr)
	if !ok {
		return false
	}
	literal, ok := pointer.X.(*ast.CompositeLit)
	if !ok {
		return false
	}
	typ, ok := literal.Type.(*ast.Ident)
	return ok && typ.Name == name
}

// TestRules shows what each rule catches and what it lets pass.
func TestRules(t *testing.T) {
	const doc = "// Package x is documented.\n"
	for _, tc := range []struct {
		name, file, text string
		want             string // in the one problem there is; empty means none
	}{
		{"a package is in the table", "spare/x.go", doc + "package x", "spare: the package has no row"},
		{"a command beside ours is in the table", "cmd/other/x.go", doc + "package main", "no row"},
		{"a package has a doc comment", "jobs/x.go", "package jobs", "jobs: no file has a package doc comment"},
		{"a build tag is no doc comment", "jobs/x.go", "//go:build linux\n\npackage jobs", "no file has a package doc comment"},
		{"a package of tests has a doc comment", "bench/x_test.go", "package bench", "bench: no file has a package doc comment"},

		{"jobs may import apikey", "jobs/x.go", doc + `package jobs; import "latchkey/apikey"`, ""},
		{"jobs may not import keystore", "jobs/x.go", doc + `package jobs; import "latchkey/keystore"`, "jobs/x.go:2: package jobs may not import latchkey/keystore"},
		{"the cache may not import keystore", "cache/x.go", doc + `package cache; import "latchkey/keystore"`, "may not import latchkey/keystore"},
		{"the proxy may not import keystore", "proxy/x.go", doc + `package proxy; import "latchkey/keystore"`, "may not import latchkey/keystore"},
		{"admin may not import keystore", "admin/x.go", doc + `package admin; import "latchkey/keystore"`, "may not import latchkey/keystore"},
		{"the domain imports nothing of ours", "apikey/x.go", doc + `package apikey; import "latchkey/config"`, "may not import latchkey/config"},
		{"the exchange imports nothing of ours", "proxy/upstream/x.go", doc + `package upstream; import "latchkey/apikey"`, "may not import latchkey/apikey"},
		{"wire does not know the dialects", "admin/wire/x.go", doc + `package wire; import "latchkey/admin/peach"`, "may not import latchkey/admin/peach"},
		{"a new dialect has the dialects' row", "admin/new/x.go", doc + `package x; import "latchkey/admin/wire"`, ""},
		{"dialects do not know each other", "admin/new/x.go", doc + `package x; import "latchkey/admin/peach"`, "may not import latchkey/admin/peach"},
		{"the command may import every dialect", "cmd/latchkey/x.go", doc + `package main; import "latchkey/admin/new"`, ""},
		{"the command leaves out test support", "cmd/latchkey/x.go", doc + `package main; import "latchkey/internal/dialecttest"`, "may not import latchkey/internal/dialecttest"},

		{"only the store imports Pebble", "jobs/x.go", doc + `package jobs; import "github.com/cockroachdb/pebble/v2/vfs"`, "may not import github.com/cockroachdb/pebble/v2/vfs of another module"},
		{"the gate does not know fasthttp", "proxy/gate/x.go", doc + `package gate; import "github.com/valyala/fasthttp"`, "may not import github.com/valyala/fasthttp of"},
		{"another major version is another module", "keystore/x.go", doc + `package keystore; import "github.com/cockroachdb/pebble"`, "may not import github.com/cockroachdb/pebble of"},
		{"the listener imports nothing of ours", "listen/x.go", doc + `package listen; import "latchkey/config"`, "may not import latchkey/config"},
		{"the listener does not know HTTP", "listen/x.go", doc + `package listen; import "github.com/valyala/fasthttp"`, "may not import github.com/valyala/fasthttp of"},
		{"the proxy does not know how traces are exported", "proxy/x.go", doc + `package proxy; import "go.opentelemetry.io/otel/trace"`, "may not import go.opentelemetry.io/otel/trace of"},
		{"traces know the proxy alone", "trace/x.go", doc + `package trace; import "latchkey/config"`, "may not import latchkey/config"},
		{"no C", "cache/x.go", doc + `package cache; import "C"`, "may not import C"},
		{"the domain does without logging", "apikey/x.go", doc + `package apikey; import "log/slog"`, "package apikey does without log/slog"},
		{"the domain does without randomness", "apikey/x.go", doc + `package apikey; import "math/rand/v2"`, "does without math/rand/v2"},
		{"the gate does without net/http", "proxy/gate/x.go", doc + `package gate; import "net/http"`, "does without net/http"},

		{"tests may import more", "jobs/x_test.go", doc + `package jobs; import ("latchkey/keystore"; "github.com/cockroachdb/pebble/v2/vfs")`, ""},
		{"tests of the domain may import it", "apikey/x_test.go", doc + `package apikey_test; import "latchkey/apikey"`, ""},
		{"tests of the domain may not import more of ours", "apikey/x_test.go", doc + `package apikey; import "latchkey/cache"`, "the tests of apikey import nothing of ours but apikey, not cache"},

		{"the domain reads no clock", "apikey/x.go", doc + "package apikey; import \"time\"\nfunc f() time.Time { return time.Now() }", "apikey/x.go:3: the package reads no clock, so no time.Now"},
		{"the gate reads no clock under another name", "proxy/gate/x.go", doc + "package gate; import t \"time\"\nfunc f(a t.Time) any { return t.Since(a) }", "no time.Since"},
		{"nor under none", "proxy/gate/x.go", doc + "package gate; import . \"time\"\nfunc f(a Time) any { return Until(a) }", "no time.Until"},
		{"nor as a value", "proxy/gate/x.go", doc + "package gate; import \"time\"\nfunc f() func() time.Time { return time.Now }", "no time.Now"},
		{"jobs read the clock", "jobs/x.go", doc + "package jobs; import \"time\"\nfunc f() time.Time { return time.Now() }", ""},

		{"no init", "jobs/x.go", doc + "package jobs\nfunc init() {}", "jobs/x.go:3: there are no init functions"},
		{"no init in tests", "jobs/x_test.go", doc + "package jobs\nfunc init() {}", "there are no init functions"},
		{"a method may be called init", "jobs/x.go", doc + "package jobs\nfunc (j *Job) init() {}", ""},
		{"no variables", "jobs/x.go", doc + "package jobs\nvar count int", "jobs/x.go:3: count is a variable of the package"},
		{"no variables in groups", "jobs/x.go", doc + "package jobs\nvar (\n\ta = 1\n)", "jobs/x.go:4: a is a variable"},
		{"no blank variables to run code", "jobs/x.go", doc + "package jobs\nvar _ = f()", "_ is a variable"},
		{"variables in tests", "jobs/x_test.go", doc + "package jobs\nvar count int", ""},
		{"error values", "jobs/x.go", doc + "package jobs; import \"errors\"\nvar ErrX = errors.New(\"x\")", ""},
		{"errors of another kind are variables", "jobs/x.go", doc + "package jobs; import \"fmt\"\nvar ErrX = fmt.Errorf(\"x\")", "ErrX is a variable"},
		{"embedded files", "jobs/x.go", doc + "package jobs; import _ \"embed\"\n\n//go:embed x.yaml\nvar document []byte", ""},
		{"interface assertions", "jobs/x.go", doc + "package jobs\nvar _ Ends = (*fake)(nil)", ""},
		{"flags of the command", "cmd/latchkey/x.go", doc + "package main; import \"flag\"\nvar v = flag.Bool(\"v\", false, \"\")", ""},
		{"flags of a package", "jobs/x.go", doc + "package jobs; import \"flag\"\nvar v = flag.Bool(\"v\", false, \"\")", "v is a variable"},
		{"the faults of the proxy", "proxy/x.go", doc + "package proxy\nvar bad = &fault{400}", ""},
		{"other values of the proxy", "proxy/x.go", doc + "package proxy\nvar bad = &Route{}", "bad is a variable"},

		{"a long file", "jobs/x.go", doc + "package jobs\n" + strings.Repeat("\n", 400), "jobs/x.go:2: the file has 402 lines, more than 400"},
		{"a long test file", "jobs/x_test.go", doc + "package jobs\n" + strings.Repeat("\n", 400), ""},
		{"a long function", "jobs/x.go", doc + "package jobs\nfunc f() {" + strings.Repeat("\n", 80) + "}", "function f has 81 lines, more than 80"},
		{"a function as long as may be", "jobs/x.go", doc + "package jobs\nfunc f() {" + strings.Repeat("\n", 79) + "}", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, _ := inspect(t, fstest.MapFS{tc.file: {Data: []byte(tc.text)}})
			switch {
			case tc.want == "" && len(got) > 0:
				t.Errorf("problems %q, want none", got)
			case tc.want != "" && (len(got) != 1 || !strings.Contains(got[0], tc.want)):
				t.Errorf("problems %q, want one with %q", got, tc.want)
			}
		})
	}
}
