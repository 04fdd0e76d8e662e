package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// decoder writes a YAML tree into a Config and notes where each value stood.
// The library's own decoder stops at the first error; this one goes on.
type decoder struct {
	getenv   func(string) (string, bool)
	lines    map[string]int // of every path the file mentions
	broken   map[string]bool
	problems []Problem
}

func newDecoder(getenv func(string) (string, bool)) *decoder {
	return &decoder{getenv: getenv, lines: map[string]int{"": 1}, broken: map[string]bool{}}
}

// decode writes node into the value that target points to.
func (d *decoder) decode(path string, node ast.Node, target any) {
	value := reflect.ValueOf(target).Elem()
	if node == nil || node.Type() == ast.NullType {
		d.refuse(path, "has no value; give it one, or remove the line for the default")
		return
	}
	switch node.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		d.refuse(path, "YAML anchors, aliases and tags are not understood here; write the value out")
		return
	}
	if want := scalarName(target); want != "" {
		d.scalar(path, node, target, want)
		return
	}
	if t, ok := target.(*Target); ok {
		if _, plain := textOf(node); plain {
			d.decode(path, node, &t.URL)
			return
		}
	}
	switch value.Kind() {
	case reflect.Slice:
		d.list(path, node, value)
	case reflect.Map:
		d.mapping(path, node, value)
	default:
		d.structure(path, node, value)
	}
}

// list replaces what value held: a default list is not appended to.
func (d *decoder) list(path string, node ast.Node, value reflect.Value) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		d.refuse(path, "expected a list, got %s; write [a, b], or one \"- a\" per line", kindOf(node))
		return
	}
	value.Set(reflect.MakeSlice(value.Type(), len(sequence.Values), len(sequence.Values)))
	for i, item := range sequence.Values {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.lines[at] = d.line(path)
		if item != nil {
			d.lines[at] = item.GetToken().Position.Line
		}
		element := value.Index(i).Addr().Interface()
		setDefault(element)
		d.decode(at, item, element)
	}
}

func (d *decoder) mapping(path string, node ast.Node, value reflect.Value) {
	value.Set(reflect.MakeMap(value.Type()))
	d.entries(path, node, func(key, at string, item ast.Node) {
		element := reflect.New(value.Type().Elem())
		setDefault(element.Interface())
		d.decode(at, item, element.Interface())
		value.SetMapIndex(reflect.ValueOf(key), element.Elem())
	})
}

func (d *decoder) structure(path string, node ast.Node, value reflect.Value) {
	fields := map[string]int{}
	var known []string
	for i := range value.NumField() {
		name := value.Type().Field(i).Tag.Get("yaml")
		fields[name] = i
		known = append(known, name)
	}
	d.entries(path, node, func(key, at string, item ast.Node) {
		i, ok := fields[key]
		if !ok {
			message := "there is no such field; known here: " + strings.Join(known, ", ")
			if strings.HasPrefix(key, "http") {
				message += "; put a URL between {} or [] in quotes"
			}
			d.add(Problem{Path: join(path, printable(key)), Line: d.line(at), Message: message})
			return
		}
		d.decode(at, item, value.Field(i).Addr().Interface())
	})
}

// entries calls each for every key of a mapping, once.
func (d *decoder) entries(path string, node ast.Node, each func(key, at string, item ast.Node)) {
	mapping, ok := node.(ast.MapNode)
	if !ok {
		d.refuse(path, "expected fields (name: value), got %s", kindOf(node))
		return
	}
	first := map[string]int{}
	for entries := mapping.MapRange(); entries.Next(); {
		line := entries.Key().GetToken().Position.Line
		name, ok := entries.Key().(*ast.StringNode)
		if !ok {
			d.add(Problem{Path: path, Line: line, Message: "a key is not plain text; put it in quotes, and do not use << or ?"})
			continue
		}
		if before, twice := first[name.Value]; twice {
			message := fmt.Sprintf("given twice, first on line %d; keep one", before)
			d.add(Problem{Path: join(path, printable(name.Value)), Line: line, Message: message})
			continue
		}
		first[name.Value] = line
		at := join(path, name.Value)
		d.lines[at] = line
		each(name.Value, at, entries.Value())
	}
}

// line returns where path stands in the file. What the file does not mention
// stands where the nearest thing around it does.
func (d *decoder) line(path string) int {
	for {
		if line, ok := d.lines[path]; ok {
			return line
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
}

// unread reports whether the value at path, one around it or one in it was
// refused.
func (d *decoder) unread(path string) bool {
	for broken := range d.broken {
		if within(path, broken) || within(broken, path) {
			return true
		}
	}
	return false
}

// within reports whether inner is outer or a part of it.
func within(inner, outer string) bool {
	rest, ok := strings.CutPrefix(inner, outer)
	return ok && (outer == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

// refuse reports that the value at path could not be read.
func (d *decoder) refuse(path, format string, args ...any) {
	d.broken[path] = true
	d.add(Problem{Path: path, Line: d.line(path), Message: fmt.Sprintf(format, args...)})
}

func (d *decoder) add(p Problem) { d.problems = append(d.problems, p) }

// setDefault fills an element of a list or mapping before the file does.
func setDefault(element any) {
	switch e := element.(type) {
	case *Route:
		*e = DefaultRoute()
	case *Upstream:
		*e = DefaultUpstream()
	case *Target:
		*e = DefaultTarget()
	}
}

// kindOf names what a node is to the one who wrote it.
func kindOf(node ast.Node) string {
	switch node.(type) {
	case *ast.SequenceNode:
		return "a list"
	case ast.MapNode:
		return "fields (name: value)"
	default:
		return "a single value"
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// printable returns a key as a message may show it. "token_sha256:abc", with
// the space forgotten, is a key that holds what no message may show, and so
// may be a long one.
func printable(key string) string {
	key, _, cut := strings.Cut(key, ":")
	if cut {
		return key + ":…"
	}
	if len(key) > 40 || strings.ContainsFunc(key, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return "(a key not shown)"
	}
	return key
}
