package rawsock

import "syscall"

// Options of linux/tcp.h, for which package syscall has no names.
const (
	tcpNotSentLowat = 25 // TCP_NOTSENT_LOWAT, since Linux 3.12
	tcpInq          = 36 // TCP_INQ, since Linux 4.18
)

// unsent is how many bytes a socket takes before the peer has taken those before, about.
const unsent = 128 << 10

// Prepare sets what a TCP socket of ours has set: ReadMore knows whether there is more, and
// a write that waits goes on when there are fewer than 128 KiB behind it that were not
// sent, in place of a third of a buffer that grows to megabytes. So a peer that takes a
// little all the time does not look like one that takes nothing, and holds little of the
// kernel's memory. Where the system has neither, ReadMore says that there may be more.
func Prepare(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpInq, 1)
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, unsent)
}
