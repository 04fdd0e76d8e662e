// Package listen opens a listener's socket and settles, before anyone serves a
// connection, what has to be known of it: that there is room for it, whose it
// is (the PROXY protocol), and that it is encrypted and by whom (TLS).
//
//	sockets, err := listen.Inherit()               // what systemd holds open for us
//	opened, err := sockets.Open(places)            // those, or new ones
//	l := listen.New(opened[0], listen.Options{...}) // what a server accepts from
//
// A connection that New's listener hands over has passed all of that, and its
// RemoteAddr is the client's address as far as it can be known. Whatever waits
// for the client runs in a goroutine of that connection and under a deadline,
// so that a silent client holds up nobody else.
//
// HTTP is not known here, nor what an address may do: X-Forwarded-For and IP
// allowlists are package proxy's.
package listen

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Options configures New. The zero value hands over connections as they come.
type Options struct {
	// ProxyProtocol demands of peers in Trusted that a connection begins with a
	// PROXY header, version 1 or 2, and takes the client's address from it.
	// Without a valid one the connection is closed. What others send is not
	// looked at: their header is for the server to refuse.
	ProxyProtocol bool
	Trusted       []netip.Prefix // proxies in front; Caps' limit for an address is not for theirs

	Certificates *Certificates        // nil means no TLS
	Handshake    func() time.Duration // for the PROXY header and the TLS handshake of the next connection together; nil means 5 s

	Caps     *Caps     // may be shared by several listeners; nil means no limit
	Counters *Counters // may be shared by several listeners; nil means not counted
}

// Counters counts connections. The zero value is ready, and may be read at any
// time.
type Counters struct {
	Open     atomic.Int64 // now, those not handed over yet included
	Accepted atomic.Int64 // handed over

	// Connections closed without having been handed over, by reason.
	Full        atomic.Int64 // too many at once
	AddressFull atomic.Int64 // too many from one address
	BadHeader   atomic.Int64 // a trusted proxy sent no valid PROXY header in time
	BadTLS      atomic.Int64 // the TLS handshake failed or took too long

	Faults atomic.Int64 // times the system could not accept, as when files run out
}

// A Listener hands over connections that are ready to be served.
type Listener struct {
	inner   net.Listener
	options Options

	prepare sync.Once
	ready   chan net.Conn // closed once there is nothing more to come
	err     error         // why; written before ready is closed
	closing chan struct{}
	close   sync.Once

	accepting atomic.Bool // Accept has been called
	queue     []net.Conn  // that Close found; for accept once closing is closed
}

// New returns a listener that hands over the connections of l. It accepts
// nothing before its own Accept is called.
func New(l net.Listener, o Options) *Listener {
	if o.Handshake == nil {
		o.Handshake = func() time.Duration { return 5 * time.Second }
	}
	if o.Counters == nil {
		o.Counters = new(Counters)
	}
	return &Listener{inner: l, options: o, ready: make(chan net.Conn), closing: make(chan struct{})}
}

// Addr returns the address listened on.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Close ends the accepting. Connections that were accepted before, or waited in
// the system's queue for it, are still prepared, and Accept hands them over
// before it fails: their clients were let in, and a restart is to refuse nobody.
// An inherited socket's queue is left to whoever accepts from it next.
func (l *Listener) Close() error {
	l.close.Do(func() {
		if _, inherited := l.inner.(*inheritedListener); !inherited && l.accepting.Load() {
			l.queue = queued(l.inner)
		}
		close(l.closing)
	})
	return l.inner.Close()
}

// Accept waits for a connection that is ready. It is to be called until it
// fails, which after Close is within Options.Handshake.
func (l *Listener) Accept() (net.Conn, error) {
	l.accepting.Store(true)
	if !l.options.ProxyProtocol && l.options.Certificates == nil {
		c, err := l.accept()
		if err != nil {
			return nil, err
		}
		l.options.Counters.Accepted.Add(1)
		return c, nil
	}
	l.prepare.Do(func() { go l.prepareAll() })
	c, ok := <-l.ready
	if !ok {
		return nil, l.err
	}
	l.options.Counters.Accepted.Add(1)
	return c, nil
}

