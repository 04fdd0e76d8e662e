package listen

import (
	"net"
	"os"
	"syscall"
)

// queued takes the connections out of a listener's queue that nobody has
// accepted. Their clients have connected: closing the socket would reset them.
func queued(l net.Listener) (all []net.Conn) {
	s, ok := l.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil // it is closed
	}
	_ = raw.Control(func(fd uintptr) { // fails as SyscallConn does
		for {
			c, err := acceptNow(int(fd))
			if err != nil {
				return // there is none left
			}
			all = append(all, c)
		}
	})
	return all
}

// acceptNow accepts from a socket that does not block.
func acceptNow(socket int) (net.Conn, error) {
	syscall.ForkLock.RLock() // a child must not inherit it before it is closed on exec
	fd, _, err := syscall.Accept(socket)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("accept", err)
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	return net.FileConn(f) // a duplicate, in non-blocking mode
}
