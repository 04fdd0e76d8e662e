package proxy

import (
	"bytes"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A wire is a connection on which what the client sent has arrived, and then its
// end.
type wire struct {
	net.Conn
	*strings.Reader
}

func (w wire) Read(p []byte) (int, error)    { return w.Reader.Read(p) }
func (wire) SetReadDeadline(time.Time) error { return nil }

// screenHead reads a head as the server does and screens it.
func screenHead(raw string, strict bool) (head, *fault) {
	p := &Proxy{inputs: buffers{size: inputSize}}
	c := &clientConn{Conn: wire{nil, strings.NewReader(raw)}, proxy: p, set: &settings{Options: Options{HeaderBytes: 16 << 10}}}
	c.reads.set = c.SetReadDeadline
	var h head
	if err := c.fill(); err != nil {
		return h, c.readFault(err)
	}
	f := c.readHead(&h)
	if f == nil {
		f = h.screen(strict)
	}
	return h, f
}

func TestScreen(t *testing.T) {
	for _, tc := range []struct {
		rule  string
		want  *fault
		heads []string // "|" stands for the end of a line
	}{
		{"what is clear passes", nil, []string{"GET /a?b HTTP/1.1|Host: h", "GET /a HTTP/1.0|X: 1", "GET /a HTTP/1.0|Host: h", "PROPFIND /a HTTP/1.1|Host: h",
			"POST /a HTTP/1.1|Host: h|Content-Length: 3", "POST /a HTTP/1.1|Host: h|transfer-encoding: CHUNKED"}},
		{"the query may hold anything", nil, []string{"GET /a?%2f%2e;//../%zz?%00\\ HTTP/1.1|Host: h"}},
		{"not a length and a transfer coding", badFraming, []string{"POST /a HTTP/1.1|Host: h|Content-Length: 3|Transfer-Encoding: chunked",
			"POST /a HTTP/1.1|Host: h|Transfer-Encoding: chunked|Content-Length: 3", "POST /a HTTP/1.1|Host: h|Transfer-Encoding: identity|Content-Length: 3"}},
		{"not several lengths, even if they agree", badFraming, []string{"POST /a HTTP/1.1|Host: h|Content-Length: 3|Content-Length: 3", "POST /a HTTP/1.1|Host: h|Content-Length: 3, 3"}},
		{"a length is digits", badFraming, []string{"POST /a HTTP/1.1|Host: h|Content-Length: +3", "POST /a HTTP/1.1|Host: h|Content-Length:", "POST /a HTTP/1.1|Host: h|Content-Length: 0x3"}},
		{"no transfer coding but chunked", badFraming, []string{"POST /a HTTP/1.1|Host: h|Transfer-Encoding: gzip", "POST /a HTTP/1.1|Host: h|Transfer-Encoding: gzip, chunked",
			"POST /a HTTP/1.1|Host: h|Transfer-Encoding: identity", "POST /a HTTP/1.1|Host: h|Transfer-Encoding:", "POST /a HTTP/1.1|Host: h|Transfer-Encoding: xchunked"}},
		{"letters of ASCII have two cases, not three", badFraming, []string{"POST /a HTTP/1.1|Host: h|Transfer-Encoding: chun\u212aed"}},
		{"chunked once", badFraming, []string{"POST /a HTTP/1.1|Host: h|Transfer-Encoding: chunked|Transfer-Encoding: chunked", "POST /a HTTP/1.1|Host: h|Transfer-Encoding: chunked, chunked"}},
		{"no chunks in HTTP/1.0", badFraming, []string{"POST /a HTTP/1.0|Host: h|Transfer-Encoding: chunked"}},
		{"one Host", badHost, []string{"GET /a HTTP/1.1|Host: h|host: h", "GET /a HTTP/1.0|Host: h|Host: i", "GET /a HTTP/1.1|X: 1"}},
		{"Host is a host", badHost, []string{"GET /a HTTP/1.0|Host:", "GET /a HTTP/1.1|Host: h,i", "GET /a HTTP/1.1|Host: i@h", "GET /a HTTP/1.1|Host: h/a"}},
		{"nothing but a port behind the host", badHost, []string{"GET /a HTTP/1.1|Host: h:80@i", "GET /a HTTP/1.1|Host: [::1]i"}},
		{"HTTP/1.0 or 1.1", badVersion, []string{"GET /a HTTP/2.0|Host: h", "GET /a HTTP/1.2|Host: h", "GET /a HTTP/0.9|Host: h"}},
		{"a version at all", badRequest, []string{"GET /a http/1.1|Host: h", "GET /a|Host: h", "GET /a |Host: h", "GET /a HTTP/1.10|Host: h", "GET  /a HTTP/1.1|Host: h", "GET /a  HTTP/1.1|Host: h", "GET /a HTTP/1.1 |Host: h", " GET /a HTTP/1.1|Host: h", "GET\t/a HTTP/1.1|Host: h"}},
		{"neither CONNECT nor TRACE", methodRefused, []string{"CONNECT h:80 HTTP/1.1|Host: h", "CONNECT /a HTTP/1.1|Host: h", "TRACE /a HTTP/1.1|Host: h"}},
		{"not absolute-form", badTarget, []string{"GET http://h/a HTTP/1.1|Host: h"}},
		{"not authority-form", badTarget, []string{"GET h:80 HTTP/1.1|Host: h"}},
		{"not asterisk-form", badTarget, []string{"OPTIONS * HTTP/1.1|Host: h"}},
		{"a target begins with its path", badTarget, []string{"GET ?a HTTP/1.1|Host: h"}},
		{"no fragment", badTarget, []string{"GET /a#b HTTP/1.1|Host: h", "GET /a?b#c HTTP/1.1|Host: h"}},
		{"no space or control character in the target", badRequest, []string{"GET /a b HTTP/1.1|Host: h", "GET /a\tb HTTP/1.1|Host: h", "GET /a\x00 HTTP/1.1|Host: h"}},
		{"no ambiguous path", ambiguousPath, []string{"GET /a/../b HTTP/1.1|Host: h"}},
		{"a field has a name, a colon behind it and no control character", badRequest, []string{"GET /a HTTP/1.1|Host: h|X : 1", "GET /a HTTP/1.1|Host: h|: 1",
			"GET /a HTTP/1.1|Host: h|X", "GET /a HTTP/1.1|Host: h|X\x01: 1", "GET /a HTTP/1.1|Host: h|X: 1\x002"}},
		{"no bare CR", badRequest, []string{"GET /a HTTP/1.1|Host: h|X: 1\rY: 2", "GET /a HTTP/1.1|Host: h|X: 1\r", "GET /a HTTP/1.1\r|Host: h"}},
		{"no fold at the first field", badRequest, []string{"GET /a HTTP/1.1| X: 1|Host: h"}},
		{"no bare LF", badRequest, []string{"POST /a HTTP/1.1|Host: h|X: 1\nTransfer-Encoding: chunked", "GET /a HTTP/1.1|Host: h\n\nGET /b HTTP/1.1|Host: h"}},
		{"no fold at all", badRequest, []string{"GET /a HTTP/1.1|Host: h|X: 1| 2", "GET /a HTTP/1.1|Host: h|X: 1|\t2"}},
		{"no fold that hides a coding", badFraming, []string{"POST /a HTTP/1.1|Host: h|Transfer-Encoding:| chunked"}},
		{"no space in a name", badRequest, []string{"GET /a HTTP/1.1|Host: h|X Y: 1"}},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			for _, raw := range tc.heads {
				_, got := screenHead(strings.ReplaceAll(raw, "|", "\r\n")+"\r\n\r\n", true)
				if got != tc.want {
					t.Errorf("screen(%q) = %v, want %v", raw, got, tc.want)
				}
			}
		})
	}
}

