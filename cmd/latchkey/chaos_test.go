package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/config"
	"latchkey/internal/nettest"
)

var (
	chaosTime = flag.Duration("chaos", 2*time.Second, "how long TestChaos goes on")
	chaosSeed = flag.Uint64("chaos-seed", 1, "what TestChaos draws its faults from")
)

// ownBody is the body that belongs to a request: as long as it is, a piece of another's
// shows.
func ownBody(id string, length int) []byte {
	return bytes.Repeat([]byte(id+" "), length/(len(id)+1)+1)[:length]
}

// A troublemaker answers in every way that an upstream can, drawn from a seed.
type troublemaker struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (m *troublemaker) draw(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.IntN(n)
}

// answer answers a request, well or not. A whole answer has the ID of its request in
// X-Own, its length in X-Length, and a body made of the ID.
func (m *troublemaker) answer(c net.Conn, r *bufio.Reader, req *http.Request) (goesOn bool) {
	id := req.Header.Get("X-Id")
	early := m.draw(10) == 0 // it does not wait for the body
	if !early {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return false
		}
	}
	length := []int{0, 10, 3000, 200_000}[m.draw(4)]
	body := ownBody(id, length)
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Own: %s\r\nX-Length: %d\r\n", id, length)
	goesOn = true
	switch m.draw(4) {
	case 0:
		head = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + head
		fallthrough
	case 1:
		head += fmt.Sprintf("Content-Length: %d\r\n\r\n", length)
	case 2:
		head += "Transfer-Encoding: chunked\r\n\r\n"
		at := m.draw(length + 1)
		var chunks bytes.Buffer
		for _, piece := range [][]byte{body[:at], body[at:]} {
			if len(piece) > 0 {
				fmt.Fprintf(&chunks, "%x\r\n%s\r\n", len(piece), piece)
			}
		}
		body = append(chunks.Bytes(), "0\r\n\r\n"...)
	case 3:
		head += "X-Until-Close: yes\r\n\r\n"
		goesOn = false
	}
	if req.Method == "HEAD" {
		body, goesOn = nil, true
	}
	whole := append([]byte(head), body...)
	part := whole[:m.draw(len(whole))]
	if m.draw(2) == 0 { // as often in the head
		part = whole[:m.draw(len(head))]
	}
	switch m.draw(16) {
	case 0: // closes
		c.Write(part)
		return false
	case 1: // resets
		c.Write(part)
		c.(*net.TCPConn).SetLinger(0)
		return false
	case 2: // hangs, until the gateway has had enough
		c.Write(part)
		io.Copy(io.Discard, r)
		return false
	case 3: // goes mad in the head
		c.Write(whole[:m.draw(len(head))])
		io.WriteString(c, "\x00\xffgarbage\r\n\r\n")
		return false
	case 4: // drips
		for _, b := range part[:min(len(part), 20)] {
			<-time.After(time.Duration(m.draw(60)) * time.Millisecond)
			if _, err := c.Write([]byte{b}); err != nil {
				return false
			}
		}
		return false
	case 5: // has a fault of its own
		_, err := fmt.Fprintf(c, "HTTP/1.1 503 Service Unavailable\r\nX-Own: %s\r\nX-Length: 0\r\nContent-Length: 0\r\n\r\n", id)
		return err == nil && !early
	case 6, 7, 8:
		// Says more than it was asked for, at once: what comes only when the next request
		// is on its way nobody can tell from the answer to that. Where the end of the
		// connection is the end of the body it would be a part of it.
		if goesOn {
			whole = append(whole, "HTTP/1.1 200 OK\r\nX-Own: nobody\r\nX-Length: 0\r\nContent-Length: 0\r\n\r\n"...)
		}
	}
	_, err := c.Write(whole)
	return err == nil && goesOn && !early
}

// A chaosClient sends requests and holds each answer to its own.
type chaosClient struct {
	client  *http.Client
	proxy   string
	key     string
	results map[string]int
	posts   map[string]string // what POSTs were told, by ID
}

func (k *chaosClient) ask(rng *rand.Rand, id string) error {
	method := []string{"GET", "POST", "POST", "HEAD", "PUT", "DELETE"}[rng.IntN(6)]
	var body io.Reader
	if method == "POST" || method == "PUT" {
		if body = bytes.NewReader(ownBody(id, []int{1, 5000, 300_000}[rng.IntN(3)])); rng.IntN(2) == 0 {
			body = struct{ io.Reader }{body} // of no known length
		}
	}
	req, err := http.NewRequest(method, k.proxy+"/", body)
	if err != nil {
		return err
	}
	for name, value := range map[string]string{"X-Id": id, "X-Request-Id": id, "X-API-Key": k.key} {
		req.Header.Set(name, value)
	}
	from := time.Now()
	result, err := k.answer(req, id)
	if took := time.Since(from); took > 20*time.Second && err == nil {
		err = fmt.Errorf("it took %v", took)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, id, err)
	}
	if method == "POST" {
		k.posts[id] = result
	}
	k.results[result]++
	return nil
}

