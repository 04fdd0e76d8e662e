package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// parsePattern checks a route's path and returns its shape: two patterns of
// one shape match the same paths. Parameter names and a trailing slash do not
// count.
//
// It takes less than fasthttp/router does. There, a parameter beside literal
// text in one segment turns that text into part of a regular expression, and
// optional parameters add routes that the file does not show.
func parsePattern(path string) (shape string, err error) {
	if !strings.HasPrefix(path, "/") {
		return "", fmt.Errorf("does not begin with /; write it as %q", "/"+cmp.Or(path, "orders"))
	}
	segments, err := splitPattern(path[1:])
	if err != nil {
		return "", err
	}
	names := map[string]bool{}
	literals := strings.NewReplacer("%", "%25", "/", "%2F", "{", "%7B", "}", "%7D") // which mean something in a shape
	var out strings.Builder
	for i, segment := range segments {
		last := i == len(segments)-1
		if segment == "" && last {
			break
		}
		if !strings.HasPrefix(segment, "{") {
			if err := checkLiteral(segment); err != nil {
				return "", err
			}
			plain, err := url.PathUnescape(segment) // requests are compared decoded
			if err != nil {
				return "", fmt.Errorf("has a malformed escape: %w", err)
			}
			out.WriteString("/" + literals.Replace(plain))
			continue
		}
		name, rule, err := splitParameter(segment)
		if err != nil {
			return "", err
		}
		if names[name] {
			return "", fmt.Errorf("two parameters are named %q; rename one", name)
		}
		names[name] = true
		if rule == "*" && !last {
			return "", fmt.Errorf("%s takes the rest of the path; put it last", segment)
		}
		out.WriteString("/{" + rule + "}")
	}
	return out.String(), nil
}

// splitPattern cuts at the slashes outside braces: a regular expression may
// hold slashes and braces of its own.
func splitPattern(path string) ([]string, error) {
	var segments []string
	depth, start := 0, 0
	for i, c := range []byte(path) {
		switch {
		case c == '{':
			depth++
		case c == '}':
			depth--
		case c == '/' && depth == 0:
			segments = append(segments, path[start:i])
			start = i + 1
		}
		if depth < 0 {
			break
		}
	}
	if depth != 0 {
		return nil, errors.New("its braces are not balanced; give every { its }")
	}
	return append(segments, path[start:]), nil
}

// checkLiteral refuses what no request's path holds, or what proxies and
// upstreams would read differently.
func checkLiteral(segment string) error {
	switch {
	case segment == "":
		return errors.New("has an empty segment; write single slashes")
	case segment == "." || segment == "..":
		return errors.New("has a dot segment; write the path it leads to")
	case strings.ContainsAny(segment, "{}"):
		return errors.New("mixes text and a parameter in one segment; write the segment as {name:regex}")
	case strings.Contains(segment, "*"):
		return errors.New("has a *, which stands for itself; write {rest:*} as the last segment for the rest of the path, or %2A for the character")
	case strings.ContainsFunc(segment, func(r rune) bool { return r <= ' ' || r > '~' || r == '?' || r == '#' }):
		return errors.New("has ?, #, a space or a character that is not ASCII; leave the query out, and percent-encode the rest")
	}
	return nil
}

// splitParameter reads {name}, {name:regex} or {name:*}. The rule is "" for
// the first, and otherwise what stands after the colon.
func splitParameter(segment string) (name, rule string, err error) {
	depth := 0
	for i, c := range []byte(segment) {
		switch c {
		case '{':
			depth++
		case '}':
			depth--
		}
		if depth == 0 && i < len(segment)-1 {
			return "", "", errors.New("mixes text and a parameter in one segment; write the segment as {name:regex}")
		}
	}
	name, rule, found := strings.Cut(segment[1:len(segment)-1], ":")
	switch {
	case strings.HasSuffix(name, "?"):
		return "", "", fmt.Errorf("{%s} is optional, which is not supported; write two routes, one without it", name)
	case name == "":
		return "", "", errors.New("a parameter has no name; write {name}")
	case !only(name, nameBytes):
		return "", "", fmt.Errorf("%q is not a parameter name; use letters, digits and _ . -", name)
	case found && rule == "":
		return "", "", fmt.Errorf("{%s:} has no expression; write {%s}, or {%s:*} for the rest of the path", name, name, name)
	case !found || rule == "*":
		return name, rule, nil
	}
	// The router puts the expression in a group, whose value is the
	// parameter's: it must be whole by itself and bring no group of its own.
	_, alone := regexp.Compile(rule)
	grouped, err := regexp.Compile("(" + rule + ")")
	switch {
	case alone != nil || err != nil:
		return "", "", fmt.Errorf("the expression of {%s} is not a regular expression; see https://pkg.go.dev/regexp/syntax", name)
	case grouped.NumSubexp() != 1:
		return "", "", fmt.Errorf("the expression of {%s} has a capturing group; write (?:…) instead of (…)", name)
	}
	return name, rule, nil
}
