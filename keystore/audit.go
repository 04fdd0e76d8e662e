package keystore

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"latchkey/apikey"
)

// maxOlder is how many changes in a row may be older than asked for before Audit
// takes it that all further ones are. The log is in the order of commits, and times
// run otherwise where a clock was set back, or a change took long, such as an import of
// many keys, which has the time of its beginning.
const maxOlder = 1000

// Audit returns events of the audit log, newest first. It reads those it
// returns and few others, whatever the length of the log.
func (s *Store) Audit(q apikey.AuditQuery) ([]apikey.Event, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()
	prefix := auditPrefix(q)
	upper := after(prefix)
	if q.Before != (apikey.Place{}) {
		upper = append(append([]byte(nil), prefix...), auditKey(q.Before.Revision, q.Before.Ordinal)[1:]...)
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	events := []apikey.Event{}
	older := 0
	for more := it.Last(); more && len(events) < q.Limit && older < maxOlder; {
		e, err := s.event(it.Key()[len(prefix):])
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		if e.At.Before(q.Since) { // and so are all of its change
			older++
			more = it.SeekLT(append(prefix[:len(prefix):len(prefix)], auditKey(e.Revision, 0)[1:]...))
			continue
		}
		older = 0
		if q.Tenant == apikey.AnyTenant || e.Tenant == q.Tenant {
			events = append(events, e)
		}
		more = it.Prev()
	}
	if err := it.Close(); err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	return events, nil
}

// auditPrefix returns what the rows begin with by which the events are found.
// The revision follows it in all of them.
func auditPrefix(q apikey.AuditQuery) []byte {
	switch {
	case !q.Key.IsZero():
		return append([]byte{familyKeyAudit}, q.Key[:]...)
	case q.Tenant != apikey.AnyTenant:
		return append(append([]byte{familyTenantAudit}, q.Tenant...), 0)
	}
	return []byte{familyAudit}
}

// event reads the event at a place, which is its revision and ordinal.
func (s *Store) event(place []byte) (apikey.Event, error) {
	row, err := get(s.db, append([]byte{familyAudit}, place...))
	if err != nil {
		return apikey.Event{}, indexed(err)
	}
	defer row.close()
	if len(place) != placeLength {
		return apikey.Event{}, fmt.Errorf("read audit log: %w", errCorrupt)
	}
	return decodeEvent(row.value, placeAtEnd(place))
}
