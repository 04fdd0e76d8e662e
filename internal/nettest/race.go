//go:build race

package nettest

// Race says whether the race detector watches: it keeps several times the memory that
// the program does.
const Race = true
