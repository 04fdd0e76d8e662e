package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// testsOf returns the names of the tests, benchmarks and fuzz targets of every
// package of the module at root, by directory, and its Markdown files.
func testsOf(t *testing.T, root fs.FS) (tests map[string][]string, documents map[string]string) {
	t.Helper()
	tests, documents = map[string][]string{}, map[string]string{}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && name != "." || d.Name() == "testdata" || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		code, document := strings.HasSuffix(name, "_test.go"), strings.HasSuffix(name, ".md")
		if d.IsDir() || !code && !document {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		if document {
			documents[name] = string(text)
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range parsed.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && regexp.MustCompile(`^(Test|Fuzz|Benchmark)[A-Z]`).MatchString(f.Name.Name) {
				tests[path.Dir(name)] = append(tests[path.Dir(name)], f.Name.Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests, documents
}

// A claim is a name that a command of a document gives to go test.
type claim struct {
	packages []string
	name     string // as the command has it, a regular expression
}

// claims returns the tests that a document's commands name.
func claims(document string) (out []claim) {
	command := regexp.MustCompile("(?m)(?:`|^)(go test [^`\n]*(?:\n[^`\n]+)?)`|^(go test .*)$")
	flag := regexp.MustCompile(`-(?:run|fuzz|bench)[ =]('[^']*'|\S+)`)
	for _, m := range command.FindAllStringSubmatch(document, -1) {
		line := strings.NewReplacer(`\|`, "|", "\n", " ").Replace(m[1] + m[2])
		var packages []string
		for word := range strings.FieldsSeq(line) {
			if strings.HasPrefix(word, "./") {
				packages = append(packages, strings.TrimPrefix(word, "./"))
			}
		}
		for _, f := range flag.FindAllStringSubmatch(line, -1) {
			for name := range strings.SplitSeq(strings.Trim(f[1], "'"), "|") {
				// What is behind a slash is a part of the test.
				if name, _, _ = strings.Cut(name, "/"); name != "^$" {
					out = append(out, claim{packages, name})
				}
			}
		}
	}
	return out
}

// missing returns what a document names and is not there.
func missing(document string, tests map[string][]string) (problems []string) {
	for _, c := range claims(document) {
		name, err := regexp.Compile(c.name)
		found := err == nil && len(c.packages) > 0
		for _, p := range c.packages {
			prefix, all := strings.CutSuffix(p, "...")
			some := false
			for dir, names := range tests {
				if dir == p || all && strings.HasPrefix(dir+"/", prefix) {
					some = some || slices.ContainsFunc(names, name.MatchString)
				}
			}
			found = found && some
		}
		if !found {
			problems = append(problems, fmt.Sprintf("%s in %s: there is no such test", c.name, strings.Join(c.packages, " ")))
		}
	}
	return problems
}

// TestNamedTestsExist looks up every test that a document tells its reader to run.
func TestNamedTestsExist(t *testing.T) {
	tests, documents := testsOf(t, os.DirFS("../.."))
	named := 0
	for name, text := range documents {
		named += len(claims(text))
		for _, p := range missing(text, tests) {
			t.Errorf("%s: %s", name, p)
		}
	}
	if named < 100 {
		t.Errorf("%d tests are named in %d documents; are their commands still found?", named, len(documents))
	}
}

func TestMissingTestsAreNamed(t *testing.T) {
	tests := map[string][]string{"proxy": {"TestScreen", "FuzzRequest"}, "proxy/http1": {"TestChunked"}, "admin": {"TestAudit"}}
	for _, tc := range []struct {
		name, document string
		want           []string
	}{
		{"a test that is there", "`go test ./proxy -run TestScreen`", nil},
		{"a beginning is enough", "`go test ./proxy -run TestScr`", nil},
		{"one that is not", "`go test ./proxy -run TestScream`", []string{"TestScream in proxy: there is no such test"}},
		{"one of several", "| `go test ./proxy -run 'TestScreen\\|TestGone'` | x |", []string{"TestGone in proxy: there is no such test"}},
		{"one of another package", "`go test ./admin -run TestScreen`", []string{"TestScreen in admin: there is no such test"}},
		{"below a directory", "`go test ./proxy/... -run TestChunked`", nil},
		{"a part of a test", "`go test ./proxy -run 'TestScreen/a'`", nil},
		{"a fuzz target", "`go test ./proxy -run '^$' -fuzz FuzzReq -fuzztime 1s`", nil},
		{"one that is gone", "`go test ./proxy -run '^$' -fuzz FuzzGone`", []string{"FuzzGone in proxy: there is no such test"}},
		{"in a block", "```sh\ngo test ./proxy -run TestGone -v -args -n 1\n```\n", []string{"TestGone in proxy: there is no such test"}},
		{"over two lines", "(`go test ./proxy -run\n'TestScreen|TestGone'`)", []string{"TestGone in proxy: there is no such test"}},
		{"in no package", "`go test -run TestScreen`", []string{"TestScreen in : there is no such test"}},
	} {
		if got := missing(tc.document, tests); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// section returns what stands below a heading, up to the next of its level.
func section(document, heading string) string {
	_, text, _ := strings.Cut("\n"+document, "\n## "+heading+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// tableRows returns the cells of a table's rows that begin with the text.
func tableRows(document, begin string) (rows [][]string) {
	for line := range strings.Lines(document) {
		if strings.HasPrefix(line, "| "+begin) {
			cells := strings.Split(strings.Trim(strings.ReplaceAll(line, `\|`, "\x00"), "| \n"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			rows = append(rows, cells)
		}
	}
	return rows
}

// TestEveryThreatHasATest holds the table of threats to the sections that it leads to:
// each threat has one, in order, which names tests, and both columns are filled in.
func TestEveryThreatHasATest(t *testing.T) {
	_, documents := testsOf(t, os.DirFS("../.."))
	text := documents["docs/security.md"]
	rows := tableRows(text, "[T")
	headings := regexp.MustCompile(`(?m)^## (T([0-9]+): .*)$`).FindAllStringSubmatch(text, -1)
	if len(rows) != len(headings) || len(rows) < 20 {
		t.Fatalf("%d threats in the table, %d sections", len(rows), len(headings))
	}
	for i, cells := range rows {
		anchor := strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(headings[i][1]), ""), " ", "-")
		if want := fmt.Sprintf("[T%d](#%s)", i+1, anchor); cells[0] != want {
			t.Errorf("row %d begins with %s, want %s", i+1, cells[0], want)
		}
		if len(cells) != 4 || slices.Contains(cells, "") {
			t.Errorf("T%d: %d cells, want the threat, what is held, and what is not", i+1, len(cells))
		}
		if len(claims(section(text, headings[i][1]))) == 0 {
			t.Errorf("T%d: its section names no test", i+1)
		}
	}
}

// TestEveryFuzzTargetIsListed holds the table of fuzz targets to those there are.
func TestEveryFuzzTargetIsListed(t *testing.T) {
	tests, documents := testsOf(t, os.DirFS("../.."))
	want := map[string]bool{}
	for dir, names := range tests {
		for _, name := range names {
			if strings.HasPrefix(name, "Fuzz") {
				want["`"+dir+"` "+name] = true
			}
		}
	}
	for _, cells := range tableRows(section(documents["docs/security.md"], "Fuzzing"), "`") {
		if len(cells) != 4 || slices.Contains(cells, "") {
			t.Errorf("%q: want the target, what it reads, what it is held against, and how long it ran", cells)
		}
		if !want[cells[0]] {
			t.Errorf("%s is listed, and is not there or is listed twice", cells[0])
		}
		delete(want, cells[0])
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		t.Errorf("%s is not in the table of docs/security.md", name)
	}
}

// TestReleasesAreBuiltInOneWay holds the three places that build the binary to be
// released to the same flags: others would give other bytes.
func TestReleasesAreBuiltInOneWay(t *testing.T) {
	build := regexp.MustCompile(`(?m)CGO_ENABLED=0 .*go .*build (-.*) -o `)
	want := "-trimpath -ldflags=-s -w"
	for _, name := range []string{"docs/releasing.md", ".ci/reproducible", "Dockerfile"} {
		text, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		m := build.FindStringSubmatch(string(text))
		if m == nil {
			t.Errorf("%s builds nothing", name)
			continue
		}
		// That the commit is stamped into it is demanded where it must be, and Go's habit.
		flags := strings.NewReplacer("'", "", `"`, "", "-buildvcs=true ", "").Replace(m[1])
		if flags != want {
			t.Errorf("%s builds with %s, want %s", name, flags, want)
		}
	}
}
