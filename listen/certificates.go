package listen

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// CertificateOptions names the files of LoadCertificates.
type CertificateOptions struct {
	Pairs        []Pair // at least one; the first is for clients that name no host, or one no pair is for
	ClientCAFile string // PEM; every client must show a certificate by one of these; "" asks for none
}

// A Pair is a certificate's two files, in PEM.
type Pair struct {
	CertFile string // chain, leaf first
	KeyFile  string
}

// Certificates is what a listener's TLS goes by. Refresh takes up changed
// files; connections and session tickets outlive that.
type Certificates struct {
	config  *tls.Config // of every connection; refers to current
	current atomic.Pointer[tls.Config]

	mu       sync.Mutex // held by Refresh, guards the rest
	pairs    []*material[tls.Certificate]
	clients  *material[*x509.CertPool] // nil if clients need no certificate
	reported string                    // the error that Refresh returned last
}

// LoadCertificates reads the files. Any that cannot be used is an error.
func LoadCertificates(o CertificateOptions, now time.Time) (*Certificates, error) {
	if len(o.Pairs) == 0 {
		return nil, errNoPair
	}
	c := &Certificates{}
	for _, p := range o.Pairs {
		c.pairs = append(c.pairs, &material[tls.Certificate]{what: "certificate " + p.CertFile,
			files: []string{p.CertFile, p.KeyFile}, parse: parsePair})
	}
	if o.ClientCAFile != "" {
		c.clients = &material[*x509.CertPool]{what: "client CA " + o.ClientCAFile,
			files: []string{o.ClientCAFile}, parse: parsePool}
	}
	if _, err := c.Refresh(now); err != nil {
		return nil, err
	}
	// The keys of session tickets belong to this one. If each handshake had a
	// whole Config of its own, no session could be resumed; what is swapped is
	// only what GetConfigForClient returns, which has no ticket keys.
	c.config = newTLSConfig()
	c.config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current.Load(), nil }
	return c, nil
}

var errNoPair = errors.New("load certificates: none are named")

// newTLSConfig returns what all of a listener's connections have in common.
// HTTP/2 is not spoken here, so it is not offered: a client that wants nothing
// else is told so by the handshake.
func newTLSConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
}

// Refresh is one look at the files: what has changed is taken up, and changed
// reports whether anything was. Of files that cannot be used, what was loaded
// before stays in use, and the error says so; it is returned once, and again
// only when it becomes another. It is to be called every few seconds.
func (c *Certificates) Refresh(now time.Time) (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, p := range c.pairs {
		took, err := p.refresh(now)
		changed = changed || took
		errs = append(errs, err)
	}
	if c.clients != nil {
		took, err := c.clients.refresh(now)
		changed = changed || took
		errs = append(errs, err)
	}
	if changed {
		c.swap()
	}
	err = errors.Join(errs...)
	text := fmt.Sprint(err)
	if text == c.reported {
		return changed, nil
	}
	c.reported = text
	return changed, err
}

// swap puts what is loaded to use. Among several certificates crypto/tls takes
// the first that fits the client's host name and algorithms, else the first.
func (c *Certificates) swap() {
	next := newTLSConfig()
	for _, p := range c.pairs {
		next.Certificates = append(next.Certificates, p.value)
	}
	if c.clients != nil {
		// A session from before is resumed only if its client's certificate
		// still leads to one of these.
		next.ClientCAs, next.ClientAuth = c.clients.value, tls.RequireAndVerifyClientCert
	}
	c.current.Store(next)
}

// A material is what is made of files that belong together.
type material[T any] struct {
	what  string // for errors
	files []string
	parse func(contents [][]byte) (T, error)
	value T // made of the newest files that were good

	seen   []os.FileInfo // of the newest files that were read, good or not
	at     time.Time     // when
	digest [sha256.Size]byte
	bad    error // what is wrong with them
}

// settling is for how long after a change another one may leave the same time
// of change: some file systems keep whole seconds.
const settling = 2 * time.Second

// refresh reads the files if they may have changed, and reports whether value
// is another. An error leaves value as it was.
func (m *material[T]) refresh(now time.Time) (changed bool, err error) {
	infos, err := m.stat()
	if err != nil {
		return false, m.wrap(err)
	}
	settled := !slices.ContainsFunc(infos, func(i os.FileInfo) bool { return m.at.Sub(i.ModTime()) < settling })
	if settled && sameFiles(infos, m.seen) {
		return false, m.wrap(m.bad)
	}
	contents, infos, err := m.read(infos)
	if err != nil {
		return false, m.wrap(err)
	}
	all := sha256.New()
	for _, content := range contents {
		sum := sha256.Sum256(content)
		all.Write(sum[:])
	}
	digest := [sha256.Size]byte(all.Sum(nil))
	first := m.seen == nil
	m.seen, m.at = infos, now
	if digest == m.digest && !first {
		return false, m.wrap(m.bad)
	}
	m.digest = digest
	value, err := m.parse(contents)
	m.bad = err
	if err != nil {
		return false, m.wrap(err)
	}
	m.value = value
	return true, nil
}

// wrap says what could not be loaded.
func (m *material[T]) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("load %s: %w", m.what, err)
}

// stat follows symbolic links, so that one that is put in another's place, as
// Kubernetes does with secrets, is another file.
func (m *material[T]) stat() ([]os.FileInfo, error) {
	var infos []os.FileInfo
	for _, name := range m.files {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// read reads all files, once more if they change meanwhile: a certificate and
// the key of its successor do not fit. What still changes then is left to the
// next refresh, which sees that infos are older.
func (m *material[T]) read(before []os.FileInfo) (contents [][]byte, infos []os.FileInfo, err error) {
	for range 3 {
		contents = nil
		for _, name := range m.files {
			content, err := os.ReadFile(name)
			if err != nil {
				return nil, nil, err
			}
			contents = append(contents, content)
		}
		infos, before = before, nil
		if before, err = m.stat(); err != nil {
			return nil, nil, err
		}
		if sameFiles(before, infos) {
			break
		}
	}
	return contents, infos, nil
}

func sameFiles(a, b []os.FileInfo) bool {
	return slices.EqualFunc(a, b, func(a, b os.FileInfo) bool {
		return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
	})
}

// parsePair takes a chain and its key.
func parsePair(contents [][]byte) (tls.Certificate, error) {
	return tls.X509KeyPair(contents[0], contents[1])
}

var errNoCertificate = errors.New("no certificate in PEM form")

// parsePool takes a bundle of certificates.
func parsePool(contents [][]byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(contents[0]) {
		return nil, errNoCertificate
	}
	return pool, nil
}
