package proxy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"latchkey/apikey"
)

// A Route says which requests it is for, what it asks of their keys and where
// they go.
type Route struct {
	Name    string
	Hosts   []string // lower case, without port; empty means any
	Methods []string // empty means any
	Path    string   // a pattern, see newTable

	Public            bool          // no key is asked for
	Demand            apikey.Demand // what the key must have
	StripPrefix       string        // taken off the front of the path before forwarding
	AddPrefix         string        // put in front of it then
	HostRewrite       string        // the upstream's Host; empty means the client's
	ForwardCredential bool          // the upstream gets to see the key
	RequestEdits      Edits         // of the request's head
	ResponseEdits     Edits         // of the answer's head
	BodyBytes         int64         // the longest request body; zero means what holds for all routes
	CORS              *CORS         // nil means that Origin and preflights are the upstream's affair
	Maintenance       *Maintenance  // nil while the route is open

	Upstream Upstream
	Timeout  time.Duration   // until the upstream's response head; zero means no limit
	Retries  int             // how often a request is repeated where that is safe
	Counts   *UpstreamCounts // nil means that answers are not counted

	stripped int // segments of StripPrefix
	metrics  *routeMetrics
}

// count counts an answer of the upstream, or its failure.
func (r *Route) count(target string, status int, err error) {
	if r.Counts != nil {
		r.Counts.count(target, status, err)
	}
}

// A table finds the route of a request. It is immutable.
//
// The host decides first: a request for a host that some route names belongs to
// that host's routes if one of their paths matches, and otherwise to the routes
// of any host. Then the path decides, and the most specific pattern wins: at
// the first segment where two differ, literal text beats a regular expression,
// that beats a {name}, and that beats a {name:*}. The method decides last, and
// only between routes of the same pattern; a path whose routes all exclude it
// is refused with 405 rather than offered to a less specific route, so that a
// catch-all cannot undercut the rule for a path.
type table struct {
	hosts map[string]*node
	any   *node
}

// A node stands for one path segment of the patterns that share it.
type node struct {
	literals map[string]*node
	regexps  []regexpNode // in the order they are tried
	param    *node
	rest     []*Route // routes that end in {name:*} here
	ends     []*Route // routes that end here
}

type regexpNode struct {
	re   *regexp.Regexp
	next *node
}

// newTable compiles the routes. Their patterns are those of fasthttp/router, a
// parameter taking a whole segment: a segment is literal text, {name} for any,
// or {name:regexp} for one that matches; {name:*} as the last segment stands
// for all that is left. Two things are decided differently, because here a path that
// escapes its rule is a hole, not a 404: /a and /a/ are the same place, and
// /a/{rest:*} covers /a as well.
func newTable(routes []*Route) (*table, error) {
	t := &table{hosts: map[string]*node{}, any: new(node)}
	for _, r := range routes {
		if err := errors.Join(r.RequestEdits.compile(), r.ResponseEdits.compile(), r.checkCORS()); err != nil {
			return nil, fmt.Errorf("route %s: %w", r.Name, err)
		}
		r.stripped = strings.Count(r.StripPrefix, "/")
		roots := []*node{t.any}
		if len(r.Hosts) > 0 {
			roots = roots[:0]
			for _, h := range r.Hosts {
				if t.hosts[h] == nil {
					t.hosts[h] = new(node)
				}
				roots = append(roots, t.hosts[h])
			}
		}
		for _, root := range roots {
			if err := root.add(r); err != nil {
				return nil, fmt.Errorf("route %s: path %s: %w", r.Name, r.Path, err)
			}
		}
	}
	return t, nil
}

func (n *node) add(r *Route) error {
	for _, segment := range splitPattern(r.Path) {
		switch {
		case !strings.Contains(segment, "{"):
			if n.literals == nil {
				n.literals = map[string]*node{}
			}
			plain := string(decoded([]byte(segment)))
			if n.literals[plain] == nil {
				n.literals[plain] = new(node)
			}
			n = n.literals[plain]
		case isRest(segment):
			return attach(&n.rest, r)
		case strings.Contains(segment, ":"):
			next, err := n.addRegexp(segment)
			if err != nil {
				return err
			}
			n = next
		default:
			if n.param == nil {
				n.param = new(node)
			}
			n = n.param
		}
	}
	return attach(&n.ends, r)
}

