package upstream

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// overTLS serves TLS on each connection. A client that breaks off the handshake
// is not heard.
func overTLS(config *tls.Config, handle func(c *peer, n int)) func(*peer, int) {
	return func(p *peer, n int) {
		c := tls.Server(&gatheringConn{Conn: p.Conn}, config)
		if c.Handshake() == nil {
			handle(&peer{c, bufio.NewReader(c)}, n)
		}
	}
}

// A gatheringConn keeps what is written while it is on.
type gatheringConn struct {
	net.Conn
	on       bool
	gathered []byte
}

func (c *gatheringConn) Write(p []byte) (int, error) {
	if c.on {
		c.gathered = append(c.gathered, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// certificates makes an authority in PEM, a server's certificate for localhost
// and inner.example, and a client's with its key in PEM.
func certificates(t *testing.T) (ca []byte, server tls.Certificate, client [2][]byte) {
	t.Helper()
	now := time.Now()
	template := func(n int64, name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	sign := func(c, by *x509.Certificate, k, byKey *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, by, &k.PublicKey, byKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	inPEM := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }

	root, rootKey := template(1, "authority"), key()
	root.IsCA, root.BasicConstraintsValid, root.KeyUsage = true, true, x509.KeyUsageCertSign
	ca = inPEM("CERTIFICATE", sign(root, root, rootKey, rootKey))

	leaf, leafKey := template(2, "server"), key()
	leaf.DNSNames = []string{"localhost", "inner.example"}
	server = tls.Certificate{Certificate: [][]byte{sign(leaf, root, leafKey, rootKey)}, PrivateKey: leafKey}

	gateway, gatewayKey := template(3, "gateway"), key()
	der, err := x509.MarshalECPrivateKey(gatewayKey)
	if err != nil {
		t.Fatal(err)
	}
	client = [2][]byte{inPEM("CERTIFICATE", sign(gateway, root, gatewayKey, rootKey)), inPEM("EC PRIVATE KEY", der)}
	return ca, server, client
}
