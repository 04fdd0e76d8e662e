package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

// TestUploads: what arrives at the upstream of a body, in each way to send it.
func TestUploads(t *testing.T) {
	long := strings.Repeat("0123456789", 50_000)
	failing := func(text string) io.Reader {
		return io.MultiReader(strings.NewReader(text), iotest.ErrReader(errors.New("client left")))
	}
	for _, tc := range []struct {
		name   string
		body   io.Reader
		length int64
		want   string // the body that arrives as a whole; or the kind of the error
	}{
		{"a length", strings.NewReader("hello"), 5, "=hello"},
		{"a long body", strings.NewReader(long), int64(len(long)), "=" + long},
		{"chunks", strings.NewReader("hello"), -1, "=hello"},
		{"a long body in chunks", strings.NewReader(long), -1, "=" + long},
		{"pieces of a byte", iotest.OneByteReader(strings.NewReader("hello")), -1, "=hello"},
		{"the last piece with its EOF", iotest.DataErrReader(strings.NewReader("hello")), -1, "=hello"},
		{"no bytes in chunks", strings.NewReader(""), -1, "="},
		{"no more than the length is sent", strings.NewReader("hello, world"), 5, "=hello"},
		{"a body shorter than its length", strings.NewReader("hell"), 5, "body"},
		{"a body that fails", failing("hell"), 5, "body"},
		{"a body that fails in chunks", failing("hell"), -1, "body"},
		{"a body that fails at once", failing(""), -1, "body"},
		{"a body that is cut in chunks", io.MultiReader(strings.NewReader("hell"), iotest.ErrReader(io.ErrUnexpectedEOF)), -1, "body"},
		{"a body that never has anything", silentReader{}, -1, "body"},
		{"a body that panics", panicReader{}, 5, "body"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			arrived := make(chan string, 1)
			s := serve(t, func(c *peer, n int) {
				_, body, ok := c.request()
				if !ok {
					arrived <- "incomplete"
					return
				}
				arrived <- "=" + body
				c.say(clean)
				if _, err := c.r.ReadByte(); err == nil {
					t.Error("bytes came after the request")
				}
			})
			u := open(t, Options{}, s)
			_, _, err := fetch(u, send("POST", tc.body, tc.length))
			got := <-arrived
			if strings.HasPrefix(tc.want, "=") && (got != tc.want || err != nil) {
				t.Errorf("arrived %.40q of %d, error %v", got, len(got), err)
			}
			if !strings.HasPrefix(tc.want, "=") && (got != "incomplete" || kind(err) != tc.want) {
				t.Errorf("arrived %.40q, error %v, want it incomplete and %s", got, err, tc.want)
			}
			if state := u.State()[0]; state.InFlight != 0 || state.Open > 1 {
				t.Errorf("after it: %+v", state)
			}
		})
	}
}

type silentReader struct{}

func (silentReader) Read([]byte) (int, error) { return 0, nil }

type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("bad reader") }

func TestShortBodyGoesOutWithTheHead(t *testing.T) {
	c := &memoryConn{response: []byte(clean)}
	u := openMemory(t, Options{}, func() *memoryConn { return c })
	r := send("POST", nil, 5)
	r.Body = strings.NewReader("hello")
	if _, body, err := fetch(u, r); body != "clean" || err != nil {
		t.Fatalf("%q, %v", body, err)
	}
	if c.writes != 1 {
		t.Errorf("%d writes, want 1", c.writes)
	}
}

// A gatedReader gives a byte, and then waits until it is stopped.
type gatedReader struct {
	given   bool
	waits   chan struct{} // closed when it begins to wait
	stopped chan struct{}
	inside  atomic.Bool // Read is under way
}

func newGatedReader() *gatedReader {
	return &gatedReader{waits: make(chan struct{}), stopped: make(chan struct{})}
}

func (r *gatedReader) Read(p []byte) (int, error) {
	r.inside.Store(true)
	defer r.inside.Store(false)
	if !r.given {
		r.given = true
		p[0] = 'x'
		return 1, nil
	}
	close(r.waits)
	<-r.stopped
	return 0, errors.New("stopped")
}

func (r *gatedReader) stop() { close(r.stopped) }

// TestEarlyResponse: an upstream may answer before it has the whole request. Its
// answer is there at once, and Close returns only when the body is left alone.
func TestEarlyResponse(t *testing.T) {
	s := serve(t, func(c *peer, n int) {
		c.head()
		c.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
		c.hold()
	})
	u := open(t, Options{}, s)
	body := newGatedReader()
	r := send("POST", body, -1)
	r.StopBody = body.stop
	res, err := u.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	<-body.waits
	text, err := io.ReadAll(res)
	if got := fmt.Sprint(res.Status, " ", string(text), " ", err); got != "413 no <nil>" {
		t.Errorf("early response %s, want 413 no", got)
	}
	res.Close()
	if body.inside.Load() {
		t.Error("Close returned while the body was being read")
	}
	if got := u.State()[0]; got.Open != 0 {
		t.Errorf("%d connections are open after an upload that was given up, want none", got.Open)
	}
}

