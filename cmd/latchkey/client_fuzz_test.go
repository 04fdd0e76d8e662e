package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestARefusalSaysHowLongToWait shows the Retry-After of an address that has failed too often.
func TestARefusalSaysHowLongToWait(t *testing.T) {
	err := (&client{server: "http://h"}).refusal(&http.Response{StatusCode: 429, Header: http.Header{"Retry-After": {"37"}},
		Body: io.NopCloser(strings.NewReader(`{"detail": "too many failed authentications from this address; wait"}`))})
	if want := "the admin plane answered 429: too many failed authentications from this address; wait 37 seconds"; err.Error() != want {
		t.Errorf("shown is %q, want %q", err, want)
	}
}

// FuzzRefusal holds what is shown of an answer to what a terminal may be shown, and to
// what the answer says: the reason is there, whichever dialect gives it.
func FuzzRefusal(f *testing.F) {
	for _, body := range []string{"", "{}", `{"error":{"message":"no such key"}}`, `{"message":"no"}`, `{"title":"Unauthorized","detail":"the token is not known"}`, `{"message":"a\nb"}`, `{"detail":"\u001b[2J\u202e"}`,
		`{"message":7}`, `{"type":"urn:latchkey:problem:no_route","detail":"d"}`, "<html>", "\xff", `{"error":"text","message":"m"}`, `{"message":"m","detail":"d","error":{"message":"e"}}`} {
		f.Add(400, body)
	}
	f.Add(404, "")
	f.Fuzz(func(t *testing.T, status int, body string) {
		err := (&client{server: "http://h"}).refusal(&http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))})
		call := new(callError)
		if !errors.As(err, &call) {
			if !strings.HasPrefix(err.Error(), "http://h ") || !strings.Contains(err.Error(), " answered "+strconv.Itoa(status)) || !strings.HasSuffix(err.Error(), "see --server") {
				t.Fatalf("%d %q is shown as %v", status, body, err)
			}
		} else if call.status != status || !strings.HasPrefix(err.Error(), "the admin plane answered "+strconv.Itoa(status)+": ") {
			t.Fatalf("%d %q is shown as %v", status, body, err)
		}
		for _, r := range err.Error() {
			if r != '\n' && (!unicode.IsPrint(r) || r == utf8.RuneError && !utf8.ValidString(err.Error())) {
				t.Errorf("%q is shown as %q", body, err)
			}
		}
		var fields map[string]any
		if len(body) > 64<<10 || json.Unmarshal([]byte(body), &fields) != nil || len(fields) != 1 {
			return
		}
		if reason, ok := fields["detail"].(string); ok && reason != "" && strings.IndexFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
			if !strings.HasSuffix(err.Error(), ": "+reason) || !call.foreign {
				t.Errorf("%q is shown as %q", body, err)
			}
		}
	})
}
