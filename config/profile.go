package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Profile is how the command line reaches an admin plane where neither its flags
// nor its environment say so. The zero value says nothing.
type Profile struct {
	Server    string `yaml:"server"`     // URL of the admin plane
	Token     string `yaml:"token"`      // an operator's token; not with TokenFile
	TokenFile string `yaml:"token_file"` // a file that holds it, readable by its owner alone

	AllowPublicPlaintext bool `yaml:"allow_public_plaintext"` // send it over plain HTTP to another machine; default false
}

// LoadProfile reads the profile at path. One that is not there gives an error that
// is fs.ErrNotExist. One that others can read or have written is refused: it holds
// a token, and it says whom to send it to.
func LoadProfile(path string) (*Profile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the profile: %w", err)
	}
	if problem := NotPrivate(path, info); problem != "" {
		return nil, fmt.Errorf("the profile %s %s", path, problem)
	}
	data, _, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the profile: %w", err)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return new(Profile), nil
	}
	root, problem := document(data)
	if problem != nil {
		return nil, problems(path, []Problem{*problem})
	}
	var p Profile
	d := newDecoder(os.LookupEnv)
	d.decode("", root, &p)
	if p.Token != "" && p.TokenFile != "" {
		d.refuse("token", "given beside token_file; keep one of them")
	}
	if err := problems(path, d.problems); err != nil {
		return nil, err
	}
	return &p, nil
}

// NotPrivate says what is wrong with the owner or mode of a file that holds a secret
// and that nobody else can have put there; "" means nothing.
func NotPrivate(path string, info fs.FileInfo) string {
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return "belongs to another user; copy it, or run this as its owner"
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "can be read by others than its owner; run: chmod 600 " + path
	}
	return ""
}

// ReadTokenFile returns the token in a file, which others than its owner must not
// be able to read. No error shows it.
func ReadTokenFile(name string) (string, error) { return fileToken(name) }

// TokenDigest returns the SHA-256 that token_sha256 wants for a token, and an
// error for a token that no operator can have.
func TokenDigest(token string) ([32]byte, error) {
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return [32]byte{}, errors.New("the token has a character that is not visible ASCII, which no client sends")
		}
	}
	return digestOf(token)
}
