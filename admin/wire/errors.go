package wire

import (
	"errors"
	"fmt"
	"syscall"

	"latchkey/apikey"
)

// An Error is a failed call: its HTTP status, what to tell the caller, and the
// field it is about where there is one. It holds nothing that must not be told.
type Error struct {
	Status  int
	Field   string // in the dialect's own name; empty if it is about no field
	Message string

	// Invalid says that the call was well-formed and a value in it is one the
	// field cannot have, which some dialects tell apart. More are the further
	// values of that kind.
	Invalid bool
	More    []*Error

	cause error
}

// Error returns the message with the field in front.
func (e *Error) Error() string {
	if e.Field == "" {
		return e.Message
	}
	return e.Field + " " + e.Message
}

// Unwrap returns the fault behind a status of 500 and above.
func (e *Error) Unwrap() error { return e.cause }

// BadRequest reports a malformed field: unknown, there twice, or of the wrong
// type.
func BadRequest(field, message string) *Error {
	return &Error{Status: 400, Field: field, Message: message}
}

// Invalid reports a value that a field cannot have.
func Invalid(field, message string) *Error {
	return &Error{Status: 400, Field: field, Message: message, Invalid: true}
}

// Forbidden reports a call the operator may not make.
func Forbidden(message string) *Error { return &Error{Status: 403, Message: message} }

// NotFound reports a key that does not exist, or that the operator may not know
// of: the two must look alike.
func NotFound() *Error { return &Error{Status: 404, Message: "no such key"} }

// Unavailable reports that the call cannot be decided now, for a reason that is
// not the caller's: with 507 where that is a full disk, else with 503. The cause is for
// the log and must hold nothing secret.
func Unavailable(message string, cause error) *Error {
	status := 503
	if errors.Is(cause, syscall.ENOSPC) || errors.Is(cause, syscall.EDQUOT) {
		status = 507
	}
	return &Error{Status: status, Message: message, cause: cause}
}

// AsError gives an error its status. names holds the dialect's own names for
// the fields of a key. An error it does not know is a fault of ours, and its
// text stays inside.
func AsError(err error, names map[apikey.Field]string) *Error {
	var own *Error
	var field *apikey.FieldError
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &field):
		name := names[field.Field]
		if name == "" {
			name = string(field.Field)
		}
		return Invalid(name, field.Problem)
	case errors.Is(err, apikey.ErrNotFound):
		return NotFound()
	case errors.Is(err, apikey.ErrNotLive):
		return &Error{Status: 400, Message: "the key is no longer active and cannot be changed"}
	case errors.Is(err, apikey.ErrImporting), errors.Is(err, apikey.ErrBackingUp), errors.Is(err, apikey.ErrSigns):
		return &Error{Status: 409, Message: err.Error()}
	case errors.Is(err, apikey.ErrStoreFull):
		return &Error{Status: 507, Message: "the key store has no disk space left; nothing was changed", cause: err}
	}
	return Unavailable("the key store cannot answer; try again", err)
}

// Translate is AsError for where there may be no error.
func Translate(err error, names map[apikey.Field]string) error {
	if err == nil {
		return nil
	}
	return AsError(err, names)
}

// errorf reports a malformed call that is about no field in particular.
func errorf(status int, format string, args ...any) *Error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...)}
}
