package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"latchkey/internal/nettest"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var slowClients = flag.Int("slow", 300, "how many slow clients TestSlowClients has, at most 10000")

const slowSite = `
proxy:
  listen: ["PROXY"]
  access_log: {enabled: false}
  timeouts: {read_header: 4s, idle: 8s, body_idle: 4s}
routes:
  - {name: all, path: "/{rest:*}", upstream: up, auth: none}
  - {name: probe, path: /probe, upstream: bystander, auth: none}
upstreams:
  up: {targets: ["http://%s"], connections: {max: 8192, idle: 64}}
  bystander: {targets: ["http://%s"]}
`

// slowKinds are the ways to be slow. Each goes on until its connection ends.
// There are few slow readers: each takes some 4 MiB of the kernel's memory for TCP,
// which all connections of the machine share.
var slowKinds = []struct {
	name  string
	share int // of a hundred
	play  func(c net.Conn, r *bufio.Reader)
}{
	{"silent", 20, func(c net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) }},
	{"head, drop by drop", 50, func(c net.Conn, r *bufio.Reader) {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n")
		drip(c, "X: y\r\n")
		io.Copy(io.Discard, r)
	}},
	{"half a body", 28, func(c net.Conn, r *bufio.Reader) {
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
		io.Copy(io.Discard, r)
	}},
	{"reader, drop by drop", 2, func(c net.Conn, r *bufio.Reader) {
		io.WriteString(c, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
		go drip(c, "\r\n") // fails once the gateway has closed; reading fails only after all that has come was read
		for one := make([]byte, 1); ; <-time.After(500 * time.Millisecond) {
			if _, err := c.Read(one); err != nil {
				return
			}
		}
	}},
}

// drip sends a piece every half second until the connection takes no more.
func drip(c net.Conn, piece string) {
	for {
		if _, err := io.WriteString(c, piece); err != nil {
			_ = c.Close() // which ends a reader of it as well
			return
		}
		<-time.After(500 * time.Millisecond)
	}
}

// TestSlowClients has many slow clients of every kind at once on a gateway in a
// child process. Each is cut within 15 seconds of its coming, others are served
// meanwhile, and a connection costs no more than 32 KiB.
//
//	go test ./cmd/latchkey -run TestSlowClients -v -slow 10000
func TestSlowClients(t *testing.T) {
	total := min(*slowClients, 10000)
	large := make([]byte, 16<<20)
	up := nettest.Serve(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			if req.URL.Path == "/large" {
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(large))
				c.Write(large)
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	b := newBystander(t)
	s := newSite(t, fmt.Sprintf(slowSite, up, b.addr))
	child, _ := s.start()
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	b.probe(s.proxy)
	idle, _ := memory(t, child.Process.Pid)
	var clients sync.WaitGroup
	begun := time.Now()
	for i := range total {
		if i%200 == 199 {
			<-time.After(20 * time.Millisecond) // so that the queue of the listener, of 4096, does not overflow
		}
		c, err := net.DialTimeout("tcp", strings.TrimPrefix(s.proxy, "http://"), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		c.(*net.TCPConn).SetReadBuffer(4 << 10)
		clients.Go(func() {
			defer c.Close()
			from := time.Now()
			c.SetDeadline(from.Add(30 * time.Second)) // of the test's own
			kind, play := slowKind(i)
			play(c, bufio.NewReaderSize(c, 16))
			if took := time.Since(from); took > 15*time.Second || took < 3*time.Second {
				t.Errorf("%s: cut after %v", kind, took)
			}
		})
	}
	came := time.Since(begun)
	clients.Wait()
	found := b.end()
	took := found.Took
	now, peak := memory(t, child.Process.Pid)
	t.Logf("%d slow clients came within %v; all were cut after %v", total, came.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
	t.Logf("probe: %d requests, %d failed, median %v, 99%% %v, longest %v", len(took), found.Failed, at(took, 50), at(took, 99), at(took, 100))
	t.Logf("resident: %s before, %s at most (%.1f KiB a connection), %s after", mebibytes(idle), mebibytes(peak),
		float64(peak-idle)/1024/float64(total), mebibytes(now))
	// The longest times are those of the machine, which others use as well.
	if found.Failed > 0 || at(took, 50) > 100*time.Millisecond {
		t.Errorf("the probe was not served as on an idle gateway")
	}
	if limit := idle + int64(total)*32<<10 + 32<<20; peak > limit && !nettest.Race {
		t.Errorf("resident memory rose to %s, want at most %s", mebibytes(peak), mebibytes(limit))
	}
}

// slowKind deals out the kinds by their shares.
func slowKind(i int) (string, func(net.Conn, *bufio.Reader)) {
	i %= 100
	for _, k := range slowKinds {
		if i < k.share {
			return k.name, k.play
		}
		i -= k.share
	}
	panic("the shares are not a hundred")
}

// A prober asks for a small answer all the time, on a new connection and on one
// that is kept in turn.
type prober struct {
	stop   chan struct{}
	ended  chan struct{}
	took   []time.Duration
	failed atomic.Int64
}

func probe(url string) *prober {
	p := &prober{stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		kept := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
		fresh := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		for i := 0; ; i++ {
			select {
			case <-p.stop:
				kept.CloseIdleConnections()
				return
			case <-time.After(20 * time.Millisecond):
			}
			client := []*http.Client{kept, fresh}[i%2]
			from := time.Now()
			res, err := client.Get(url + "/probe")
			if err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			if err != nil || res.StatusCode != 200 {
				p.failed.Add(1)
			}
			p.took = append(p.took, time.Since(from))
		}
	}()
	return p
}

// end ends the probing and returns how long the requests took, sorted.
func (p *prober) end() []time.Duration {
	close(p.stop)
	<-p.ended
	slices.Sort(p.took)
	return p.took
}

// at returns a percentile of sorted times.
func at(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*percent/100].Round(100 * time.Microsecond)
}
