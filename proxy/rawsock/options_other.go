//go:build unix && !linux

package rawsock

// Prepare does nothing.
func Prepare(uintptr) {}
