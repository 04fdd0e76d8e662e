package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// scalar sets target from a single value, in which ${NAME} is replaced only
// now: the environment cannot add structure to the file.
func (d *decoder) scalar(path string, node ast.Node, target any, want string) {
	written, ok := textOf(node)
	if !ok {
		d.refuse(path, "expected %s, got %s", want, kindOf(node))
		return
	}
	text, err := expand(written, d.getenv)
	if err != nil {
		d.refuse(path, "%s", err)
		return
	}
	if err := setScalar(target, text); err != nil {
		// A value from the environment may be a secret put in the wrong place.
		shown := "the value from the environment"
		if text == written {
			shown = strconv.Quote(text)
		}
		d.refuse(path, "expected %s, got %s (%s)", want, shown, err)
	}
}

// textOf returns a scalar as it was written, less its quotes: a tenant 0042
// stays 0042.
func textOf(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	default:
		return "", false
	}
}

// scalarName says what is expected of a single value; "" means that target
// takes a list or fields.
func scalarName(target any) string {
	switch target.(type) {
	case *string:
		return "text"
	case *bool:
		return "true or false"
	case *int:
		return "a whole number such as 512"
	case *float64:
		return "a number such as 0.5"
	case *Size:
		return "a size such as 4096 or 16KiB"
	case *time.Duration:
		return "a duration such as 500ms, 30s or 72h"
	case *netip.Prefix:
		return "an address or a CIDR block such as 10.0.0.0/8"
	default:
		return ""
	}
}

// setScalar parses text into target, for every type that scalarName knows.
func setScalar(target any, text string) (err error) {
	switch t := target.(type) {
	case *string:
		*t = text
	case *bool:
		*t = text == "true"
		if !*t && text != "false" {
			return errors.New("not a truth value")
		}
	case *int:
		*t, err = strconv.Atoi(text)
		return errors.Unwrap(err)
	case *float64:
		*t, err = strconv.ParseFloat(text, 64)
		return errors.Unwrap(err)
	case *Size:
		return t.UnmarshalText([]byte(text))
	case *time.Duration:
		if *t, err = time.ParseDuration(text); err != nil {
			return errors.New("not a number with a unit")
		}
		if *t < 0 {
			return errors.New("negative")
		}
	case *netip.Prefix:
		*t, err = parseBlock(text)
	}
	return err
}

// parseBlock reads a CIDR block or a lone address. IPv4 in IPv6 form is IPv4,
// since that is what the addresses of connections are compared as.
func parseBlock(text string) (netip.Prefix, error) {
	if strings.Contains(text, "%") {
		return netip.Prefix{}, errors.New("zones are not allowed")
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	block, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, errors.New("neither an address nor a block")
	}
	if block.Addr().Is4In6() && block.Bits() >= 96 {
		block = netip.PrefixFrom(block.Addr().Unmap(), block.Bits()-96)
	}
	return block, nil
}

// expand replaces ${NAME} by what getenv says and $${ by a literal ${. What
// the environment holds is not expanded again.
func expand(text string, getenv func(string) (string, bool)) (string, error) {
	var out strings.Builder
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			out.WriteString(text)
			return out.String(), nil
		}
		if i > 0 && text[i-1] == '$' {
			out.WriteString(text[:i-1] + "${")
			text = text[i+2:]
			continue
		}
		out.WriteString(text[:i])
		name, rest, closed := strings.Cut(text[i+2:], "}")
		if !closed || !isVariable(name) {
			return "", errors.New("${ is not followed by a variable's name and }; write $${ where you mean ${ itself")
		}
		value, ok := getenv(name)
		if !ok {
			return "", fmt.Errorf("the environment variable %s is not set; set it, or write $${%s} where you mean the text itself", name, name)
		}
		out.WriteString(value)
		text = rest
	}
}

// isVariable reports whether name can name an environment variable in a shell.
func isVariable(name string) bool {
	for i, r := range name {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}
