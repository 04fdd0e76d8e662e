package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Load reads the file at path, with ${NAME} from the process's environment.
// Its error is Problems unless the file could not be read.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, os.LookupEnv)
}

// Parse reads data as YAML over Default, replaces ${NAME} by what getenv says,
// and validates the outcome as Validate does. Its error is Problems; name
// stands in it for the file. Host names come out in lower case and
// api_versions oldest first.
func Parse(name string, data []byte, getenv func(string) (string, bool)) (*Config, error) {
	root, problem := document(data)
	if problem != nil {
		return nil, problems(name, []Problem{*problem})
	}
	c := Default()
	d := newDecoder(getenv)
	d.decode("", root, &c)
	for i := range c.Routes {
		for j, host := range c.Routes[i].Hosts {
			c.Routes[i].Hosts[j] = strings.ToLower(host)
		}
	}
	c.Admin.Truvera.Host = strings.ToLower(c.Admin.Truvera.Host)
	c.Admin.Strait.Host = strings.ToLower(c.Admin.Strait.Host)
	c.Admin.Peach.Host = strings.ToLower(c.Admin.Peach.Host)

	found := d.problems
	v := validator{config: &c, getenv: getenv, line: d.line}
	for _, p := range v.validate() {
		// What could not be read is reported already; what follows from that
		// would only distract.
		if !d.unread(p.Path) {
			found = append(found, p)
		}
	}
	if err := problems(name, found); err != nil {
		return nil, err
	}
	slices.Sort(c.Admin.Peach.APIVersions)
	return &c, nil
}

// document returns the root of the only YAML document in data.
func document(data []byte) (ast.Node, *Problem) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	// The parser counts a blank line that ends in CRLF twice.
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	// Keys given twice are refused by the decoder, together with all else.
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxProblem(err)
	}
	var root ast.Node
	for i, doc := range file.Docs {
		if _, ok := doc.Body.(*ast.DirectiveNode); ok {
			continue
		}
		if i > 0 && root != nil {
			line := 1
			if doc.Start != nil {
				line = doc.Start.Position.Line
			} else if doc.Body != nil {
				line = doc.Body.GetToken().Position.Line
			}
			return nil, &Problem{Line: line, Message: "a second YAML document begins here; keep everything in one, without ---"}
		}
		root = doc.Body
	}
	if root == nil {
		return nil, &Problem{Line: 1, Message: "the file is empty; it needs at least routes and upstreams"}
	}
	return root, nil
}

// syntaxProblem keeps the message and line of the parser's error, not the
// excerpt of the source that comes with it: the excerpt may show a token.
func syntaxProblem(err error) *Problem {
	p := &Problem{Line: 1, Message: "not valid YAML"}
	if detail, ok := errors.AsType[yaml.Error](err); ok {
		p.Message += ": " + strings.ReplaceAll(detail.GetMessage(), "\n", " ")
		if token := detail.GetToken(); token != nil {
			p.Line = token.Position.Line
		}
	}
	if strings.HasSuffix(p.Message, "must be specified") {
		p.Message += "; inside [ ] or { }, put a value that holds { } [ ] or a comma in quotes"
	} else {
		p.Message += "; check indentation and quotes on and above this line"
	}
	return p
}