// answer returns how a request was answered, and an error if it may not be so.
func (k *chaosClient) answer(req *http.Request, id string) (string, error) {
	res, err := k.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("was not answered: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if got := res.Header.Get("X-Request-Id"); got != id {
		return "", fmt.Errorf("got the answer to %q", got)
	}
	if own := res.Header.Get("X-Own"); own != "" {
		want := ownBody(id, len(text))
		switch whole := fmt.Sprint(len(text)) == res.Header.Get("X-Length") || req.Method == "HEAD"; {
		case own != id || !bytes.Equal(text, want):
			return "", fmt.Errorf("got the answer of %q", own)
		case err != nil:
			return "cut", nil
		case !whole && res.Header.Get("X-Until-Close") != "":
			// An orderly end that comes early is not to be told from the end.
			return "ended early", nil
		case !whole:
			return "", fmt.Errorf("a part of %d bytes passes for the whole of %s", len(text), res.Header.Get("X-Length"))
		}
		return fmt.Sprint(res.StatusCode, " of the upstream"), nil
	}
	var p struct{ Code string }
	if err != nil || req.Method != "HEAD" && json.Unmarshal(text, &p) != nil {
		return "", fmt.Errorf("%s of the gateway, in part: %w", res.Status, err)
	}
	switch got := fmt.Sprint(res.StatusCode, " ", p.Code); got {
	case "502 upstream_failed", "502 upstream_unreachable", "503 upstream_busy", "504 upstream_timeout":
		return got, nil
	case "502 ", "503 ", "504 ":
		return got + "to a HEAD", nil
	default:
		return "", fmt.Errorf("got %s", got)
	}
}

// TestChaos has three targets fail in every way, and die and come back, under clients
// of every kind. All are answered, and in time; what they get whole is their own; a
// POST is begun once at most, and not at all where the answer says so. In the end
// nothing is left.
func TestChaos(t *testing.T) {
	nettest.NoLeaks(t)
	trouble := &troublemaker{rng: rand.New(rand.NewPCG(*chaosSeed, 0))}
	var targets []*mortal
	var kills []func()
	var urls []config.Target
	for range 3 {
		m := &mortal{t: t, addr: "127.0.0.1:0", seen: map[string]int{}, answer: trouble.answer}
		targets, kills = append(targets, m), append(kills, m.live())
		urls = append(urls, config.Target{URL: "http://" + m.addr, Weight: 1})
	}
	t.Cleanup(func() {
		for _, kill := range kills {
			kill()
		}
	})
	cfg := testConfig(t, urls[0].URL)
	up := cfg.Upstreams[cfg.Routes[0].Upstream]
	up.Targets = urls
	up.Connections.Max, up.Connections.Wait = 4, 300*time.Millisecond
	up.Ejection = config.Ejection{Failures: 3, Interval: time.Second, Duration: 200 * time.Millisecond}
	cfg.Upstreams[cfg.Routes[0].Upstream] = up
	cfg.Routes[0].Timeout, cfg.Proxy.Timeouts.BodyIdle = 500*time.Millisecond, 500*time.Millisecond
	g := startGateway(t, cfg)
	key, err := issue(http.DefaultClient, g.admin)
	http.DefaultClient.CloseIdleConnections()
	if err != nil {
		t.Fatal(err)
	}

	stop := time.Now().Add(*chaosTime)
	clients := make([]*chaosClient, 16)
	var all sync.WaitGroup
	for n := range clients {
		k := &chaosClient{proxy: g.proxy, key: key.Key, results: map[string]int{}, posts: map[string]string{},
			client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: n%4 == 0}}}
		clients[n] = k
		rng := rand.New(rand.NewPCG(*chaosSeed, uint64(n+1)))
		all.Go(func() {
			defer k.client.CloseIdleConnections()
			for i := 0; time.Now().Before(stop); i++ {
				if err := k.ask(rng, fmt.Sprintf("%d-%d", n, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := 0; time.Now().Before(stop); n++ {
		<-time.After(100 * time.Millisecond) // the pace of the deaths is not what is tested
		which := trouble.draw(len(targets))
		kills[which]()
		kills[which] = targets[which].live()
	}
	all.Wait()
	results := map[string]int{}
	for _, k := range clients {
		for result, n := range k.results {
			results[result] += n
		}
		for id, result := range k.posts {
			begun := 0
			for _, m := range targets {
				m.mu.Lock()
				begun += m.seen[id]
				m.mu.Unlock()
			}
			never := strings.Contains(result, "unreachable") || strings.Contains(result, "busy")
			if begun > 1 || never && begun > 0 || strings.Contains(result, "of the upstream") && begun != 1 {
				t.Errorf("POST %s was begun %d times, and answered %q", id, begun, result)
			}
		}
	}
	t.Logf("%v", results)
	if results["200 of the upstream"] == 0 || results["502 upstream_failed"] == 0 {
		t.Error("there was no good answer, or no bad one; it shows too little")
	}
}
