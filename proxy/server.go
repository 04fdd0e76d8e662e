package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// protocol is the name under which fasthttp's server knows ours. Its hook for
// protocols negotiated by TLS is how it hands a connection over unread.
const protocol = "http/1.1"

// newServer has fasthttp's server accept connections, give each a worker and end
// them at the shutdown. What goes over them is read and written here: its own
// loop waits for a byte of the body before it calls a handler, drops bytes that
// screening needs, and cannot see a client leave.
func (p *Proxy) newServer() *fasthttp.Server {
	s := &fasthttp.Server{
		Handler:     func(*fasthttp.RequestCtx) {}, // never called
		Logger:      silent{},
		Concurrency: math.MaxInt32, // the listener sees to that; zero would be 256 Ki
	}
	s.NextProto(protocol, p.serveConn)
	return s
}

// A hookedConn says that our protocol was negotiated on it.
type hookedConn struct{ net.Conn }

// Handshake does nothing: where there is TLS, the listener has seen to it.
func (c *hookedConn) Handshake() error { return nil }

// ConnectionState names the protocol.
func (c *hookedConn) ConnectionState() tls.ConnectionState {
	return tls.ConnectionState{NegotiatedProtocol: protocol}
}

// A hookedListener hooks the connections of a listener.
type hookedListener struct{ net.Listener }

// Accept waits for a connection.
func (l hookedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &hookedConn{c}, nil
}

// Serve answers requests on the listener until Shutdown. How many connections
// there may be is the listener's to decide, and their RemoteAddr is believed:
// with a PROXY header it is what a trusted proxy announced.
func (p *Proxy) Serve(l net.Listener) error {
	if err := p.server.Serve(hookedListener{l}); err != nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown stops accepting connections, lets requests under way come to their
// answer, and tells clients with it that the connection ends. Idle connections
// are closed after a moment in which a client that was about to send a request
// still can. What is left when ctx is done is cut.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.draining.Store(true)
	p.conns.each((*clientConn).hurry)
	err := p.server.ShutdownWithContext(ctx)
	var cut sync.WaitGroup
	p.conns.each(func(c *clientConn) { cut.Go(c.giveUp) })
	ended := make(chan struct{})
	go func() {
		cut.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(cutTime):
	}
	p.watcher.close()
	return err
}

// cutTime is how long Shutdown waits for what it has cut. Only a key store that does not
// answer can hold a request up then.
const cutTime = time.Second

// conns are the connections that are open.
type conns struct {
	mu  sync.Mutex
	all map[*clientConn]struct{}
}

func (s *conns) add(c *clientConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*clientConn]struct{}{}
	}
	s.all[c] = struct{}{}
}

func (s *conns) remove(c *clientConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
}

func (s *conns) each(f func(*clientConn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.all {
		f(c)
	}
}

// silent is a fasthttp.Logger that drops everything.
type silent struct{}

// Printf does nothing.
func (silent) Printf(string, ...any) {}
