// Package freeport finds addresses for servers that are given theirs beforehand.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
)

// Addrs returns addresses of the loopback that nobody listens on. Their ports are below
// those the kernel hands out by itself: between here and the server's start, a port of
// those becomes the local end of somebody's connection now and then.
func Addrs(n int) ([]string, error) {
	const lowest = 10000
	beyond := 32768 // where the kernel begins unless it is told otherwise
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		var from int
		if _, err := fmt.Sscan(string(text), &from); err == nil && from > lowest+1000 {
			beyond = from
		}
	}
	var addrs []string
	for range 1000 {
		if len(addrs) == n {
			return addrs, nil
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", lowest+rand.IntN(beyond-lowest)))
		if err == nil {
			defer l.Close() // once there are all, so that none is given twice
			addrs = append(addrs, l.Addr().String())
		}
	}
	return nil, fmt.Errorf("less than %d ports from %d to %d of the loopback are free", n, lowest, beyond-1)
}
