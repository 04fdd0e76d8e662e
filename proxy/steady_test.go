package proxy

import (
	"bufio"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestSteadyPeers has a client, and then an upstream, that takes a little all the time: it
// does not count as one that takes nothing, though the kernel's buffer for it is never
// empty for as long as that may last.
func TestSteadyPeers(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux is told to say so")
	}
	const size, piece, pause, idle = 6 << 20, 64 << 10, 160 * time.Millisecond, 2 * time.Second
	trickle := func(r io.Reader) (n int64, err error) {
		for {
			m, err := io.CopyN(io.Discard, r, piece)
			if n += m; err != nil {
				return n, err
			}
			time.Sleep(pause)
		}
	}
	took := make(chan int64, 1)
	h := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			n, err := trickle(r.Body)
			if err != io.EOF {
				t.Error(err)
			}
			took <- n
			return
		}
		_, _ = w.Write(make([]byte, size)) // is cut short where the client is
	}, func(o *Options) { o.Routes[0].Public, o.BodyIdle, o.Routes[0].Timeout = true, idle, time.Minute })

	c := h.dialRaw()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(c, 16), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := trickle(res.Body); n != size || err != io.EOF {
		t.Errorf("the client got %d bytes of %d: %v", n, size, err)
	}

	res, err = http.Post("http://"+h.addr+"/", "application/octet-stream", strings.NewReader(strings.Repeat("x", size)))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if n := <-took; n != size || res.StatusCode != 200 {
		t.Errorf("the upstream got %d bytes of %d, the client %s", n, size, res.Status)
	}
}

// TestARefusedUploadIsReadOn has a client send all of a body before it reads anything: it
// gets its refusal, not a broken pipe.
func TestARefusedUploadIsReadOn(t *testing.T) {
	h := start(t, nil, nil)
	for range 3 {
		c := h.dialRaw()
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 16777216\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // it is refused by now
		if _, err := c.Write(make([]byte, 16<<20)); err != nil {
			t.Fatal(err)
		}
		readStatus(t, c, 401)
	}
}
