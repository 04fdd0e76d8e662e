package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A mortal is an upstream that dies and comes back on the same address, with
// every connection it had. It answers with a request's ID, and counts how often it
// has begun to work on it.
type mortal struct {
	t      *testing.T
	addr   string
	answer func(net.Conn, *bufio.Reader, *http.Request) (goesOn bool) // nil means that all is well

	mu    sync.Mutex
	conns map[net.Conn]bool // nil while it is dead
	seen  map[string]int    // by the ID of the request; nil where nobody asks
}

// live serves until the returned function kills it.
func (m *mortal) live() (kill func()) {
	m.t.Helper()
	var l net.Listener
	for deadline := time.Now().Add(10 * time.Second); l == nil; {
		var err error
		if l, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", m.addr); err != nil && time.Now().After(deadline) {
			m.t.Fatal(err)
		}
	}
	m.addr = l.Addr().String()
	m.mu.Lock()
	m.conns = map[net.Conn]bool{}
	m.mu.Unlock()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			if m.conns == nil {
				c.Close() // it came too late
			} else {
				m.conns[c] = true
				serving.Go(func() { m.serve(c) })
			}
			m.mu.Unlock()
		}
	})
	return func() {
		l.Close()
		m.mu.Lock()
		for c := range m.conns {
			c.(*net.TCPConn).SetLinger(0) // as a process that is killed with bytes unread
			c.Close()
		}
		m.conns = nil
		m.mu.Unlock()
		serving.Wait()
	}
}

func (m *mortal) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		id := req.Header.Get("X-Id")
		m.mu.Lock()
		if m.seen != nil {
			m.seen[id]++
		}
		m.mu.Unlock()
		if m.answer != nil {
			if !m.answer(c, r, req) {
				return
			}
			continue
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(id), id); err != nil {
			return
		}
	}
}

// TestAnUpstreamThatDiesUnderLoad kills the upstream and brings it back, many
// times. Each request is answered, with 200 or 502; no POST has been begun twice,
// every one that was answered 200 once, and none that was answered with
// upstream_unreachable at all.
func TestAnUpstreamThatDiesUnderLoad(t *testing.T) {
	deaths := 40
	if testing.Short() {
		deaths = 10
	}
	m := &mortal{t: t, addr: "127.0.0.1:0", seen: map[string]int{}}
	kill := m.live()
	cfg := testConfig(t, "http://"+m.addr)
	cfg.Routes[0].Auth = "none"
	up := cfg.Upstreams[cfg.Routes[0].Upstream]
	up.Ejection.Failures = 0 // a single target, that is to be tried again at once
	cfg.Upstreams[cfg.Routes[0].Upstream] = up
	g := startGateway(t, cfg)
	var answered, good, broken, unreachable atomic.Int64
	outcomes := sync.Map{} // of POSTs, by ID
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for n := range 8 {
		clients.Go(func() {
			client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id, method := fmt.Sprintf("%d-%d", n, i), []string{"GET", "POST"}[i%2]
				status, body, err := askWithID(client, method, g.proxy, id, "")
				answered.Add(1)
				switch {
				case err != nil:
					t.Errorf("%s %s was not answered: %v", method, id, err)
				case status == 200 && body == id:
					good.Add(1)
				case status == 502 && strings.Contains(body, `"upstream_unreachable"`):
					unreachable.Add(1)
				case status == 502 && strings.Contains(body, `"upstream_failed"`):
					broken.Add(1)
				default:
					t.Errorf("%s %s was answered %d %s", method, id, status, body)
				}
				if method == "POST" {
					outcomes.Store(id, fmt.Sprint(status, strings.Contains(body, "unreachable")))
				}
			}
		})
	}
	for range deaths {
		for before := good.Load(); good.Load() < before+50; {
			<-time.After(time.Millisecond)
		}
		kill()
		kill = m.live()
	}
	close(stop)
	clients.Wait()
	kill()
	t.Logf("%d deaths, %d requests: %d good, %d that may have been begun, %d that were not sent",
		deaths, answered.Load(), good.Load(), broken.Load(), unreachable.Load())
	outcomes.Range(func(id, outcome any) bool {
		n := m.seen[id.(string)]
		if n > 1 || outcome == "200 false" && n != 1 || outcome == "502 true" && n != 0 {
			t.Errorf("POST %s was begun %d times, and answered %s (unreachable: true)", id, n, outcome)
		}
		return true
	})
}

func askWithID(client *http.Client, method, url, id, key string) (int, string, error) {
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader("something to do once")
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("X-Id", id)
	if key != "" {
		req.Header.Set("X-API-Key", key)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}
