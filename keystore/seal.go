package keystore

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/crypto/chacha20poly1305"

	"latchkey/apikey"
)

// sealFile holds the sealing key, in hexadecimal, beside the database. Who has
// the directory has both: sealing keeps secrets out of what is taken from the
// database alone, such as a table file, a dump or a deleted row that compaction
// has not got to.
const sealFile = "SEAL"

// errSealKey reports a sealing key that is none.
var errSealKey = errors.New("file " + sealFile + " is missing or does not hold a sealing key; restore it from the backup that the database is from")

// A sealer encrypts the few secrets that have to be kept for a while: with
// XChaCha20-Poly1305, whose nonces are long enough to be drawn at random however
// many there are, and bound to the row that they are in.
type sealer struct{ aead cipher.AEAD }

// openSealer reads the sealing key, and makes one where there is none and nothing
// is sealed yet.
func openSealer(path string, fsys vfs.FS, sealed bool) (sealer, error) {
	s, err := readSealer(path, fsys)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if sealed {
		return sealer{}, errSealKey
	}
	key := make([]byte, chacha20poly1305.KeySize)
	rand.Read(key) // never fails: crypto/rand ends the process instead
	if err := writeFile(path, sealFile, hex.EncodeToString(key)+"\n", fsys); err != nil {
		return sealer{}, fmt.Errorf("make sealing key: %w", err)
	}
	return newSealer(key)
}

// readSealer reads the sealing key; where there is none the error is
// fs.ErrNotExist.
func readSealer(path string, fsys vfs.FS) (sealer, error) {
	f, err := fsys.Open(fsys.PathJoin(path, sealFile))
	if err != nil {
		return sealer{}, plain(err)
	}
	defer f.Close()
	text := make([]byte, 2*chacha20poly1305.KeySize)
	if _, err := io.ReadFull(f, text); err != nil {
		return sealer{}, errSealKey
	}
	key, err := hex.DecodeString(string(text))
	if err != nil {
		return sealer{}, errSealKey
	}
	return newSealer(key)
}

func newSealer(key []byte) (sealer, error) {
	aead, err := chacha20poly1305.NewX(key)
	return sealer{aead}, err
}

// seal returns the secret as it is kept in the row with the given key.
func (s sealer) seal(row []byte, secret apikey.Secret) []byte {
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(secret)+s.aead.Overhead())
	rand.Read(nonce)
	return s.aead.Seal(nonce, nonce, []byte(secret), row)
}

// open returns the secret that seal was given.
func (s sealer) open(row, sealed []byte) (apikey.Secret, error) {
	if len(sealed) < s.aead.NonceSize() {
		return "", errCorrupt
	}
	secret, err := s.aead.Open(nil, sealed[:s.aead.NonceSize()], sealed[s.aead.NonceSize():], row)
	if err != nil {
		return "", errCorrupt
	}
	return apikey.Secret(secret), nil
}
