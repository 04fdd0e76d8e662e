package origin

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- Serve(l) }()
	defer func() { l.Close(); <-served }()
	base := "http://" + l.Addr().String()
	for _, tc := range []struct {
		target string
		body   int // of the request
		status int
		want   int // bytes of the answer
	}{
		{"/bytes/0", 0, 200, 0}, {"/bytes/1024", 0, 200, 1024}, {"/bytes/1048576", 0, 200, 1 << 20},
		{"/bytes/16", 200_000, 200, 16}, {"/bytes/1024", 0, 200, 1024}, {"/other", 0, 404, 0}, {"/bytes/-1", 0, 404, 0},
	} {
		req, _ := http.NewRequest("POST", base+tc.target, strings.NewReader(strings.Repeat("x", tc.body)))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != tc.status || len(body) != tc.want {
			t.Errorf("%s: %d and %d bytes, %v, want %d and %d", tc.target, res.StatusCode, len(body), err, tc.status, tc.want)
		}
	}
	res, err := http.Get(base + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	event := make([]byte, len("data: hello\n\n"))
	if _, err := io.ReadFull(res.Body, event); err != nil || string(event) != "data: hello\n\n" {
		t.Errorf("the stream begins with %q, %v", event, err)
	}
}
