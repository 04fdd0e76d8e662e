package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"latchkey/bench/load"
	"latchkey/bench/result"
	"latchkey/internal/freeport"
)

// cores says what runs where; empty is anywhere.
type cores struct{ system, origin, load string }

// defaultCores gives the system a core of its own, if there are two.
func defaultCores() cores {
	if runtime.NumCPU() < 2 {
		return cores{}
	}
	return cores{system: "0", origin: "1", load: "1"}
}

func (c cores) String() string {
	if c == (cores{}) {
		return "nothing pinned"
	}
	return fmt.Sprintf("the system on core %s, its upstream on %s, the load on %s", c.system, c.origin, c.load)
}

// threads is how many the system may use.
func (c cores) threads() (int, error) {
	if c.system == "" {
		return runtime.NumCPU(), nil
	}
	set, err := parseCores(c.system)
	return set.Count(), err
}

// measure takes one sample: it starts an upstream and the system, loads it, and ends
// both. What the system was configured with stays in dir.
func measure(ctx context.Context, s *site, where cores, sys system, sc scenario, dir string) (sample result.Sample, err error) {
	b, err := layBed(s, where, sc, dir)
	if err != nil {
		return sample, err
	}
	upstream, err := startAt(dir, "origin", where.origin, []string{"", "origin", b.Target}, b.Target)
	if err != nil {
		return sample, err
	}
	defer upstream.stop()
	pid := 0
	order := order{Plan: sc.plan}
	order.Plan.Addr = b.Target
	if !sys.direct {
		command, err := sys.write(b)
		if err != nil {
			return sample, err
		}
		p, err := startAt(dir, sys.name, where.system, command, b.Listen)
		if err != nil {
			return sample, err
		}
		defer p.stop()
		pid, order.Plan.Addr = p.Process.Pid, b.Listen
	}
	if sys.gateway {
		if err := ready(ctx, b.Admin); err != nil {
			return sample, err
		}
		order.Changes = changes{Admin: b.Admin, Token: operatorToken, Rate: sc.changes}
	}
	order.Plan.TLS = sc.tls
	if order.Plan.Keys.File, err = s.keyFile(sc.keys, sc.drawn); err != nil {
		return sample, err
	}
	if sc.idle > 0 {
		end, perConnection, err := idle(order.Plan, pid, sc.idle)
		if err != nil {
			return sample, err
		}
		defer end()
		sample.ConnectionRSS = &perConnection
	}
	w := watch{pid: pid, gateway: sys.gateway, admin: b.Admin}
	out, err := w.load(ctx, dir, where.load, order)
	if err != nil {
		return sample, err
	}
	sample.Load, sample.HitRatio = out.Load, w.hitRatio()
	sample.UserSeconds, sample.SystemSeconds = w.after.user-w.before.user, w.after.system-w.before.system
	sample.RSS, sample.PeakRSS = w.after.rss, w.after.peak
	if out.Changes.Seconds > 0 && sc.changes > 0 {
		sample.ChangesPerSec, sample.ChangeFailures = float64(out.Changes.Done)/out.Changes.Seconds, int(out.Changes.Failures)
	}
	return sample, nil
}

// layBed finds addresses and files for a system. Each sample has a copy of the store,
// since changes stay in it.
func layBed(s *site, where cores, sc scenario, dir string) (b bed, err error) {
	b = bed{scenario: sc, Dir: dir, Store: filepath.Join(dir, "store")}
	addrs, err := freeport.Addrs(3)
	if err != nil {
		return b, err
	}
	b.Listen, b.Admin, b.Target = addrs[0], addrs[1], addrs[2]
	if b.Threads, err = where.threads(); err != nil {
		return b, err
	}
	if b.Keys, err = s.keyFile(sc.keys, ""); err != nil {
		return b, err
	}
	if b.Cert, b.Key, err = s.certificate(); err != nil {
		return b, err
	}
	store, err := s.store(sc)
	if err != nil {
		return b, err
	}
	return b, copyStore(b.Store, store)
}

