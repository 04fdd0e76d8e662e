package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fasthttp/router"
	"github.com/google/go-cmp/cmp"
	"github.com/valyala/fasthttp"
)

// routesOf reads routes written as "METHODS HOSTS PATH", where "*" means any.
// The text is also the route's name.
func routesOf(specs ...string) []*Route {
	list := func(s string) []string {
		if s == "*" {
			return nil
		}
		return strings.Split(s, ",")
	}
	var routes []*Route
	for _, spec := range specs {
		part := strings.Fields(spec)
		routes = append(routes, &Route{Name: spec, Methods: list(part[0]), Hosts: list(part[1]), Path: part[2]})
	}
	return routes
}

func routesTable(t testing.TB, specs ...string) *table {
	t.Helper()
	found, err := newTable(routesOf(specs...))
	if err != nil {
		t.Fatalf("newTable(%q): %v", specs, err)
	}
	return found
}

// routesAnswer returns what a request "METHOD HOST PATH" finds: a route's name,
// "405" with the methods allowed, or "none".
func routesAnswer(table *table, request string) string {
	part := strings.Split(request, " ")
	route, allowed := table.find([]byte(part[1]), []byte(part[0]), []byte(part[2]))
	switch {
	case route != nil:
		return route.Name
	case len(allowed) > 0:
		return "405 " + strings.Join(slices.Sorted(slices.Values(allowed)), ",")
	}
	return "none"
}