// attach adds a route to those of its pattern, those that name methods first.
func attach(list *[]*Route, r *Route) error {
	for _, other := range *list {
		if len(r.Methods) == 0 && len(other.Methods) == 0 ||
			slices.ContainsFunc(r.Methods, func(m string) bool { return slices.Contains(other.Methods, m) }) {
			return fmt.Errorf("collides with route %s: same hosts, methods and path", other.Name)
		}
	}
	*list = append(*list, r)
	slices.SortStableFunc(*list, func(a, b *Route) int {
		return cmp.Compare(min(len(b.Methods), 1), min(len(a.Methods), 1))
	})
	return nil
}

// find returns the route of a request, or nil. Where the path is known but not
// with this method, it returns the methods that are.
//
// It runs once per request and does not allocate unless a pattern has a regular
// expression or the path an escape.
func (t *table) find(host, method, path []byte) (*Route, []string) {
	if n := t.hosts[string(host)]; n != nil {
		if routes := n.find(path); routes != nil {
			return choose(routes, method)
		}
	}
	return choose(t.any.find(path), method)
}

func choose(routes []*Route, method []byte) (*Route, []string) {
	for _, r := range routes {
		if len(r.Methods) == 0 || slices.Contains(r.Methods, string(method)) {
			return r, nil
		}
	}
	var allowed []string
	for _, r := range routes {
		allowed = append(allowed, r.Methods...)
	}
	slices.Sort(allowed)
	return nil, allowed
}

// find returns the routes whose pattern fits best. path is what is left of it,
// beginning with its slash.
func (n *node) find(path []byte) []*Route {
	if len(path) <= 1 { // "" or "/"
		if n.ends != nil {
			return n.ends
		}
		return n.rest
	}
	segment, left := path[1:], []byte(nil)
	if i := bytes.IndexByte(segment, '/'); i >= 0 {
		segment, left = segment[:i], segment[i:]
	}
	segment = decoded(segment)
	if next := n.literals[string(segment)]; next != nil {
		if routes := next.find(left); routes != nil {
			return routes
		}
	}
	for _, r := range n.regexps {
		if r.re.Match(segment) {
			if routes := r.next.find(left); routes != nil {
				return routes
			}
		}
	}
	if n.param != nil && len(segment) > 0 {
		if routes := n.param.find(left); routes != nil {
			return routes
		}
	}
	return n.rest
}

// decoded returns a segment with its percent-escapes decoded. Those that would
// change how a path falls into segments have been refused, unless ambiguous
// paths are let pass; then they stay inside their segment here.
func decoded(segment []byte) []byte {
	if bytes.IndexByte(segment, '%') < 0 {
		return segment
	}
	out := make([]byte, 0, len(segment))
	for i := 0; i < len(segment); i++ {
		c := segment[i]
		if c == '%' && i+2 < len(segment) && unhex(segment[i+1]) >= 0 && unhex(segment[i+2]) >= 0 {
			c = byte(unhex(segment[i+1])<<4 | unhex(segment[i+2]))
			i += 2
		}
		out = append(out, c)
	}
	return out
}

// splitPattern cuts a pattern at the slashes outside of braces.
func splitPattern(pattern string) []string {
	var segments []string
	depth, start := 0, 1
	for i := 1; i < len(pattern); i++ {
		switch pattern[i] {
		case '{':
			depth++
		case '}':
			depth--
		case '/':
			if depth == 0 {
				segments = append(segments, pattern[start:i])
				start = i + 1
			}
		}
	}
	if start < len(pattern) {
		segments = append(segments, pattern[start:])
	}
	return segments
}

func isRest(segment string) bool {
	_, rule, _ := strings.Cut(segment, ":")
	return rule == "*}"
}

// addRegexp returns the node behind a segment {name:expression}, which all of
// the path's segment must match.
func (n *node) addRegexp(segment string) (*node, error) {
	_, expression, _ := strings.Cut(segment[1:len(segment)-1], ":")
	expression = "^(?:" + expression + ")$"
	for _, r := range n.regexps {
		if r.re.String() == expression {
			return r.next, nil
		}
	}
	re, err := regexp.Compile(expression)
	if err != nil {
		return nil, err
	}
	next := new(node)
	n.regexps = append(n.regexps, regexpNode{re, next})
	// No expression is more specific than another; their text settles it, so
	// that the order of routes in the file never matters.
	slices.SortFunc(n.regexps, func(a, b regexpNode) int { return cmp.Compare(a.re.String(), b.re.String()) })
	return next, nil
}
