package upstream

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// TestUpdatesAndLookups takes a name away and brings it back while names are looked up;
// the race detector looks on.
func TestUpdatesAndLookups(t *testing.T) {
	lookup := func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	both := Options{Targets: []Target{{URL: "http://a.example"}, {URL: "http://b.example"}}, Lookup: lookup}
	one := Options{Targets: both.Targets[:1], Lookup: lookup}
	u, err := New(both)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	var all sync.WaitGroup
	all.Go(func() {
		for n := range 500 {
			if err := u.Resolve(context.Background(), time.Unix(int64(n)*3600, 0)); err != nil {
				t.Error(err)
			}
		}
	})
	for range 500 {
		for _, o := range []Options{one, both} {
			if err := u.Update(o); err != nil {
				t.Fatal(err)
			}
		}
	}
	all.Wait()
}

// TestACheckThatIsNoneAnyMore has the check taken out of the configuration while one is
// under way that would find the target bad: it stays in service, since nothing would bring
// it back.
func TestACheckThatIsNoneAnyMore(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	s := serve(t, func(p *peer, _ int) {
		p.head()
		asked <- struct{}{}
		<-answer
		p.say("HTTP/1.1 500 x\r\n\r\n")
	})
	o := Options{Targets: []Target{{URL: s.url()}}, Health: Health{Path: "/health", Interval: time.Millisecond, Timeout: time.Minute, Unhealthy: 1}}
	u, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	now := time.Now()
	for _, keep := range []bool{false, true} { // and where it stays, its verdict counts
		var pass sync.WaitGroup
		now = now.Add(time.Minute)
		pass.Go(func() { u.Check(context.Background(), now) })
		<-asked
		if !keep {
			o.Health = Health{}
		}
		if err := u.Update(o); err != nil {
			t.Fatal(err)
		}
		answer <- struct{}{}
		pass.Wait()
		if down := u.State()[0].Down > 0; down != keep {
			t.Errorf("the check stays: %t; the target is down: %t", keep, down)
		}
		o.Health = Health{Path: "/health", Interval: time.Millisecond, Timeout: time.Minute, Unhealthy: 1}
		if err := u.Update(o); err != nil {
			t.Fatal(err)
		}
	}
}
