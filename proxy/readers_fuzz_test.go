package proxy

import (
	"bufio"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"latchkey/apikey"
)

// FuzzForwardedFor holds whom X-Forwarded-For is taken to name to what must be so
// whatever a client wrote: what the trusted proxies append behind it decides.
func FuzzForwardedFor(f *testing.F) {
	for _, seed := range []string{"", "198.51.100.1", "garbage, 198.51.100.1,10.0.0.2", ",, ,", "10.0.0.1\n10.0.0.2", "[2001:db8:2::1]:4711", "::ffff:10.0.0.3", "fe80::1%eth0", "198.51.100.1:http", "198.51.100.1 10.0.0.1"} {
		f.Add(seed)
	}
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48")}
	trusted, stranger := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1")
	client := func(lines ...string) netip.Addr {
		h := &head{fields: []field{{[]byte("Host"), []byte("h")}}}
		for _, line := range lines {
			h.fields = append(h.fields, field{[]byte("X-Forwarded-For"), []byte(line)})
		}
		return clientAddr(trusted, true, proxies, h)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		got := client(lines...)
		if got.Is4In6() || got.Zone() != "" {
			t.Errorf("%q leaves the client %v", text, got)
		}
		if h := (&head{fields: []field{{[]byte("X-Forwarded-For"), []byte(text)}}}); clientAddr(stranger, false, proxies, h) != stranger {
			t.Errorf("%q is believed of a stranger", text)
		}
		for _, further := range []string{"198.51.100.7", "198.51.100.7:80", "[2001:db8:2::7]:80", "::ffff:198.51.100.7"} {
			if c := client(append(slices.Clone(lines), further)...); c != hopAddr(further) || !c.IsValid() {
				t.Errorf("%q before %s leaves the client %v", text, further, c)
			}
		}
		if c := client(append(slices.Clone(lines), "_hidden")...); c.IsValid() {
			t.Errorf("%q before no address leaves the client %v", text, c)
		}
		// Which line an entry is on does not matter, nor do proxies behind the client.
		if c := client(strings.Join(lines, ",")); c != got {
			t.Errorf("%q on one line leaves the client %v, not %v", text, c, got)
		}
		if c := client(append(slices.Clone(lines), "10.0.0.9, 10.0.0.8")...); strings.Trim(text, ", \t\n") != "" && c != got {
			t.Errorf("%q before proxies leaves the client %v, not %v", text, c, got)
		}
		if got.IsValid() && got != trusted && !strings.Contains(text, ":") && !strings.Contains(strings.ReplaceAll(text, "\n", ","), got.String()) {
			t.Errorf("%q leaves the client %v, which is not in it", text, got)
		}
	})
}

// FuzzHost holds the reading of Host against net/url, which upstreams written in Go
// read it with, and to the hosts that everybody reads alike.
func FuzzHost(f *testing.F) {
	for _, host := range []string{"h", "H.example.", "h:80", "h:", ":80", "[::1]", "[::1]:80", "[::1", "::1", "h:80:80", "a b", "a/b", "a@b", "a%41", "127.1", "..", "[fe80::1%25eth0]", "h:8a", "a,b"} {
		f.Add(host)
	}
	plain := regexp.MustCompile(`^[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*\.?(:[0-9]*)?$`)
	f.Fuzz(func(t *testing.T, text string) {
		h := head{hostField: []byte(text)}
		if !h.readHost() {
			if plain.MatchString(text) {
				t.Errorf("%q is refused", text)
			}
			return
		}
		u, err := url.Parse("http://" + text + "/")
		if err != nil || u.Host != text || u.User != nil || u.Path != "/" || u.Fragment != "" || u.RawQuery != "" {
			t.Fatalf("%q is taken, and read by net/url as %+v, %v", text, u, err)
		}
		want := strings.ToLower(u.Hostname())
		if strings.HasPrefix(text, "[") {
			want = "[" + want + "]"
		} else {
			want = strings.TrimSuffix(want, ".")
		}
		if string(h.host) != want || want == "" {
			t.Errorf("%q is read as %q, want %q", text, h.host, want)
		}
	})
}

