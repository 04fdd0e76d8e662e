//go:build linux && !race && !386 && !s390x

// 386 and s390x have no numbers of their own for these calls.

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

// ReadMore is Read that says whether more may have arrived, be it the end: what arrives later is
// news to the poller, and what has arrived is not.
func ReadMore(fd uintptr, p []byte) (n int, more bool, err error) {
	var control struct {
		header syscall.Cmsghdr
		queued int32
		_      [8]byte
	}
	part := syscall.Iovec{Base: unsafe.SliceData(p)}
	part.SetLen(len(p))
	message := syscall.Msghdr{Iov: &part, Iovlen: 1, Control: (*byte)(unsafe.Pointer(&control))}
	message.SetControllen(int(unsafe.Sizeof(control)))
	for {
		got, _, errno := syscall.RawSyscall(syscall.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&message)), 0)
		switch errno {
		case 0:
			h := &control.header
			known := uintptr(message.Controllen) >= unsafe.Offsetof(control.queued)+unsafe.Sizeof(control.queued) && h.Level == syscall.IPPROTO_TCP && h.Type == tcpInq
			return int(got), !known || control.queued != 0, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, false, syscall.EAGAIN
		default:
			return 0, false, errno
		}
	}
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
