package upstream

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"latchkey/internal/http1oracle"
)

// A reading is what a reader makes of all that an upstream sent before it closed
// the connection.
type reading struct {
	good     bool // there is a final head
	status   int
	fields   string
	body     string
	complete bool
	reusable bool
}

// An oracle reads a response as text: it splits the whole of it into lines and
// matches them with regular expressions.
type oracle struct{ status, field, length *regexp.Regexp }

func newOracle() *oracle {
	return &oracle{
		status: regexp.MustCompile(`^HTTP/1\.([01]) ([1-5][0-9][0-9])( [\t\x20-\x7e\x80-\xff]*)?$`),
		field:  regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\\t ]*([\\t\\x20-\\x7e\\x80-\\xff]*?)[\\t ]*$"),
		length: regexp.MustCompile(`^[0-9]+$`),
	}
}

// read returns what there is to make of the text.
func (o *oracle) read(text string, isHead bool) reading {
	for interim := 0; ; interim++ {
		block, rest, found := strings.Cut(text, "\r\n\r\n")
		lines := strings.Split(block, "\r\n")
		m := o.status.FindStringSubmatch(http1oracle.Latin1(lines[0]))
		if !found || m == nil || len(block)+4 > 64<<10 || len(lines)-1 > maxFields {
			return reading{}
		}
		var fields []string
		values := map[string][]string{}
		for _, line := range lines[1:] {
			f := o.field.FindStringSubmatch(http1oracle.Latin1(line))
			if f == nil {
				return reading{}
			}
			fields = append(fields, fmt.Sprintf("%q: %q", http1oracle.Unlatin1(f[1]), http1oracle.Unlatin1(f[2])))
			name := strings.ToLower(f[1])
			values[name] = append(values[name], http1oracle.Unlatin1(f[2]))
		}
		r, ok := o.frame(m[1] == "1", m[2], rest, values, isHead)
		if !ok {
			return reading{}
		}
		if r.fields = strings.Join(fields, "\n"); r.status >= 200 {
			return r
		}
		if r.status == 101 || interim == maxInterim {
			return reading{}
		}
		text = rest
	}
}

// frame reads the body of a message with these fields.
func (o *oracle) frame(newer bool, status, rest string, values map[string][]string, isHead bool) (reading, bool) {
	r := reading{good: true, complete: true}
	r.status, _ = strconv.Atoi(status)
	lengths, codings := values["content-length"], values["transfer-encoding"]
	length := int64(-1)
	if len(lengths) > 1 || len(codings) > 1 || len(codings)+len(lengths) > 1 {
		return r, false
	}
	if len(lengths) == 1 {
		n, err := strconv.ParseInt(lengths[0], 10, 64)
		if err != nil || !o.length.MatchString(lengths[0]) {
			return r, false
		}
		length = n
	}
	chunked := len(codings) == 1
	if chunked && (!newer || strings.ToLower(codings[0]) != "chunked" || len(codings[0]) != len("chunked")) {
		return r, false
	}
	options := map[string]bool{}
	for _, option := range strings.Split(strings.Join(values["connection"], ","), ",") {
		options[strings.ToLower(strings.Trim(option, " \t"))] = true
	}
	announced := chunked || length > 0
	exact := true
	switch {
	case r.status < 200:
		return r, !announced
	case isHead || r.status == 304:
	case r.status == 204:
		exact = !announced
	case chunked:
		r.body, status, rest = http1oracle.Chunked(rest)
		r.complete = status == "done"
	case length < 0:
		r.body, rest, exact = rest, "", false
	case length > int64(len(rest)):
		r.body, rest, r.complete = rest, "", false
	default:
		r.body, rest = rest[:length], rest[length:]
	}
	r.reusable = r.complete && exact && rest == "" && !options["close"] && (newer || options["keep-alive"])
	return r, true
}

// FuzzResponse holds the exchange to the oracle's reading of anything that an
// upstream may send, however that is split, and however it is read; and to a
// next exchange that knows nothing of it.
func FuzzResponse(f *testing.F) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, s := range []string{
		clean, ok + "Transfer-Encoding: chunked\r\n\r\n2;a\r\nhi\r\n0\r\nX: y\r\n\r\n", ok + "\r\nhi", clean + clean,
		"HTTP/1.1 100 Continue\r\n\r\n" + clean, "HTTP/1.0 200\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 304 \r\nETag: \"x\"\r\n\r\n", ok + "Content-Length: 5\r\n\r\nhi",
		ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nclean", ok + "A: b\r\n c\r\n\r\n", ok + "A : b\r\n\r\n", ok + "A: \x00\r\n\r\n",
		"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", ok + "Connection: a, close\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 101 x\r\n\r\n",
		ok + "Content-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n", ok + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n\n",
	} {
		f.Add([]byte(s), false, []byte{200})
		f.Add([]byte(s), true, []byte{1, 7, 3})
	}
	o := newOracle()
	var conns []*memoryConn
	var present, next memoryConn
	u := openMemory(f, Options{Ejection: Ejection{Failures: -1}}, func() *memoryConn {
		c := present
		if len(conns) > 0 {
			c = next
		}
		conns = append(conns, &c)
		return &c
	})
	f.Fuzz(func(t *testing.T, stream []byte, isHead bool, sizes []byte) {
		i := 0
		present = memoryConn{response: stream, pieces: func() int {
			if i++; len(sizes) == 0 {
				return 1 << 20
			}
			return int(sizes[i%len(sizes)])
		}}
		next, conns = memoryConn{response: []byte(clean)}, nil
		want := o.read(string(stream), isHead)
		got := actual(t, u, isHead, len(sizes))
		conns[0].response = []byte(clean)
		wantClean(t, u)
		got.reusable = len(conns) == 1
		if !got.good && !want.good { // what was received of it does not matter
			got, want = reading{reusable: got.reusable}, reading{}
		}
		if got != want {
			t.Errorf("%q, HEAD %t:\n got %+v\nwant %+v", stream, isHead, got, want)
		}
		u.Expire(u.now().Add(1 << 40))
	})
}

// actual reads a response with the exchange, in one of three ways.
func actual(t *testing.T, u *Upstream, isHead bool, how int) reading {
	r := request("GET")
	if isHead {
		r = request("HEAD")
	}
	res, err := u.Do(r)
	if err != nil {
		if k := kind(err); k != "malformed" && k != "truncated" {
			t.Errorf("error %v is neither malformed nor truncated", err)
		}
		return reading{}
	}
	defer res.Close()
	got := reading{good: true, status: res.Status}
	var fields []string
	for _, f := range res.Fields {
		fields = append(fields, fmt.Sprintf("%q: %q", f.Name, f.Value))
	}
	got.fields = strings.Join(fields, "\n")
	var body bytes.Buffer
	switch how % 3 {
	case 0:
		_, err = res.WriteTo(&body)
	case 1:
		_, err = io.Copy(&body, struct{ io.Reader }{res})
	default:
		_, err = io.Copy(&body, iotest.OneByteReader(res))
	}
	got.body, got.complete = body.String(), err == nil
	return got
}
