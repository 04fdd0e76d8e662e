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

// readSocket reads from a socket that may have nothing to read, and reports whether it
// had.
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
		return true
	}
}
