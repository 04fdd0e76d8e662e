package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// names is what the host name of a target has been resolved to.
type names struct {
	hosts []string // addresses, sorted; empty until the first success
	last  time.Time
}

// Resolve looks up the host names whose turn it is at the given time. An address
// that is new gets connections of its own, and one that is gone gets no more
// requests: its exchanges end as they would, and those of other addresses do not
// notice. A name that cannot be resolved keeps its addresses, and the errors
// are returned. It is one pass: call it at least as often as
// Options.ResolveEach. Before the first pass names are resolved anew for each
// connection.
func (u *Upstream) Resolve(ctx context.Context, now time.Time) error {
	u.resolving.Lock()
	defer u.resolving.Unlock()
	var problems []error
	found := map[string][]string{}
	s := u.roster.Load()
	for _, spec := range s.specs {
		if _, err := netip.ParseAddr(spec.host); err == nil {
			continue
		}
		if last, known := u.resolvedLast(spec.URL); known && now.Sub(last) < s.resolveEach {
			continue
		}
		hosts, err := lookup(ctx, s.lookup, spec.host)
		if err != nil {
			problems = append(problems, fmt.Errorf("resolve %s: %w", spec.URL, err))
			continue
		}
		found[spec.URL] = hosts
	}
	if err := u.resolved(found, now); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// resolvedLast returns when a target's name was resolved last, if it was.
func (u *Upstream) resolvedLast(url string) (last time.Time, known bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.names[url]
	if n == nil {
		return time.Time{}, false
	}
	return n.last, true
}

func lookup(ctx context.Context, f lookupFunc, host string) ([]string, error) {
	addresses, err := f(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(addresses) == 0 {
		return nil, errors.New("no addresses")
	}
	hosts := make([]string, len(addresses))
	for i, a := range addresses {
		hosts[i] = a.Unmap().String()
	}
	slices.Sort(hosts)
	return slices.Compact(hosts), nil
}

// resolved puts new addresses into service.
func (u *Upstream) resolved(found map[string][]string, now time.Time) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	changed := false
	for name, hosts := range found {
		n := u.names[name]
		if n == nil {
			n = &names{}
			u.names[name] = n
		}
		changed = changed || !slices.Equal(n.hosts, hosts)
		n.hosts, n.last = hosts, now
	}
	if !changed || u.closed {
		return nil
	}
	return u.replace(u.options, u.roster.Load().specs)
}
