//go:build unix

package upstream

import "syscall"

// A probe looks at a socket without waiting and without taking anything from it.
type probe struct {
	raw  syscall.RawConn
	peek func(fd uintptr)
	n    int
	err  error
	b    [1]byte
}

// newProbe returns nil if there is no socket.
func newProbe(s syscall.Conn) *probe {
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	p := &probe{raw: raw}
	p.peek = func(fd uintptr) { // made once, because each would allocate
		for {
			p.n, _, p.err = syscall.Recvfrom(int(fd), p.b[:], syscall.MSG_PEEK)
			if p.err != syscall.EINTR {
				return
			}
		}
	}
	return p
}

// silent reports whether the socket is open and has nothing to read: neither
// bytes nor the peer's end. It uses Control, because a RawConn's Read looks at
// the deadline first.
func (p *probe) silent() bool {
	if err := p.raw.Control(p.peek); err != nil {
		return false
	}
	return p.err == syscall.EAGAIN || p.err == syscall.EWOULDBLOCK
}
