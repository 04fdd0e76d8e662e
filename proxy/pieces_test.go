package proxy

import (
	"log/slog"
	"strings"
	"testing"
)

// TestPiecesDoNotMatter: what a request is does not depend on how it arrives, nor
// on what the buffer held before.
func TestPiecesDoNotMatter(t *testing.T) {
	up := newRecorder()
	p := inMemory(t, up.connect, nil)
	const one = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
	for _, tc := range []struct {
		name, sends string
		passes      int
	}{
		{"an empty line before a request", "\r\n" + one, 1},
		{"an empty line before the next one", one + "\r\n" + one, 2},
		{"an empty line after the last one", one + "\r\n", 1},
		{"two empty lines before a request", "\r\n\r\n" + one, 0},
		{"two empty lines before the next one", one + "\r\n\r\n" + one, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for n := range 4 {
				for _, before := range []byte{0, ' ', 'a'} {
					dirty := p.inputs.get()
					for i := range dirty {
						dirty[i] = before
					}
					p.inputs.put(dirty)
					up.begin()
					answer := serveAll(p, tc.sends, [][]byte{nil, {1}, {2}, {byte(len(one))}}[n]...)
					if len(up.seen) != tc.passes || strings.Count(answer, "HTTP/1.1 200 ") != tc.passes {
						t.Errorf("in pieces %d over %q: %d passed, want %d; answered %q", n, before, len(up.seen), tc.passes, answer)
					}
				}
			}
		})
	}
}

// TestNothingOfTheRequestBefore: a head that cannot be read is not answered, nor
// logged, as the one before it on the connection.
func TestNothingOfTheRequestBefore(t *testing.T) {
	var log syncBuffer
	p := inMemory(t, newRecorder().connect, func(o *Options) {
		o.AccessLog, o.LogSample, o.HeaderBytes = slog.New(slog.NewJSONHandler(&log, nil)), 1, 8<<10
	})
	for name, bad := range map[string]string{
		"bare LF":        "GET /b HTTP/1.1\nHost: h\r\n\r\n",
		"too long":       "GET /" + strings.Repeat("b", 9<<10),
		"no request":     "\x16\x03\x01",
		"two empty ones": "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			answer := serveAll(p, "HEAD /secret HTTP/1.1\r\nHost: h\r\n\r\n"+bad)
			if !strings.HasSuffix(answer, "}\n") {
				t.Errorf("answered %q, want the second answer to have its body", answer)
			}
			if _, line, _ := strings.Cut(log.String(), "\n"); strings.Contains(line, "secret") || strings.Contains(line, "HEAD") {
				t.Errorf("logged as the request before: %s", line)
			}
			log.mu.Lock()
			log.b.Reset()
			log.mu.Unlock()
		})
	}
}