func TestFind(t *testing.T) {
	for _, tc := range []struct {
		name   string
		routes []string
		want   map[string]string
	}{
		{"literal beats regexp beats parameter beats rest",
			[]string{"* * /a/b", "* * /a/{x:[a-z]}", "* * /a/{x}", "* * /a/{x:*}"},
			map[string]string{
				"GET h /a/b": "* * /a/b", "GET h /a/c": "* * /a/{x:[a-z]}", "GET h /a/1": "* * /a/{x}",
				"GET h /a/b/c": "* * /a/{x:*}", "GET h /a/1/2": "* * /a/{x:*}", "GET h /a": "* * /a/{x:*}", "GET h /b": "none"}},
		{"the first segment where two patterns differ decides",
			[]string{"* * /{x}/b/c", "* * /a/{y}/{z}", "* * /{x:[a-d]}/{y:*}"},
			map[string]string{"GET h /a/b/c": "* * /a/{y}/{z}", "GET h /d/b/c": "* * /{x:[a-d]}/{y:*}", "GET h /z/b/c": "* * /{x}/b/c"}},
		{"a dead end under a literal, regexp or parameter falls back, at any depth",
			[]string{"* * /a/b/c", "* * /a/{x}/d", "* * /{x:[a-c]}/b/e", "* * /{x}/b/f", "* * /{x}/{y:*}", "* * /{x:*}"},
			map[string]string{
				"GET h /a/b/c": "* * /a/b/c", "GET h /a/b/d": "* * /a/{x}/d", "GET h /a/b/e": "* * /{x:[a-c]}/b/e",
				"GET h /a/b/f": "* * /{x}/b/f", "GET h /a/b/g": "* * /{x}/{y:*}", "GET h /a/b": "* * /{x}/{y:*}", "GET h /": "* * /{x:*}"}},
		{"the shared start of two literals is no dead end for the rest",
			[]string{"* * /foo/bar", "* * /foo/baz", "* * /{rest:*}"},
			map[string]string{"GET h /foo/ba": "* * /{rest:*}", "GET h /foo/bar": "* * /foo/bar", "GET h /foo": "* * /{rest:*}"}},
		{"of two regexps that match, their text decides, and both are tried",
			[]string{"* * /{x:[a-c]+}/one", "* * /{x:[a-z]+}/one", "* * /{x:[a-z]+}/two"},
			map[string]string{"GET h /b/one": "* * /{x:[a-c]+}/one", "GET h /b/two": "* * /{x:[a-z]+}/two", "GET h /y/one": "* * /{x:[a-z]+}/one"}},
		{"a regexp matches a whole segment",
			[]string{"* * /{x:a|b}/c", "* * /n/{x:[0-9]{2}}"},
			map[string]string{"GET h /a/c": "* * /{x:a|b}/c", "GET h /ab/c": "none", "GET h /ca/c": "none", "GET h /n/12": "* * /n/{x:[0-9]{2}}",
				"GET h /n/123": "none", "GET h /n/1/2": "none"}},
		{"a parameter is one segment that is not empty",
			[]string{"* * /a/{x}", "* * /a/{x}/b"},
			map[string]string{"GET h /a/1": "* * /a/{x}", "GET h /a": "none", "GET h /a/": "none", "GET h /a//": "none",
				"GET h /a//b": "none", "GET h /a/1/2": "none", "GET h /a/1/b": "* * /a/{x}/b"}},
		{"literal text is compared after decoding, so that no spelling escapes its rule",
			[]string{"* * /a/%2B", "* * /b/x:delete", "* * /{x:*}"},
			map[string]string{
				"GET h /a/%2B": "* * /a/%2B", "GET h /a/%2b": "* * /a/%2B", "GET h /a/+": "* * /a/%2B", "GET h /A/%2B": "* * /{x:*}",
				"GET h /b/x:delete": "* * /b/x:delete", "GET h /b/x%3adelete": "* * /b/x:delete", "GET h /b/x%3Adelete": "* * /b/x:delete"}},
		{"an expression that ends like a rest is none",
			[]string{"* * /x/{id:[a-z]+:*}", "* * /{x:*}"},
			map[string]string{"GET h /x/ab:": "* * /x/{id:[a-z]+:*}", "GET h /x/123/secret": "* * /{x:*}", "GET h /x/ab/secret": "* * /{x:*}"}},
		{"a trailing slash makes no difference",
			[]string{"* * /", "* * /a", "* * /b/", "* * /c/{x}/"},
			map[string]string{"GET h /": "* * /", "GET h /a": "* * /a", "GET h /a/": "* * /a", "GET h /b": "* * /b/", "GET h /b/": "* * /b/",
				"GET h /c/1": "* * /c/{x}/", "GET h /c/1/": "* * /c/{x}/", "GET h /a/a": "none"}},
		{"rest covers the path before it and nothing beside it",
			[]string{"* * /a/{x:*}", "* * /{x}"},
			map[string]string{"GET h /a": "* * /a/{x:*}", "GET h /a/": "* * /a/{x:*}", "GET h /a/b/c/": "* * /a/{x:*}", "GET h /ab": "* * /{x}"}},
		{"the path itself beats the rest that covers it",
			[]string{"* * /a", "* * /a/{x:*}"},
			map[string]string{"GET h /a": "* * /a", "GET h /a/": "* * /a", "GET h /a/b": "* * /a/{x:*}"}},
		{"the host comes before the path",
			[]string{"* one,two /{x:*}", "* * /a/b", "* three /c"},
			map[string]string{"GET one /a/b": "* one,two /{x:*}", "GET two /a/b": "* one,two /{x:*}", "GET h /a/b": "* * /a/b",
				"GET three /a/b": "* * /a/b", "GET three /c": "* three /c", "GET h /c": "none", "GET  /a/b": "* * /a/b"}},
		{"the method comes last and never leads to a less specific pattern",
			[]string{"GET * /a/b", "POST,PUT * /a/b", "* * /a/{x}", "* * /{x:*}"},
			map[string]string{"GET h /a/b": "GET * /a/b", "PUT h /a/b": "POST,PUT * /a/b", "DELETE h /a/b": "405 GET,POST,PUT", "get h /a/b": "405 GET,POST,PUT",
				"DELETE h /a/c": "* * /a/{x}"}},
		{"the method never leads from a host to any host",
			[]string{"GET one /a", "* * /a"},
			map[string]string{"GET one /a": "GET one /a", "POST one /a": "405 GET", "POST h /a": "* * /a"}},
		{"the method counts for the rest too",
			[]string{"GET * /a/{x:*}", "* * /{x:*}"},
			map[string]string{"POST h /a": "405 GET", "POST h /a/b": "405 GET", "POST h /b": "* * /{x:*}"}},
		{"a route that names the method beats one for any",
			[]string{"GET * /a", "* * /a"},
			map[string]string{"GET h /a": "GET * /a", "POST h /a": "* * /a"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			for range 20 { // the order of routes never matters
				table := routesTable(t, tc.routes...)
				got := map[string]string{}
				for request := range tc.want {
					got[request] = routesAnswer(table, request)
				}
				if diff := cmp.Diff(got, tc.want); diff != "" {
					t.Fatalf("routes in the order %q (-got +want):\n%s", tc.routes, diff)
				}
				random.Shuffle(len(tc.routes), func(i, j int) { tc.routes[i], tc.routes[j] = tc.routes[j], tc.routes[i] })
			}
		})
	}
}

