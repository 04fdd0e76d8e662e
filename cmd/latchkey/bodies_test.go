package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"latchkey/internal/nettest"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

var bodySize = flag.Int("bodies", 4, "the size of the bodies of TestLargeBodies, in MiB")

// TestLargeBodies has 64 clients send a large body to an upstream that sends it
// back as it comes, through a gateway in a child process. They get back what they
// sent, and the gateway stays under 100 MiB.
//
//	go test ./cmd/latchkey -run TestLargeBodies -v -bodies 64
func TestLargeBodies(t *testing.T) {
	const clients = 64
	size := *bodySize << 20
	up := nettest.Serve(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", req.ContentLength)
			if _, err := io.Copy(c, req.Body); err != nil {
				return
			}
		}
	})
	s := newSite(t, fmt.Sprintf(`
proxy: {listen: ["PROXY"], access_log: {enabled: false}}
routes: [{name: all, path: "/{rest:*}", upstream: up, auth: none}]
upstreams: {up: {targets: ["http://%s"], connections: {connect_timeout: 60s}}} # on a busy machine even a connection to oneself takes seconds
`, up))
	child, _ := s.start()
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	idle, _ := memory(t, child.Process.Pid)
	block := make([]byte, 64<<10)
	rand.Read(block)
	var all sync.WaitGroup
	from := time.Now()
	for range clients {
		all.Go(func() {
			if err := exchangeBody(strings.TrimPrefix(s.proxy, "http://"), block, size); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	took := time.Since(from)
	_, peak := memory(t, child.Process.Pid)
	t.Logf("%d clients, %d MiB each way, in %v (%.0f MiB/s each way): resident %s before, %s at most", clients, *bodySize,
		took.Round(time.Millisecond), float64(clients**bodySize)/took.Seconds(), mebibytes(idle), mebibytes(peak))
	if peak > 100<<20 && !nettest.Race {
		t.Errorf("resident memory rose to %s, want at most 100 MiB", mebibytes(peak))
	}
}

// exchangeBody sends a body of the size, and checks that it comes back.
func exchangeBody(addr string, block []byte, size int) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	go func() {
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size)
		for range size / len(block) {
			if _, err := c.Write(block); err != nil {
				return // the reader hears of it
			}
		}
	}()
	res, err := http.ReadResponse(bufio.NewReaderSize(c, 64<<10), nil)
	if err != nil {
		return err
	}
	if res.StatusCode != 200 || res.ContentLength != int64(size) {
		reason, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10)) // of a refusal; what there is of it
		return fmt.Errorf("answered %s with %d bytes: %s", res.Status, res.ContentLength, reason)
	}
	got := make([]byte, len(block))
	for range size / len(block) {
		if _, err := io.ReadFull(res.Body, got); err != nil {
			return fmt.Errorf("read the body back: %w", err)
		}
		if !bytes.Equal(got, block) {
			return fmt.Errorf("what came back is not what was sent")
		}
	}
	return nil
}
