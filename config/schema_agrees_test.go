package config_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// agree holds the schema to a verdict of Parse: it takes what Parse takes, and
// refuses what Parse refuses unless that is beyond a schema.
func agree(t *testing.T, text string, refused error) {
	t.Helper()
	err := bySchema(t, text)
	if refused == nil && err != nil {
		t.Errorf("the schema refuses a good file: %v\n%s", err, text)
	}
	if refused != nil && err == nil {
		for line := range strings.SplitSeq(refused.Error(), "\n") {
			if !beyondSchema().MatchString(line) {
				t.Errorf("the schema takes a file of which Parse says %s\n%s", line, text)
			}
		}
	}
}

var compiledSchema = sync.OnceValues(func() (*jsonschema.Schema, error) { return jsonschema.NewCompiler().Compile(schemaFile) })

// bySchema returns what the schema in docs says about a file.
func bySchema(t *testing.T, text string) error {
	t.Helper()
	compiled, err := compiledSchema()
	if err != nil {
		t.Fatal(err)
	}
	inJSON, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(inJSON)))
	if err != nil {
		return err
	}
	return compiled.Validate(value)
}

// beyondSchema matches the problems that a schema cannot see: what depends on
// another value, on the environment, on files, or on more than patterns can say.
func beyondSchema() *regexp.Regexp {
	return regexp.MustCompile(strings.Join([]string{
		"YAML anchors", "a key is not plain text", "a second YAML document",
		"environment variable", "the environment", `\$\{ is not followed by`, `"x\]\\nadmin: \{\}" is not an address`, "is not an address to listen on: the port",
		"its port is not a number", "plain HTTP shows", "has a dot segment",
		"is also the name of", "is what the audit log calls", "the same place as", "is taken by", "has the same token", "is given twice", "matches the same requests",
		"would trust everyone", "bits set beyond its prefix", "no proxy is trusted",
		"no upstream is named", "is not how the path", "has no effect", "needs a certificate for clients", "no such file", "not a regular file", "both in PEM", "in other letters", "stands for nothing within", "the scheme's own port", "of whole seconds", "holds no certificate",
		"out of range; write 4KiB", "too small; write at least", "out of range; write 0s to",
		"can be reached from outside", "begins with http://, so that",
		"the gateway's own to write", "written by cors already", `\* with credentials`,
		"is not a date", "its braces are not balanced", "regular expression", "capturing group", "put it last", "two parameters are named", "mixes text and a parameter",
	}, "|"))
}

// TestDeployedFilesFitTheSchema looks at what deploy has to begin with.
func TestDeployedFilesFitTheSchema(t *testing.T) {
	files, err := filepath.Glob("../deploy/*/latchkey.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := bySchema(t, string(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExampleFitsTheSchema(t *testing.T) {
	text, err := os.ReadFile("../config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := bySchema(t, string(text)); err != nil {
		t.Error(err)
	}
	const modeline = "# yaml-language-server: $schema=docs/config.schema.json\n"
	if !strings.HasPrefix(string(text), modeline) {
		t.Errorf("the example does not begin with %q, so that editors do not find the schema", modeline)
	}
}