func TestScreenReadsTheHead(t *testing.T) {
	got, f := screenHead("GET /a/..//%2F?x=%2F?y HTTP/1.1\r\nHost: API.Example.:80\r\nx-b: 1\r\nX_C:  2 \r\nX-B:\r\n\r\n", false)
	if f != nil {
		t.Fatalf("screen = %v; a loose screen admits any path", f)
	}
	want := head{method: []byte("GET"), minor: 1, hostField: []byte("API.Example.:80"), hosts: 1, target: []byte("/a/..//%2F?x=%2F?y"), path: []byte("/a/..//%2F"), query: []byte("x=%2F?y"), host: []byte("api.example"),
		fields: []field{{[]byte("Host"), []byte("API.Example.:80")}, {[]byte("X-B"), []byte("1")}, {[]byte("X_c"), []byte("2")}, {[]byte("X-B"), nil}}}
	if diff := cmp.Diff(got, want, cmp.AllowUnexported(head{}, field{})); diff != "" {
		t.Errorf("head (-got +want):\n%s", diff)
	}
	if got, want := got.values("X-B"), []string{"1", ""}; !cmp.Equal(got, want) {
		t.Errorf("values(X-B) = %q, want %q", got, want)
	}
	if plain, _ := screenHead("GET /a HTTP/1.1\r\nHost: h\r\n\r\n", true); plain.query != nil {
		t.Errorf("query = %q, want nil where there is no question mark", plain.query)
	}
	if empty, _ := screenHead("GET /a? HTTP/1.1\r\nHost: h\r\n\r\n", true); empty.query == nil {
		t.Error("query = nil, want it empty after a question mark")
	}
}