// startAt starts a program and waits until it accepts connections.
func startAt(dir, name, on string, command []string, addr string) (*process, error) {
	p, err := startPinned(dir, name, on, command, nil)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(time.Minute)
	for waiting := true; waiting; {
		if c, err := net.Dial("tcp", addr); err == nil {
			return p, c.Close()
		}
		select {
		case <-tick.C:
		case <-p.ended:
			waiting = false
		case <-timeout:
			waiting = false
		}
	}
	p.stop()
	return nil, fmt.Errorf("%s did not listen on %s: %s", name, addr, p.complaint())
}

// ready waits until the gateway says that it is.
func ready(ctx context.Context, admin string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := ask(ctx, "http://"+admin+"/readyz"); err == nil {
			return nil
		} else if ctx.Err() != nil {
			return fmt.Errorf("the gateway did not become ready: %w", err)
		}
		<-tick.C
	}
}

func ask(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, res.Status)
	}
	return body, err
}

// A watch looks at a system while requests count.
type watch struct {
	pid           int // 0 is no process
	gateway       bool
	admin         string
	before, after use
	hits, misses  float64
}

// load has the order carried out in a process of its own.
func (w *watch) load(ctx context.Context, dir, on string, o order) (out outcome, err error) {
	text, err := json.Marshal(o)
	if err != nil {
		return out, err
	}
	stdout, theirs, err := os.Pipe()
	if err != nil {
		return out, err
	}
	defer stdout.Close()
	p, err := startPinned(dir, "load", on, []string{"", "load"}, func(c *exec.Cmd) {
		c.Stdin, c.Stdout = bytes.NewReader(text), theirs
	})
	_ = theirs.Close()
	if err != nil {
		return out, err
	}
	defer p.stop()
	defer context.AfterFunc(ctx, func() { _ = p.Process.Kill() })()
	said := bufio.NewScanner(stdout)
	said.Buffer(nil, 1<<20)
	for said.Scan() {
		switch line := said.Text(); line {
		case saysMeasuring:
			err = errors.Join(w.look(&w.before), w.lookups(ctx, -1))
		case saysMeasured:
			err = errors.Join(w.look(&w.after), w.lookups(ctx, 1))
		default:
			return out, json.Unmarshal([]byte(line), &out)
		}
		if err != nil {
			return out, err
		}
	}
	if ctx.Err() != nil {
		return out, ctx.Err()
	}
	<-p.ended
	return out, fmt.Errorf("the load ended early: %s", p.complaint())
}

func (w *watch) look(into *use) (err error) {
	if w.pid != 0 {
		*into, err = usage(w.pid)
	}
	return err
}

// lookups adds the gateway's counts of look-ups, times sign.
func (w *watch) lookups(ctx context.Context, sign float64) error {
	if !w.gateway {
		return nil
	}
	text, err := ask(ctx, "http://"+w.admin+"/metrics")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		var value float64
		if _, err := fmt.Sscanf(line, `latchkey_cache_lookups_total{result="hit"} %g`, &value); err == nil {
			w.hits += sign * value
		} else if _, err := fmt.Sscanf(line, `latchkey_cache_lookups_total{result="miss"} %g`, &value); err == nil {
			w.misses += sign * value
		}
	}
	return nil
}

// hitRatio is of look-ups of issued keys. Without any it is nil.
func (w *watch) hitRatio() *float64 {
	if w.hits+w.misses == 0 {
		return nil
	}
	ratio := w.hits / (w.hits + w.misses)
	return &ratio
}

// idle opens connections, has one request answered on each, and keeps them. It says
// by how many bytes each raised the system's resident memory.
func idle(p load.Plan, pid, n int) (end func(), perConnection float64, err error) {
	before, err := usage(pid)
	if err != nil {
		return nil, 0, err
	}
	end, err = load.Hold(p, n)
	if err != nil {
		return nil, 0, err
	}
	after, err := usage(pid)
	if err != nil {
		end()
		return nil, 0, err
	}
	return end, float64(after.rss-before.rss) / float64(n), nil
}
