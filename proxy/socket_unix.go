//go:build unix

package proxy

import (
	"io"
	"syscall"

	"latchkey/proxy/rawsock"
)

// openRaw readies the socket, and for firstBytes where there is no TLS on it.
func (c *clientConn) openRaw() {
	if c.socket == nil {
		return
	}
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return // it is closed; reading will fail as well
	}
	_ = raw.Control(rawsock.Prepare) // fails for the same reason
	if c.plain != nil {
		c.raw, c.tryRead, c.tryWrite = raw, c.readSocket, c.writeSocket
	}
}

// readSocket reads from a socket that may have nothing to read, and reports whether
// serving goes on elsewhere. It is called by the poller's RawConn.Read, again with each
// news of the socket until it reports true.
//
// A call of the system is a large part of what a request costs, and net makes one that
// reads in vain before it waits. Here requests without a body are served between two
// waits of one RawConn.Read, which loses no news between them, so that each read comes
// after news. One piece of news can be of more than one read takes, or of the client's
// end behind its last request: then there is another read before the wait. Until this
// returns true the connection's own Read would wait for ever, and so would its Close.
func (c *clientConn) readSocket(fd uintptr) bool {
	for {
		in := c.proxy.inputs.get()
		n, more, err := rawsock.ReadMore(fd, in)
		switch {
		case err == syscall.EAGAIN:
			c.proxy.inputs.put(in)
			return false
		case err == nil && n == 0:
			err = io.EOF
		}
		c.in, c.w, c.readErr = in, n, err
		c.wake()
		if !c.serveArrived() {
			return true
		}
		c.releaseInput()
		if !more {
			return false
		}
	}
}

// send writes to the client.
func (c *clientConn) send(p []byte) (int, error) {
	if c.raw == nil {
		return c.Conn.Write(p)
	}
	c.unsent = p
	_ = c.raw.Write(c.tryWrite) // what keeps it from writing, the Write of what is left meets
	n := len(p) - len(c.unsent)
	c.unsent = nil
	if n < len(p) {
		more, err := c.Conn.Write(p[n:])
		return n + more, err
	}
	return n, nil
}

// writeSocket writes what the socket takes at once.
func (c *clientConn) writeSocket(fd uintptr) bool {
	n, _ := rawsock.Write(fd, c.unsent)
	c.unsent = c.unsent[n:]
	return true
}

// arrived reads what the socket has, and does not wait. What keeps it from reading is
// left to the next read to meet.
func (c *clientConn) arrived(p []byte) (n int) {
	if c.raw != nil && len(p) > 0 {
		_ = c.raw.Control(func(fd uintptr) { n, _ = rawsock.Read(fd, p) })
	}
	return n
}
