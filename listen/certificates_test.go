package listen

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"latchkey/internal/nettest"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A pemPair is a certificate and its key, in PEM.
type pemPair struct{ cert, key []byte }

// An authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour)}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue returns a certificate for host names, for servers and clients.
func (a *authority) issue(t *testing.T, hosts ...string) pemPair {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: hosts[0]}, DNSNames: hosts,
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pemPair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})}
}

// files is a directory with a certificate's files.
type files struct {
	t   *testing.T
	dir string
}

func newFiles(t *testing.T) *files { return &files{t, t.TempDir()} }

func (f *files) pair() Pair { return Pair{filepath.Join(f.dir, "cert"), filepath.Join(f.dir, "key")} }

func (f *files) write(p pemPair) {
	f.put("cert", p.cert)
	f.put("key", p.key)
}

func (f *files) put(name string, content []byte) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func (f *files) load(t *testing.T, clientCA string, more ...Pair) *Certificates {
	t.Helper()
	c, err := LoadCertificates(CertificateOptions{Pairs: append([]Pair{f.pair()}, more...), ClientCAFile: clientCA}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// clientConfig is a client's that looks at whom it got instead of refusing.
func clientConfig(host string) *tls.Config {
	return &tls.Config{ServerName: host, InsecureSkipVerify: true}
}

func handshake(t *testing.T, c net.Conn, config *tls.Config) *tls.Conn {
	t.Helper()
	encrypted := tls.Client(c, config)
	if err := encrypted.Handshake(); err != nil {
		t.Fatal(err)
	}
	return encrypted
}

// served returns the name in the certificate that the site shows for a host.
func served(t *testing.T, s *site, host string) string {
	t.Helper()
	return handshake(t, s.dial(), clientConfig(host)).ConnectionState().PeerCertificates[0].Subject.CommonName
}

// refresh is a pass an hour after all that was written.
func refresh(t *testing.T, c *Certificates, wantChanged bool, wantErr string) {
	t.Helper()
	changed, err := c.Refresh(time.Now().Add(time.Hour))
	if changed != wantChanged {
		t.Errorf("Refresh() changed = %t, want %t", changed, wantChanged)
	}
	if (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
		t.Errorf("Refresh() = %v, want %q", err, wantErr)
	}
}

func TestTheNameChoosesTheCertificate(t *testing.T) {
	ca := newAuthority(t, "ca")
	main, second, wild := newFiles(t), newFiles(t), newFiles(t)
	main.write(ca.issue(t, "main.example", "alias.example"))
	second.write(ca.issue(t, "second.example", "alias.example"))
	wild.write(ca.issue(t, "*.wild.example"))
	s := startSite(t, Options{Certificates: main.load(t, "", second.pair(), wild.pair())})
	for _, tc := range []struct{ name, host, want string }{
		{"its own", "main.example", "main.example"},
		{"a further one", "second.example", "second.example"},
		{"in any case", "SECOND.example", "second.example"},
		{"with a wildcard", "a.wild.example", "*.wild.example"},
		{"a wildcard is one label", "a.b.wild.example", "main.example"},
		{"and not none", "wild.example", "main.example"},
		{"in two of them the first", "alias.example", "main.example"},
		{"an unknown name gets the main one", "unknown.example", "main.example"},
		{"no name gets the main one", "", "main.example"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := served(t, s, tc.host); got != tc.want {
				t.Errorf("%q got the certificate of %s, want %s", tc.host, got, tc.want)
			}
		})
	}
}

// TestACertificateIsReplacedUnderAConnection writes the files anew, and also
// has a symbolic link point elsewhere, while a client stays connected.
func TestACertificateIsReplacedUnderAConnection(t *testing.T) {
	ca := newAuthority(t, "ca")
	// As Kubernetes lays secrets out: cert and key are links through a link to a
	// directory, and that one is replaced.
	root := newFiles(t)
	for _, generation := range []string{"1", "2"} {
		g := &files{t, filepath.Join(root.dir, generation)}
		if err := os.Mkdir(g.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		g.write(ca.issue(t, "linked"+generation))
	}
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(root.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("1", "data")
	link("data/cert", "cert")
	link("data/key", "key")

	c := root.load(t, "")
	s := startSite(t, Options{Certificates: c})
	old := handshake(t, s.dial(), clientConfig(""))
	if got := answer(t, old, "hello\n"); !strings.HasSuffix(got, "hello") {
		t.Fatalf("answered %q", got)
	}
	refresh(t, c, false, "")

	link("2", "next")
	if err := os.Rename(filepath.Join(root.dir, "next"), filepath.Join(root.dir, "data")); err != nil {
		t.Fatal(err)
	}
	refresh(t, c, true, "")
	refresh(t, c, false, "")
	if got := served(t, s, ""); got != "linked2" {
		t.Errorf("%s is served, want what the link points to now", got)
	}

	(&files{t, filepath.Join(root.dir, "2")}).write(ca.issue(t, "rewritten"))
	refresh(t, c, true, "")
	if got := served(t, s, ""); got != "rewritten" {
		t.Errorf("%s is served, want what was written in place", got)
	}
	if got := answer(t, old, "still here\n"); got != "still here" {
		t.Errorf("the connection from before answered %q", got)
	}
}

// TestAFaultyCertificateChangesNothing breaks the files in several ways and
// mends them; each fault is reported once.
func TestAFaultyCertificateChangesNothing(t *testing.T) {
	ca := newAuthority(t, "ca")
	f, other := newFiles(t), newFiles(t)
	good, next := ca.issue(t, "good"), ca.issue(t, "next")
	f.write(good)
	other.write(ca.issue(t, "other"))
	c := f.load(t, "", other.pair())
	s := startSite(t, Options{Certificates: c})
	for _, tc := range []struct {
		name  string
		spoil func()
		want  string
	}{
		{"half replaced", func() { f.put("cert", next.cert) }, "does not match"},
		{"empty", func() { f.put("cert", nil) }, "PEM"},
		{"absent", func() { os.Remove(f.pair().KeyFile) }, "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.spoil()
			refresh(t, c, false, tc.want)
			refresh(t, c, false, "")
			if got := served(t, s, ""); got != "good" {
				t.Errorf("%s is served, want the one from before", got)
			}
		})
	}
	// What is wrong with one pair does not keep another from being replaced.
	other.write(ca.issue(t, "other2", "other"))
	refresh(t, c, true, "")
	if got := served(t, s, "other"); got != "other2" {
		t.Errorf("%s is served, want the further one replaced", got)
	}
	f.write(next)
	refresh(t, c, true, "")
	if got := served(t, s, ""); got != "next" {
		t.Errorf("%s is served after the files were mended, want next", got)
	}
	f.put("cert", nil)
	refresh(t, c, false, "PEM")
}

// TestAChangeWithinTheClocksGrainIsSeen writes another certificate of the same
// length and gives it the time of the one before.
func TestAChangeWithinTheClocksGrainIsSeen(t *testing.T) {
	ca := newAuthority(t, "ca")
	f := newFiles(t)
	first, second := ca.issue(t, "a"), ca.issue(t, "b")
	for len(first.cert) != len(second.cert) || len(first.key) != len(second.key) {
		second = ca.issue(t, "b") // signatures differ in length by a byte or two
	}
	at := time.Now()
	write := func(p pemPair) {
		f.write(p)
		for _, name := range []string{f.pair().CertFile, f.pair().KeyFile} {
			if err := os.Chtimes(name, at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(first)
	c, err := LoadCertificates(CertificateOptions{Pairs: []Pair{f.pair()}}, at.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	write(second)
	if changed, err := c.Refresh(at.Add(6 * time.Second)); !changed || err != nil {
		t.Errorf("Refresh() = %t, %v, want the change to be seen", changed, err)
	}
}

// TestSessionsAreResumed reconnects with a ticket, also after the certificate
// has been replaced.
func TestSessionsAreResumed(t *testing.T) {
	ca := newAuthority(t, "ca")
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t)
			f.write(ca.issue(t, "a.example"))
			c := f.load(t, "")
			s := startSite(t, Options{Certificates: c})
			config := clientConfig("a.example")
			config.ClientSessionCache, config.MaxVersion = tls.NewLRUClientSessionCache(1), version
			connect := func() bool {
				t.Helper()
				conn := handshake(t, s.dial(), config)
				answer(t, conn, "hello\n") // in TLS 1.3 the ticket comes with the answer
				return conn.ConnectionState().DidResume
			}
			if connect() {
				t.Fatal("the first connection resumed a session")
			}
			if !connect() {
				t.Error("the second connection resumed no session")
			}
			f.write(ca.issue(t, "a.example"))
			refresh(t, c, true, "")
			if !connect() {
				t.Error("the connection after a change of certificates resumed no session")
			}
		})
	}
}

func TestOnlyTheRightClientsComeIn(t *testing.T) {
	server, clients, strangers := newAuthority(t, "server"), newAuthority(t, "clients"), newAuthority(t, "strangers")
	f := newFiles(t)
	f.write(server.issue(t, "a.example"))
	caFile := f.put("ca", clients.pem)
	c := f.load(t, caFile)
	s := startSite(t, Options{Certificates: c})
	good, wrong := clients.issue(t, "good"), strangers.issue(t, "wrong")
	config := func(p pemPair) *tls.Config {
		out := clientConfig("a.example")
		if p.cert != nil {
			certificate, err := tls.X509KeyPair(p.cert, p.key)
			if err != nil {
				t.Fatal(err)
			}
			// Sent whatever the server asks for, as an attacker would.
			out.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
		}
		return out
	}
	admitted := func(config *tls.Config) bool {
		t.Helper()
		c := tls.Client(s.dial(), config)
		if c.Handshake() != nil {
			return false
		}
		return answer(t, c, "hello\n") != "" // in TLS 1.3 the refusal comes after the client's handshake
	}
	session := config(good)
	session.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for _, tc := range []struct {
		name   string
		config *tls.Config
		want   bool
	}{
		{"one of the CA's", config(good), true}, {"another CA's", config(wrong), false}, {"none", config(pemPair{}), false},
		{"one of the CA's that keeps its session", session, true},
	} {
		if got := admitted(tc.config); got != tc.want {
			t.Errorf("%s: admitted = %t, want %t", tc.name, got, tc.want)
		}
	}
	// The client has the alert before the server has counted the handshake.
	nettest.Until(t, "2 failed handshakes are counted", func() bool { return s.counters.BadTLS.Load() == 2 })

	f.put("ca", []byte("nothing"))
	refresh(t, c, false, "no certificate in PEM form")
	if !admitted(config(good)) || admitted(config(wrong)) {
		t.Error("a faulty CA file changed who is admitted")
	}
	f.put("ca", strangers.pem)
	refresh(t, c, true, "")
	for _, tc := range []struct {
		name   string
		config *tls.Config
		want   bool
	}{
		{"one of the old CA's", config(good), false}, {"one of the new CA's", config(wrong), true},
		{"a session of the old CA's", session, false},
	} {
		if got := admitted(tc.config); got != tc.want {
			t.Errorf("after the CA was replaced, %s: admitted = %t, want %t", tc.name, got, tc.want)
		}
	}
}

func TestWhatIsNegotiated(t *testing.T) {
	f := newFiles(t)
	f.write(newAuthority(t, "ca").issue(t, "a.example"))
	s := startSite(t, Options{Certificates: f.load(t, "")})
	for _, tc := range []struct {
		name   string
		config *tls.Config
		want   string // the protocol; "refused" if there is no connection
	}{
		{"HTTP/1.1 is taken", &tls.Config{NextProtos: []string{"http/1.1"}}, "http/1.1"},
		{"and preferred to HTTP/2", &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, "http/1.1"},
		{"without a list there is nothing to negotiate", &tls.Config{}, ""},
		{"HTTP/2 alone is refused", &tls.Config{NextProtos: []string{"h2"}}, "refused"},
		{"TLS 1.2 is the oldest", &tls.Config{MaxVersion: tls.VersionTLS12}, ""},
		{"TLS 1.1 is refused", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.config.InsecureSkipVerify = true
			c := tls.Client(s.dial(), tc.config)
			got := "refused"
			if c.Handshake() == nil {
				got = c.ConnectionState().NegotiatedProtocol
			}
			if got != tc.want {
				t.Errorf("negotiated %q, want %q", got, tc.want)
			}
		})
	}
}

func TestLoadCertificatesSaysWhatIsWrong(t *testing.T) {
	f := newFiles(t)
	f.write(newAuthority(t, "ca").issue(t, "a.example"))
	for _, tc := range []struct {
		name    string
		options CertificateOptions
		want    string
	}{
		{"none", CertificateOptions{}, "none are named"},
		{"a key for a certificate", CertificateOptions{Pairs: []Pair{{f.pair().KeyFile, f.pair().KeyFile}}}, "load certificate " + f.pair().KeyFile},
		{"an absent client CA", CertificateOptions{Pairs: []Pair{f.pair()}, ClientCAFile: "/nonexistent"}, "load client CA /nonexistent"},
	} {
		if _, err := LoadCertificates(tc.options, time.Now()); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestTLSBehindAPROXYHeader has both: the header comes first, in the clear.
func TestTLSBehindAPROXYHeader(t *testing.T) {
	f := newFiles(t)
	f.write(newAuthority(t, "ca").issue(t, "a.example"))
	s := startSite(t, Options{ProxyProtocol: true, Trusted: loopback, Certificates: f.load(t, "")})
	c := s.dial()
	w := bufio.NewWriter(c)
	w.WriteString("PROXY TCP4 192.0.2.1 192.0.2.2 4097 80\r\n")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := answer(t, handshake(t, c, clientConfig("a.example")), "hello\n"); got != "192.0.2.1:4097 via 127.0.0.1: hello" {
		t.Errorf("answered %q", got)
	}
}