// prepareAll accepts until that fails, and leaves each connection to a
// goroutine of its own.
func (l *Listener) prepareAll() {
	var preparing sync.WaitGroup
	for {
		c, err := l.accept()
		if err != nil {
			l.err = err
			break
		}
		preparing.Go(func() {
			if ready := l.prepareOne(c); ready != nil {
				l.ready <- ready
			}
		})
	}
	preparing.Wait()
	close(l.ready)
}

// prepareOne reads a connection's PROXY header, counts it to its address and
// has TLS shake hands, or closes it.
func (l *Listener) prepareOne(c *conn) net.Conn {
	deadline := time.Now().Add(l.options.Handshake())
	// An error means that the connection is closed, as the next call will say.
	_ = c.SetDeadline(deadline)
	if c.announced {
		if err := c.readHeader(); err != nil {
			return l.refuse(c, &l.options.Counters.BadHeader)
		}
		if !c.claim(&l.options) {
			return l.refuse(c, &l.options.Counters.AddressFull)
		}
	}
	ready := net.Conn(c)
	if l.options.Certificates != nil {
		encrypted := tls.Server(c, l.options.Certificates.config)
		if err := encrypted.Handshake(); err != nil {
			return l.refuse(c, &l.options.Counters.BadTLS)
		}
		ready = encrypted
	}
	_ = c.SetDeadline(time.Time{})
	return ready
}

// refuse closes a connection for a reason.
func (l *Listener) refuse(c *conn, reason *atomic.Int64) net.Conn {
	reason.Add(1)
	_ = c.Close()
	return nil
}

// accept returns the next connection there is room for. Others are closed
// without an answer: one would have to wait for a TLS handshake, and would
// mostly be lost to the reset that closing with unread bytes causes.
func (l *Listener) accept() (*conn, error) {
	delay := time.Duration(0)
	for {
		raw, err := l.inner.Accept()
		if err != nil && !passing(err) {
			raw, err = l.nextQueued(err)
		}
		if err != nil {
			if !passing(err) {
				return nil, err
			}
			l.options.Counters.Faults.Add(1)
			// Doubling the wait, as net/http does, leaves the processor to the
			// connections that are to end first.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(delay):
			case <-l.closing:
			}
			continue
		}
		delay = 0
		if !l.options.Caps.enter() {
			l.options.Counters.Full.Add(1)
			_ = raw.Close()
			continue
		}
		l.options.Counters.Open.Add(1)
		c := &conn{Conn: raw, remote: raw.RemoteAddr(), listener: l}
		c.announced = l.options.ProxyProtocol && contains(l.options.Trusted, addrOf(c.remote))
		if !c.announced && !c.claim(&l.options) {
			l.refuse(c, &l.options.Counters.AddressFull)
			continue
		}
		return c, nil
	}
}

// nextQueued returns a connection that Close found in the queue, or the error if
// there is none. It is called by the goroutine that accepts.
func (l *Listener) nextQueued(err error) (net.Conn, error) {
	select {
	case <-l.closing:
	default:
		return nil, err
	}
	if len(l.queue) == 0 {
		return nil, err
	}
	c := l.queue[0]
	l.queue = l.queue[1:]
	return c, nil
}

// passing reports whether accepting can succeed again after an error: resources
// are short, or the error is that of a connection which is gone (accept(2)).
// A server would take it for the end of its listener.
func passing(err error) bool {
	return slices.ContainsFunc([]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.EPERM, syscall.EPROTO, syscall.ENOPROTOOPT, syscall.ENETDOWN,
		syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH},
		func(target error) bool { return errors.Is(err, target) })
}

func contains(blocks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(blocks, func(b netip.Prefix) bool { return b.Contains(addr) })
}

// addrOf returns an address without its port, the zero Addr if it has none.
func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
