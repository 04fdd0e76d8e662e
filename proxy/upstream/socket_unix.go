//go:build unix

package upstream

import (
	"syscall"

	"latchkey/proxy/rawsock"
)

// A socket is a connection's socket where the system is asked without net's detours.
type socket struct {
	raw  syscall.RawConn
	look func(fd uintptr)      // peek, turn and grab, made once, because each would allocate
	take func(fd uintptr) bool //
	have func(fd uintptr)      //

	n   int // of peek
	err error
	b   [1]byte

	out, in   []byte // of roundTrip and readNow
	sent, got int
	asked     bool
}

// newSocket returns nil if there is no socket.
func newSocket(c syscall.Conn) *socket {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(rawsock.Prepare) // fails on a closed connection; so will writing
	s := &socket{raw: raw}
	s.look, s.take, s.have = s.peek, s.turn, s.grab
	return s
}

// silent reports whether the socket is open and has nothing to read: neither
// bytes nor the peer's end. It uses Control, because a RawConn's Read looks at
// the deadline first.
func (s *socket) silent() bool {
	if err := s.raw.Control(s.look); err != nil {
		return false
	}
	return s.err == syscall.EAGAIN || s.err == syscall.EWOULDBLOCK
}

func (s *socket) peek(fd uintptr) {
	s.n, s.err = rawsock.Peek(fd, s.b[:])
}

// roundTrip sends out, waits for something to come back, and reads that into in. It
// waits before it reads, which net does not: it would first read in vain, and a call
// of the system is a large part of what a request costs. If not all of out could be
// sent at once, it does not wait. What keeps it from reading is left to the next read
// to meet.
func (s *socket) roundTrip(out, in []byte) (sent, got int) {
	s.out, s.in, s.sent, s.got, s.asked = out, in, 0, 0, false
	_ = s.raw.Read(s.take)
	s.out, s.in = nil, nil
	return s.sent, s.got
}

// turn is called with the poller made ready for news of the socket, and again after
// news if it returns false. So the answer to what the first call sends is news.
func (s *socket) turn(fd uintptr) bool {
	if !s.asked {
		s.asked = true
		s.sent, _ = rawsock.Write(fd, s.out) // the write of what is left meets the error again
		return s.sent < len(s.out)
	}
	n, err := rawsock.Read(fd, s.in)
	if err == syscall.EAGAIN {
		return false
	}
	s.got = n
	return true
}

// readNow reads what has arrived, and does not wait.
func (s *socket) readNow(in []byte) (got int) {
	s.in, s.got = in, 0
	_ = s.raw.Control(s.have) // what keeps it from reading is left to the next read to meet
	s.in = nil
	return s.got
}

func (s *socket) grab(fd uintptr) {
	s.got, _ = rawsock.Read(fd, s.in)
}
