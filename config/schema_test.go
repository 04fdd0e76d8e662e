package config_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/config"
)

var update = flag.Bool("update", false, "write the schema and the reference anew")

const (
	schemaFile    = "../docs/config.schema.json"
	referenceFile = "../docs/configuration.md"
	generatedMark = "<!-- From here on this file is written by go test ./config -run TestSchema -update -->\n"
)

// TestSchema makes the schema and the reference of the configuration, and
// compares them with the files in docs. Fields, defaults and descriptions come
// from the code; only what package config checks in its functions is said again,
// in rules, which TestSchemaRefuses and checkFields hold against those functions.
func TestSchema(t *testing.T) {
	g := newGenerator(t)
	root := g.structure(reflect.TypeFor[config.Config](), reflect.ValueOf(config.Default()), "")
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["title"] = "Configuration of Latchkey"
	root["definitions"] = object{"environment": object{
		"type": "string", "pattern": `\$\{[A-Za-z_][A-Za-z0-9_]*\}`,
	}}
	for name := range g.rules {
		t.Errorf("the rule for %s is for no field", name)
	}
	schema, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, schemaFile, "", string(schema)+"\n")

	text, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	before, _, found := strings.Cut(string(text), generatedMark)
	if !found {
		t.Fatalf("%s lacks the line %s", referenceFile, generatedMark)
	}
	compare(t, referenceFile, before+generatedMark, g.reference.String())
}

// compare holds a file against what is to be in it after its head.
func compare(t *testing.T, name, head, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(head+want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(head+want, string(got)); diff != "" {
		t.Errorf("%s is stale; run go test ./config -run TestSchema -update (-want +got):\n%s", name, diff)
	}
}

// object is a JSON object.
type object = map[string]any

// generator makes a schema of the types of package config, and writes a
// section of the reference for each of them.
type generator struct {
	t         *testing.T
	comments  map[string]string // of fields, by type.field
	rules     map[string]object // that have not been used yet
	spent     map[string]object // that have
	sections  map[string]string // the title of the section about a type, written or to come
	done      map[string]bool   // types whose section is written
	reference strings.Builder
}

func newGenerator(t *testing.T) *generator {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	g := &generator{t: t, comments: map[string]string{}, rules: rules(), spent: map[string]object{}, sections: map[string]string{}, done: map[string]bool{}}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if fields, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range fields.Fields.List {
				g.comments[spec.Name.Name+"."+f.Names[0].Name] = strings.TrimSpace(f.Comment.Text())
			}
		}
		return true
	})
	return g
}

// rule returns what is said about a type or a field.
func (g *generator) rule(name string) object {
	if r, ok := g.rules[name]; ok {
		g.spent[name] = r
		delete(g.rules, name)
	}
	return g.spent[name]
}

// structure returns the schema of a struct. The defaults are those of its
// fields; without them none is shown. The path is where it stands in the file.
func (g *generator) structure(typ reflect.Type, defaults reflect.Value, path string) object {
	properties := object{}
	section := path
	if section == "" {
		section = "The whole file"
	}
	said := g.done[typ.Name()]
	if !said {
		g.done[typ.Name()] = true
		fmt.Fprintf(&g.reference, "\n## %s\n\n| field | value | default | |\n|---|---|---|---|\n", section)
	}
	var inner []func()
	for field := range typ.Fields() {
		name := field.Tag.Get("yaml")
		at := typ.Name() + "." + name
		var def reflect.Value
		if defaults.IsValid() {
			def = defaults.FieldByIndex(field.Index)
		}
		description, shown := g.describe(typ.Name()+"."+field.Name, def)
		if !said {
			kind := kindInWords(field.Type, g.rules[at], g.rules[at+"[]"])
			if other := g.sections[field.Type.Name()]; other != "" {
				kind += " as in " + other
			} else if field.Type.Kind() == reflect.Struct {
				g.sections[field.Type.Name()] = strings.TrimPrefix(path+"."+name, ".")
			}
			fmt.Fprintf(&g.reference, "| `%s` | %s | %s | %s |\n", name, kind, shown, description)
		}
		inner = append(inner, func() {
			property := g.schema(field.Type, def, at, strings.TrimPrefix(path+"."+name, "."))
			property["description"] = description
			if def.IsValid() && field.Type.Kind() != reflect.Struct && !(field.Type.Kind() == reflect.Slice && def.Len() == 0) && field.Type.Kind() != reflect.Map {
				property["default"] = inFile(def)
			}
			properties[name] = property
		})
	}
	for _, f := range inner {
		f()
	}
	schema := object{"type": "object", "additionalProperties": false, "properties": properties}
	maps.Copy(schema, g.rule(typ.Name()))
	return schema
}

// describe returns a field's comment, and its default as the reference shows it.
// A default that the comment names must be the real one.
func (g *generator) describe(field string, def reflect.Value) (description, shown string) {
	description, named, found := strings.Cut(g.comments[field], "; default ")
	if rest, only := strings.CutPrefix(description, "default "); only {
		description, named, found = "", rest, true
	}
	if description == "" {
		g.t.Errorf("%s has no comment that says what it is", field)
	}
	if def.IsValid() {
		switch def.Kind() {
		case reflect.Struct, reflect.Map:
		case reflect.Slice:
			var all []string
			for i := range def.Len() {
				all = append(all, "`"+written(inFile(def.Index(i)))+"`")
			}
			shown = strings.Join(all, ", ")
		default:
			shown = "`" + fmt.Sprint(inFile(def)) + "`"
		}
	}
	if shown == "``" {
		shown = ""
	}
	if found && "`"+named+"`" != shown {
		g.t.Errorf("the comment of %s has the default %s, and the code %s", field, named, shown)
	}
	return description, shown
}

