package proxy

import (
	"testing"

	"latchkey/proxy/upstream"
)

// TestABodyUnderWayIsLeftToItsUpload: an answer of the gateway's own in place of
// one that broke off early does not read the body that the upload is reading, and
// the connection ends with it.
func TestABodyUnderWayIsLeftToItsUpload(t *testing.T) {
	p := inMemory(t, newRecorder().connect, nil)
	set := p.current.Load()
	c := &clientConn{Conn: &memoryClient{}, proxy: p, set: set, in: []byte("hello"), w: len("hello")}
	c.reads.set, c.writes.set = c.SetReadDeadline, c.SetWriteDeadline
	x := &c.exchange
	x.proxy, x.conn = p, c
	x.reset()
	x.route, x.head = set.Routes[0], head{method: []byte("POST"), minor: 1, length: 5}
	x.body.begin(x)
	x.brokenOff(&upstream.Error{Kind: upstream.ErrMalformed}, false)
	if x.status != 502 || x.keep || c.r != 0 {
		t.Errorf("answered %d, keeps the connection: %t, %d bytes of the body taken; want 502, false and none", x.status, x.keep, c.r)
	}
}
