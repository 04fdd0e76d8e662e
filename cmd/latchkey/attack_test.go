package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"latchkey/internal/nettest"
)

var attackFor = flag.Duration("attack", 1500*time.Millisecond, "for how long each of the tests TestAttack… attacks")

// long is an attack whose effects have had the time to show.
const long = 10 * time.Second

const siegeSite = `
proxy: {listen: ["PROXY"], access_log: {enabled: false}}
routes:
  - {name: all, path: "/{rest:*}", upstream: up, body_bytes: 1048576}
  - {name: probe, path: /probe, upstream: up, auth: none}
upstreams: {up: {targets: ["http://%s"], connections: {idle: 4}}}
`

// A siege is a gateway in a child process that is attacked, while a bystander asks for
// something every 20 ms.
type siege struct {
	*crashSite
	notes
	child  *exec.Cmd
	output string // of the gateway
	good   issued // a key

	bystander               *bystander
	goroutines, descriptors int   // before
	resident                int64 // before
	begun                   time.Time
	connections             int // that the attack has open at most

	outcomes map[string]int
	after    func() // what is to be done once the attack is over; may be nil
}

// besiege starts a gateway whose upstream answers with a request's X-Id. The attack
// is to have at most so many connections open at once.
func besiege(t *testing.T, connections int) *siege {
	t.Helper()
	b := newBystander(t)
	s := &siege{crashSite: newSite(t, fmt.Sprintf(siegeSite, b.addr)), bystander: b, connections: connections, outcomes: map[string]int{}}
	s.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	child, out := s.start()
	s.child, s.output = child, out.Name()
	var err error
	if s.good, err = issue(s.client, s.admin); err != nil {
		t.Fatal(err)
	}
	if status, code, err := use(s.client, s.proxy, s.good.Key); status != 200 || err != nil {
		t.Fatal(status, code, err)
	}
	return s
}

// attack has several attackers do something over and over for as long as the flag
// says, and then holds the gateway to what it owes those who have no part in it: the
// bystander is served, resident memory has not risen by more than 32 KiB a connection and
// 32 MiB, which the collector leaves lying, and no goroutine and no descriptor is left.
func (s *siege) attack(attackers int, do func(attacker, round int)) {
	t := s.t
	t.Helper()
	pid := s.child.Process.Pid
	s.goroutines, s.descriptors = s.goroutinesNow(), s.descriptorsNow()
	s.resident, _ = memory(t, pid)
	s.bystander.probe(s.proxy)
	s.begun = time.Now()
	var all sync.WaitGroup
	for attacker := range attackers {
		all.Go(func() {
			for round := 0; time.Since(s.begun) < *attackFor; round++ {
				do(attacker, round)
			}
		})
	}
	all.Wait()
	lasted := time.Since(s.begun)
	found := s.bystander.end()
	if s.after != nil {
		s.after()
	}
	now, peak := memory(t, pid)
	total := 0
	for _, outcome := range slices.Sorted(maps.Keys(s.outcomes)) {
		t.Logf("%8d %s", s.outcomes[outcome], outcome)
		total += s.outcomes[outcome]
	}
	t.Logf("%d in %v, %.0f a second, from %d attackers", total, lasted.Round(time.Millisecond), float64(total)/lasted.Seconds(), attackers)
	took := found.Took
	t.Logf("bystander: %d requests, %d failed, median %v, 99%% %v, longest %v", len(took), found.Failed, at(took, 50), at(took, 99), at(took, 100))
	t.Logf("resident: %s before, %s at most, %s after", mebibytes(s.resident), mebibytes(peak), mebibytes(now))
	// How long it takes is, of a few requests and on a busy machine, the machine's doing;
	// so is the longest of many.
	if len(took) == 0 || found.Failed > 0 || *attackFor >= long && at(took, 99) > 100*time.Millisecond {
		t.Errorf("the bystander was not served as by an idle gateway")
	}
	if limit := s.resident + int64(s.connections)*32<<10 + 32<<20; peak > limit && !nettest.Race {
		t.Errorf("resident memory rose to %s, want at most %s", mebibytes(peak), mebibytes(limit))
	}
	s.leavesNothing()
}

// leavesNothing expects that what the attack has had the gateway open is closed, and
// stops the gateway, which ends at once only if it has nothing left to serve.
func (s *siege) leavesNothing() {
	s.t.Helper()
	s.client.CloseIdleConnections()
	const few = 10 // connections to the upstream that rest, and those of the metrics
	nettest.Until(s.t, "the descriptors are those of before", func() bool { return s.descriptorsNow() <= s.descriptors+few })
	if *attackFor >= long { // fasthttp's workers wait for so long for other connections
		for deadline := time.Now().Add(30 * time.Second); s.goroutinesNow() > s.goroutines+few; <-time.After(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				s.t.Errorf("%d goroutines are left; before there were %d", s.goroutinesNow(), s.goroutines)
				break
			}
		}
	}
	from := time.Now()
	if err := s.child.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	if err := s.child.Wait(); err != nil {
		text, _ := os.ReadFile(s.output)
		s.t.Errorf("the gateway, stopped: %v\n%.2000s", err, text)
	}
	if took := time.Since(from); took > 20*time.Second { // a connection in use is waited for 30 s long
		s.t.Errorf("the gateway took %v to stop", took)
	}
}

func (s *siege) goroutinesNow() int {
	s.t.Helper()
	n, err := strconv.Atoi(s.metrics()["go_goroutines"])
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *siege) descriptorsNow() int {
	s.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.child.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(fds)
}

// count counts an outcome, and reports one that is not among those wanted.
func (s *siege) count(n int, what, got string, want ...string) {
	s.note(func() {
		outcome := what + ": " + got
		if s.outcomes[outcome] += n; !slices.Contains(want, got) && s.outcomes[outcome] < 3 {
			s.t.Errorf("%s, want %v", outcome, want)
		}
	})
}

// A bomb is something to send on a connection of its own, and the status that is to
// answer it.
type bomb struct {
	name, bytes string
	want        string
}

// throw sends a bomb to the plane at the URL, and expects its answer while it may
// still be sending.
func (s *siege) throw(url string, from net.Addr, b bomb) {
	c, err := (&net.Dialer{Timeout: 20 * time.Second, LocalAddr: from}).Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		s.count(1, b.name, err.Error(), b.want)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(c, b.bytes) // the gateway may have heard enough
	}()
	s.count(1, b.name, answerOf(c), b.want)
	_ = c.Close()
	<-sent
}

// answerOf reads an answer to its end and returns its status, or what is wrong.
func answerOf(c net.Conn) string {
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
	}
	if err != nil {
		return err.Error()
	}
	return strconv.Itoa(res.StatusCode)
}

// A pace deals out the times at which something is due, so many a second.
type pace struct {
	begun  time.Time
	every  time.Duration
	number atomic.Int64
}

// next waits until the next thing is due, unless that is so already.
func (p *pace) next() (number int64) {
	number = p.number.Add(1) - 1
	if wait := time.Until(p.begun.Add(time.Duration(number) * p.every)); wait > 0 {
		<-time.After(wait)
	}
	return number
}
