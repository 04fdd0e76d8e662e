package jobs

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"latchkey/apikey"
)

// A Resolver finds the addresses of a host.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// WebhookOptions configures NewWebhooks. The zero value is usable.
type WebhookOptions struct {
	AllowPrivate bool           // post to loopback, private and other special addresses too
	Resolver     Resolver       // nil means the system's
	RootCAs      *x509.CertPool // who vouches for webhooks; nil means the system's
	Timeout      time.Duration  // for one message, from the look-up to the answer; zero means 10 seconds
}

// Webhooks posts messages to webhooks over HTTPS. A host is resolved once for
// each message, and the address that was checked is the one that is dialled, so
// that a name cannot lead elsewhere between the two. Redirects are not followed,
// and no proxy of the environment is used.
type Webhooks struct {
	options WebhookOptions
	client  *http.Client
}

// NewWebhooks returns a poster.
func NewWebhooks(o WebhookOptions) *Webhooks {
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	w := &Webhooks{options: o}
	w.client = &http.Client{
		Timeout:       o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            w.dial,
			TLSClientConfig:        &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
			DisableKeepAlives:      true, // the next message resolves the name anew
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
	return w
}

// errAddress reports an address that webhooks may not have.
var errAddress = errors.New("its host leads to a loopback, private, link-local or otherwise special address; admin.allow_private_webhooks allows that")

// dial resolves the host and connects to the first of its addresses that takes
// the connection. One that is not allowed spoils them all: who can add a private
// address to a name does not do so by mistake.
func (w *Webhooks) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := w.options.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("resolve its host: %w", err)
	}
	for _, a := range addrs {
		if !w.options.AllowPrivate && !apikey.PublicAddr(a) {
			return nil, errAddress
		}
	}
	err = errors.New("its host has no address")
	for _, a := range addrs {
		var c net.Conn
		if c, err = new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(a.Unmap().String(), port)); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// mostAnswer is how much of a webhook's answer is read, in bytes. Nothing in it
// matters.
const mostAnswer = 64 << 10

// Post implements Poster.
func (w *Webhooks) Post(ctx context.Context, to string, m Message) error {
	if problem := apikey.CheckWebhookURL(to, w.options.AllowPrivate); problem != "" {
		return errors.New("the webhook's URL " + problem)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(m.Body))
	if err != nil {
		return errors.New("the webhook's URL is malformed")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Latchkey")
	if err := sign(req.Header, m); err != nil {
		return err
	}
	res, err := w.client.Do(req)
	if err != nil {
		var at *url.Error // which quotes the URL, and that may hold a token
		if errors.As(err, &at) {
			err = at.Err
		}
		return fmt.Errorf("call the webhook: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("the webhook answered %d", res.StatusCode)
	}
	// The status is the answer: 2xx means that it has the key, whatever becomes
	// of the rest.
	_, _ = io.CopyN(io.Discard, res.Body, mostAnswer)
	return nil
}

// sign adds the fields of both signatures: Standard Webhooks
// (https://github.com/standard-webhooks/standard-webhooks, "Signature scheme"),
// whose key is what the secret stands for, and Strait's own, whose key is the
// secret as it was shown.
func sign(h http.Header, m Message) error {
	key, err := apikey.WebhookKey(m.Secret)
	if err != nil {
		return errors.New("the webhook's secret is damaged")
	}
	at := strconv.FormatInt(m.At.Unix(), 10)
	h.Set("webhook-id", m.ID)
	h.Set("webhook-timestamp", at)
	h.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac(key, m.ID, ".", at, ".", string(m.Body))))
	h.Set("X-Strait-Event", m.Event)
	h.Set("X-Strait-Delivery-Id", m.ID)
	h.Set("X-Strait-Timestamp", at)
	h.Set("X-Strait-Signature", "v1="+hex.EncodeToString(mac([]byte(m.Secret), at, ".", string(m.Body))))
	return nil
}

func mac(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		_, _ = io.WriteString(h, p) // a hash takes everything
	}
	return h.Sum(nil)
}
