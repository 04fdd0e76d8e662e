package proxy

import (
	"math"
	"net"
	"time"
)

// waits notes that an upstream works on the request, so that it can be released
// when the client leaves.
func (c *clientConn) waits() {
	c.mu.Lock()
	c.waiting, c.passes = true, 0
	if c.given {
		c.exchange.req.Abort()
	}
	c.mu.Unlock()
}

// waitsNoMore notes that it does not any more. The request can be used again.
func (c *clientConn) waitsNoMore() {
	c.mu.Lock()
	c.waiting = false
	c.unwatch()
	c.mu.Unlock()
}

// readsItself notes that whether the client leaves is seen without the watcher.
func (c *clientConn) readsItself() {
	c.mu.Lock()
	c.passes = math.MinInt
	c.unwatch()
	c.mu.Unlock()
}

// unwatch has the watcher forget the connection. The caller holds c.mu.
func (c *clientConn) unwatch() {
	if c.watched {
		c.watched = false
		c.proxy.watcher.forget(c)
	}
}

// abort releases the upstream that works on the request, if one does.
func (c *clientConn) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting {
		c.exchange.req.Abort()
	}
}

// giveUp releases the upstream that works on the request, or that is about to, and ends
// the connection. It returns when nothing uses that any more.
func (c *clientConn) giveUp() {
	c.mu.Lock()
	c.given = true
	c.mu.Unlock()
	c.abort()
	c.reset()
}

// watchIfSlow has the watcher watch the client of a request that it passes by for
// the second time: most are over by then, and watching costs two calls of the
// system.
func (c *clientConn) watchIfSlow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.waiting || c.watched || c.socket == nil {
		return
	}
	if c.passes++; c.passes == 2 {
		c.watched = c.proxy.watcher.watch(c)
	}
}

// lingerTime and lingerBytes bound how much of a body that is not wanted is read
// all the same: a connection closed with bytes unread is reset, and the reset can
// overtake the answer (RFC 9112, section 9.6).
const (
	lingerTime  = 5 * time.Second
	lingerBytes = 32 << 20
)

// linger ends a connection on which the client may still be sending.
func (c *clientConn) linger(outcome string) {
	x := c.exchange
	if outcome == clientGone.code && c.socket != nil {
		// It does not take what it was sent, or is not there. Closed in the orderly
		// way, the connection would live on in the kernel until all was taken.
		_ = c.socket.SetLinger(0) // fails where the connection is gone already
		return
	}
	if c.ended || outcome == clientGone.code || x.status == 101 || x.sent == 0 || x.body.complete.Load() && c.r == c.w && x.head.close {
		return
	}
	if !closeWrite(c.Conn) || c.reads.at(time.Now().Add(lingerTime)) != nil {
		return
	}
	if c.in == nil {
		c.in = c.proxy.inputs.get()
	}
	for taken := 0; taken < lingerBytes; {
		n, err := c.Conn.Read(c.in)
		if taken += n; err != nil {
			return
		}
	}
}

// reset ends the connection in a way that no client takes for orderly: over TLS
// without the alert that says so.
func (c *clientConn) reset() {
	if c.socket == nil {
		_ = c.Close()
		return
	}
	_ = c.socket.SetLinger(0) // fails where the connection is gone already
	_ = c.socket.Close()
}

// socketOf returns the TCP connection below TLS and the listener's dressing, nil
// if there is none.
func socketOf(c net.Conn) *net.TCPConn {
	for {
		if tcp, ok := c.(*net.TCPConn); ok {
			return tcp
		}
		outer, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = outer.NetConn()
	}
}
