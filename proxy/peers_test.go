//go:build peers

package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPeers sends the shapes to nginx and HAProxy as well, in front of the same
// upstream, and prints who answers how:
//
//	go test -tags peers ./proxy -run TestPeers -v
//
// A peer that is not installed is left out. A cell says how many shapes of the
// rule had which outcome: the first status, "-" if there was none, and behind the
// arrow how many requests reached the upstream; "!" is something that the strict
// reader refuses.
func TestPeers(t *testing.T) {
	type peer struct {
		name string
		addr string
		up   *rawUpstream
	}
	own := startRawUpstream(t, nil)
	h := startRaw(t, own, func(o *Options) { o.BodyIdle, o.ReadHeader = 2*time.Second, 2*time.Second })
	peers := []peer{{"Latchkey", h.addr, own}}
	for _, p := range []struct{ name, config string }{{"nginx", nginxConfig}, {"haproxy", haproxyConfig}} {
		if _, err := exec.LookPath(p.name); err != nil {
			t.Logf("%s is left out: %v", p.name, err)
			continue
		}
		u := startRawUpstream(t, nil)
		peers = append(peers, peer{p.name, runPeer(t, p.name, p.config, u.addr), u})
	}
	if len(peers) == 1 {
		t.Skip("neither nginx nor haproxy is installed: there is nobody to compare with")
	}
	var rules []string
	outcomes := map[string]map[string]int{}
	total := map[string]int{}
	for _, s := range shapes() {
		if !slices.Contains(rules, s.rule) {
			rules = append(rules, s.rule)
		}
		for _, p := range peers {
			key := p.name + "\x00" + s.rule
			if outcomes[key] == nil {
				outcomes[key] = map[string]int{}
			}
			o := outcome(t, p.addr, p.up, s.sends)
			outcomes[key][o]++
			if strings.HasSuffix(o, "!") {
				total[p.name]++
				t.Logf("%s lets %.200q through as %.300q", p.name, s.sends, lastBad(p.up))
			}
		}
	}
	var b strings.Builder
	header, line := "| rule |", "|---|"
	for _, p := range peers {
		header, line = header+" "+p.name+" |", line+"---|"
	}
	fmt.Fprintln(&b, header+"\n"+line)
	for _, rule := range rules {
		fmt.Fprintf(&b, "| %s |", rule)
		for _, p := range peers {
			var cells []string
			for o, n := range outcomes[p.name+"\x00"+rule] {
				cells = append(cells, fmt.Sprintf("%d× %s", n, o))
			}
			slices.Sort(cells)
			fmt.Fprintf(&b, " %s |", strings.Join(cells, ", "))
		}
		fmt.Fprintln(&b)
	}
	fmt.Fprintf(&b, "\n%d shapes; let through though the strict reader refuses it: %v\n", len(shapes()), total)
	t.Log("\n" + b.String())
	if total["Latchkey"] > 0 {
		t.Error("Latchkey let through what the strict reader refuses")
	}
}

// outcome sends a shape and says what came of it.
func outcome(t *testing.T, addr string, u *rawUpstream, sends string) string {
	_, refused := u.bytes(0)
	before, bad := len(u.since(0)), len(refused)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(700 * time.Millisecond))
	io.WriteString(c, sends)
	r := bufio.NewReader(c)
	status := "-"
	if res, err := http.ReadResponse(r, nil); err == nil {
		status = fmt.Sprint(res.StatusCode)
	}
	c.SetDeadline(time.Now().Add(150 * time.Millisecond))
	if _, err := io.Copy(io.Discard, r); err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		status += " closes"
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	status += fmt.Sprintf(" →%d", len(u.seen)-before)
	if len(u.bad) > bad {
		status += "!"
	}
	return status
}

func lastBad(u *rawUpstream) string {
	_, bad := u.bytes(0)
	return bad[len(bad)-1]
}

// runPeer runs a server in the foreground with a configuration of its own, and
// returns its address once it listens.
func runPeer(t *testing.T, name, config, target string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, name+".conf")
	text := strings.NewReplacer("LISTEN", addr, "TARGET", target, "DIR", dir).Replace(config)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-db", "-f", file}
	if name == "nginx" {
		args = []string{"-c", file, "-p", dir}
	}
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 100 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return addr
		}
		<-tick.C
	}
	t.Fatalf("%s does not listen on %s", name, addr)
	return ""
}

// The peers' configurations: a plain reverse proxy that keeps connections to its
// upstream, all else as it comes.
const (
	nginxConfig = `daemon off; master_process off; pid DIR/nginx.pid; error_log DIR/error.log;
events {}
http {
  access_log off;
  client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
  upstream up { server TARGET; keepalive 8; }
  server {
    listen LISTEN;
    location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; }
  }
}
`
	haproxyConfig = `defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 2s
frontend in
  bind LISTEN
  default_backend up
backend up
  http-reuse always
  server s TARGET
`
)
