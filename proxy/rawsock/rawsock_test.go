//go:build unix

package rawsock

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestCalls has each call meet what it can: bytes, none yet, room for some only, and
// the peer's end.
func TestCalls(t *testing.T) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fds[0])
	for _, fd := range fds {
		if err := syscall.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
	}
	a, b := uintptr(fds[0]), uintptr(fds[1])
	p := make([]byte, 8)
	want := func(what string, n int, err error, wantN int, wantErr error) {
		t.Helper()
		if n != wantN || err != wantErr {
			t.Errorf("%s: %d, %v; want %d, %v", what, n, err, wantN, wantErr)
		}
	}
	n, err := Read(a, p)
	want("read of nothing", n, err, 0, syscall.EAGAIN)
	n, err = Peek(a, p[:1])
	want("peek at nothing", n, err, 0, syscall.EAGAIN)
	n, err = Write(b, []byte("hello"))
	want("write", n, err, 5, nil)
	n, err = Peek(a, p[:1])
	want("peek", n, err, 1, nil)
	n, err = Read(a, p)
	if want("read", n, err, 5, nil); string(p[:n]) != "hello" {
		t.Errorf("read %q", p[:n])
	}
	large, sent := make([]byte, 16<<20), 0
	if n, err := Write(b, large); err != nil || n <= 0 || n == len(large) {
		t.Errorf("write of more than there is room for: %d, %v", n, err)
	} else {
		sent = n
	}
	n, err = Write(b, large)
	want("write without room", n, err, 0, syscall.EAGAIN)
	if err := syscall.Close(fds[1]); err != nil {
		t.Fatal(err)
	}
	for sent > 0 {
		n, err := Read(a, large)
		if err != nil || n == 0 {
			t.Fatalf("%d bytes before the end: %d, %v", sent, n, err)
		}
		sent -= n
	}
	n, err = Read(a, p)
	want("read after the end", n, err, 0, nil)
	n, err = Peek(a, p[:1])
	want("peek after the end", n, err, 0, nil)
	n, err = Write(a, p)
	want("write to nobody", n, err, 0, syscall.EPIPE)
	n, err = Read(1<<20, p)
	want("read of no descriptor", n, err, 0, syscall.EBADF)
}

// TestCallsDoNotAllocate holds them to that with bytes and without.
func TestCallsDoNotAllocate(t *testing.T) {
	_, raw := connected(t)
	p := make([]byte, 8)
	if err := raw.Control(func(fd uintptr) {
		if n := testing.AllocsPerRun(100, func() {
			Peek(fd, p)
			Read(fd, p)
			Write(fd, p)
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// TestReadMore has a read leave something, nothing, and the end. Where it cannot tell it
// says that there may be more.
func TestReadMore(t *testing.T) {
	client, raw := connected(t)
	p := make([]byte, 4)
	if err := raw.Control(func(fd uintptr) {
		Prepare(fd)
		if n, more, err := ReadMore(fd, p); n != 0 || more || err != syscall.EAGAIN {
			t.Errorf("of nothing: %d, %t, %v", n, more, err)
		}
		tells := false
		for _, step := range []struct {
			what string
			do   func() error
			n    int
			more bool
		}{
			{"of four bytes", func() error { _, err := client.Write([]byte("four")); return err }, 4, false},
			{"of six", func() error { _, err := client.Write([]byte("of six")); return err }, 4, true},
			{"of the rest", func() error { return nil }, 2, false},
			{"of the last four and the end", func() error {
				_, err := client.Write([]byte("last"))
				return errors.Join(err, client.(*net.TCPConn).CloseWrite())
			}, 4, true},
			{"of the end", func() error { return nil }, 0, true},
		} {
			if err := step.do(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond) // what was sent arrives
			n, more, err := ReadMore(fd, p)
			if tells = tells || !more; n != step.n || err != nil || more != step.more && tells {
				t.Errorf("%s: %d, %t, %v; want %d, %t", step.what, n, more, err, step.n, step.more)
			}
		}
		if !tells {
			t.Log("it cannot tell here")
		}
		if n := testing.AllocsPerRun(100, func() { ReadMore(fd, p) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// connected returns the two ends of a connection.
func connected(t *testing.T) (client net.Conn, server syscall.RawConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if server, err = c.(*net.TCPConn).SyscallConn(); err != nil {
		t.Fatal(err)
	}
	return client, server
}
