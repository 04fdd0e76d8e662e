package main

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A document is a page of Markdown as readers see it: headings, blocks of code, and
// the text between them.
type document struct {
	name    string // from the top of the source tree
	anchors map[string]bool
	blocks  []codeBlock
	text    string // without blocks of code
}

// A codeBlock is fenced code.
type codeBlock struct {
	anchor   string // of the heading that it stands under
	number   int    // among the blocks of its language under that heading, from 1
	language string
	line     int
	text     string
}

// where names the block as scripts do.
func (b codeBlock) where(d *document) string {
	return fmt.Sprintf("%s %s %d", d.name, b.anchor, b.number)
}

// readDocument reads a page by its name from the top of the source tree.
func readDocument(name string) (*document, error) {
	raw, err := os.ReadFile(filepath.Join("../..", filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	d := &document{name: name, anchors: map[string]bool{}}
	var text strings.Builder
	var fence *codeBlock
	anchor, seen, numbers := "", map[string]int{}, map[string]int{}
	line := 0
	for l := range strings.Lines(string(raw)) {
		line++
		switch mark, isFence := strings.CutPrefix(strings.TrimSpace(l), "```"); {
		case isFence && fence == nil:
			numbers[anchor+" "+mark]++
			fence = &codeBlock{anchor: anchor, number: numbers[anchor+" "+mark], language: mark, line: line}
		case isFence:
			d.blocks = append(d.blocks, *fence)
			fence = nil
		case fence != nil:
			fence.text += l
		default:
			if m := regexp.MustCompile(`^#{1,6} +(.+?) *$`).FindStringSubmatch(strings.TrimRight(l, "\n")); m != nil {
				anchor = slug(m[1])
				if seen[anchor]++; seen[anchor] > 1 {
					anchor = fmt.Sprintf("%s-%d", anchor, seen[anchor]-1)
				}
				d.anchors[anchor] = true
			}
			text.WriteString(l)
		}
	}
	if fence != nil {
		return nil, fmt.Errorf("%s:%d: the block of code has no end", name, fence.line)
	}
	d.text = text.String()
	return d, nil
}

// slug is the anchor that GitHub gives a heading: its text in lower case, with
// hyphens for spaces, and of other characters letters, digits, hyphens and underscores alone.
func slug(heading string) string {
	heading = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(heading, "$1")
	heading = strings.ReplaceAll(strings.ToLower(heading), " ", "-")
	return regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(heading, "")
}

// documents reads every page of the source tree.
func documents(t *testing.T) (all []*document) {
	t.Helper()
	root := "../.."
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != root && (entry.Name()[0] == '.' || entry.Name() == "testdata"):
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(name) != ".md":
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		d, err := readDocument(filepath.ToSlash(rel))
		all = append(all, d)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var (
	codeSpan   = regexp.MustCompile("`[^`]+`")
	inlineLink = regexp.MustCompile(`\]\(([^()\s]*(?:\([^()\s]*\))?[^()\s]*)\)`)
	namedLink  = regexp.MustCompile(`(?m)^\[[^\]]+\]: *(\S+)`)
)

// links returns where a page leads to.
func (d *document) links() (targets []string) {
	text := codeSpan.ReplaceAllString(d.text, "")
	for _, pattern := range []*regexp.Regexp{inlineLink, namedLink} {
		for _, m := range pattern.FindAllStringSubmatch(text, -1) {
			targets = append(targets, m[1])
		}
	}
	return targets
}

// TestLinksResolve holds the links of every page against the files and headings that
// are there. Whether other people's pages are there is not asked; their URLs are to be
// well formed.
func TestLinksResolve(t *testing.T) {
	byName := map[string]*document{}
	for _, d := range documents(t) {
		byName[d.name] = d
	}
	links := 0
	for _, d := range byName {
		for _, target := range d.links() {
			links++
			if problem := resolve(byName, d, target); problem != "" {
				t.Errorf("%s: %q %s", d.name, target, problem)
			}
		}
	}
	if len(byName) < 12 || links < 60 {
		t.Errorf("%d links in %d pages seen; is this the source tree?", links, len(byName))
	}
}

// resolve says what is wrong with a link.
func resolve(pages map[string]*document, from *document, target string) string {
	u, err := url.Parse(target)
	switch {
	case err != nil:
		return "is no URL"
	case u.Scheme == "mailto":
		return ""
	case u.Scheme != "" || u.Host != "":
		if u.Scheme != "https" || !strings.Contains(u.Hostname(), ".") || u.User != nil {
			return "is no https URL with a host"
		}
		return ""
	}
	name := from.name
	if u.Path != "" {
		name = path.Join(path.Dir(from.name), u.Path)
	}
	if _, err := os.Stat(filepath.Join("../..", name)); err != nil || strings.HasPrefix(name, "../") {
		return "names no file"
	}
	if page := pages[name]; u.Fragment != "" && (page == nil || !page.anchors[u.Fragment]) {
		return "names no heading of " + name
	}
	return ""
}

// blocksInScripts returns the blocks that scripts run, as they name them.
func blocksInScripts(t *testing.T) map[string]bool {
	t.Helper()
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	run := map[string]bool{}
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		commands, _, _ := strings.Cut(string(text), "\n-- ")
		for _, m := range regexp.MustCompile(`(?m)^(?:! )?block (?:-\w+ )?(\S+ \S+ \d+)$`).FindAllStringSubmatch(commands, -1) {
			run[m[1]] = true
		}
	}
	return run
}

// TestEveryCommandOfTheDocumentsIsAccountedFor requires of every block of shell in a
// page that operators or contributors read that a script runs it (the command block of
// TestScripts) or, if it needs what a test has not got, that each of its lines is of a
// kind that is checked without being run.
func TestEveryCommandOfTheDocumentsIsAccountedFor(t *testing.T) {
	run, seen := blocksInScripts(t), 0
	for _, d := range documents(t) {
		for _, b := range d.blocks {
			if b.language != "sh" {
				if slices.Contains([]string{"bash", "shell", "console"}, b.language) {
					t.Errorf("%s:%d: write sh in place of %s", d.name, b.line, b.language)
				}
				continue
			}
			seen++
			if run[b.where(d)] {
				delete(run, b.where(d))
				continue
			}
			for command := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", " ")) {
				if problem := checkDocumented(command); problem != "" {
					t.Errorf("%s is run by no script, and %q %s", b.where(d), strings.TrimSpace(command), problem)
				}
			}
		}
	}
	for where := range run {
		t.Errorf("a script runs %s, which is not there", where)
	}
	if seen < 20 {
		t.Errorf("%d blocks of shell seen; is this the source tree?", seen)
	}
}

// TestEveryCallHasAnExample requires of docs/api.md a line of curl for every call of
// the dialects' OpenAPI documents.
func TestEveryCallHasAnExample(t *testing.T) {
	page, err := readDocument("docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	var examples []string // METHOD /path
	for _, b := range page.blocks {
		for line := range strings.Lines(b.text) {
			if !strings.HasPrefix(line, "curl ") {
				continue
			}
			line, _, _ = strings.Cut(strings.ReplaceAll(line, "@keys.ndjson", "keys"), " >")
			c, err := parseCurl(shellWords(strings.TrimSpace(line)))
			if err != nil {
				t.Fatalf("docs/api.md:%d: %v", b.line, err)
			}
			u, err := url.Parse(c.url)
			if err != nil {
				t.Fatalf("docs/api.md:%d: %v", b.line, err)
			}
			examples = append(examples, c.method+" "+u.Path)
		}
	}
	calls := 0
	for _, dialect := range []string{"truvera", "strait", "peach"} {
		var api struct {
			Servers []struct{ URL string }
			Paths   map[string]map[string]any
		}
		readYAML(t, source("admin/"+dialect+"/openapi.yaml"), &api)
		for template, methods := range api.Paths {
			if dialect == "peach" {
				template = "/api" + strings.TrimPrefix(template, "/api")
			}
			pattern := regexp.MustCompile(`^` + regexp.MustCompile(`\\\{[^/]+\\\}`).ReplaceAllString(regexp.QuoteMeta(template), `\$$ID`) + `$`)
			for method := range methods {
				if !slices.Contains([]string{"get", "post", "put", "patch", "delete"}, method) {
					continue
				}
				calls++
				if !slices.ContainsFunc(examples, func(e string) bool {
					got, path, _ := strings.Cut(e, " ")
					return strings.EqualFold(got, method) && pattern.MatchString(path)
				}) {
					t.Errorf("docs/api.md has no example of %s %s (%s)", strings.ToUpper(method), template, dialect)
				}
			}
		}
	}
	if calls != 15 {
		t.Errorf("%d calls in the OpenAPI documents, want 15", calls)
	}
}

// TestTheWalkIsInTheCode holds the walks of ARCHITECTURE.md to the source: each file
// is there, and declares the functions that are named beside it.
func TestTheWalkIsInTheCode(t *testing.T) {
	page, err := readDocument("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	for _, m := range regexp.MustCompile("(?m)^\\| \\d+ \\| `([^`]+)` \\| (`[^|]+`) \\|").FindAllStringSubmatch(page.text, -1) {
		steps++
		text, err := os.ReadFile(source(m[1]))
		if err != nil {
			t.Error(err)
			continue
		}
		for name := range strings.SplitSeq(m[2], ", ") {
			name = strings.Trim(name, "`")
			if !regexp.MustCompile(`(?m)^func (?:\([^)]+\) )?` + name + `[\[(]`).Match(text) {
				t.Errorf("%s declares no function %s", m[1], name)
			}
		}
	}
	if steps < 30 {
		t.Errorf("%d steps seen in ARCHITECTURE.md", steps)
	}
	for _, m := range regexp.MustCompile("`((?:admin|apikey|cache|cmd|jobs|keystore|listen|proxy)/[\\w/]+\\.go)`").FindAllStringSubmatch(page.text, -1) {
		if _, err := os.Stat(source(m[1])); err != nil {
			t.Errorf("ARCHITECTURE.md names %s: %v", m[1], err)
		}
	}
}
