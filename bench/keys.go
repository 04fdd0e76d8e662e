package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"latchkey/apikey"
	"latchkey/keystore"
)

func format() apikey.SecretFormat { return apikey.NewSecretFormat("lk") }

// secret returns the secret of the n-th key. The stores of the bench are thrown
// away, so it need not be a secret, and what was never issued is known too.
func secret(n int) []byte {
	entropy := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
	return []byte(format().New(apikey.EnvironmentLive, entropy))
}

// badChecksum returns a secret that was never issued and is not well-formed.
func badChecksum(n int) []byte {
	s := secret(n)
	last := &s[len(s)-1]
	if *last++; *last > '9' {
		*last = '0'
	}
	return s
}

// newKey returns the n-th key as its import would have it.
func newKey(n int, blocks int, now time.Time) (apikey.Key, error) {
	id := apikey.NewID(now.Add(time.Duration(n)*time.Microsecond), [8]byte(binary.BigEndian.AppendUint64(nil, rand.Uint64())))
	made, err := apikey.Issue(apikey.Spec{
		Tenant: "acme", Subject: fmt.Sprintf("user-%06d", n), Name: "ci deploy key",
		Scopes: []string{"orders:read", "orders:write"}, APIVersion: "2024-05-22", AllowedIPs: allowlist(blocks),
	}, apikey.Credentials{ID: id, Secret: string(secret(n))}, now)
	if err != nil {
		return apikey.Key{}, err
	}
	return made.Keys[0], nil
}

// allowlist returns so many blocks, of which the last has the loopback addresses.
func allowlist(blocks int) (out apikey.Allowlist) {
	for i := range blocks {
		block := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16)
		if i == blocks-1 {
			block = netip.MustParsePrefix("127.0.0.0/8")
		}
		out = append(out, apikey.AllowedIP{Block: block})
	}
	return out
}

// buildStore makes a store of n keys through the store's import.
func buildStore(path string, n, blocks int) (err error) {
	store, err := keystore.Open(path, keystore.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	now := time.Now()
	by := apikey.Origin{At: now, Actor: "bench", Address: netip.MustParseAddr("127.0.0.1"), RequestID: "bench"}
	return store.ImportAll(by, func(add func([]apikey.Key) ([]error, error)) error {
		const batch = 1000
		for from := 0; from < n; from += batch {
			var keys []apikey.Key
			for i := from; i < min(from+batch, n); i++ {
				k, err := newKey(i, blocks, now)
				if err != nil {
					return err
				}
				keys = append(keys, k)
			}
			refused, err := add(keys)
			if err := errors.Join(append(refused, err)...); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeKeys writes n keys, one a line, as next gives them.
func writeKeys(name string, n int, next func(i int) []byte) (err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	for i := range n {
		_, _ = w.Write(append(next(i), '\n')) // its error comes from Flush
	}
	return w.Flush()
}
