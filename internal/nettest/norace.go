//go:build !race

package nettest

// Race says whether the race detector watches: it has a memory and a pace of its own.
const Race = false
