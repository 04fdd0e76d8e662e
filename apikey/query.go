package apikey

import (
	"fmt"
	"time"
)

// A Query asks for a page of one tenant's keys, newest first.
type Query struct {
	Tenant string
	Which  Which
	Limit  int // the most keys to return; must be positive

	// At most one of these takes effect, Before first, then After.
	Before ID  // the page that ends just before this key
	After  ID  // the page that starts just after this key
	Offset int // the number of keys to pass over from the newest
}

// Which says which of a tenant's keys are meant.
type Which uint8

// The keys that a Query may mean.
const (
	WhichLive  Which = iota // see Key.Live
	WhichEnded              // the others
	WhichAll
)

// A Page answers a Query.
type Page struct {
	Keys  []Key
	Total int  // of all keys that match, kept rather than counted
	Newer bool // there are keys before the first one
	Older bool // there are keys after the last one
}

// A Place is where an event stands in the audit log: a change has one revision and
// can have many events.
type Place struct {
	Revision uint64
	Ordinal  uint32
}

// String returns the place as text, such as "12.0".
func (p Place) String() string { return fmt.Sprintf("%d.%d", p.Revision, p.Ordinal) }

// An AuditQuery asks for events of the audit log, newest first.
type AuditQuery struct {
	Tenant string    // AnyTenant means all
	Key    ID        // zero means all
	Since  time.Time // events before it are left out; zero means none are
	Before Place     // only events before it; zero means all
	Limit  int       // the most events to return; must be positive
}
