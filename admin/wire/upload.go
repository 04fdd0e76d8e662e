package wire

import (
	"bytes"
	"io"
	"time"
)

// An upload is a call's body as it comes in.
type upload struct {
	call   *Call
	stream io.Reader
	left   int           // bytes that are still to come; below zero if that was not announced
	idle   time.Duration // the longest wait for a piece; zero leaves it to the server's deadline
}

// Upload returns a reader of the call's body. It gives the client the idle time
// for each piece, and fails where the body ends before its end.
func (c *Call) Upload(idle time.Duration) io.Reader {
	stream := c.RequestBodyStream()
	if stream == nil {
		return bytes.NewReader(c.PostBody())
	}
	return &upload{c, stream, c.Request.Header.ContentLength(), idle}
}

// Read reads the next piece.
//
// fasthttp gives the same io.EOF for a chunked body that is whole and for one
// that ends between two chunks. But it reads to the end of the connection only
// in search of a chunk that is missing.
func (u *upload) Read(b []byte) (int, error) {
	if u.idle > 0 {
		if err := u.call.SetReadDeadline(time.Now().Add(u.idle)); err != nil {
			return 0, err
		}
	}
	n, err := u.stream.Read(b)
	u.left -= n
	if c, ok := u.call.Conn().(interface{ AtEnd() bool }); err == io.EOF && (u.left > 0 || ok && c.AtEnd()) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
