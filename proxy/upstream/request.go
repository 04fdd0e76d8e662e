package upstream

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// A Request is what to send, and the exchange it takes part in. Its zero value,
// with Method and Head, is a request without a body and without limits. It is
// for one exchange at a time; Reset readies it for another. It must not be
// copied.
type Request struct {
	Method string // as in Head; decides on repeating and on the response's length

	// Head is the complete head as it goes out, through its empty line, with a
	// Content-Length or "Transfer-Encoding: chunked" that matches Length.
	Head []byte

	// Body is read to Length, or to its end if Length is -1, in another goroutine,
	// which has stopped when Do returns an error or Response.Close returns. A Body
	// of known length with a method Len, like a bytes.Reader's, says how much of it
	// can be read without waiting: that is read by Do itself, and sent together with
	// the head, up to some KiB. A body that ends early or fails leaves the upstream
	// with a request that is visibly incomplete. Nil means no body.
	Body io.Reader

	// Length of Body in bytes. -1 means unknown: it is sent in chunks. Zero means
	// that there is none.
	Length int64

	// StopBody makes a Read of Body that is waiting return, and may be called
	// while none is. It is called when Body has begun to be read in the other
	// goroutine and is no longer wanted, at most once in an exchange. Nil means
	// that Body never waits long.
	StopBody func()

	HeadTimeout time.Duration // from the last byte of the request until the response's head; zero means no limit
	BodyIdle    time.Duration // the longest wait for a piece of either body to move; zero means no limit

	Retries int  // how often it may be sent again where that is safe
	Upgrade bool // Head asks for an upgrade: 101 is a final response
	Close   bool // Head has the connection option "close"

	// OnInterim is called with each 1xx response but 101. The fields are
	// borrowed for the call. Nil means that they are dropped.
	OnInterim func(status int, fields []Field)

	abort abort
	res   Response
	up    *upload // nil if Body is not being sent
	first []byte  // what the first write sends: Head, and what there is of the body
	begun int64   // how much of the body is in first
	send  *buffer // the memory behind first; nil if it is Head
}

// Abort ends the exchange: it closes the connection, and Do or a method of the
// Response that is waiting returns ErrAborted soon. It may be called by any
// goroutine, at any moment between Reset and the next: before Do it makes Do
// fail, and after Response.Close it does nothing.
func (r *Request) Abort() { r.abort.call() }

// Reset makes r a new Request, but keeps memory for the next exchange. It must
// not be called while Do runs, before Response.Close, or while Abort may still
// be called for the exchange before.
func (r *Request) Reset() {
	r.Method, r.Head, r.Body, r.Length, r.StopBody = "", nil, nil, 0, nil
	r.HeadTimeout, r.BodyIdle, r.Retries = 0, 0, 0
	r.Upgrade, r.Close, r.OnInterim = false, false, nil
	r.abort.reset()
}

// hasBody reports whether there are bytes after the head.
func (r *Request) hasBody() bool { return r.Body != nil && r.Length != 0 }

// hasRest reports whether there are bytes after what the first write sends.
func (r *Request) hasRest() bool { return r.hasBody() && r.begun != r.Length }

// prepare checks the request and gathers what the first write sends.
func (r *Request) prepare(b *buffers) error {
	switch {
	case r.Method == "" || !bytes.HasSuffix(r.Head, []byte("\r\n\r\n")):
		return &Error{Kind: ErrRequest, Err: errors.New("head is not complete")}
	case r.Method == "CONNECT": // of whose responses it is not known here where they end
		return &Error{Kind: ErrRequest, Err: errors.New("CONNECT is not for a gateway")}
	case r.Length < -1 || r.Length != 0 && r.Body == nil:
		return &Error{Kind: ErrRequest, Err: errors.New("length without a body")}
	case r.res.conn != nil:
		return &Error{Kind: ErrRequest, Err: errors.New("response before is not closed")}
	}
	r.first, r.begun, r.up = r.Head, 0, nil
	l, ok := r.Body.(interface{ Len() int })
	if !ok || r.Length <= 0 || l.Len() == 0 || len(r.Head) >= sendBuffer {
		return nil
	}
	r.send = b.getSend()
	n := copy(r.send.b, r.Head)
	there := r.send.b[n:]
	if int64(len(there)) > r.Length {
		there = there[:r.Length]
	}
	got := 0
	for got < len(there) && l.Len() > 0 {
		more, err := readPiece(r.Body, there[got:])
		if err != nil {
			r.forget(b)
			return &Error{Kind: ErrRequestBody, Err: bodyEnd(err)}
		}
		got += more
	}
	r.first, r.begun = r.send.b[:n+got], int64(got)
	return nil
}

// forget gives back what prepare took.
func (r *Request) forget(b *buffers) {
	b.putSend(r.send)
	r.first, r.send = nil, nil
}

// bodyEnd returns the error of a body that ended before its length.
func bodyEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
