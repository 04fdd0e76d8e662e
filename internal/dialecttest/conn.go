package dialecttest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A Conn is a connection to a plane that stays open from call to call, as far as
// the plane lets it. It is for one goroutine.
type Conn struct {
	plane *Plane
	conn  net.Conn
	r     *bufio.Reader

	Dials int // how often it had to be opened
}

// Conn returns a connection, which is opened by the first call.
func (p *Plane) Conn() *Conn { return &Conn{plane: p} }

// Close closes the connection.
func (c *Conn) Close() {
	if c.conn != nil {
		_ = c.conn.Close() // nothing more is wanted of it
		c.conn = nil
	}
}

// Call sends a call byte for byte and returns the answer, which must come within
// the time. A plane that answers and closes before it has read the whole call is
// no error.
func (c *Conn) Call(method string, raw []byte, within time.Duration) (*http.Response, []byte, error) {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.plane.Addr)
		if err != nil {
			return nil, nil, err
		}
		c.conn, c.r = conn, bufio.NewReader(conn)
		c.Dials++
	}
	if err := c.conn.SetDeadline(time.Now().Add(within)); err != nil {
		return nil, nil, err
	}
	sent := make(chan error, 1)
	go func(conn net.Conn) {
		_, err := conn.Write(raw)
		sent <- err
	}(c.conn)
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.Close()
		return nil, nil, fmt.Errorf("read answer: %w", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.Close()
		return nil, nil, fmt.Errorf("read body of answer %d: %w", res.StatusCode, err)
	}
	if res.Close {
		c.Close()
	}
	if err := <-sent; err != nil && !res.Close {
		c.Close()
		return nil, nil, fmt.Errorf("send call: %w", err)
	}
	return res, body, nil
}

// Written returns how many bytes the store has written to its log so far. A call
// that changes nothing leaves it as it was.
func (p *Plane) Written() int64 { return p.written.Load() }

// A loggedFile counts what is written to it.
type loggedFile struct {
	vfs.File
	written *atomic.Int64
}

// Write writes and counts.
func (f loggedFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	f.written.Add(int64(n))
	return n, err
}
