//go:build unix

package proxy

import (
	"io"
	"syscall"
)

// openRaw readies the socket for firstBytes.
func (c *clientConn) openRaw() {
	if c.plain == nil {
		return
	}
	if raw, err := c.plain.SyscallConn(); err == nil { // fails on a closed connection; so will reading
		c.raw, c.tryRead = raw, c.readSocket
	}
}

// readSocket reads from a socket that may have nothing to read, and reports whether
// serving goes on elsewhere. It is called by the poller's RawConn.Read, again with each
// news of the socket until it reports true.
//
// A call of the system is a large part of what a request costs, and net makes one that
// reads in vain before it waits. Here requests without a body are served between two
// waits of one RawConn.Read, which loses no news between them, so that each read comes
// after news. Until this returns true the connection's own Read would wait for ever,
// and so would its Close.
func (c *clientConn) readSocket(fd uintptr) bool {
	in := c.proxy.inputs.get()
	for {
		n, err := syscall.Read(int(fd), in)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			c.proxy.inputs.put(in)
			return false
		case err == nil && n == 0:
			err = io.EOF
		}
		c.in, c.w, c.readErr = in, max(n, 0), err
		break
	}
	c.wake()
	if !c.serveArrived() {
		return true
	}
	c.releaseInput()
	return false
}