func TestNewTableCollisions(t *testing.T) {
	for _, tc := range []struct {
		name, one, two string
		collide        bool
	}{
		{"the same path", "* * /a", "* * /a", true},
		{"a trailing slash", "* * /a", "* * /a/", true},
		{"names of parameters", "* * /a/{x}/b", "* * /a/{y}/b", true},
		{"names of rests", "* * /a/{x:*}", "* * /a/{y:*}", true},
		{"names of regexps", "* * /{x:[ab]}", "* * /{y:[ab]}", true},
		{"methods that overlap", "GET,POST * /a", "PUT,POST * /a", true},
		{"hosts that overlap", "* one,two /a", "* two,three /a", true},
		{"methods apart", "GET * /a", "POST * /a", false},
		{"a method and any method", "GET * /a", "* * /a", false},
		{"hosts apart", "* one /a", "* two /a", false},
		{"a host and any host", "* one /a", "* * /a", false},
		{"a path and the rest that covers it", "* * /a", "* * /a/{x:*}", false},
		{"regexps of different text", "* * /{x:[ab]}", "* * /{x:[ba]}", false},
		{"a parameter and a regexp", "* * /{x}", "* * /{x:.+}", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, order := range [][2]string{{tc.one, tc.two}, {tc.two, tc.one}} {
				_, err := newTable(routesOf(order[0], order[1]))
				if (err != nil) != tc.collide {
					t.Fatalf("newTable(%q) = %v, want a collision: %t", order, err, tc.collide)
				}
				if err != nil && (!strings.Contains(err.Error(), "route "+order[1]) || !strings.Contains(err.Error(), "with route "+order[0])) {
					t.Errorf("newTable(%q) = %v, want both routes named", order, err)
				}
			}
		})
	}
}

func TestNewTableNamesTheRouteOfABadRegexp(t *testing.T) {
	_, err := newTable(routesOf("* * /a", "* * /{x:[}"))
	if err == nil || !strings.Contains(err.Error(), "* * /{x:[}") {
		t.Errorf("newTable = %v, want an error that names the route", err)
	}
}

func TestFindAllocs(t *testing.T) {
	table := routesTable(t, "GET * /a/b/c", "* * /a/{x}/d", "* one /e/{x}/{y:*}", "GET * /f/{x:*}")
	for name, request := range map[string][3]string{
		"literal":                  {"h", "GET", "/a/b/c"},
		"parameter, after falling": {"h", "DELETE", "/a/b/d"},
		"rest of a host":           {"one", "GET", "/e/1/2/3/4"},
		"rest after the host":      {"one", "GET", "/f/1/2/3/4"},
		"nothing":                  {"one", "GET", "/nothing/at/all"},
	} {
		host, method, path := []byte(request[0]), []byte(request[1]), []byte(request[2])
		if got := testing.AllocsPerRun(100, func() { table.find(host, method, path) }); got != 0 {
			t.Errorf("%s: find allocates %v times, want 0", name, got)
		}
	}
}

