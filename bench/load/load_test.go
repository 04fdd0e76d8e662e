package load

import (
	"bufio"
	"context"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"latchkey/internal/nettest"
)

const twoKeys = "key-one\nkey-two\n"

func keysIn(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// answering answers each request, with the number of requests so far.
func answering(t *testing.T, answer func(n int64, req *http.Request) string) string {
	var n atomic.Int64
	return nettest.Serve(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			if _, err := io.WriteString(c, answer(n.Add(1), req)); err != nil {
				return
			}
		}
	})
}

const fine = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

func planFor(t *testing.T, addr string) Plan {
	return Plan{Addr: addr, Connections: 4, Duration: 200 * time.Millisecond, Method: "GET", Path: "/", Bytes: 2, Want: []int{200}, Keys: Keys{File: keysIn(t, twoKeys)}}
}

func run1(t *testing.T, p Plan) Result {
	t.Helper()
	var order []string
	r, err := Run(t.Context(), p, func() { order = append(order, "measuring") }, func() { order = append(order, "measured") })
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, " "); got != "measuring measured" {
		t.Errorf("told %q", got)
	}
	return r
}

func TestEveryAnswerIsCounted(t *testing.T) {
	var keys [2]atomic.Int64
	var served atomic.Int64
	addr := answering(t, func(_ int64, req *http.Request) string {
		served.Add(1)
		keys[map[string]int{"key-one": 0, "key-two": 1}[req.Header.Get("X-API-Key")]].Add(1)
		return fine
	})
	p := planFor(t, addr)
	p.Requests = 100
	p.Duration = time.Minute // ends with the hundredth request
	r := run1(t, p)
	if r.Requests != 100 || r.Errors != 0 || served.Load() != 100 {
		t.Errorf("%d requests and %d errors of %d served, want 100, 0 and 100", r.Requests, r.Errors, served.Load())
	}
	if keys[0].Load() == 0 || keys[1].Load() == 0 {
		t.Error("not every key was drawn")
	}
	last := Point{}
	for _, point := range r.Latency {
		if point.Percentile < last.Percentile || point.Microseconds < last.Microseconds {
			t.Errorf("%v comes after %v", point, last)
		}
		last = point
	}
}

func TestWhatIsAnError(t *testing.T) {
	for name, answer := range map[string]string{
		"another status":        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
		"bytes after an answer": fine + "x",
		"another length":        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok!",
		"no length":             "HTTP/1.1 200 OK\r\n\r\n",
		"a length of letters":   "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
		"a negative length":     "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"not HTTP":              "SSH-2.0-OpenSSH\r\n\r\n",
		"a head without end":    "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 32<<10),
	} {
		t.Run(name, func(t *testing.T) {
			p := planFor(t, answering(t, func(int64, *http.Request) string { return answer }))
			p.Requests, p.Duration = 8, time.Minute
			if r := run1(t, p); r.Requests != 0 || r.Errors != 8 || r.Example == "" {
				t.Errorf("%d good, %d errors such as %q, want 8 errors", r.Requests, r.Errors, r.Example)
			}
		})
	}
}

func TestWhatIsNoError(t *testing.T) {
	for name, answer := range map[string]string{
		"an answer that ends the connection": "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
		"an answer before the final one":     "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + fine,
		"a body of many reads":               "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			p := planFor(t, answering(t, func(int64, *http.Request) string { return answer }))
			p.Requests, p.Duration, p.Method, p.BodyBytes = 8, time.Minute, "POST", 10_000
			p.Bytes = len(answer) - strings.LastIndex(answer, "\r\n\r\n") - len("\r\n\r\n")
			if r := run1(t, p); r.Requests != 8 || r.Errors != 0 {
				t.Errorf("%d good, %d errors such as %q, want 8 good", r.Requests, r.Errors, r.Example)
			}
		})
	}
}

// TestAStallCannotHide has a server that answers in a millisecond stand still once,
// for half of the time. A closed loop has one slow request; an open one has all that
// were due.
func TestAStallCannotHide(t *testing.T) {
	for _, tc := range []struct {
		name string
		rate float64
		want float64 // percent that took more than 50 ms
	}{
		{"closed", 0, 0.4}, {"open", 500, 80.1}, // of 251 answered, 1; the 201 from the stall on, which are never less than 100 ms behind
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := keysIn(t, twoKeys)
			synctest.Test(t, func(t *testing.T) {
				keys, err := openKeys(Keys{File: file})
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				r := &run{plan: &Plan{Connections: 1, Rate: tc.rate, Method: "GET", Path: "/", Bytes: 2, Want: []int{200}}, keys: keys, began: began, from: began, until: began.Add(600 * time.Millisecond)}
				w := newWorker(r, 0, newLedger())
				var server net.Conn
				w.conn, server = net.Pipe()
				go stall(server, 50, 300*time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				w.work(ctx)
				above := 100 - 100*float64(countUpTo(w.ledger, 50*time.Millisecond))/float64(w.ledger.latency.TotalCount())
				if math.Abs(above-tc.want) > 0.5 {
					t.Errorf("%.1f%% of %d took over 50 ms, want %.1f%%", above, w.ledger.latency.TotalCount(), tc.want)
				}
			})
		})
	}
}

