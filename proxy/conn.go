package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"latchkey/proxy/http1"
)

// A clientConn is a client's connection, with what was read from it and not used
// yet: in[r:w]. The head of the present request stays in the buffer before r.
type clientConn struct {
	net.Conn
	proxy  *Proxy
	set    *settings
	peer   net.Addr
	tls    bool
	socket *net.TCPConn // nil if it is none, as in tests
	plain  *net.TCPConn // the socket, where there is no TLS

	raw      syscall.RawConn    // of plain
	tryRead  func(uintptr) bool // readSocket
	tryWrite func(uintptr) bool // writeSocket
	readErr  error              // of readSocket
	unsent   []byte             // by writeSocket

	stage stage
	fault *fault // of the head, once it is read
	held  bool   // the head did not come all at once

	in     []byte // from inputs; nil while idle
	r, w   int
	ended  bool // the client has said that it sends no more
	reads  deadline
	writes deadline

	exchange *exchange // with the request under way; nil while idle

	mu   sync.Mutex
	idle bool // waits for a request
	// What Abort may be called for; see watcher.
	waiting bool // an upstream works for the client
	given   bool // the client is given up: no upstream is to begin to
	passes  int  // of the watcher, since it does
	watched bool // the watcher is told when the client leaves
}

const (
	inputSize  = 4 << 10  // bytes read at once; most heads, and short bodies
	outputSize = 16 << 10 // bytes of an answer gathered for one write
)

// serveConn is called by fasthttp's server for every connection and serves its
// requests, one after the other.
func (p *Proxy) serveConn(nc net.Conn) error {
	c := &clientConn{Conn: nc.(*hookedConn).Conn, proxy: p}
	c.peer = c.RemoteAddr()
	_, c.tls = c.Conn.(*tls.Conn)
	if c.socket = socketOf(c.Conn); !c.tls {
		c.plain = c.socket
	}
	c.openRaw()
	c.reads.set, c.writes.set = c.SetReadDeadline, c.SetWriteDeadline
	p.conns.add(c)
	defer p.conns.remove(c)
	defer c.releaseInput()
	defer c.recover()
	for c.await() && c.serveOne() {
	}
	return nil
}

// A stage is how far the present request has come.
type stage uint8

const (
	unread   stage = iota // its head is not read
	read                  // its head is read, or found to be faulty
	answered              // only the end of the exchange is left
)

// serveOne brings the present request to its end, and reports whether another may
// follow.
func (c *clientConn) serveOne() bool {
	if c.stage == unread {
		c.begin()
	}
	if c.stage == read {
		c.answer()
	}
	c.stage = unread
	return c.exchange.finish()
}

// begin reads a request's head.
func (c *clientConn) begin() {
	if c.exchange == nil {
		c.exchange = c.proxy.exchange(c)
	}
	c.exchange.reset()
	c.fault = c.readHead(&c.exchange.head)
	c.stage = read
}

// answer answers the request.
func (c *clientConn) answer() {
	x := c.exchange
	x.out = c.proxy.outputs.get()[:0] // only now: who sends a head slowly costs no more than that
	if c.fault != nil {
		x.refuseUnread(c.fault)
	} else {
		x.serve()
	}
	c.stage = answered
}

// serveArrived serves the requests that have arrived, as far as that takes no more
// from the client than their heads, and reports whether all that is left is to wait
// for the next. It is called with the poller watching the socket: what would read from
// the connection, or close it, is left to the caller.
func (c *clientConn) serveArrived() (waits bool) {
	for c.readErr == nil && bytes.Contains(c.in[c.r:c.w], []byte(headEnd)) {
		c.begin()
		if h := &c.exchange.head; c.fault != nil || h.length != 0 || h.upgrade != nil {
			return false
		}
		if c.answer(); !c.exchange.keep {
			return false
		}
		c.stage = unread
		c.exchange.finish()
		if c.r == c.w {
			return c.rest()
		}
	}
	return false
}

const headEnd = "\r\n\r\n"

// recover keeps a panic outside of an exchange's own care to its connection.
func (c *clientConn) recover() {
	if recover() != nil {
		s := c.proxy.current.Load()
		s.Metrics.panics.Inc()
		s.Logger.Error("panic while serving a connection", "stack", string(debug.Stack()))
	}
}

// await waits for the first byte of a request, and reports whether there is one.
// While the gateway drains, a client that was about to send one has a moment to
// do so: a connection that is closed under a request looks like a failure.
func (c *clientConn) await() bool {
	if c.r < c.w {
		return true
	}
	if !c.rest() {
		return false
	}
	err := c.firstBytes()
	c.wake()
	return err == nil
}

// rest readies the connection for waiting, and reports whether it can. What it needs
// for a request is for others meanwhile: that is 2 KiB, and fewer of them stay in the
// processor's caches.
func (c *clientConn) rest() bool {
	if c.exchange != nil {
		c.proxy.exchanges.Put(c.exchange)
		c.exchange = nil
	}
	c.r, c.w = 0, 0
	c.set = c.proxy.current.Load()
	if err := c.reads.renew(c.set.Idle); err != nil {
		return false
	}
	c.isIdle(true)
	if c.proxy.draining.Load() {
		c.hurry()
	}
	return true
}

