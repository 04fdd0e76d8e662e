// Package upstream carries requests to upstream services and brings their
// responses back.
//
// It knows connections, deadlines and HTTP/1.1. Which request goes where, and
// what it may say of its sender, is decided in package proxy before it gets
// here: a Request is sent as it is.
package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// ErrTimeout reports that the upstream did not answer in time.
var ErrTimeout = errors.New("upstream did not answer in time")

// ErrUnavailable reports that no connection to the upstream could be made, so
// that nothing of the request can have been processed.
var ErrUnavailable = errors.New("upstream cannot be reached")

// ErrBroken reports that the exchange failed after it had begun: the upstream
// may or may not have processed the request.
var ErrBroken = errors.New("upstream broke off the exchange")

// A Field is one header field line.
type Field struct{ Name, Value string }

// A Request is what is sent: these fields, in this order of names, and no
// others but those that frame the body.
type Request struct {
	Method        string
	Target        string // origin-form, byte for byte
	Host          string
	Fields        []Field
	Body          io.ReadCloser // nil means none; closed when the exchange no longer reads it
	ContentLength int64         // of Body in bytes; -1 means unknown
	HeadTimeout   time.Duration // from the last piece of the body until the response's head; zero means no limit
}

// A Response is what came back. Its body must be closed.
type Response struct {
	Status        int
	Fields        []Field // end-to-end and hop-by-hop alike, Content-Length excepted
	Body          io.ReadCloser
	ContentLength int64 // -1 means unknown
}

// Options configures New.
type Options struct {
	Target         *url.URL      // scheme and host
	MaxConns       int           // zero means no limit
	MaxIdle        int           // idle connections kept
	IdleTimeout    time.Duration // after which an idle connection is closed
	ConnectTimeout time.Duration // for TCP, and again for TLS
	HeadBytes      int64         // the longest response head; zero means 64 KiB
}

// A Pool is the connections to one target. Its methods may be called by any
// goroutine.
type Pool struct {
	target    *url.URL
	transport *http.Transport
}

// New returns a pool without connections.
func New(o Options) *Pool {
	if o.HeadBytes == 0 {
		o.HeadBytes = 64 << 10
	}
	dialer := &net.Dialer{Timeout: o.ConnectTimeout, KeepAlive: 30 * time.Second}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return c, nil
	}
	return &Pool{target: o.Target, transport: &http.Transport{
		Proxy:       nil, // the environment has no say in where requests go
		DialContext: dial,
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return handshake(ctx, c, o)
		},
		DisableCompression:     true, // bodies pass as they are
		MaxIdleConns:           o.MaxIdle,
		MaxIdleConnsPerHost:    o.MaxIdle,
		MaxConnsPerHost:        o.MaxConns,
		IdleConnTimeout:        o.IdleTimeout,
		MaxResponseHeaderBytes: o.HeadBytes,
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         16 << 10,
		// A non-nil empty map keeps the exchange on HTTP/1.1.
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}}
}

// handshake begins TLS on the connection. While it fails nothing of a request
// has been sent.
func handshake(ctx context.Context, c net.Conn, o Options) (net.Conn, error) {
	if o.ConnectTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.ConnectTimeout)
		defer cancel()
	}
	t := tls.Client(c, &tls.Config{ServerName: o.Target.Hostname(), MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("%w: TLS: %w", ErrUnavailable, err)
	}
	return t, nil
}

// Close closes idle connections; those in use end with their exchange.
func (p *Pool) Close() { p.transport.CloseIdleConnections() }

// Target returns the target's URL, for logs and metrics.
func (p *Pool) Target() string { return p.target.String() }

// Do sends the request and returns the response once its head is there. The
// errors are ErrTimeout, ErrUnavailable and ErrBroken. A request is sent twice
// only where the first connection was closed by the upstream while idle, before
// a byte of a response, and the method is safe to repeat (RFC 9110, section
// 9.2.2) or no byte of the request had been written.
func (p *Pool) Do(r *Request) (*Response, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	req := p.request(r).WithContext(ctx)
	if r.HeadTimeout > 0 {
		clock := &headClock{limit: r.HeadTimeout, timer: time.AfterFunc(r.HeadTimeout, func() { cancel(ErrTimeout) })}
		defer clock.end()
		if r.Body != nil {
			req.Body = &upload{r.Body, clock}
		}
	}
	res, err := p.transport.RoundTrip(req)
	if err == nil && res.StatusCode < 200 { // 101, which was not asked for
		res.Body.Close()
		err = fmt.Errorf("answered %s", res.Status)
	}
	if err != nil {
		defer cancel(nil)
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		if errors.Is(err, ErrUnavailable) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	out := &Response{Status: res.StatusCode, ContentLength: res.ContentLength, Body: &body{res.Body, cancel}}
	for name, values := range res.Header {
		if name == "Content-Length" {
			continue
		}
		for _, v := range values {
			out.Fields = append(out.Fields, Field{name, v})
		}
	}
	return out, nil
}

func (p *Pool) request(r *Request) *http.Request {
	header := make(http.Header, len(r.Fields)+1)
	header["User-Agent"] = nil // net/http adds its own unless the name is there
	for _, f := range r.Fields {
		if strings.HasSuffix(f.Name, "Idempotency-Key") {
			// In canonical case net/http takes it for leave to send a POST twice.
			f.Name = strings.ToLower(f.Name)
			header[f.Name] = append(header[f.Name], f.Value)
			continue
		}
		header.Add(f.Name, f.Value)
	}
	req := &http.Request{
		Method:        r.Method,
		URL:           &url.URL{Scheme: p.target.Scheme, Host: p.target.Host, Opaque: opaque(p.target, r.Target)},
		Host:          r.Host,
		Header:        header,
		Body:          r.Body,
		ContentLength: r.ContentLength,
		Proto:         "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if r.Body == nil {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	return req
}

// A headClock runs while it is the upstream's turn, until its response's head.
type headClock struct {
	limit time.Duration
	timer *time.Timer
	ended atomic.Bool
}

func (c *headClock) restart() {
	c.timer.Reset(c.limit)
	if c.ended.Load() { // the head came in between
		c.timer.Stop()
	}
}

func (c *headClock) end() {
	c.ended.Store(true)
	c.timer.Stop()
}

// An upload stops the clock while it is the client's turn to send a piece.
type upload struct {
	io.ReadCloser
	clock *headClock
}

// Read reads the next piece.
func (u *upload) Read(p []byte) (int, error) {
	u.clock.timer.Stop()
	defer u.clock.restart()
	return u.ReadCloser.Read(p)
}

// opaque makes net/http write the target byte for byte. A target that begins
// with two slashes would be taken for an authority, so it goes out in
// absolute-form (RFC 9112, section 3.2.2), which servers read the same.
func opaque(target *url.URL, t string) string {
	if len(t) > 1 && t[1] == '/' {
		return "//" + target.Host + t
	}
	return t
}

// A body ends its exchange when it is closed.
type body struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