// stall answers in a millisecond each, but for one request.
func stall(c net.Conn, which int, long time.Duration) {
	defer c.Close()
	r := bufio.NewReader(c)
	for n := 1; ; n++ {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		if time.Sleep(time.Millisecond); n == which { // the bubble's time
			time.Sleep(long)
		}
		if _, err := io.WriteString(c, fine); err != nil {
			return
		}
	}
}

func countUpTo(l *ledger, d time.Duration) (n int64) {
	for _, bar := range l.latency.Distribution() {
		if bar.To <= units(d) {
			n += bar.Count
		}
	}
	return n
}

// TestATimerThatIsLateIsTheLoadsOwn: a request whose connection was free counts from
// when it was sent.
func TestATimerThatIsLateIsTheLoadsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &worker{run: &run{}, ledger: newLedger()}
		now := time.Now()
		if from, ok := w.await(t.Context(), now.Add(-time.Second)); !ok || !from.Equal(now.Add(-time.Second)) {
			t.Errorf("overdue: counts from %v, want when it was due", from.Sub(now))
		}
		if from, ok := w.await(t.Context(), now.Add(time.Second)); !ok || !from.Equal(time.Now()) {
			t.Errorf("early: counts from %v, want when it is sent", from.Sub(now))
		}
	})
}

func TestZipfIsOneOverN(t *testing.T) {
	const keys, draws = 1000, 2_000_000
	r := rand.New(rand.NewPCG(1, 2))
	counts := make([]float64, keys)
	for range draws {
		counts[zipf(r.Float64(), keys)]++
	}
	whole := math.Log(keys + 1)
	for _, n := range []int{1, 2, 10, 100, 999} {
		want := draws * math.Log(float64(n+1)/float64(n)) / whole
		if got := counts[n-1]; math.Abs(got-want) > 6*math.Sqrt(want) {
			t.Errorf("key %d was drawn %.0f times, want about %.0f", n, got, want)
		}
	}
}

func TestKeysThatCannotBeUsed(t *testing.T) {
	for _, tc := range []struct {
		name string
		keys Keys
		want string
	}{
		{"no file", Keys{File: "absent"}, "no such file"},
		{"of two lengths", Keys{File: keysIn(t, "a\nbb\n")}, "all of one length"},
		{"empty", Keys{File: keysIn(t, "")}, "not a file of keys"},
		{"too few", Keys{File: keysIn(t, twoKeys), Count: 3}, "has 2 keys, not 3"},
		{"another way to draw", Keys{File: keysIn(t, twoKeys), Draw: "normal"}, "uniform, zipf or once"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := openKeys(tc.keys); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("openKeys() = %v, want %q", err, tc.want)
			}
		})
	}
}

// TestStreamsAreHeldToTheirWord: one that is refused, or ends, is an error.
func TestStreamsAreHeldToTheirWord(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
	for _, tc := range []struct {
		name, answer string
		ends         bool
		errors       int64
	}{
		{"lives on", head, false, 0}, {"ends", head, true, 1}, {"refused", "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", false, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			over := make(chan struct{})
			defer close(over)
			addr := nettest.Serve(t, func(c net.Conn) {
				r := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					if req.URL.Path != "/events" {
						io.WriteString(c, fine)
						continue
					}
					io.WriteString(c, tc.answer)
					if !tc.ends {
						<-over
					}
					return
				}
			})
			p := planFor(t, addr)
			p.Streams, p.StreamPath, p.Duration = 1, "/events", 300*time.Millisecond
			if r := run1(t, p); r.Errors != tc.errors || r.Requests == 0 {
				t.Errorf("%d errors, such as %q, and %d requests, want %d errors", r.Errors, r.Example, r.Requests, tc.errors)
			}
		})
	}
}

func TestHoldKeepsWhatItOpened(t *testing.T) {
	var open atomic.Int64
	addr := nettest.Serve(t, func(c net.Conn) {
		open.Add(1)
		defer open.Add(-1)
		r := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			io.WriteString(c, fine)
		}
	})
	end, err := Hold(planFor(t, addr), 20)
	if err != nil || open.Load() != 20 {
		t.Fatalf("Hold() = %v with %d open, want 20", err, open.Load())
	}
	end()
	nettest.Until(t, "all are closed", func() bool { return open.Load() == 0 })
}
