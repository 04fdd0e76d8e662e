//go:build unix && (!linux || race || 386 || s390x)

package rawsock

import "syscall"

// Read reads what has arrived; EAGAIN says that nothing has, and 0 that nothing more
// will.
func Read(fd uintptr, p []byte) (int, error) {
	return again(func() (int, error) { return syscall.Read(int(fd), p) })
}

// ReadMore is Read that says whether more may have arrived, be it the end: what arrives later is
// news to the poller, and what has arrived is not.
func ReadMore(fd uintptr, p []byte) (n int, more bool, err error) {
	n, err = Read(fd, p)
	return n, err == nil, err
}

// Peek is Read that leaves what it reads to be read again.
func Peek(fd uintptr, p []byte) (int, error) {
	return again(func() (int, error) {
		n, _, err := syscall.Recvfrom(int(fd), p, syscall.MSG_PEEK)
		return n, err
	})
}

// Write writes as much of p as there is room for; EAGAIN says that there is none.
func Write(fd uintptr, p []byte) (int, error) {
	return again(func() (int, error) { return syscall.Write(int(fd), p) })
}

// again makes a call until no signal interrupts it. The number of bytes is 0 with an
// error.
func again(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
