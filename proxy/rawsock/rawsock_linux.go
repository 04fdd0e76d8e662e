//go:build linux && !race

package rawsock

import (
	"syscall"
	"unsafe"
)

// Read reads what has arrived; EAGAIN says that nothing has, and 0 that nothing more
// will.
func Read(fd uintptr, p []byte) (int, error) {
	return call(syscall.SYS_READ, fd, p, 0)
}

// Peek is Read that leaves what it reads to be read again.
func Peek(fd uintptr, p []byte) (int, error) {
	return call(syscall.SYS_RECVFROM, fd, p, syscall.MSG_PEEK)
}

// Write writes as much of p as there is room for; EAGAIN says that there is none.
func Write(fd uintptr, p []byte) (int, error) {
	return call(syscall.SYS_WRITE, fd, p, 0)
}

// call makes a call until no signal interrupts it. The number of bytes is 0 with an
// error.
func call(number, fd uintptr, p []byte, flags uintptr) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, syscall.EAGAIN // as a constant: making an error of a number allocates
		default:
			return 0, errno
		}
	}
}