// inFile returns a value as it is written in the file.
func inFile(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case time.Duration:
		text := x.String()
		for _, zero := range []string{"m0s", "h0m"} {
			if strings.HasSuffix(text, zero) {
				text = text[:len(text)-2]
			}
		}
		return text
	case config.Size:
		if x == 0 {
			return 0
		}
		return x.String()
	case config.Credential:
		if x.Bearer {
			return object{"bearer": true}
		}
		return object{"header": x.Header}
	}
	if v.Kind() == reflect.Slice {
		all := []any{}
		for i := range v.Len() {
			all = append(all, inFile(v.Index(i)))
		}
		return all
	}
	return v.Interface()
}

// written returns a scalar, or fields on one line.
func written(value any) string {
	fields, ok := value.(object)
	if !ok {
		return fmt.Sprint(value)
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		all = append(all, fmt.Sprintf("%s: %v", name, fields[name]))
	}
	return "{" + strings.Join(all, ", ") + "}"
}

// schema returns the schema of a value.
func (g *generator) schema(typ reflect.Type, def reflect.Value, at, path string) object {
	rule := g.rule(at)
	switch typ {
	case reflect.TypeFor[config.Target]():
		plain := g.schema(reflect.TypeFor[string](), def, "Target.url", path)
		return object{"anyOf": []any{plain, g.structure(typ, reflect.ValueOf(config.DefaultTarget()), path)}}
	case reflect.TypeFor[time.Duration]():
		return orEnvironment(durations(rule)...)
	case reflect.TypeFor[config.Size]():
		integer := object{"type": "integer", "minimum": 0}
		maps.Copy(integer, rule)
		return orEnvironment(integer, object{"type": "string", "pattern": `^[0-9]+([KMG]iB)?$`})
	case reflect.TypeFor[netip.Prefix]():
		return orEnvironment(object{"type": "string", "pattern": `^[0-9A-Fa-f:.]+(/([1-9][0-9]{0,2}))?$`})
	}
	out := object{}
	switch typ.Kind() {
	case reflect.Slice:
		out = object{"type": "array", "items": g.schema(typ.Elem(), elementDefaults(typ.Elem()), at+"[]", path+"[]")}
		maps.Copy(out, rule)
	case reflect.Map:
		out = object{"type": "object", "additionalProperties": g.schema(typ.Elem(), elementDefaults(typ.Elem()), at+"[]", path+".NAME")}
		maps.Copy(out, rule)
	case reflect.Struct:
		return g.structure(typ, def, path)
	case reflect.Bool:
		return orEnvironment(object{"type": "boolean"})
	case reflect.Int, reflect.Float64:
		number := object{"type": map[reflect.Kind]string{reflect.Int: "integer", reflect.Float64: "number"}[typ.Kind()]}
		maps.Copy(number, rule)
		return orEnvironment(number)
	case reflect.String:
		if rule == nil {
			return object{"type": []string{"string", "number"}}
		}
		out["type"] = "string"
		maps.Copy(out, rule)
		if pattern, ok := rule["pattern"].(string); ok && regexp.MustCompile(pattern).MatchString("42") {
			return orEnvironment(out, object{"type": "number"})
		}
		return orEnvironment(out)
	}
	return out
}

// elementDefaults returns what an element of a list or mapping starts from.
func elementDefaults(typ reflect.Type) reflect.Value {
	switch typ {
	case reflect.TypeFor[config.Route]():
		return reflect.ValueOf(config.DefaultRoute())
	case reflect.TypeFor[config.Upstream]():
		return reflect.ValueOf(config.DefaultUpstream())
	}
	return reflect.Value{}
}

func orEnvironment(values ...object) object {
	all := []any{}
	for _, v := range values {
		all = append(all, v)
	}
	return object{"anyOf": append(all, object{"$ref": "#/definitions/environment"})}
}

// durations returns the ways to write a duration; the rule "positive" leaves
// out zero, in every spelling.
func durations(rule object) []object {
	text := object{"type": "string", "pattern": `^\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`}
	if rule["positive"] == true {
		text["not"] = object{"pattern": `^[^1-9]*$`}
		return []object{text}
	}
	return []object{text, {"const": 0}}
}

// kindInWords says what a field takes.
func kindInWords(typ reflect.Type, rule, element object) string {
	if values, ok := rule["enum"].([]string); ok {
		return "`" + strings.Join(values, "`, `") + "`"
	}
	switch typ {
	case reflect.TypeFor[time.Duration]():
		if rule["positive"] == true {
			return "duration above 0s"
		}
		return "duration"
	case reflect.TypeFor[config.Size]():
		return "size"
	case reflect.TypeFor[netip.Prefix]():
		return "address or CIDR block"
	case reflect.TypeFor[config.Target]():
		return "URL or fields"
	}
	switch typ.Kind() {
	case reflect.Slice:
		return "list: " + kindInWords(typ.Elem(), element, nil)
	case reflect.Map:
		return "by name: " + kindInWords(typ.Elem(), element, nil)
	case reflect.Struct:
		return "fields"
	case reflect.Bool:
		return "`true`, `false`"
	case reflect.String:
		return "text"
	}
	if low, ok := rule["minimum"]; ok {
		if high, ok := rule["maximum"]; ok {
			return fmt.Sprintf("number, %v to %v", low, high)
		}
		return fmt.Sprintf("number from %v", low)
	}
	return "number"
}
