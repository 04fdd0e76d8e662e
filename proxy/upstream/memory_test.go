package upstream

import (
	"context"
	"fmt"
	"io"
	"latchkey/internal/nettest"
	"net"
	"os"
	"testing"
	"time"
)

// A memoryConn is a connection in memory: after each write it has a response to
// read, in pieces of a size if one is given. It is for one goroutine.
type memoryConn struct {
	net.Conn // nil: what is not overridden is not used
	response []byte
	rest     []byte
	pieces   func() int // of a Read; nil means as much as fits
	end      error      // what Read returns when nothing is left; nil means that it would wait
	past     bool       // the read deadline is over
	short    bool       // writes fail in their middle
	writes   int
	closed   bool
}

func (c *memoryConn) Write(p []byte) (int, error) {
	c.rest = c.response
	if c.writes++; c.short {
		return len(p) / 2, io.ErrClosedPipe
	}
	return len(p), nil
}

func (c *memoryConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 || c.closed {
		if c.past {
			return 0, os.ErrDeadlineExceeded
		}
		if c.end == nil {
			return 0, io.EOF
		}
		return 0, c.end
	}
	n := len(p)
	if c.pieces != nil {
		n = max(1, min(n, c.pieces()))
	}
	n = copy(p[:n], c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *memoryConn) Close() error                     { c.closed = true; return nil }
func (c *memoryConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }
func (c *memoryConn) SetReadDeadline(t time.Time) error {
	c.past = !t.IsZero() && t.Unix() < 2
	return nil
}

// TestRequestSentInPart: an upstream that stopped reading may have answered, but
// its connection has half a request on it.
func TestRequestSentInPart(t *testing.T) {
	c := &memoryConn{response: []byte(clean), short: true}
	u := openMemory(t, Options{}, func() *memoryConn { return c })
	if _, body, err := fetch(u, request("GET")); body != "clean" || err != nil {
		t.Errorf("%q, %v, want clean", body, err)
	}
	if got := u.State()[0]; got.Open != 0 || !c.closed {
		t.Errorf("the connection was kept: %+v", got)
	}
}

// openMemory returns an Upstream whose connections are in memory.
func openMemory(t testing.TB, o Options, connect func() *memoryConn) *Upstream {
	o.Targets = append(o.Targets, Target{URL: "http://192.0.2.1"})
	o.Connect = func(context.Context, string, string) (net.Conn, error) { return connect(), nil }
	return open(t, o)
}

// responses are those that the steady state is measured with.
func responses() map[string]string {
	body := fmt.Sprintf("%01024d", 0)
	const head = "HTTP/1.1 200 OK\r\nServer: x\r\nDate: Wed, 25 Nov 2026 02:00:00 GMT\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nX-Request-Id: 0193\r\n"
	return map[string]string{
		"length":  fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body),
		"chunked": fmt.Sprintf("%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head, len(body), body),
		"long":    fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, 200_000, make([]byte, 200_000)),
		"none":    head + "Content-Length: 0\r\n\r\n",
	}
}

// TestExchangeAllocs holds an exchange without a body, once its connection is
// there, to no allocation at all: by WriteTo and by Read, for each way to choose
// a target.
func TestExchangeAllocs(t *testing.T) {
	if nettest.Race {
		t.Skip("the race detector makes sync.Pool drop what it is given")
	}
	for name, response := range responses() {
		for _, balance := range []Balance{PowerOfTwo, RoundRobin, LeastConnections} {
			t.Run(fmt.Sprint(name, "/", balance), func(t *testing.T) {
				o := Options{Balance: balance, Targets: []Target{{URL: "http://192.0.2.2"}, {URL: "http://192.0.2.3"}}}
				u := openMemory(t, o, func() *memoryConn { return &memoryConn{response: []byte(response)} })
				r, p := request("GET"), make([]byte, 32<<10)
				exchange := func() {
					head := r.Head
					r.Reset()
					r.Method, r.Head, r.HeadTimeout, r.BodyIdle, r.Retries = "GET", head, time.Second, time.Second, 1
					res, err := u.Do(r)
					if err != nil || len(res.Fields) == 0 {
						t.Fatal(err)
					}
					if _, err := res.WriteTo(io.Discard); err != nil {
						t.Fatal(err)
					}
					res.Close()
					if res, err = u.Do(r); err != nil {
						t.Fatal(err)
					}
					for err == nil {
						_, err = res.Read(p)
					}
					res.Close()
				}
				for range 20 {
					exchange()
				}
				if got := testing.AllocsPerRun(500, exchange); got != 0 {
					t.Errorf("%g allocations in two exchanges, want none", got)
				}
			})
		}
	}
}

// BenchmarkExchangeMemory is the work of this package alone.
func BenchmarkExchangeMemory(b *testing.B) {
	for name, response := range responses() {
		b.Run(name, func(b *testing.B) {
			u := openMemory(b, Options{}, func() *memoryConn { return &memoryConn{response: []byte(response)} })
			benchmark(b, u)
		})
	}
}

// BenchmarkExchange is an exchange over the loopback with an upstream that
// answers at once.
func BenchmarkExchange(b *testing.B) {
	s := serve(b, func(c *peer, n int) {
		answer, p := []byte(responses()["length"]), make([]byte, 4<<10)
		for {
			if _, err := c.Conn.Read(p); err != nil {
				return
			}
			if _, err := c.Conn.Write(answer); err != nil {
				return
			}
		}
	})
	b.Run("serial", func(b *testing.B) { benchmark(b, open(b, Options{}, s)) })
	b.Run("parallel", func(b *testing.B) {
		u := open(b, Options{}, s)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			r := request("GET")
			for pb.Next() {
				exchangeOnce(b, u, r)
			}
		})
	})
}

func benchmark(b *testing.B, u *Upstream) {
	b.ReportAllocs()
	r := request("GET")
	for b.Loop() {
		exchangeOnce(b, u, r)
	}
}

func exchangeOnce(b *testing.B, u *Upstream, r *Request) {
	res, err := u.Do(r)
	if err == nil {
		_, err = res.WriteTo(io.Discard)
	}
	if err != nil {
		b.Error(err)
		return
	}
	res.Close()
}
