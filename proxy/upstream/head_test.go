package upstream

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// parseText scans and parses a head as a connection does, in pieces of the
// given size.
func parseText(text string, piece int) (*head, int, error) {
	var s headScan
	for n := min(piece, len(text)); ; n = min(n+piece, len(text)) {
		end, err := s.scan([]byte(text[:n]))
		if err != nil {
			return nil, 0, err
		}
		if end > 0 {
			var h head
			return &h, end, h.parse([]byte(text[:end]))
		}
		if n == len(text) {
			return nil, 0, nil
		}
	}
}

func TestHeadIsReadStrictly(t *testing.T) {
	for _, tc := range []struct {
		name, head string
		want       string // part of the error; empty means none
	}{
		{"a plain head", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ""},
		{"version 1.0", "HTTP/1.0 200 OK\r\n\r\n", ""},
		{"no reason", "HTTP/1.1 200 \r\n\r\n", ""},
		{"no reason and no space", "HTTP/1.1 200\r\n\r\n", ""},
		{"a reason in any text", "HTTP/1.1 200 tr\xe8s\tbien\r\n\r\n", ""},
		{"an empty value", "HTTP/1.1 200 OK\r\nX:\r\n\r\n", ""},
		{"whitespace around a value", "HTTP/1.1 200 OK\r\nContent-Length: \t 5 \t\r\n\r\n", ""},
		{"bytes above ASCII in a value", "HTTP/1.1 200 OK\r\nX: \xff\x80\r\n\r\n", ""},

		{"version 2", "HTTP/2.0 200 OK\r\n\r\n", "begin with HTTP/1."},
		{"version 1.2", "HTTP/1.2 200 OK\r\n\r\n", "version"},
		{"version 1.10", "HTTP/1.10 200 OK\r\n\r\n", "status line"},
		{"a version in lower case", "http/1.1 200 OK\r\n\r\n", "begin with HTTP/1."},
		{"an empty line first", "\r\nHTTP/1.1 200 OK\r\n\r\n", "begin with HTTP/1."},
		{"something else", "SSH-2.0-OpenSSH_9.6", "begin with HTTP/1."},
		{"a body left over", "helloHTTP/1.1 200 OK\r\n\r\n", "begin with HTTP/1."},
		{"two spaces before the status", "HTTP/1.1  200 OK\r\n\r\n", "status"},
		{"a tab before the status", "HTTP/1.1\t200 OK\r\n\r\n", "status line"},
		{"a status of two digits", "HTTP/1.1 20 OK\r\n\r\n", "status"},
		{"a status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", "reason"},
		{"a status with a sign", "HTTP/1.1 +20 OK\r\n\r\n", "malformed status"},
		{"a status below 100", "HTTP/1.1 099 OK\r\n\r\n", "out of range"},
		{"a status above 599", "HTTP/1.1 600 OK\r\n\r\n", "out of range"},
		{"no status", "HTTP/1.1\r\n\r\n", "status line"},
		{"a NUL in the reason", "HTTP/1.1 200 O\x00K\r\n\r\n", "reason"},
		{"a bare CR in the reason", "HTTP/1.1 200 O\rK\r\n\r\n", "reason"},

		{"a bare LF after the status line", "HTTP/1.1 200 OK\nX: 1\r\n\r\n", "bare LF"},
		{"a bare LF after a field", "HTTP/1.1 200 OK\r\nX: 1\nY: 2\r\n\r\n", "bare LF"},
		{"a bare LF as the end", "HTTP/1.1 200 OK\r\nX: 1\r\n\n", "bare LF"},
		{"a bare CR in a value", "HTTP/1.1 200 OK\r\nX: 1\rY: 2\r\n\r\n", "control"},
		{"a CR before the CRLF", "HTTP/1.1 200 OK\r\nX: 1\r\r\n\r\n", "control"},
		{"a folded line", "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n", "field name"},
		{"a folded line with a tab", "HTTP/1.1 200 OK\r\nX: 1\r\n\t2\r\n\r\n", "field name"},
		{"a line of spaces", "HTTP/1.1 200 OK\r\n  \r\n\r\n", "field name"},
		{"a space before the first field", "HTTP/1.1 200 OK\r\n X: 1\r\n\r\n", "field name"},
		{"a space before the colon", "HTTP/1.1 200 OK\r\nX : 1\r\n\r\n", "field name"},
		{"no colon", "HTTP/1.1 200 OK\r\nX\r\n\r\n", "field name"},
		{"no name", "HTTP/1.1 200 OK\r\n: 1\r\n\r\n", "field name"},
		{"a name that is no token", "HTTP/1.1 200 OK\r\nX(y): 1\r\n\r\n", "field name"},
		{"a name above ASCII", "HTTP/1.1 200 OK\r\nX\xe9: 1\r\n\r\n", "field name"},
		{"a NUL in a name", "HTTP/1.1 200 OK\r\nX\x00: 1\r\n\r\n", "field name"},
		{"a NUL in a value", "HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n", "control"},
		{"a DEL in a value", "HTTP/1.1 200 OK\r\nX: \x7f\r\n\r\n", "control"},
		{"an escape in a value", "HTTP/1.1 200 OK\r\nX: \x1b[2J\r\n\r\n", "control"},
		{"more fields than allowed", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X:\r\n", maxFields+1) + "\r\n", "too many"},
		{"as many fields as allowed", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X:\r\n", maxFields) + "\r\n", ""},

		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "several"},
		{"two lengths that agree", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n", "several"},
		{"a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5,5\r\n\r\n", "Content-Length"},
		{"a length with a sign", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", "Content-Length"},
		{"a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "Content-Length"},
		{"a length with a space inside", "HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\n", "Content-Length"},
		{"a hexadecimal length", "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n", "Content-Length"},
		{"an empty length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "Content-Length"},
		{"the longest length", "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n", ""},
		{"a length out of range", "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n", "Content-Length"},
		{"a length far out of range", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551621\r\n\r\n", "Content-Length"},

		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ""},
		{"chunked in another case", "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", ""},
		{"chunked with a length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "with Transfer-Encoding"},
		{"a length with chunked", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "with Transfer-Encoding"},
		{"chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "other than chunked"},
		{"a list that ends in chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "other than chunked"},
		{"identity", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", "other than chunked"},
		{"an empty coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n", "other than chunked"},
		{"chunked with a vertical tab", "HTTP/1.1 200 OK\r\nTransfer-Encoding: \vchunked\r\n\r\n", "control"},
		{"chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0"},
		{"the Kelvin sign is no k", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chun\u212Aed\r\n\r\n", "other than chunked"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, piece := range []int{1, 3, 1 << 20} {
				h, _, err := parseText(tc.head, piece)
				switch {
				case tc.want == "" && (err != nil || h == nil):
					t.Errorf("in pieces of %d: %v, want no error", piece, err)
				case tc.want != "" && (!errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tc.want)):
					t.Errorf("in pieces of %d: %v, want ErrMalformed with %q", piece, err, tc.want)
				}
			}
		})
	}
}

func TestHeadOptions(t *testing.T) {
	for _, tc := range []struct {
		name, version, fields string
		want                  bool
	}{
		{"HTTP/1.1 persists", "1.1", "", true},
		{"HTTP/1.0 does not", "1.0", "", false},
		{"unless it says so", "1.0", "Connection: Keep-Alive\r\n", true},
		{"close ends HTTP/1.1", "1.1", "connection: Close\r\n", false},
		{"close in a list", "1.1", "Connection: upgrade ,\tclose\r\n", false},
		{"close in a second line", "1.1", "Connection: x\r\nConnection: close\r\n", false},
		{"close wins", "1.0", "Connection: keep-alive, close\r\n", false},
		{"an option that contains close", "1.1", "Connection: closed\r\n", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, _, err := parseText(fmt.Sprintf("HTTP/%s 200 OK\r\n%s\r\n", tc.version, tc.fields), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if got := h.persistent(); got != tc.want {
				t.Errorf("persistent = %t, want %t", got, tc.want)
			}
		})
	}
}

func TestHeadKeepsNamesAndValuesAsReceived(t *testing.T) {
	const text = "HTTP/1.1 207 Multi\r\nx-Mixed: a  b \r\nX-MIXED:c\r\n\r\nbody"
	h, end, err := parseText(text, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := end, len(text)-len("body"); got != want {
		t.Errorf("head of %d bytes, want %d", got, want)
	}
	got := fmt.Sprintf("%d %q", h.status, h.fields)
	if want := `207 [{"x-Mixed" "a  b"} {"X-MIXED" "c"}]`; got != want {
		t.Errorf("head %s, want %s", got, want)
	}
}
