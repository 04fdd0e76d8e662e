package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/http1oracle"
)

// fuzzHead is how long a head may be, so that limits are among what is found.
const fuzzHead = 1024

// forwarded returns the field lines that the upstream of a public route is to
// get of a request: names in lower case, "*" for an ID made by the gateway.
func forwarded(q *http1oracle.Request) []string {
	host := append(q.Values("host"), "")[0]
	out := []string{"host: " + host}
	spelling := regexp.MustCompile(`[^0-9a-z]`)
	dropped := regexp.MustCompile("^(te|host|expect|trailer|upgrade|connection|keep-alive|content-length|proxy-connection|transfer-encoding|" +
		"proxy-authenticate|proxy-authorization|x-latchkey-.*|x-api-version|x-request-id|x-forwarded-(for|proto|host)|forwarded|x-real-ip|proxy|x-api-key)$")
	options := q.Options()
	for _, f := range q.Fields {
		if !dropped.MatchString(spelling.ReplaceAllString(f[0], "-")) && !slices.Contains(options, f[0]) {
			out = append(out, f[0]+": "+f[1])
		}
	}
	id := append(q.Values("x-request-id"), "")[0]
	if !regexp.MustCompile(`^[0-9A-Za-z._~-]{1,128}$`).MatchString(id) {
		id = "*"
	}
	out = append(out, "x-forwarded-for: 192.0.2.7", "x-forwarded-proto: http", "x-request-id: "+id)
	if host != "" {
		out = append(out, "x-forwarded-host: "+host)
	}
	switch {
	case q.Chunked:
		out = append(out, "transfer-encoding: chunked")
	case q.Length > 0:
		out = append(out, fmt.Sprint("content-length: ", q.Length))
	case q.Method == "POST" || q.Method == "PUT" || q.Method == "PATCH":
		out = append(out, "content-length: 0")
	}
	upgrade := append(q.Values("upgrade"), "")
	if i := slices.IndexFunc(upgrade, func(v string) bool { return v != "" }); i >= 0 && i == len(upgrade)-2 && http1oracle.Lower(upgrade[i]) == "websocket" &&
		slices.Contains(options, "upgrade") && q.Method == "GET" && q.Minor == "1" && !q.Chunked && q.Length == 0 {
		out = append(out, "connection: Upgrade", "upgrade: "+upgrade[i])
	}
	return out
}

// sameRequest holds a request that the upstream got to one that was meant.
func sameRequest(t *testing.T, got, want *http1oracle.Request) {
	t.Helper()
	var lines []string
	wantLines := forwarded(want)
	for i, f := range got.Fields {
		if f[0] == "x-request-id" && i < len(wantLines) && wantLines[i] == "x-request-id: *" && len(f[1]) == 32 {
			f[1] = "*"
		}
		lines = append(lines, f[0]+": "+f[1])
	}
	if got.Method != want.Method || got.Target != want.Target || got.Minor != "1" || got.Body != want.Body || !slices.Equal(lines, wantLines) {
		t.Errorf("the upstream got %s %s %q %q,\nwant %s %s %q %q", got.Method, got.Target, lines, got.Body, want.Method, want.Target, wantLines, want.Body)
	}
}

// sameAnswers holds what a client got to one answer of its own for each request
// that passed, and one refusal at most behind them.
func sameAnswers(t *testing.T, answer string, passed []http1oracle.Request, first int, end http1oracle.Verdict) {
	t.Helper()
	r := bufio.NewReader(strings.NewReader(answer))
	goAhead := []byte("HTTP/1.1 100 Continue\r\n\r\n")
	for i := range passed {
		q := &passed[i]
		if next, _ := r.Peek(len(goAhead)); bytes.Equal(next, goAhead) && q.Minor == "1" && len(q.Values("expect")) > 0 {
			_, _ = r.Discard(len(goAhead))
		}
		res, err := http.ReadResponse(r, &http.Request{Method: q.Method})
		if err != nil {
			t.Errorf("answer %d: %v", i, err)
			return
		}
		body, err := io.ReadAll(res.Body)
		want := fmt.Sprint(first + i)
		if q.Method == "HEAD" {
			want = ""
		}
		if err != nil || res.StatusCode != 200 || string(body) != want {
			t.Errorf("answer %d: %d %q, %v, want 200 %q", i, res.StatusCode, body, err, want)
		}
	}
	if next, _ := r.Peek(len(goAhead)); end == http1oracle.Cut && bytes.Equal(next, goAhead) {
		_, _ = r.Discard(len(goAhead))
	}
	rest, _ := io.ReadAll(r)
	refusal := regexp.MustCompile(`(?s)^HTTP/1\.1 4[0-9][0-9] [^\r]*\r\n.*Connection: close\r\n`).Match(rest) && len(regexp.MustCompile(`HTTP/1\.1 [0-9]{3} `).FindAll(rest, 2)) == 1
	switch {
	case end == http1oracle.Whole && len(rest) > 0,
		end == http1oracle.Refused && !refusal,
		len(rest) > 0 && !refusal:
		t.Errorf("after the answers came %q", rest)
	}
}

// fuzzSeeds are shapes on which servers have been found to differ.
func fuzzSeeds() (out []string) {
	for _, shape := range shapes() {
		out = append(out, shape.sends)
	}
	return out
}

// FuzzRequest holds the gateway to the oracle's reading of anything that a client
// may send, however that is split: exactly the requests that pass reach the
// upstream, each gets its own answer, and so does the next client.
func FuzzRequest(f *testing.F) {
	for _, s := range fuzzSeeds() {
		f.Add([]byte(s), []byte{})
		f.Add([]byte(s), []byte{1, 7, 3})
	}
	oracle, up := http1oracle.NewReader(), newRecorder()
	p := inMemory(f, up.connect, func(o *Options) { o.HeaderBytes = fuzzHead })
	f.Fuzz(func(t *testing.T, stream, sizes []byte) {
		up.begin()
		defer time.AfterFunc(time.Minute, up.end).Stop() // or it would hang where the gateway does
		var passed []http1oracle.Request
		end, text := http1oracle.Whole, string(stream)
		for text != "" && end == http1oracle.Whole {
			var q http1oracle.Request
			if q, text, end = oracle.Request(text, fuzzHead); end != http1oracle.Whole {
				break
			}
			if passed = append(passed, q); !q.Persistent() {
				break
			}
		}
		answer := serveAll(p, string(stream), sizes...)
		if len(up.seen) != len(passed) {
			t.Errorf("%d requests reached the upstream, want %d; the client got %q", len(up.seen), len(passed), answer)
			return
		}
		for i := range passed {
			sameRequest(t, &up.seen[i], &passed[i])
		}
		sameAnswers(t, answer, passed, 0, end)
		if left, closed := up.left(); len(left) > 0 && (end != http1oracle.Cut || len(left) > 1 || !closed) {
			t.Errorf("the upstream was left with %q, closed: %t", left, closed)
		}
		next := serveAll(p, "GET /next HTTP/1.1\r\nHost: next\r\nConnection: close\r\n\r\n")
		sameAnswers(t, next, []http1oracle.Request{{Method: "GET", Minor: "1"}}, len(passed), http1oracle.Whole)
		if t.Failed() {
			t.Logf("the client sent %q and got %q", stream, answer)
		}
	})
}
