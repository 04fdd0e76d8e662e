package listen

import (
	"bufio"
	"net"
	"net/netip"
	"sync/atomic"
)

// A conn is a connection that gives its place back when it is closed.
type conn struct {
	net.Conn
	remote   net.Addr // the announced client's, or the socket's own
	listener *Listener

	announced bool          // a PROXY header is due from a trusted proxy, or was read
	ahead     *bufio.Reader // what came with the header and is not read yet; nil if nothing is
	place     netip.Prefix  // what it counts to at Caps; zero for none
	closed    atomic.Bool
}

// RemoteAddr returns the client's address: what a trusted proxy announced, or
// else the peer's.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// NetConn returns the socket. Bytes that came with a PROXY header are not on
// it.
func (c *conn) NetConn() net.Conn { return c.Conn }

// Read reads what came with the PROXY header before what is still on the
// socket. The buffer goes once it is empty: it would be held for as long as
// the connection is.
func (c *conn) Read(p []byte) (int, error) {
	if c.ahead == nil {
		return c.Conn.Read(p)
	}
	if c.ahead.Buffered() == 0 {
		c.ahead = nil
		return c.Conn.Read(p)
	}
	return c.ahead.Read(p[:min(len(p), c.ahead.Buffered())])
}

// Buffered returns how many bytes came with the PROXY header and are not read yet.
func (c *conn) Buffered() int {
	if c.ahead == nil {
		return 0
	}
	return c.ahead.Buffered()
}

// Close closes the socket and, the first time, gives the place back.
func (c *conn) Close() error {
	err := c.Conn.Close()
	if !c.closed.Swap(true) {
		c.listener.options.Caps.leave(c.place)
		c.listener.options.Counters.Open.Add(-1)
	}
	return err
}

// claim takes a place for the connection's address and reports whether there
// was one. Trusted proxies need none: their connections are many clients'.
func (c *conn) claim(o *Options) bool {
	addr := addrOf(c.remote)
	if contains(o.Trusted, addr) {
		return true
	}
	place, ok := o.Caps.claim(addr)
	c.place = place
	return ok
}

// Peer returns the address at the other end of c's socket. Where a trusted
// proxy announced the client, that is the proxy's, and c.RemoteAddr the
// client's; else they are the same. It understands the connections of a
// Listener, TLS or not, and takes any other for its own socket.
func Peer(c net.Conn) net.Addr {
	for {
		outer, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c.RemoteAddr()
		}
		c = outer.NetConn()
	}
}