func TestHostName(t *testing.T) {
	for _, tc := range []struct{ name, host, want string }{
		{"lower case", "API.Example", "api.example"},
		{"a port is left out", "h:8080", "h"},
		{"so is an empty one", "h:", "h"},
		{"a trailing dot is left out", "h.", "h"},
		{"also before a port", "h.:80", "h"},
		{"IPv4", "192.0.2.1:80", "192.0.2.1"},
		{"IPv6 keeps its brackets", "[2001:DB8::1]", "[2001:db8::1]"},
		{"IPv6 with a port", "[::1]:80", "[::1]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := head{hostField: []byte(tc.host)}
			if ok := h.readHost(); !ok || string(h.host) != tc.want {
				t.Errorf("the host of %q is %q (%t), want %q", tc.host, h.host, ok, tc.want)
			}
		})
	}
	for _, junk := range []string{"", "h:x", "h:80@i", "[::1]i", "[::1]:x", "[i]", "[]", "[::1%25eth0]", "[192.0.2.1]", "h:80:80", ":80", ".", "[::1", "2001:db8::1", "a@h", "h/a", `h\a`, "h,i", "h i", "h%2e", "h?", "h#", "h\u00e9", "h\x00"} {
		if h := (head{hostField: []byte(junk)}); h.readHost() {
			t.Errorf("%q passes for the host %q", junk, h.host)
		}
	}
}

func TestAmbiguous(t *testing.T) {
	for rule, paths := range map[string][]string{
		"an encoded slash, backslash, NUL or semicolon": {"/a%2fb", "/a%2Fb", "/a%5cb", "/a%5Cb", "/%00", "/a%3b", "/%3Bx"},
		"a backslash":                     {`/a\b`, `/..\a`},
		"a dot segment":                   {"/.", "/..", "/./a", "/../a", "/a/.", "/a/..", "/a/../b"},
		"an encoded dot segment":          {"/%2e", "/%2E./a", "/a/.%2e", "/a/%2e%2e/b"},
		"a dot segment with a parameter":  {"/..;x/a", "/a/.;x"},
		"a parameter":                     {"/a;x", "/;", "/a;x=1/b"},
		"an empty segment":                {"//", "//a", "/a//b", "/a//"},
		"an encoded unreserved character": {"/%61", "/%7A", "/%30", "/a%2Db", "/a%5fb", "/%7e", "/a%2eb"},
		"a malformed escape":              {"/%", "/a%", "/a%2", "/%zz", "/%2g", "/%/a", "/%%32f"},
		"a byte that no path has":         {"/a b", "/\x00", "/\x7f", "/\u00e9", "/\xff"},
	} {
		for _, path := range paths {
			if !ambiguous([]byte(path)) {
				t.Errorf("ambiguous(%q) = false, want true: %s", path, rule)
			}
		}
	}
	for _, path := range []string{"/", "/a", "/a/", "/a/b.c/d", "/...", "/.a/a./..a/a..", "/a%20b", "/%C3%A9", "/%25", "/%252e", "/a+b@c:d=e,f!$&'()*~-_", "/%0a"} {
		if ambiguous([]byte(path)) {
			t.Errorf("ambiguous(%q) = true, want false", path)
		}
	}
}