// FuzzQuestion holds the head that is made of a question against net/http: it is that
// of one request, and says what was asked.
func FuzzQuestion(f *testing.F) {
	for _, q := range [][3]string{{"GET", "/", "h"}, {"GET", "/a?b=c", "h.example:80"}, {"GET", "/ HTTP/1.1\r\nX: y", "h"}, {"GET", "/", "h\r\nHost: i"}, {"get", "/", "h"}, {"GET", "*", "h"},
		{"CONNECT", "h:443", "h"}, {"GET", "http://i/", "h"}, {"GET /x", "/", "h"}, {"GET", "/a b", "h"}, {"GET", "/%2e%2e/a", "h"}} {
		f.Add(q[0], q[1], q[2])
	}
	s := &settings{Options: Options{HeaderBytes: 4096}}
	f.Fuzz(func(t *testing.T, method, target, host string) {
		var h head
		if f := s.readQuestion(&h, &Question{Method: method, Target: target, Host: host}); f != nil {
			if f.status < 400 || f.code == "" || f.detail == "" {
				t.Errorf("%q %q %q is refused with %+v", method, target, host, f)
			}
			return
		}
		text := method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			t.Fatalf("%q is taken: %v", text, err)
		}
		if r.Method != method || r.RequestURI != target || r.Host != strings.Trim(host, " \t") || len(r.Header) != 0 {
			t.Errorf("%q is read by net/http as %s %q %q %v", text, r.Method, r.RequestURI, r.Host, r.Header)
		}
		path, query, _ := strings.Cut(target, "?")
		if string(h.method) != method || string(h.target) != target || string(h.path) != path || string(h.query) != query || len(h.fields) != 1 {
			t.Errorf("%q is read as %s %q, path %q, query %q, %d fields", text, h.method, h.target, h.path, h.query, len(h.fields))
		}
	})
}

