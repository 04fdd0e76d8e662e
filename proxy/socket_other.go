//go:build !unix

package proxy

// openRaw does nothing: here idle connections keep their buffers.
func (c *clientConn) openRaw() {}