// routesTheirs returns what fasthttp/router makes of patterns: a function from
// a path to the pattern that is chosen, "none" if there is none.
func routesTheirs(patterns ...string) func(path string) string {
	r := router.New()
	r.RedirectTrailingSlash, r.RedirectFixedPath, r.HandleOPTIONS, r.HandleMethodNotAllowed = false, false, false, false
	var got string
	r.NotFound = func(*fasthttp.RequestCtx) { got = "none" }
	for _, p := range patterns {
		r.GET(p, func(*fasthttp.RequestCtx) { got = p })
	}
	return func(path string) string {
		var ctx fasthttp.RequestCtx
		ctx.Request.SetRequestURI(path)
		r.Handler(&ctx)
		return got
	}
}

// A pattern means what fasthttp/router says it means, but for the trailing
// slash. That /a/{rest:*} covers /a follows: there it covers /a/.
func TestOnePatternMatchesAsInFasthttpRouter(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	matched, missed := 0, 0
	for range 1000 {
		pattern := ""
		for i := range random.IntN(4) {
			pattern += "/" + pick("a", "b", "ab", fmt.Sprintf("{p%d}", i), fmt.Sprintf("{p%d:[ab]}", i), fmt.Sprintf("{p%d:a+}", i))
		}
		if pattern += pick("", "", "/", "/{rest:*}"); pattern == "" {
			pattern = "/"
		}
		ours, theirs := routesTable(t, "* * "+pattern), routesTheirs(pattern)
		for range 60 {
			path := ""
			for range random.IntN(5) {
				path += "/" + pick("a", "b", "ab", "aa", "ba", "c")
			}
			want := path != "" && theirs(path) == pattern || theirs(path+"/") == pattern
			if path += pick("", "/"); path == "" {
				path = "/"
			}
			got := routesAnswer(ours, "GET h "+path) != "none"
			if got != want {
				t.Fatalf("pattern %s takes %s: %t, fasthttp/router %t", pattern, path, got, want)
			}
			if got {
				matched++
			} else {
				missed++
			}
		}
	}
	if matched < 1000 || missed < 1000 {
		t.Errorf("%d paths matched and %d did not, want a thousand of each for the comparison to mean anything", matched, missed)
	}
}

// Why the data plane has a matcher of its own: under fasthttp/router the path
// that two literals share escapes the catch-all, and with it whatever rule was
// meant for all that is left.
func TestFasthttpRouterLosesTheCatchAllWhereLiteralsShareAStart(t *testing.T) {
	patterns := []string{"/foo/bar", "/foo/baz", "/{rest:*}"}
	if got, want := routesTheirs(patterns...)("/foo/ba"), "none"; got != want {
		t.Errorf("fasthttp/router sends /foo/ba to %s; if that is mended, is table still needed?", got)
	}
	ours := routesTable(t, "* * "+patterns[0], "* * "+patterns[1], "* * "+patterns[2])
	if got, want := routesAnswer(ours, "GET h /foo/ba"), "* * /{rest:*}"; got != want {
		t.Errorf("find(/foo/ba) = %s, want %s", got, want)
	}
}

// A {name} is never empty here; fasthttp/router lets it be between two slashes.
func TestFasthttpRouterTakesAnEmptyParameterBetweenSlashes(t *testing.T) {
	if got, want := routesTheirs("/a/{x}/b")("/a//b"), "/a/{x}/b"; got != want {
		t.Errorf("fasthttp/router sends /a//b to %s, want %s", got, want)
	}
	if got, want := routesAnswer(routesTable(t, "* * /a/{x}/b"), "GET h /a//b"), "none"; got != want {
		t.Errorf("find(/a//b) = %s, want %s", got, want)
	}
}
