package upstream

import (
	"errors"
	"io"
	"net"
)

// The kinds of errors. Each error of Do and of a Response matches exactly one
// of them with errors.Is, and is an *Error.
var (
	// ErrTimeout reports that the upstream did not take or send the next piece
	// in time.
	ErrTimeout = errors.New("upstream did not answer in time")

	// ErrUnavailable reports that no connection to the upstream could be made,
	// or that no target is in service. Nothing can have been processed, unless
	// Error.Processed says that an attempt before this one may have been.
	ErrUnavailable = errors.New("upstream cannot be reached")

	// ErrBusy reports that all connections allowed were in use for as long as
	// the request could wait. Nothing can have been processed.
	ErrBusy = errors.New("upstream has no connection free")

	// ErrMalformed reports a response that breaks RFC 9112, or one larger than
	// allowed.
	ErrMalformed = errors.New("upstream answered what is not HTTP")

	// ErrTruncated reports that the upstream broke off before the end of its
	// response, or before its beginning.
	ErrTruncated = errors.New("upstream broke off the exchange")

	// ErrRequestBody reports that the request's body could not be read to its
	// end. What the body's reader said is wrapped in it.
	ErrRequestBody = errors.New("request body broke off")

	// ErrAborted reports that Request.Abort was called.
	ErrAborted = errors.New("exchange was aborted")

	// ErrRequest reports a Request that cannot be sent: a fault of the caller.
	ErrRequest = errors.New("request cannot be sent")
)

// An Error says how an exchange failed.
type Error struct {
	Kind      error  // one of the package's error values
	Target    string // as configured; empty if none was chosen
	Processed bool   // whether the upstream may have processed the request
	Err       error  // the cause; nil if there is nothing to add
}

// Error describes the failure. It holds nothing of what was exchanged.
func (e *Error) Error() string {
	s := e.Kind.Error()
	if e.Target != "" {
		s = e.Target + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// Processed reports whether the request of a failed exchange may have been
// processed. It is true of errors that are not of this package.
func Processed(err error) bool {
	var e *Error
	return !errors.As(err, &e) || e.Processed
}

// readError returns what the failure of a read says of the response.
func readError(err error) *Error {
	switch {
	case isTimeout(err):
		return &Error{Kind: ErrTimeout, Err: err}
	case errors.Is(err, io.EOF):
		return &Error{Kind: ErrTruncated} // there is nothing to add
	}
	return &Error{Kind: ErrTruncated, Err: err}
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}

// malformed returns an ErrMalformed with its reason, which quotes nothing of
// the response.
func malformed(reason string) *Error {
	return &Error{Kind: ErrMalformed, Err: errors.New(reason)}
}