// TestUploadGoesOnAfterAnEarlyResponse: whoever answers early may still want the
// rest, as a service that echoes does.
func TestUploadGoesOnAfterAnEarlyResponse(t *testing.T) {
	s := serve(t, func(c *peer, n int) {
		c.head()
		c.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for {
			line, err := c.r.ReadString('\n')
			if err != nil {
				return
			}
			if c.say(line); line == "0\r\n" {
				c.say("\r\n")
				c.hold()
				return
			}
		}
	})
	u := open(t, Options{}, s)
	in, out := io.Pipe()
	defer in.Close()
	res, err := u.Do(send("POST", in, -1))
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 100)
	for _, text := range []string{"one", "two", "three"} {
		if _, err := io.WriteString(out, text); err != nil {
			t.Fatal(err)
		}
		if n, err := res.Read(p); string(p[:n]) != text || err != nil {
			t.Fatalf("read %q, %v, want %q", p[:n], err, text)
		}
	}
	out.Close()
	if n, err := res.Read(p); n != 0 || err != io.EOF {
		t.Errorf("read %d bytes, %v, want the end", n, err)
	}
	res.Close()
	if got := u.State()[0]; got.Idle != 1 {
		t.Errorf("%d idle connections after a whole upload, want 1", got.Idle)
	}
}

// TestClientFailsAfterAnEarlyResponse: the upstream sees at once that the rest
// will not come, and the reader of the response sees why.
func TestClientFailsAfterAnEarlyResponse(t *testing.T) {
	seen := make(chan string, 1)
	s := serve(t, func(c *peer, n int) {
		c.head()
		c.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ncl")
		rest, _ := io.ReadAll(c.r)
		seen <- string(rest)
	})
	u := open(t, Options{}, s)
	in, out := io.Pipe()
	r := send("POST", in, -1)
	r.BodyIdle = 0
	res, err := u.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	out.CloseWithError(errors.New("client left"))
	if rest := <-seen; rest != "" {
		t.Errorf("the upstream got %q, want nothing more", rest)
	}
	if body, err := io.ReadAll(res); kind(err) != "body" || !strings.Contains(err.Error(), "client left") {
		t.Errorf("%q, %v, want the failure of the body", body, err)
	}
}

// TestResponseOfAnUpstreamThatStopsReading: it says why, and closes.
func TestResponseOfAnUpstreamThatStopsReading(t *testing.T) {
	s := serve(t, func(c *peer, n int) {
		c.head()
		c.say("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
		c.hold()
	})
	u := open(t, Options{}, s)
	body := io.LimitReader(endless{}, 64<<20)
	if status, _, err := fetch(u, send("POST", body, 64<<20)); status != 401 || err != nil {
		t.Errorf("%d, %v, want 401", status, err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A lateConn returns from a write only when told to.
type lateConn struct {
	net.Conn
	may chan struct{}
}

func (c *lateConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if bytes.HasSuffix(p, []byte("0\r\n\r\n")) {
		<-c.may
	}
	return n, err
}

// TestLastPieceIsWaitedFor: an upstream often answers before the write of the
// request's last byte has returned. Its connection is good.
func TestLastPieceIsWaitedFor(t *testing.T) {
	may := make(chan struct{})
	u := open(t, Options{Connect: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &lateConn{c, may}, err
	}}, serve(t, cleanServer))
	res, err := u.Do(send("POST", strings.NewReader("hello"), -1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := res.WriteTo(io.Discard); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(lastPieceWait/5, func() { close(may) })
	res.Close()
	if got := u.State()[0]; got.Idle != 1 {
		t.Errorf("%d idle connections, want 1", got.Idle)
	}
}

// TestHeadTimeoutDuringUpload: the time for the response's head begins with the
// end of the request, however long that takes.
func TestHeadTimeoutDuringUpload(t *testing.T) {
	s := serve(t, func(c *peer, n int) { c.hold() })
	u := open(t, Options{}, s)
	in, out := io.Pipe()
	r := send("POST", in, -1)
	r.HeadTimeout = 60 * time.Millisecond
	result := make(chan error, 1)
	go func() {
		_, err := u.Do(r)
		result <- err
	}()
	select {
	case err := <-result:
		t.Errorf("%v while the client was sending", err)
	case <-time.After(200 * time.Millisecond):
	}
	out.Close()
	if err := <-result; kind(err) != "timeout" {
		t.Errorf("error %v, want a timeout", err)
	}
}

// TestHeadTimeoutAfterAnEarlyResponse: once the head is there, the end of the
// upload does not begin its time.
func TestHeadTimeoutAfterAnEarlyResponse(t *testing.T) {
	begin, more, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := serve(t, func(c *peer, n int) {
		c.head()
		c.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
		<-begin
		c.say("cl")
		_, _ = io.CopyN(io.Discard, c.r, int64(len("0\r\n\r\n")))
		close(ended)
		<-more
		c.say("ean")
		c.hold()
	})
	u := open(t, Options{}, s)
	in, out := io.Pipe()
	r := send("POST", in, -1)
	r.HeadTimeout, r.BodyIdle = 200*time.Millisecond, 0
	res, err := u.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	close(begin)
	var p [2]byte
	if _, err := io.ReadFull(res, p[:]); err != nil {
		t.Fatal(err)
	}
	out.Close()
	<-ended
	<-time.After(400 * time.Millisecond) // the time that must not count
	close(more)
	if body, err := io.ReadAll(res); string(body) != "ean" || err != nil {
		t.Errorf("%q, %v, want the rest of it", body, err)
	}
}

// TestUploadToAnUpstreamThatDoesNotRead ends by the idle time of the body.
func TestUploadToAnUpstreamThatDoesNotRead(t *testing.T) {
	end := make(chan struct{})
	s := serve(t, func(c *peer, n int) { <-end })
	defer close(end)
	u := open(t, Options{}, s)
	r := send("POST", endless{}, -1)
	r.BodyIdle, r.HeadTimeout = 100*time.Millisecond, 0
	if _, err := u.Do(r); kind(err) != "timeout" || !Processed(err) {
		t.Errorf("error %v, want a timeout of what may have been processed", err)
	}
}
