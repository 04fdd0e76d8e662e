//go:build unix

// Package rawsock makes single calls of the system on sockets that do not block, as
// those of package net do not.
//
// On Linux the scheduler is not told of them. It is told of a call so that it can give
// the call's processor to others while it blocks, and to see that it does, its monitor
// wakes up every 20 microseconds while there are such calls. These cannot block; a
// garbage collection waits for the end of one, which is a matter of microseconds.
package rawsock
