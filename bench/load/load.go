// Package load sends requests over HTTP/1.1 and says how long their answers took.
//
// It knows nothing of the server it loads. A closed loop sends the next request of
// a connection when the last is answered, and finds what a server can do. An open
// loop sends at a constant rate whatever the server does, and finds how long clients
// wait: a request that has to wait for its connection counts from when it was due,
// so that a server that stalls cannot hide it by being asked less (coordinated
// omission; Gil Tene, "How NOT to Measure Latency").
package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Plan is what to send.
type Plan struct {
	Addr        string        // host:port
	TLS         bool          // the server's certificate is not verified
	Connections int           // at least 1
	Rate        float64       // requests a second on all connections together; 0 is a closed loop
	Warmup      time.Duration // before anything counts
	Duration    time.Duration // of what counts
	Requests    int           // ends sooner, after so many in all; 0 is no limit
	Method      string
	Path        string
	BodyBytes   int // sent with each request
	Keys        Keys
	Want        []int // the statuses of good answers; all others are errors
	Bytes       int   // the length of a good answer's body, if its status is 200
	Streams     int   // further connections that ask for StreamPath and read until the end
	StreamPath  string
}

// Problems returns what keeps the plan from being run.
func (p *Plan) Problems() error {
	var all []error
	if p.Connections < 1 {
		all = append(all, fmt.Errorf("%d connections: at least 1 is needed", p.Connections))
	}
	if p.Rate < 0 {
		all = append(all, fmt.Errorf("a rate of %g requests a second: 0 or more is needed", p.Rate))
	}
	if p.Warmup < 0 || p.Duration <= 0 {
		all = append(all, fmt.Errorf("a warm-up of %v and a duration of %v: the second must be above zero", p.Warmup, p.Duration))
	}
	return errors.Join(all...)
}

// A Result is what was found between the end of the warm-up and the end.
type Result struct {
	Requests int64   // answered as wanted
	Errors   int64   // everything else
	Example  string  // one of the errors; empty if there was none
	Seconds  float64 // of what counts
	Latency  []Point // by rising percentile
	Late     float64 // microseconds by which 99% of an open loop's sends on idle connections came late: the load's own delay, which no latency has in it
}

// A run is one plan being carried out.
type run struct {
	plan    *Plan
	keys    *keyFile
	began   time.Time
	from    time.Time // when it begins to count
	until   time.Time
	taken   atomic.Int64 // requests begun, from all connections
	example atomic.Pointer[string]
	ledgers []*ledger
}

// Run carries the plan out. It calls measuring when it begins to count and measured
// when it ends, at once and from one goroutine.
func Run(ctx context.Context, p Plan, measuring, measured func()) (Result, error) {
	if err := p.Problems(); err != nil {
		return Result{}, err
	}
	keys, err := openKeys(p.Keys)
	if err != nil {
		return Result{}, err
	}
	r := &run{plan: &p, keys: keys}
	workers, err := r.connect(ctx)
	if err != nil {
		return Result{}, err
	}
	endStreams, err := r.stream(ctx)
	if err != nil {
		return Result{}, err
	}
	defer endStreams()
	r.began = time.Now()
	r.from = r.began.Add(p.Warmup)
	r.until = r.from.Add(p.Duration)
	ctx, cancel := context.WithDeadline(ctx, r.until)
	defer cancel()
	var all sync.WaitGroup
	for _, w := range workers {
		all.Go(func() { w.work(ctx) })
	}
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	return r.watch(ctx, ended, measuring, measured), nil
}

// watch tells of the beginning and the end, and adds up.
func (r *run) watch(ctx context.Context, ended <-chan struct{}, measuring, measured func()) Result {
	wait := func(at time.Time) {
		select {
		case <-ended:
		case <-ctx.Done():
		case <-time.After(time.Until(at)):
		}
	}
	wait(r.from)
	measuring()
	began := time.Now()
	wait(r.until)
	seconds := time.Since(began).Seconds()
	measured()
	<-ended // none waits for long: every read and write has a deadline
	out := merge(r.ledgers)
	out.Seconds = seconds
	if e := r.example.Load(); e != nil {
		out.Example = *e
	}
	return out
}

// connect opens the connections, each with its worker.
func (r *run) connect(ctx context.Context) ([]*worker, error) {
	const shared = 64 // connections to a ledger: one each would take gigabytes for 10,000
	workers := make([]*worker, r.plan.Connections)
	for i := range workers {
		if i%shared == 0 {
			r.ledgers = append(r.ledgers, newLedger())
		}
		workers[i] = newWorker(r, i, r.ledgers[len(r.ledgers)-1])
		if err := workers[i].dial(ctx); err != nil {
			return nil, err
		}
	}
	return workers, nil
}

// stream opens the further connections, and returns what closes them.
func (r *run) stream(ctx context.Context) (end func(), err error) {
	var open []net.Conn
	end = func() {
		for _, c := range open {
			_ = c.Close()
		}
	}
	for i := range r.plan.Streams {
		c, err := r.dial(ctx)
		if err != nil {
			end()
			return nil, err
		}
		open = append(open, c)
		request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: bench\r\nX-API-Key: %s\r\n\r\n", r.plan.StreamPath, r.keys.at(i%r.keys.count))
		if _, err := c.Write([]byte(request)); err != nil {
			end()
			return nil, fmt.Errorf("ask for a stream: %w", err)
		}
		go func() {
			if err := follow(c); !errors.Is(err, net.ErrClosed) {
				r.ledgers[0].fail()
				r.note(err)
			}
		}()
	}
	return end, nil
}

// follow reads a stream until it fails.
func follow(c net.Conn) error {
	b := make([]byte, 1024)
	n, err := io.ReadAtLeast(c, b, len("HTTP/1.1 200"))
	if err == nil && !bytes.HasPrefix(b[:n], []byte("HTTP/1.1 200")) {
		return fmt.Errorf("a stream begins with %q", b[:len("HTTP/1.1 200")])
	}
	for err == nil {
		_, err = c.Read(b)
	}
	return fmt.Errorf("a stream ended: %w", err)
}

// note keeps the first error as an example.
func (r *run) note(err error) {
	text := err.Error()
	r.example.CompareAndSwap(nil, &text)
}

func (r *run) dial(ctx context.Context) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", r.plan.Addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if !r.plan.TLS {
		return c, nil
	}
	// The server is one that the harness has started, with a certificate made for it.
	encrypted := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	if err := encrypted.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("shake hands: %w", err)
	}
	return encrypted, nil
}

// Hold opens so many connections one after the other, has one request of the plan
// answered on each, and keeps them open until end is called.
func Hold(p Plan, connections int) (end func(), err error) {
	keys, err := openKeys(p.Keys)
	if err != nil {
		return nil, err
	}
	r := &run{plan: &p, keys: keys}
	var open []*worker
	end = func() {
		for _, w := range open {
			_ = w.conn.Close()
		}
	}
	for i := range connections {
		w := newWorker(r, i, nil)
		w.buf = make([]byte, 4<<10) // of so many connections
		if err := w.dial(context.Background()); err != nil {
			end()
			return nil, err
		}
		open = append(open, w)
		if err := w.exchange(context.Background(), time.Now()); err != nil {
			end()
			return nil, err
		}
	}
	return end, nil
}
