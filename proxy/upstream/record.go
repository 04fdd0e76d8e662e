package upstream

import (
	"io"
	"net"
)

// recordHeader is the length of a TLS record's header, whose last two bytes are
// the length of what follows (RFC 8446, section 5.1).
const recordHeader = 5

// A recordConn is the connection below TLS. It follows the boundaries of the
// records that are read, because crypto/tls keeps a record's beginning to itself
// until the rest arrives, and that may be during somebody else's exchange.
type recordConn struct {
	net.Conn
	header int    // bytes of the present record's header read so far
	length uint16 // of the present record
	left   int    // bytes of the present record still to be read
	cut    bool   // the connection below TLS ended
}

// Read reads and follows.
func (c *recordConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.follow(p[:n])
	c.cut = c.cut || err == io.EOF
	return n, err
}

func (c *recordConn) follow(p []byte) {
	for len(p) > 0 {
		if c.left > 0 {
			n := min(c.left, len(p))
			c.left, p = c.left-n, p[n:]
			continue
		}
		c.length = c.length<<8 | uint16(p[0])
		p = p[1:]
		if c.header++; c.header == recordHeader {
			c.header, c.left = 0, int(c.length)
		}
	}
}

// whole reports whether all records read so far were read to their end.
func (c *recordConn) whole() bool { return c.header == 0 && c.left == 0 }
