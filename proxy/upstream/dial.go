package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// TLS says how targets whose URL begins with https are spoken to: TLS 1.2 or
// later, HTTP/1.1 by ALPN. The zero value trusts the system's authorities and
// expects the name in the target's URL.
type TLS struct {
	CA         []byte // PEM certificates of authorities to trust instead of the system's; empty means the system's
	ServerName string // to expect of the certificate, and to ask for; empty means the URL's host
	Cert, Key  []byte // PEM client certificate, with its chain, and its key; empty means none
	Insecure   bool   // accept any certificate: only to find faults
}

// equal reports whether connections made under t may go on under o.
func (t *TLS) equal(o *TLS) bool {
	return bytes.Equal(t.CA, o.CA) && t.ServerName == o.ServerName && bytes.Equal(t.Cert, o.Cert) &&
		bytes.Equal(t.Key, o.Key) && t.Insecure == o.Insecure
}

// config returns the configuration for a host.
func (t *TLS) config(host string) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.Insecure,
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	if c.ServerName == "" {
		c.ServerName = host
	}
	if len(t.CA) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(t.CA) {
			return nil, errors.New("CA holds no certificate in PEM")
		}
	}
	if len(t.Cert) > 0 || len(t.Key) > 0 {
		cert, err := tls.X509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// A dialer makes connections to one address.
type dialer struct {
	address  string // host:port
	tls      *tls.Config
	timeout  func() time.Duration // for TCP and TLS together
	connect  func(ctx context.Context, network, address string) (net.Conn, error)
	connects *atomic.Uint64 // connections made
}

// A dialing is a connection under way, which an abort gives up.
type dialing struct{ cancel context.CancelFunc }

func (d *dialing) interrupt() { d.cancel() }

// dial makes a connection for the request. The failure is of kind
// ErrUnavailable or ErrAborted: nothing of the request has been sent.
func (d *dialer) dial(r *Request, p *pool) (*conn, *Error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if !r.abort.attach(&dialing{cancel}) {
		return nil, &Error{Kind: ErrAborted}
	}
	c, err := d.open(ctx, p)
	aborted := r.abort.detach()
	switch {
	case aborted && err == nil:
		c.close()
		fallthrough
	case aborted:
		return nil, &Error{Kind: ErrAborted}
	case err != nil:
		return nil, &Error{Kind: ErrUnavailable, Err: err}
	}
	return c, nil
}

// open makes a connection.
func (d *dialer) open(ctx context.Context, p *pool) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout())
	defer cancel()
	raw, err := d.connect(ctx, "tcp", d.address)
	if err != nil {
		return nil, err
	}
	if d.tls == nil {
		d.connects.Add(1)
		return newConn(raw, nil, nil, p), nil
	}
	records := &recordConn{Conn: raw}
	secured := tls.Client(records, d.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	d.connects.Add(1)
	return newConn(raw, secured, records, p), nil
}
