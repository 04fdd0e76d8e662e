package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// Sockets is what a process may listen on: inherited sockets, and new ones.
// The zero value has inherited none.
type Sockets struct {
	inherited []*inherited
}

// A Place is somewhere to listen.
type Place struct {
	Name    string // that an inherited socket may bear; several places may share it
	Address string // host:port
}

// OpenError reports a place that cannot be listened on.
type OpenError struct {
	Place int // its index
	Err   error
}

// Error says what stands in the way, not where: the caller knows the place by
// a better name.
func (e *OpenError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *OpenError) Unwrap() error { return e.Err }

// Open returns a listener for each place: the inherited socket with its
// address, else one with its name, else a new one. A socket that bears the
// name of some place is for no other, so that what was meant for the admin
// plane does not become the data plane's. An inherited socket that is left over
// is an error: somebody would go on connecting to it and wait. If a place
// cannot be opened, the error is an *OpenError. With an error nothing is left
// open.
func (s *Sockets) Open(places []Place) ([]net.Listener, error) {
	opened := make([]net.Listener, len(places))
	fits := []func(*inherited, Place) bool{
		func(i *inherited, p Place) bool {
			named := slices.ContainsFunc(places, func(p Place) bool { return p.Name == i.name })
			return (!named || p.Name == i.name) && sameAddress(i.listener.Addr(), p.Address)
		},
		func(i *inherited, p Place) bool { return i.name == p.Name },
	}
	for _, fit := range fits {
		for n, p := range places {
			at := slices.IndexFunc(s.inherited, func(i *inherited) bool { return fit(i, p) })
			if opened[n] == nil && at >= 0 {
				opened[n] = &inheritedListener{s.inherited[at].listener}
				s.inherited = slices.Delete(s.inherited, at, at+1)
			}
		}
	}
	err := s.leftOver()
	for n, p := range places {
		if opened[n] != nil || err != nil {
			continue
		}
		var config net.ListenConfig // its zero value turns TCP keep-alive on
		l, e := config.Listen(context.Background(), "tcp", p.Address)
		if e != nil {
			err = &OpenError{n, e}
			continue
		}
		opened[n] = l
	}
	if err != nil {
		for _, l := range opened {
			if l != nil {
				_ = l.Close()
			}
		}
		s.Close()
		return nil, err
	}
	return opened, nil
}

// An inheritedListener is one whose socket stays open when it is closed, for
// whoever passed it on.
type inheritedListener struct{ net.Listener }

// leftOver names the inherited sockets that no place is for.
func (s *Sockets) leftOver() error {
	var errs []error
	for _, i := range s.inherited {
		errs = append(errs, fmt.Errorf("%s is for nothing in the configuration; give it the address or the name of a listener, or do not pass it on", i))
	}
	return errors.Join(errs...)
}

// Close closes the inherited sockets that Open has not returned. For whoever
// passed them on they stay open.
func (s *Sockets) Close() {
	for _, i := range s.inherited {
		_ = i.listener.Close()
	}
	s.inherited = nil
}

// sameAddress reports whether a socket has the address that is written. No
// host means all interfaces, of which a system without IPv6 has those of IPv4.
func sameAddress(a net.Addr, written string) bool {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	host, port, err := net.SplitHostPort(written)
	if err != nil {
		return false
	}
	// Port 0 is a new one each time, so it is nobody's.
	if n, err := strconv.Atoi(port); err != nil || n == 0 || n != tcp.Port {
		return false
	}
	has := tcp.AddrPort().Addr().Unmap()
	if host == "" {
		return has.IsUnspecified()
	}
	if want, err := netip.ParseAddr(host); err == nil {
		return want.Unmap() == has
	}
	resolved, err := net.ResolveTCPAddr("tcp", written)
	return err == nil && resolved.AddrPort().Addr().Unmap() == has
}
