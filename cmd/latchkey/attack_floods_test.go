package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/apikey"
)

// entropy is as good as any for keys that are not issued.
func entropy() (e [32]byte) {
	for i := range e {
		e[i] = byte(rand.Uint32())
	}
	return e
}

// TestAttackByMadeUpKeys tries a million keys a minute, half of them with a good
// checksum, so that only the store can tell. Each is refused, and the keys that are
// good stay in the cache.
//
//	go test ./cmd/latchkey -run TestAttack -v -attack 60s
func TestAttackByMadeUpKeys(t *testing.T) {
	const batch, connections, goodKeys = 10, 8, 100
	s := besiege(t, connections)
	good := make([]issued, goodKeys)
	var issuing sync.WaitGroup
	for i := range good {
		issuing.Go(func() {
			var err error
			if good[i], err = issue(s.client, s.admin); err != nil {
				t.Error(err)
			}
		})
	}
	issuing.Wait()
	useAll := func() {
		for _, k := range good {
			if status, code, err := use(s.client, s.proxy, k.Key); status != 200 || err != nil {
				t.Errorf("a good key: %d %s, %v", status, code, err)
			}
		}
	}
	lookups := func(result string) float64 {
		n, err := strconv.ParseFloat(s.metrics()[`latchkey_cache_lookups_total{result="`+result+`"}`], 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	useAll() // which fills the cache
	hits, misses := lookups("hit"), lookups("miss")
	p := &pace{begun: time.Now(), every: batch * time.Minute / 1_000_000}
	format := apikey.NewSecretFormat("lk")
	conns := make([]*flooded, connections)
	for i := range conns {
		conns[i] = s.flood()
	}
	s.after = func() {
		useAll()
		hits, misses = lookups("hit")-hits, lookups("miss")-misses
		for _, c := range conns {
			c.Close()
		}
	}
	s.attack(connections+1, func(attacker, round int) {
		if attacker == connections { // no attacker, but a client with good keys
			k := good[round%goodKeys]
			status, code, err := use(s.client, s.proxy, k.Key)
			if s.count(1, "a good key", fmt.Sprint(status, " ", code), "200 "); err != nil {
				t.Error(err)
			}
			<-time.After(5 * time.Millisecond)
			return
		}
		p.next()
		var requests bytes.Buffer
		for i := range batch {
			secret := format.New(apikey.EnvironmentLive, entropy())
			if i%2 == 1 {
				secret = secret[:len(secret)-1] + "-"
			}
			fmt.Fprintf(&requests, "GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: %s\r\n\r\n", secret)
		}
		for _, got := range conns[attacker].exchange(requests.Bytes(), batch) {
			s.count(1, "a made-up key", got, "401 invalid_api_key")
		}
	})
	t.Logf("good keys: %.0f look-ups answered by the cache, %.0f by the store", hits, misses)
	if misses > hits/100 {
		t.Errorf("made-up keys displaced good ones, which were all in the cache")
	}
}

// A flooded is a connection on which many requests are under way at once.
type flooded struct {
	net.Conn
	r *bufio.Reader
}

func (s *siege) flood() *flooded {
	s.t.Helper()
	c, err := net.DialTimeout("tcp", strings.TrimPrefix(s.proxy, "http://"), 20*time.Second)
	if err != nil {
		s.t.Errorf("connect: %v", err)
		c, _ = net.Pipe() // on which nothing is answered
		c.Close()
	}
	return &flooded{c, bufio.NewReader(c)}
}

// exchange sends requests all at once, and returns the status of each answer with its
// code, or with its body where it is good.
func (f *flooded) exchange(requests []byte, n int) (got []string) {
	f.SetDeadline(time.Now().Add(30 * time.Second))
	sent := make(chan error, 1)
	go func() {
		_, err := f.Write(requests)
		sent <- err
	}()
	for range n {
		res, err := http.ReadResponse(f.r, nil)
		if err != nil {
			return append(got, err.Error())
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			return append(got, err.Error())
		}
		if _, code, found := bytes.Cut(body, []byte(`"code":"`)); res.StatusCode != 200 && found {
			body, _, _ = bytes.Cut(code, []byte(`"`))
		}
		got = append(got, fmt.Sprintf("%d %s", res.StatusCode, body))
	}
	if err := <-sent; err != nil {
		return append(got, err.Error())
	}
	return got
}

// TestAttackByChurn makes 5,000 connections a second, most of them for nothing.
func TestAttackByChurn(t *testing.T) {
	const attackers = 16
	s := besiege(t, attackers)
	p := &pace{begun: time.Now(), every: time.Second / 5000}
	addr := strings.TrimPrefix(s.proxy, "http://")
	kinds := []struct {
		name, bytes, want string
	}{
		{name: "nothing, and an end"},
		{name: "nothing, and a reset"},
		{name: "half a head, and a reset", bytes: "GET / HTTP/1.1\r\nHost:"},
		{name: "a request, and a reset before the answer", bytes: "GET /probe HTTP/1.1\r\nHost: a\r\n\r\n"},
		{name: "one request", bytes: "GET /probe HTTP/1.1\r\nHost: a\r\n\r\n", want: "200"},
		{name: "one request, the last", bytes: "GET /probe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", want: "200"},
		{name: "garbage", bytes: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", want: "400"},
	}
	s.attack(attackers, func(_, _ int) {
		n := p.next()
		k := kinds[n%int64(len(kinds))]
		c, err := (&net.Dialer{Timeout: 20 * time.Second, LocalAddr: loopback(n)}).Dial("tcp", addr)
		if err != nil {
			s.count(1, k.name, err.Error())
			return
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		got := ""
		if _, err := io.WriteString(c, k.bytes); err != nil {
			got = err.Error()
		} else if k.want != "" {
			got = answerOf(c)
		}
		s.count(1, k.name, got, k.want)
		if k.name != "nothing, and an end" {
			c.(*net.TCPConn).SetLinger(0)
		}
		_ = c.Close()
	})
}

// loopback returns one of many addresses of the loopback: of one alone, the ports
// would run out.
func loopback(n int64) net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 1+byte(n>>16%250), byte(n>>8), 1+byte(n%250))}
}

// TestAttackByPipelining sends requests without end and without waiting for answers:
// by clients that read them, which get them in order and each its own, by clients with
// no key, and by clients that read nothing.
func TestAttackByPipelining(t *testing.T) {
	const batch, attackers = 500, 24
	s := besiege(t, attackers)
	conns := make([]*flooded, attackers)
	for i := range conns {
		conns[i] = s.flood()
	}
	s.after = func() {
		for _, c := range conns {
			c.Close()
		}
	}
	s.attack(attackers, func(attacker, round int) {
		var requests bytes.Buffer
		want := make([]string, batch)
		for i := range batch {
			id := fmt.Sprintf("%d-%d-%d", attacker, round, i)
			fmt.Fprintf(&requests, "GET / HTTP/1.1\r\nHost: a\r\nX-Id: %s\r\n", id)
			if want[i] = "401 missing_api_key"; attacker%3 != 0 {
				fmt.Fprintf(&requests, "X-API-Key: %s\r\n", s.good.Key)
				want[i] = "200 " + id
			}
			requests.WriteString("\r\n")
		}
		if attacker%3 == 2 {
			conns[attacker].SetDeadline(s.begun.Add(*attackFor)) // when it has been long enough
			n, err := conns[attacker].Write(requests.Bytes())
			s.count(n*batch/requests.Len(), "sent, and no answer was read", "", "")
			if err != nil {
				conns[attacker].Close()
				conns[attacker] = s.flood()
			}
			return
		}
		got := conns[attacker].exchange(requests.Bytes(), batch)
		for i, answer := range got {
			if answer != want[i] {
				s.count(1, "pipelined", fmt.Sprintf("%s, want %s", answer, want[i]))
				return
			}
		}
		s.count(len(got), "answered in order", "", "")
	})
}
