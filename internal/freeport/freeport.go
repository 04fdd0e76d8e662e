// Package freeport finds addresses for servers that are given theirs beforehand.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
)

var given sync.Map // by port: never twice from one process

// Addr returns an address of the loopback that nobody listens on. Its port is below
// those the kernel hands out by itself: between here and the server's start, a port of
// those becomes the local end of somebody's connection now and then.
func Addr() (string, error) {
	lowest, beyond := 10000, 32768 // where the kernel begins unless it is told otherwise
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		var from int
		if _, err := fmt.Sscan(string(text), &from); err == nil && from > lowest+1000 {
			beyond = from
		}
	}
	for range 1000 {
		port := lowest + rand.IntN(beyond-lowest)
		if _, was := given.LoadOrStore(port, true); was {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", fmt.Errorf("no port from %d to %d of the loopback is free", lowest, beyond-1)
}
