package proxy

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResponseHeadersAreEdited(t *testing.T) {
	h := start(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X-Edit-Set"] = []string{"theirs", "theirs too"}
		w.Header()["X_edit_set"] = []string{"theirs"}
		w.Header()["X-Edit-Removed"] = []string{"a", "b"}
		w.Header()["X-Edit-Other"] = []string{"b", "a"}
		w.Header()["Link"] = []string{"</early>"}
		w.WriteHeader(103)
		io.WriteString(w, "body")
	}, func(o *Options) {
		o.Routes[0].Public = true
		o.Routes[0].ResponseEdits = Edits{Set: map[string]string{"X-Edit-Set": "ours"}, Remove: []string{"X-Edit-Removed", "Server"}}
	})
	for _, method := range []string{"GET", "HEAD"} {
		t.Run(method, func(t *testing.T) {
			res, _ := h.raw(method + " / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			want := http.Header{"X-Edit-Set": {"ours"}, "X-Edit-Other": {"b", "a"}}
			if res.StatusCode == 103 {
				want = http.Header{"X-Edit-Other": {"b", "a"}}
			}
			if diff := cmp.Diff(want, edited(res.Header)); diff != "" {
				t.Errorf("fields of the %d (-want +got):\n%s", res.StatusCode, diff)
			}
		})
	}
	t.Run("the answer after it", func(t *testing.T) {
		text := h.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		_, final, ok := strings.Cut(text, "\r\n\r\nHTTP/1.1 200 OK\r\n")
		if !ok || !strings.HasPrefix(text, "HTTP/1.1 103 Early Hints\r\n") {
			t.Fatalf("answer %q, want a 103 and a 200", text)
		}
		if !strings.Contains(final, "\r\nX-Edit-Set: ours\r\n") || strings.Contains(final, "theirs") || strings.Contains(text, "Removed") {
			t.Errorf("answer %q", text)
		}
	})
}

// TestA101IsEdited has the upstream switch protocols, whose head is one like any
// other.
func TestA101IsEdited(t *testing.T) {
	h := start(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Edit-Set: theirs\r\nX-Edit-Removed: a\r\n\r\n")
	}, func(o *Options) {
		o.Routes[0].Public = true
		o.Routes[0].ResponseEdits = Edits{Set: map[string]string{"X-Edit-Set": "ours"}, Remove: []string{"X-Edit-Removed"}}
	})
	text := h.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if !strings.HasPrefix(text, "HTTP/1.1 101 ") || strings.Count(text, "X-Edit") != 1 || !strings.Contains(text, "\r\nX-Edit-Set: ours\r\n") {
		t.Errorf("answer %q, want a 101 with X-Edit-Set: ours alone", text)
	}
}

// exchange sends bytes and returns all that comes back until the connection
// ends.
func (h *harness) exchange(request string) string {
	h.t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		h.t.Fatal(err)
	}
	all, err := io.ReadAll(c)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(all)
}
