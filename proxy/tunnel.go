package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"latchkey/proxy/http1"
	"latchkey/proxy/upstream"
)

// upgrades reports whether the request asks for a WebSocket (RFC 6455, section
// 4.1). Other upgrades are not passed on, h2c among them: what would go through
// such a tunnel is requests that nobody checks.
func (x *exchange) upgrades() bool {
	h := &x.head
	return http1.EqualFold(h.upgrade, "websocket") && h.isNamed([]byte("Upgrade")) &&
		is(h.method, "GET") && h.minor == 1 && h.length == 0
}

// tunnel hands the upstream's 101 on, and then whatever either side sends, until
// both have ended or nothing was sent for too long.
func (x *exchange) tunnel(res *upstream.Response) {
	x.status, x.keep = res.Status, false
	x.out = appendStatusLine(x.out[:0], res)
	named := connectionOptions(res.Fields)
	for _, f := range res.Fields {
		if x.passes(f.Name, named) {
			x.out = appendField(x.out, f.Name, f.Value)
		}
	}
	x.out = append(x.out, x.route.ResponseEdits.set...)
	x.addID()
	x.out = append(append(append(x.out, "Connection: Upgrade\r\nUpgrade: "...), x.head.upgrade...), "\r\n\r\n"...)
	up, early, err := res.Hijack()
	if err == nil {
		err = x.write(early)
	}
	if err != nil {
		x.outcome = clientGone.code
		return
	}
	c := x.conn
	// Whoever leaves a tunnel is seen by reading from it.
	c.readsItself()
	_ = c.reads.at(time.Time{}) // fails where the connection is gone: so does reading
	_ = c.writes.at(time.Time{})
	t := tunnel{idle: x.set.TunnelIdle, client: c.Conn, upstream: up}
	t.touch()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		x.body.taken += t.copy(up, c.Conn, c.in[c.r:c.w])
	}()
	x.sent += t.copy(c.Conn, up, nil)
	<-ended
}

// A tunnel is two connections that are one.
type tunnel struct {
	idle             time.Duration // the longest silence in both directions; zero means no limit
	client, upstream net.Conn
	last             atomic.Int64 // when something was sent last, in nanoseconds
}

func (t *tunnel) touch() { t.last.Store(time.Now().UnixNano()) }

// copy sends on what comes from one side until that ends, and then tells the
// other. A side that fails ends both. It returns how many bytes it sent.
func (t *tunnel) copy(to, from net.Conn, first []byte) (sent int64) {
	buf := make([]byte, 32<<10)
	n, err := copy(buf, first), error(nil)
	first = first[n:]
	for {
		if n > 0 {
			t.touch()
			if t.idle > 0 {
				_ = to.SetWriteDeadline(time.Now().Add(t.idle)) // fails as the write will
			}
			written, failed := to.Write(buf[:n])
			if sent += int64(written); failed != nil {
				break
			}
		}
		if len(first) > 0 {
			n = copy(buf, first)
			first = first[n:]
			continue
		}
		if err == io.EOF && closeWrite(to) {
			return sent
		}
		if err != nil && !t.silent(err) {
			break
		}
		if t.idle > 0 {
			_ = from.SetReadDeadline(time.Unix(0, t.last.Load()).Add(t.idle))
		}
		n, err = from.Read(buf)
	}
	_ = t.client.Close()
	_ = t.upstream.Close()
	return sent
}

// silent reports whether an error says only that one side was silent, while the
// other was not.
func (t *tunnel) silent(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) && time.Since(time.Unix(0, t.last.Load())) < t.idle
}

// closeWrite says to a side that nothing more comes, and reports whether it
// could.
func closeWrite(c net.Conn) bool {
	for {
		if half, ok := c.(interface{ CloseWrite() error }); ok {
			return half.CloseWrite() == nil
		}
		outer, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return false
		}
		c = outer.NetConn()
	}
}