// wake ends the wait.
func (c *clientConn) wake() {
	c.isIdle(false)
	if c.proxy.draining.Load() {
		c.reads.moved = time.Time{} // hurry has set another deadline
	}
}

// firstBytes reads the first bytes of a request, and serves requests that take no
// more than that on the way. While there are none it holds no buffer: most connections
// are idle most of the time.
func (c *clientConn) firstBytes() error {
	if ahead, ok := c.Conn.(interface{ Buffered() int }); c.raw == nil || ok && ahead.Buffered() > 0 {
		if len(c.in) > inputSize {
			c.in = nil // it grew for a long head
		}
		return c.fill() // not all of it comes from the socket
	}
	c.releaseInput()
	if err := c.raw.Read(c.tryRead); err != nil {
		return err
	}
	c.ended = c.ended || c.readErr == io.EOF
	return c.readErr
}

func (c *clientConn) isIdle(idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = idle
}

// hurry leaves an idle connection to its client for a moment only. One with a
// request under way keeps its deadlines.
func (c *clientConn) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle {
		// Only shortens a wait; fails where the connection is gone already.
		_ = c.SetReadDeadline(time.Now().Add(drainGrace))
	}
}

// drainGrace is how long an idle connection is left to a client when the gateway
// drains.
const drainGrace = 2 * time.Second

// fill reads more, for which there must be room.
func (c *clientConn) fill() error {
	if c.in == nil {
		c.in = c.proxy.inputs.get()
	}
	n, err := c.Conn.Read(c.in[c.w:])
	if c.w += n; n > 0 {
		return nil
	}
	c.ended = c.ended || err == io.EOF
	return err
}

func (c *clientConn) releaseInput() {
	if c.in != nil {
		c.proxy.inputs.put(c.in)
		c.in = nil
	}
}

// readHead reads a request's head. One empty line before it is passed over (RFC
// 9112, section 2.2). A line that does not end in CRLF is a fault as soon as it
// is there: who sends one may never send the end that we wait for.
func (c *clientConn) readHead(h *head) *fault {
	line, next := c.r, c.r
	begun := false
	c.held = false
	for {
		i := bytes.IndexByte(c.in[next:c.w], '\n')
		if i < 0 {
			next = c.w
			if c.w-c.r >= c.set.HeaderBytes {
				return c.tooLong()
			}
			if c.r < c.w && c.in[c.r] != '\r' && !http1.IsToken(c.in[c.r]) {
				return badRequest // another protocol
			}
			if !c.held {
				c.held = true
				if d := c.set.ReadHeader; d > 0 {
					_ = c.reads.at(time.Now().Add(d)) // a connection that takes no deadline fails to read
				}
			}
			moved := c.makeRoom()
			line, next = line-moved, next-moved
			if err := c.fill(); err != nil {
				return c.readFault(err)
			}
			continue
		}
		lf := next + i
		if lf == line || c.in[lf-1] != '\r' {
			return badRequest
		}
		empty := lf == line+1
		line, next = lf+1, lf+1
		switch {
		case !empty:
		case lf == c.r+1 && begun:
			return badRequest
		case lf == c.r+1:
			begun, c.r = true, line // the one before the head
		default:
			if line-c.r > c.set.HeaderBytes {
				return c.tooLong()
			}
			b := c.in[c.r:line]
			c.r = line
			return h.parse(b)
		}
	}
}

// tooLong says what of a head that is too long is: the request line, where it
// alone is (RFC 9112, section 3), or all of it.
func (c *clientConn) tooLong() *fault {
	begun := c.in[c.r:min(c.w, c.r+c.set.HeaderBytes)]
	if bytes.IndexByte(begun, '\n') < 0 && bytes.IndexByte(begun, ' ') >= 0 {
		return targetTooLong
	}
	return headTooLarge
}

// makeRoom makes room for reading on: what is buffered moves to the front, or
// else into a buffer of twice the size. It returns by how much it moved.
func (c *clientConn) makeRoom() (moved int) {
	if c.w < len(c.in) {
		return 0
	}
	old := c.in
	if c.r == 0 {
		c.in = make([]byte, min(2*len(old), max(c.set.HeaderBytes, len(old)+1)))
	}
	moved = c.r
	c.w = copy(c.in, old[c.r:c.w])
	c.r = 0
	if moved == 0 {
		c.proxy.inputs.put(old)
	}
	return moved
}

// readFault says what it means that the client's side could not be read. A
// client that is gone gets no answer.
func (c *clientConn) readFault(err error) *fault {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return requestTimeout
	}
	return clientGone
}

// buffers keeps buffers of one size for all connections.
type buffers struct {
	size int
	pool sync.Pool
}

func (b *buffers) get() []byte {
	if p, ok := b.pool.Get().(*byte); ok {
		return unsafe.Slice(p, b.size)
	}
	return make([]byte, b.size)
}

// put keeps a buffer for get, unless it has grown.
func (b *buffers) put(p []byte) {
	if p = p[:cap(p)]; len(p) == b.size {
		b.pool.Put(&p[0]) // a pointer is not allocated for, as a slice would be
	}
}
