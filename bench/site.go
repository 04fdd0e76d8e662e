package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"latchkey/apikey"
	"latchkey/keystore"
)

// A site is what scenarios share: stores and files of keys, each made once.
type site struct {
	dir string
	say func(string)
}

// store returns a store for the scenario, made by the first that asks for it.
func (s *site) store(sc scenario) (string, error) {
	name := filepath.Join(s.dir, fmt.Sprintf("store-%d-%d-%t", sc.keys, sc.blocks, sc.revoked))
	return name, once(name, func(path string) error {
		s.say(fmt.Sprintf("making a store of %d keys", sc.keys))
		if err := buildStore(path, sc.keys, sc.blocks); err != nil || !sc.revoked {
			return err
		}
		return revokeAll(path)
	})
}

// keyFile returns the file of the keys that the scenario draws from, issued ones
// where drawn is empty.
func (s *site) keyFile(n int, drawn string) (string, error) {
	name := filepath.Join(s.dir, fmt.Sprintf("keys-%d%s", n, drawn))
	return name, once(name, func(path string) error {
		return writeKeys(path, n, func(i int) []byte {
			switch {
			case drawn == madeUp && i%2 == 0:
				return badChecksum(n + i)
			case drawn == madeUp, drawn == mixed && i%2 == 1:
				return secret(n + i)
			}
			return secret(i)
		})
	})
}

// once makes a file or directory unless it is there, and leaves nothing half-made.
func once(name string, make func(path string) error) error {
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := make(name + ".new"); err != nil {
		return errors.Join(err, os.RemoveAll(name+".new"))
	}
	return os.Rename(name+".new", name)
}

// revokeAll revokes every key of a store. Many at a time share each sync.
func revokeAll(path string) (err error) {
	store, err := keystore.Open(path, keystore.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var before apikey.ID
	for {
		keys, err := store.Scan(apikey.AnyTenant, before, 1000)
		if err != nil || len(keys) == 0 {
			return err
		}
		before = keys[len(keys)-1].ID
		failed := make([]error, len(keys))
		var all sync.WaitGroup
		for i, k := range keys {
			all.Go(func() {
				by := apikey.Origin{At: time.Now(), Actor: "bench", RequestID: "bench"}
				_, failed[i] = store.Change(by, k.Tenant, k.ID, func(k apikey.Key) (apikey.Change, error) { return k.Revoke(by.At) })
			})
		}
		all.Wait()
		if err := errors.Join(failed...); err != nil {
			return err
		}
	}
}

// copyStore copies a store. Tables are never written again, and are linked.
func copyStore(to, from string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	files, err := os.ReadDir(from)
	for _, f := range files {
		source, target := filepath.Join(from, f.Name()), filepath.Join(to, f.Name())
		switch {
		case f.IsDir():
			err = errors.Join(err, copyStore(target, source))
		case filepath.Ext(f.Name()) == ".sst":
			err = errors.Join(err, os.Link(source, target))
		default:
			data, errRead := os.ReadFile(source)
			err = errors.Join(err, errRead, os.WriteFile(target, data, 0o600))
		}
	}
	return err
}

// certificate returns the files of a certificate for the loopback address.
func (s *site) certificate() (cert, key string, err error) {
	cert, key = filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "key.pem")
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return "", "", err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	return cert, key, errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
}

// buildGateway builds the gateway as it is shipped, without cgo.
func buildGateway(binary string) error {
	c := exec.Command("go", "build", "-trimpath", "-o", binary, "latchkey/cmd/latchkey")
	c.Env = append([]string{"CGO_ENABLED=0"}, os.Environ()...) // which may say otherwise
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build the gateway (from its source's root): %w\n%s", err, out)
	}
	return nil
}
