package upstream

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestNoExchangeSeesAnother lets many exchanges share few connections to
// upstreams that misbehave in every way at random, while options, checks and
// expiry go on. Each response says which request it is for: whoever gets a whole
// one gets its own.
func TestNoExchangeSeesAnother(t *testing.T) {
	misbehave := func(c *peer, _ int) {
		for {
			head, body, ok := c.request()
			if !ok {
				return
			}
			path := strings.Fields(head)[1]
			answer := path + "|" + body
			switch rand.IntN(12) {
			case 0:
				return
			case 1:
				c.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer)+1, answer))
				return
			case 2: // too much, at once
				c.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", len(answer), answer))
			case 3:
				c.say("HTTP/1.1 200 OK\r\nContent-Length: 6, 6\r\n\r\npoison")
			case 4:
				c.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n0\r\n\r\n", len(answer), answer))
			case 5:
				c.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s", answer))
				return
			case 6:
				c.say(fmt.Sprintf("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(answer), answer))
				c.say("0\r\nX: y\r\n\r\n")
			default:
				c.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer))
			}
		}
	}
	a, b := serve(t, misbehave), serve(t, misbehave)
	o := Options{Connections: Connections{Max: 3, Idle: 2, Wait: time.Minute}, Health: Health{Path: "/health", Interval: time.Nanosecond, Unhealthy: 1 << 20}}
	u := open(t, o, a, b)
	stop := make(chan struct{})
	var background sync.WaitGroup
	background.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			o.Targets = []Target{{URL: a.url(), Weight: 1 + i%3}, {URL: b.url()}}[:1+i%2]
			o.Balance = []Balance{RoundRobin, LeastConnections, PowerOfTwo}[i%3]
			if err := u.Update(o); err != nil {
				t.Error(err)
			}
			u.Check(t.Context(), time.Now())
			u.Expire(time.Now().Add(time.Duration(i%2) * time.Minute))
			u.State()
		}
	})
	var workers sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[string]int{}
	for w := range 8 {
		workers.Go(func() {
			for i := range 200 {
				id := fmt.Sprintf("/%d-%d", w, i)
				outcome := exchangeOwn(t, u, id, i%3)
				mu.Lock()
				outcomes[outcome]++
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	close(stop)
	background.Wait()
	t.Logf("outcomes: %v", outcomes)
	if outcomes["whole"] < 400 {
		t.Errorf("only %d of 1600 were whole", outcomes["whole"])
	}
	for _, s := range u.State() {
		if s.InFlight != 0 || s.Waiting != 0 || s.Open != s.Idle {
			t.Errorf("after it: %+v", s)
		}
	}
}

// exchangeOwn does an exchange and returns its outcome in a word.
func exchangeOwn(t *testing.T, u *Upstream, id string, how int) string {
	r := request("GET")
	want := id + "|"
	switch how {
	case 1:
		r = send("POST", strings.NewReader(id), -1)
		want += id
	case 2:
		r = send("PUT", nil, int64(len(id)))
		r.Body = strings.NewReader(id)
		want += id
	}
	r.Head = []byte(strings.Replace(string(r.Head), " / ", " "+id+" ", 1))
	r.Retries = how
	res, err := u.Do(r)
	if err != nil {
		return kind(err)
	}
	defer res.Close()
	body, err := io.ReadAll(res)
	if err != nil {
		if !strings.HasPrefix(want, string(body)) && string(body) != want {
			t.Errorf("%s got the beginning of another's: %q", id, body)
		}
		return "body " + kind(err)
	}
	if string(body) != want {
		t.Errorf("%s got %q", id, body)
	}
	return "whole"
}

func TestIdleDeadlineMovesInSteps(t *testing.T) {
	var d idleDeadline
	var set []time.Duration
	begin := time.Unix(1000, 0)
	for ms := range 5000 {
		now := begin.Add(time.Duration(ms) * time.Millisecond)
		if err := d.renew(now, 30*time.Second, func(at time.Time) error { set = append(set, at.Sub(now)); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(set); got != "[31s 31s 31s 31s 31s]" {
		t.Errorf("in five seconds the deadline was set to %s from then, want once a second and a second late", got)
	}
	if err := d.renew(begin.Add(time.Hour), time.Second, func(time.Time) error { return net.ErrClosed }); err != net.ErrClosed {
		t.Errorf("error %v, want that of the connection", err)
	}
}
