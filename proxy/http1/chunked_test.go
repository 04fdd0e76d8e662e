package http1

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"latchkey/internal/http1oracle"
)

// decodeIn decodes a body that arrives in pieces of the given sizes, in place
// as a connection does. It returns the data, how much of the body was read, and
// whether it was complete.
func decodeIn(body []byte, sizes func() int) (data []byte, read int, done bool, err error) {
	var d ChunkDecoder
	for read < len(body) && !d.Done() {
		piece := bytes.Clone(body[read:min(len(body), read+max(1, sizes()))])
		w, r, err := d.Decode(piece, piece)
		data, read = append(data, piece[:w]...), read+r
		if err != nil {
			return data, read, false, err
		}
		if r < len(piece) && !d.Done() {
			return data, read, false, errors.New("decode stopped early")
		}
	}
	return data, read, d.Done(), nil
}

func TestChunkedIsReadStrictly(t *testing.T) {
	long := strings.Repeat("x", maxExtension-1)
	for _, tc := range []struct {
		name, body string
		data       string
		want       string // "done", "open", or part of the error
	}{
		{"chunks", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde", "done"},
		{"no data", "0\r\n\r\n", "", "done"},
		{"sizes in either case", "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", "01234567890123456789a", "done"},
		{"leading zeros", "0003\r\nabc\r\n000\r\n\r\n", "abc", "done"},
		{"an extension", "3;a=\"b;c\"\r\nabc\r\n0;last\r\n\r\n", "abc", "done"},
		{"the longest extension", "3;" + long + "\r\nabc\r\n0\r\n\r\n", "abc", "done"},
		{"an extension too long", "3;" + long + "xx\r\nabc\r\n0\r\n\r\n", "", "too long"},
		{"trailer fields are dropped", "3\r\nabc\r\n0\r\nX: 1\r\nContent-Length: 9\r\n\r\n", "abc", "done"},
		{"trailer fields too long", "0\r\nX: " + strings.Repeat("y", maxTrailerBytes) + "\r\n\r\n", "", "too long"},
		{"CRLF in the data", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n", "done"},

		{"cut in a size", "3", "", "open"},
		{"cut in the data", "3\r\nab", "ab", "open"},
		{"cut after the data", "3\r\nabc", "abc", "open"},
		{"cut before the last chunk", "3\r\nabc\r\n", "abc", "open"},
		{"cut after the last chunk", "3\r\nabc\r\n0\r\n", "abc", "open"},
		{"cut in the end", "3\r\nabc\r\n0\r\n\r", "abc", "open"},

		{"no size", "\r\nabc", "", "chunk size"},
		{"a sign", "+3\r\nabc\r\n", "", "chunk size"},
		{"a negative size", "-3\r\nabc\r\n", "", "chunk size"},
		{"a prefix", "0x3\r\nabc\r\n", "", "chunk size"},
		{"an underscore", "1_0\r\nabc\r\n", "", "chunk size"},
		{"a space before the size", " 3\r\nabc\r\n", "", "chunk size"},
		{"a space after the size", "3 \r\nabc\r\n", "", "chunk size"},
		{"a space before the extension", "3 ;a\r\nabc\r\n", "", "chunk size"},
		{"an extension without a size", ";a\r\n", "", "chunk size"},
		{"17 digits", "00000000000000003\r\nabc\r\n", "", "out of range"},
		{"the largest size", "7fffffffffffffff\r\nabc", "abc", "open"},
		{"a size that overflows", "8000000000000000\r\n", "", "out of range"},
		{"a size that would wrap around", "10000000000000003\r\nabc\r\n", "", "out of range"},
		{"a bare LF after the size", "3\nabc\r\n0\r\n\r\n", "", "chunk size"},
		{"a bare CR after the size", "3\rabc\r\n0\r\n\r\n", "", "bare CR"},
		{"a bare LF in an extension", "3;a\nabc\r\n0\r\n\r\n", "", "control"},
		{"a NUL in an extension", "3;\x00\r\nabc\r\n0\r\n\r\n", "", "control"},
		{"a chunk longer than its size", "3\r\nabcd\r\n0\r\n\r\n", "abc", "longer"},
		{"a chunk shorter than its size", "4\r\nabc\r\n0\r\n\r\n", "abc\r", "longer"},
		{"a bare LF after the data", "3\r\nabc\n0\r\n\r\n", "abc", "longer"},
		{"a bare CR after the data", "3\r\nabc\r0\r\n\r\n", "abc", "bare CR"},
		{"a trailer with a space before the colon", "0\r\nX : 1\r\n\r\n", "", "trailer"},
		{"a folded trailer", "0\r\nX: 1\r\n 2\r\n\r\n", "", "trailer"},
		{"a trailer without a name", "0\r\n: 1\r\n\r\n", "", "trailer"},
		{"a trailer without a colon", "0\r\nX\r\n\r\n", "", "trailer"},
		{"a NUL in a trailer", "0\r\nX: \x00\r\n\r\n", "", "control"},
		{"a bare LF in a trailer", "0\r\nX: 1\n\r\n", "", "control"},
		{"a bare CR at the end", "0\r\n\rX", "", "bare CR"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 7, 1 << 20} {
				data, _, done, err := decodeIn([]byte(tc.body), func() int { return size })
				got := map[bool]string{true: "done", false: "open"}[done]
				if err != nil {
					got = err.Error()
				}
				if !strings.Contains(got, tc.want) || err != nil && !IsSyntax(err) {
					t.Errorf("in pieces of %d: %s, want %s", size, got, tc.want)
				}
				if string(data) != tc.data {
					t.Errorf("in pieces of %d: data %q, want %q", size, data, tc.data)
				}
			}
		})
	}
}

func TestChunkedLeavesWhatFollows(t *testing.T) {
	body := []byte("3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n")
	_, read, done, err := decodeIn(body, func() int { return len(body) })
	if err != nil || !done || string(body[read:]) != "HTTP/1.1 200 OK\r\n" {
		t.Errorf("left %q (done %t, %v), want the status line", body[read:], done, err)
	}
}

// FuzzChunked holds the decoder to two rules: however a body is split, the
// outcome is the same; and it accepts exactly what the oracle accepts.
func FuzzChunked(f *testing.F) {
	for _, body := range []string{
		"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "a;x=y\r\n0123456789\r\n0\r\nX: 1\r\n\r\nrest", "3\r\nab", "3\nabc", "0\r\n\r\n",
		"8000000000000000\r\n", "4\r\nabc\r\n0\r\n\r\n", "0\r\nX : 1\r\n\r\n", "1;\r\n\r\r\n0\r\n: 1\r\n\r\n",
	} {
		f.Add([]byte(body), []byte{1, 2, 3})
	}
	f.Fuzz(func(t *testing.T, body, sizes []byte) {
		data, read, done, err := decodeIn(body, func() int { return len(body) })
		i := 0
		split := func() int {
			if i++; len(sizes) == 0 {
				return 1
			}
			return int(sizes[i%len(sizes)])
		}
		data2, read2, done2, err2 := decodeIn(body, split)
		if !bytes.Equal(data, data2) || read != read2 || done != done2 || (err == nil) != (err2 == nil) {
			t.Fatalf("%q as one: %q, %d, %t, %v; split: %q, %d, %t, %v", body, data, read, done, err, data2, read2, done2, err2)
		}
		want, status, rest := http1oracle.Chunked(string(body))
		if done != (status == "done") || string(data) != want || done && string(body[read:]) != rest {
			t.Fatalf("%q: %q, done %t, %v; the oracle says %q, %s, rest %q", body, data, done, err, want, status, rest)
		}
	})
}
