package listen

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// headerBuffer is what is read ahead of a PROXY header. The whole of a version
// 1 header must fit in, which has at most 107 bytes.
const headerBuffer = 256

// errNoAddress reports a header that announces an address other than a TCP one.
var errNoAddress = errors.New("the PROXY header announces no TCP address")

// readHeader reads the PROXY header that the connection has to begin with and
// takes the client's address from it. "LOCAL" and "UNKNOWN" leave the peer's
// own: the proxy speaks for itself, as for a health check, or does not know.
func (c *conn) readHeader() error {
	c.ahead = bufio.NewReaderSize(c.Conn, headerBuffer)
	if err := awaitLine(c.ahead); err != nil {
		return fmt.Errorf("read PROXY header: %w", err)
	}
	header, err := proxyproto.Read(c.ahead)
	if err != nil {
		return fmt.Errorf("read PROXY header: %w", err)
	}
	if header.Command.IsLocal() {
		return nil
	}
	source, ok := header.SourceAddr.(*net.TCPAddr)
	if !ok {
		return errNoAddress
	}
	addr := source.AddrPort()
	c.remote = net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()))
	return nil
}

// awaitLine waits until all of a version 1 header is buffered, as far as it
// can still be one. The library demands that it come in one piece, which TCP
// does not promise. Version 2 is left to it: there its reads wait.
func awaitLine(r *bufio.Reader) error {
	const longest = 107
	for n := 1; n <= longest; n = r.Buffered() + 1 {
		if _, err := r.Peek(n); err != nil {
			return err
		}
		got, err := r.Peek(r.Buffered())
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(got, proxyproto.SIGV1[:min(len(got), len(proxyproto.SIGV1))]) {
			return nil
		}
		if bytes.IndexByte(got, '\n') >= 0 {
			return nil
		}
	}
	return nil
}
