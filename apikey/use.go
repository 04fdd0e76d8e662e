package apikey

import (
	"net/netip"
	"time"
)

// A Use says when, from where and for which route a key was last admitted. The
// zero Use means never.
type Use struct {
	Key     ID
	At      time.Time
	Address netip.Addr // invalid if it is unknown
	Route   string     // the route's name in the configuration
}