// FuzzForwarded holds the element that is written to the grammar of RFC 7239,
// section 4: whatever the host, it is one element, and says that host.
func FuzzForwarded(f *testing.F) {
	for _, host := range []string{"", "h", "h:80", `a"b\c`, "h;by=x", "h, for=10.0.0.1", `\`} {
		f.Add(host, true)
	}
	grammar := regexp.MustCompile(`^for=(?:"\[([^"\\]*)\]"|([0-9.]+));proto=https(?:;host="((?:[^"\\]|\\.)*)")?$`)
	f.Fuzz(func(t *testing.T, host string, six bool) {
		peer := "192.0.2.7"
		if six {
			peer = "2001:db8::7"
		}
		if strings.ContainsAny(host, "\r\n") {
			return // no field has them
		}
		m := grammar.FindStringSubmatch(forwardedElement(peer, "https", host))
		if m == nil || m[1]+m[2] != peer || regexp.MustCompile(`\\(.)`).ReplaceAllString(m[3], "$1") != host {
			t.Errorf("%q is written as %q", host, m)
		}
	})
}

// FuzzFind holds the finding of routes against a plain reading of what newTable
// promises: of the patterns that match, the one that is more specific at the first
// segment where two differ.
func FuzzFind(f *testing.F) {
	f.Add("/a/b /a/{x} /{x}/b /{r:*}", "/a/b")
	f.Add("/a/b/c /a/{x}/d /{x:[0-9]+}/b /a/{r:*}", "/a/b/d")
	f.Add("/{x:[0-9]+} /{x} /7", "/7/")
	f.Add("/a/ /a%62/{r:*}", "/%61b")
	f.Add("/ /{x}", "/")
	f.Add("/%7bx%7d", "/a")
	f.Fuzz(func(t *testing.T, patterns, path string) {
		var routes []*Route
		for _, p := range strings.Fields(patterns) {
			if !plainPattern(p) || slices.ContainsFunc(routes, func(r *Route) bool { return kindsOf(r.Path) == kindsOf(p) }) {
				return // it is no pattern, or collides with another
			}
			routes = append(routes, &Route{Name: p, Path: p})
		}
		if !strings.HasPrefix(path, "/") || ambiguous([]byte(path)) {
			return // refused before
		}
		table, err := newTable(routes)
		if err != nil {
			t.Fatalf("%q: %v", patterns, err)
		}
		var want *Route
		for _, r := range routes {
			if matches(kindsOf(r.Path), segmentsOf(path)) && (want == nil || moreSpecific(kindsOf(r.Path), kindsOf(want.Path))) {
				want = r
			}
		}
		if got, _ := table.find(nil, []byte("GET"), []byte(path)); got != want {
			t.Errorf("%q in %q finds %+v, want %+v", path, patterns, got, want)
		}
	})
}

// plainPattern reports whether a pattern is one of those that the fuzz test knows: of
// literal text, {x}, {x:[0-9]+} and {x:*} as the last.
func plainPattern(p string) bool {
	return regexp.MustCompile(`^(/([0-9a-z%]+|\{[a-z]\}|\{[a-z]:\[0-9\]\+\}))*(/(\{[a-z]:\*\})?)?$`).MatchString(p) && p != "" && !ambiguous([]byte(strings.NewReplacer("{", "", "}", "").Replace(p)))
}

// kindsOf returns a pattern's segments: "=" and text, or the kind of its parameter, which
// sorts behind text, the most specific first.
func kindsOf(pattern string) string {
	var out []string
	for _, s := range rawSegments(pattern) {
		switch {
		case !strings.HasPrefix(s, "{"):
			s = "1=" + unescaped(s)
		case strings.HasSuffix(s, ":*}"):
			s = "4*"
		case strings.Contains(s, ":"):
			s = "2#"
		default:
			s = "3?"
		}
		out = append(out, s)
	}
	return strings.Join(out, "/")
}

// segmentsOf returns the decoded segments of a path, without an empty last one.
func segmentsOf(path string) []string {
	segments := rawSegments(path)
	for i, s := range segments {
		segments[i] = unescaped(s)
	}
	return segments
}

func rawSegments(path string) []string {
	path = strings.TrimSuffix(path[1:], "/")
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}

func unescaped(segment string) string {
	if plain, err := url.PathUnescape(segment); err == nil {
		return plain
	}
	return segment
}

func matches(pattern string, segments []string) bool {
	kinds := kindsIn(pattern)
	for i, kind := range kinds {
		if kind == "4*" {
			return true
		}
		if i == len(segments) || kind[:2] == "1=" && kind[2:] != segments[i] || kind == "2#" && strings.Trim(segments[i], "0123456789") != "" {
			return false
		}
	}
	return len(kinds) == len(segments)
}

// kindsIn returns what kindsOf has joined.
func kindsIn(kinds string) []string {
	if kinds == "" {
		return nil // the root has no segments
	}
	return strings.Split(kinds, "/")
}

// moreSpecific reports whether of two patterns that match one path the first goes
// before the second.
func moreSpecific(a, b string) bool {
	one, two := kindsIn(a), kindsIn(b)
	for i := range min(len(one), len(two)) {
		if one[i] != two[i] {
			return one[i][0] < two[i][0]
		}
	}
	return len(one) < len(two) // the other goes on with {name:*}, which stands for nothing here
}

// FuzzBearer holds the finding of a key in header fields against net/http: what is
// found is the one value there is, whole.
func FuzzBearer(f *testing.F) {
	for _, seed := range []string{"Authorization: Bearer k", "authorization: bearer  k ", "Authorization: Basic k", "Authorization: Bearer", "X-Api-Key: k", "X-Api-Key: k\r\nX-API-KEY: l", "Authorization: Bearer k\r\nX-Api-Key: l", "X-Api-Key:\r\nX-Api-Key: k", "Authorization: Bearer\tk"} {
		f.Add(seed)
	}
	places := []Credential{{Header: "X-API-Key"}, {Bearer: true}}
	scheme := regexp.MustCompile(`(?i)^Bearer (.*)$`)
	f.Fuzz(func(t *testing.T, fields string) {
		text := "GET / HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		var h head
		if err != nil || strings.Contains(fields, "\r\n\r\n") || strings.HasPrefix(fields, "\r\n") || strings.Count(text, "\n") != strings.Count(text, "\r\n") || h.parse([]byte(text)) != nil {
			return // no head that gets here
		}
		var keys, tokens []string
		for _, v := range r.Header["X-Api-Key"] {
			if v != "" {
				keys = append(keys, v)
			}
		}
		for _, v := range r.Header["Authorization"] {
			if m := scheme.FindStringSubmatch(v); m != nil {
				tokens = append(tokens, strings.Trim(m[1], " \t"))
			}
		}
		want, place := "", Credential{}
		switch {
		case len(keys) > 0:
			want, place = keys[0], places[0]
		case len(tokens) > 0:
			want, place = tokens[0], places[1]
		}
		if len(keys) > 1 || len(keys) == 0 && len(tokens) > 1 {
			want = twice
		}
		got := findCredential(places, &h)
		if string(got.value) != want || got.place != place {
			t.Errorf("%q has %q in %+v, found is %q in %+v", fields, want, place, got.value, got.place)
		}
		if want == twice && apikey.DigestOf(got.value) != apikey.DigestOf([]byte("?")) {
			t.Errorf("two keys count as %q", got.value)
		}
	})
}