// screenPlain reads a path as one that needs no interpretation: its segments,
// decoded, without the empty one that a trailing slash leaves.
func screenPlain(path string) (segments []string) {
	for s := range strings.SplitSeq(strings.TrimSuffix(path[1:], "/"), "/") {
		segments = append(segments, screenDecode(s))
	}
	return segments
}

// screenNormal reads a path as the most obliging of servers would: decoded
// first, backslashes turned, parameters cut, empty segments folded, dot
// segments resolved, all that follows a NUL dropped.
func screenNormal(path string) []string {
	path, _, _ = strings.Cut(strings.ReplaceAll(screenDecode(path), `\`, "/"), "\x00")
	segments := []string{}
	for s := range strings.SplitSeq(path, "/") {
		switch s, _, _ = strings.Cut(s, ";"); s {
		case "", ".":
		case "..":
			segments = segments[:max(len(segments)-1, 0)]
		default:
			segments = append(segments, s)
		}
	}
	if len(segments) == 0 {
		segments = append(segments, "")
	}
	return segments
}

// screenDecode decodes the escapes that are well formed.
func screenDecode(s string) string {
	var out bytes.Buffer
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0 {
			out.WriteByte(byte(unhex(s[i+1])<<4 | unhex(s[i+2])))
			i += 2
		} else {
			out.WriteByte(s[i])
		}
	}
	return out.String()
}

// screenCheck fails if a path passes for unambiguous that a normaliser reads as
// other segments, or that has a second spelling under RFC 3986, section 6.2.2.2.
func screenCheck(t *testing.T, path string) (passed bool) {
	t.Helper()
	if ambiguous([]byte(path)) {
		return false
	}
	if got, want := screenNormal(path), screenPlain(path); !cmp.Equal(got, want) {
		t.Errorf("ambiguous(%q) = false, but it normalises to %q, not %q", path, got, want)
	}
	for _, c := range "abcxyzABCXYZ0189-._~" {
		for _, digits := range []string{"0123456789abcdef", "0123456789ABCDEF"} {
			if escape := "%" + string(digits[c>>4]) + string(digits[c&15]); strings.Contains(path, escape) {
				t.Errorf("ambiguous(%q) = false, but %s is %c", path, escape, c)
			}
		}
	}
	return true
}

func TestNoNormaliserMovesAnUnambiguousPath(t *testing.T) {
	alphabet := []string{"/", "/", "/", ".", "%2e", "%2F", "%5c", ";", `\`, "%61", "a", "b", "%zz", "%00", "//", "%20", "%3b", "%", "2e", "é"}
	random, passed := rand.New(rand.NewPCG(5, 6)), 0
	for range 200_000 {
		path := "/"
		for range random.IntN(6) {
			path += alphabet[random.IntN(len(alphabet))]
		}
		if screenCheck(t, path) {
			passed++
		}
	}
	if passed < 10_000 {
		t.Errorf("%d paths passed, want ten thousand for the comparison to mean anything", passed)
	}
}

func FuzzAmbiguous(f *testing.F) {
	for _, path := range []string{"", "a/b", "a/../b", "%2e%2e/a", "a%2fb", `..\a`, "a;b", "..;/a", "a//b", "%61", "%zz", "%", "%00", "%25", "...", "é"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) { screenCheck(t, "/"+path) })
}
