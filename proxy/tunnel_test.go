package proxy

import (
	"bufio"
	"context"
	"io"
	"latchkey/internal/nettest"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	upgradeRequest = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	upgradeAnswer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)

// tunnelled runs a proxy whose upstream gets a connection with the request's head
// read, and returns a client's connection that has sent the request.
func tunnelled(t *testing.T, request string, serve func(c net.Conn, r *bufio.Reader, head string), setup func(*Options)) (*harness, net.Conn, *bufio.Reader) {
	t.Helper()
	h := newHarness(t)
	h.run("http://"+listening(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		if head, err := readRequestHead(r); err == nil {
			serve(c, r, head)
		}
	}), func(o *Options) {
		o.Routes[0].Public = true
		if setup != nil {
			setup(o)
		}
	})
	c, _ := h.dial(false)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	return h, c, bufio.NewReader(c)
}

// wantSwitched reads the head of a 101.
func wantSwitched(t *testing.T, r *bufio.Reader) {
	t.Helper()
	head, err := readRequestHead(r)
	if err != nil || !strings.HasPrefix(head, "HTTP/1.1 101 ") || !strings.Contains(head, "Sec-Websocket-Accept:") && !strings.Contains(head, "Sec-WebSocket-Accept:") {
		t.Fatalf("got %q, %v; want the upstream's 101", head, err)
	}
}

func wantBytes(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

// TestATunnelTakesWhatComesEarly has both sides send frames with their heads, and
// then end one direction after the other.
func TestATunnelTakesWhatComesEarly(t *testing.T) {
	const hello, early = "\x82\x05hello", "\x82\x85\x00\x00\x00\x00early"
	ended := make(chan string, 1)
	_, c, r := tunnelled(t, upgradeRequest+early, func(c net.Conn, r *bufio.Reader, _ string) {
		io.WriteString(c, upgradeAnswer+hello)
		got, err := io.ReadAll(r) // until the client has ended its direction
		if err != nil {
			got = []byte(err.Error())
		}
		io.WriteString(c, "\x82\x04last")
		ended <- string(got)
	}, nil)
	wantSwitched(t, r)
	wantBytes(t, r, hello)
	io.WriteString(c, "more")
	c.(*net.TCPConn).CloseWrite()
	wantBytes(t, r, "\x82\x04last")
	if got := <-ended; got != early+"more" {
		t.Errorf("the upstream got %q, want %q", got, early+"more")
	}
	if b, err := r.ReadByte(); err != io.EOF {
		t.Errorf("after both ends: %q, %v; want EOF", b, err)
	}
}

// TestNothingPassesBeforeTheSwitch has a client send frames before the upstream
// has agreed: they get there after it has, or never.
func TestNothingPassesBeforeTheSwitch(t *testing.T) {
	silent := make(chan bool, 1)
	_, _, r := tunnelled(t, upgradeRequest+"frames", func(c net.Conn, r *bufio.Reader, _ string) {
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, err := r.ReadByte()
		silent <- err != nil
		c.SetReadDeadline(time.Time{})
		io.WriteString(c, upgradeAnswer)
		io.Copy(c, r)
	}, nil)
	if !<-silent {
		t.Error("bytes of the client passed before the 101")
	}
	wantSwitched(t, r)
	wantBytes(t, r, "frames")
}

func TestARefusedUpgradeIsRelayed(t *testing.T) {
	_, _, r := tunnelled(t, upgradeRequest, func(c net.Conn, _ *bufio.Reader, _ string) {
		io.WriteString(c, "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\r\nno")
	}, nil)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != 426 || string(body) != "no" || res.Header.Get("Sec-WebSocket-Version") != "13" {
		t.Errorf("got %s %v %q", res.Status, res.Header, body)
	}
}

// TestOtherUpgradesAreNotPassedOn holds what the upstream sees against the rule
// that only WebSockets are tunnelled.
func TestOtherUpgradesAreNotPassedOn(t *testing.T) {
	for name, request := range map[string]string{
		"h2c":                        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		"a WebSocket by POST":        strings.Replace(upgradeRequest, "GET", "POST", 1),
		"a WebSocket of HTTP/1.0":    strings.Replace(upgradeRequest, "HTTP/1.1", "HTTP/1.0", 1),
		"one that is not in options": strings.Replace(upgradeRequest, "Connection: Upgrade\r\n", "", 1),
		"a choice":                   strings.Replace(upgradeRequest, "Upgrade: websocket", "Upgrade: h2c, websocket", 1),
	} {
		t.Run(name, func(t *testing.T) {
			heads := make(chan string, 1)
			_, _, r := tunnelled(t, request, func(c net.Conn, _ *bufio.Reader, head string) {
				heads <- head
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}, nil)
			if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 {
				t.Fatalf("got %v, %v", res, err)
			}
			if head := strings.ToLower(<-heads); strings.Contains(head, "upgrade") || strings.Contains(head, "http2-settings") {
				t.Errorf("the upstream got %q", head)
			}
		})
	}
}

// TestASilentTunnelIsCut lets a tunnel live while one direction speaks, and cuts
// it when neither does.
func TestASilentTunnelIsCut(t *testing.T) {
	t.Parallel()
	const idle, words = 2 * time.Second, 15 // a stall of the machine is shorter than idle, all words take longer
	_, _, r := tunnelled(t, upgradeRequest, func(c net.Conn, r *bufio.Reader, _ string) {
		io.WriteString(c, upgradeAnswer)
		for range words {
			<-time.After(idle / 10)
			io.WriteString(c, "w")
		}
		io.Copy(io.Discard, r)
	}, func(o *Options) { o.TunnelIdle = idle })
	wantSwitched(t, r)
	wantBytes(t, r, strings.Repeat("w", words))
	from := time.Now()
	if _, err := r.ReadByte(); err == nil {
		t.Error("got a byte nobody sent")
	}
	if took := time.Since(from); took < idle/2 || took > idle+2*time.Second {
		t.Errorf("cut after %v of silence, want %v", took, idle)
	}
}

// TestADrainEndsTunnelsInItsTime shuts the proxy down with a tunnel open: it
// carries on for the time of the drain, and is cut then.
func TestADrainEndsTunnelsInItsTime(t *testing.T) {
	released := make(chan struct{})
	h, c, r := tunnelled(t, upgradeRequest, func(c net.Conn, r *bufio.Reader, _ string) {
		defer close(released)
		io.WriteString(c, upgradeAnswer)
		io.Copy(c, r)
	}, nil)
	wantSwitched(t, r)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- h.proxy.Shutdown(ctx) }()
	nettest.Until(t, "the stop is under way", h.proxy.draining.Load)
	io.WriteString(c, "still")
	wantBytes(t, r, "still")
	if err := <-ended; err != context.DeadlineExceeded {
		t.Errorf("Shutdown: %v, want the end of its time", err)
	}
	<-released
	if _, err := r.ReadByte(); err == nil {
		t.Error("the tunnel outlived the drain")
	}
}
