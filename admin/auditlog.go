package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// ReadAudit reads events as GET /audit shows them, its answers one after the
// other or an event a line, and calls each with what names the change: place, time,
// actor, action, key or signing key, and tenant. Last uses, which are no events, are passed over.
func ReadAudit(r io.Reader, each func(apikey.Event) error) error {
	in := json.NewDecoder(r)
	number, found := 0, false
	for {
		var raw json.RawMessage
		err := in.Decode(&raw)
		if err == io.EOF && !found {
			return errEmptyLog
		}
		if err == io.EOF {
			return nil
		}
		found = true
		if err != nil {
			return fmt.Errorf("behind event %d: %w", number, err)
		}
		shown := make([]event, 1)
		if raw[0] == '[' {
			err = json.Unmarshal(raw, &shown)
		} else {
			err = json.Unmarshal(raw, &shown[0])
		}
		if err != nil {
			return fmt.Errorf("behind event %d: %w", number, err)
		}
		for _, s := range shown {
			number++
			if s.Action == actionUsed {
				continue
			}
			e, err := s.parse()
			if err == nil {
				err = each(e)
			}
			if err != nil {
				return fmt.Errorf("event %d: %w", number, err)
			}
		}
	}
}

// errEmptyLog reports a log of nothing, as a call that failed leaves it.
var errEmptyLog = errors.New("it is empty; a log without events is []")

// errNoEvent reports an object that is not one that GET /audit shows.
var errNoEvent = errors.New("not an event as GET /audit shows them: it needs revision, at, action and one of key_id and signing_key_id")

func (s *event) parse() (e apikey.Event, err error) {
	at, ok := wire.ParseTime(s.At)
	if !ok || s.Action == "" || s.Revision == 0 || (s.KeyID == "") == (s.Signing == "") {
		return e, errNoEvent
	}
	if s.KeyID != "" {
		if e.Key, err = apikey.ParseID(s.KeyID); err != nil {
			return e, errNoEvent
		}
	}
	e.Revision, e.At, e.Actor, e.RequestID = s.Revision, apikey.Instant(at), s.Actor, s.RequestID
	e.Action, e.Tenant, e.SigningKey = s.Action, s.Tenant, s.Signing
	if e.At.IsZero() { // less its nanoseconds
		return e, errNoEvent
	}
	return e, nil
}
