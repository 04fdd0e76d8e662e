package admin

import (
	"crypto/tls"
	"io"
	"net"
)

// A watchedConn remembers that the client has said it sends no more, by which
// wire.Call tells a body that was cut short.
type watchedConn struct {
	net.Conn
	ended bool // read and written by the goroutine that reads the connection
}

// Read reads from the client.
func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == io.EOF {
		c.ended = true
	}
	return n, err
}

// AtEnd reports whether the connection was read to its end.
func (c *watchedConn) AtEnd() bool { return c.ended }

// A watchedTLS is a watchedConn that fasthttp recognises as one of TLS.
type watchedTLS struct {
	watchedConn
	tls *tls.Conn
}

// Handshake passes the call on.
func (c *watchedTLS) Handshake() error { return c.tls.Handshake() }

// ConnectionState passes the call on.
func (c *watchedTLS) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// A watchedListener watches the connections of a listener.
type watchedListener struct{ net.Listener }

// Accept waits for a connection.
func (l watchedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if t, ok := c.(*tls.Conn); ok {
		return &watchedTLS{watchedConn{Conn: c}, t}, nil
	}
	return &watchedConn{Conn: c}, nil
}
