//go:build !race

package proxy

import (
	"strings"
	"testing"
)

// TestARequestDoesNotAllocate holds the whole path of an admitted request, from
// the client's socket to the upstream's and back, to no allocation. The key
// cache hands over a buffer of its accesses now and then, which is less than one
// in a request.
func TestARequestDoesNotAllocate(t *testing.T) {
	addr, key := startLean(t, []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n"+strings.Repeat("x", 1024)))
	c := newLeanClient(t, addr, key)
	if n := testing.AllocsPerRun(2000, func() {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
	}); n >= 1 {
		t.Errorf("a request allocates %v times", n)
	}
}
