package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// minTokenLength keeps out tokens that can be guessed. It cannot be checked
// for a digest.
const minTokenLength = 16

// Digest returns the SHA-256 of the operator's token, reading it from the
// environment or its file if it is kept there. No error shows the token, its
// digest, or a name that may be a token put in the wrong place.
func (o Operator) Digest(getenv func(string) (string, bool)) ([32]byte, error) {
	var token string
	var err error
	switch o.tokenField() {
	case "token_sha256":
		return parseDigest(o.TokenSHA256)
	case "token_env":
		token, err = envToken(o.TokenEnv, getenv)
	case "token_file":
		token, err = fileToken(o.TokenFile)
	default:
		err = errors.New("has not exactly one of token_sha256, token_env and token_file; give one")
	}
	if err != nil {
		return [32]byte{}, err
	}
	return digestOf(token)
}

func digestOf(token string) ([32]byte, error) {
	if len(token) < minTokenLength {
		return [32]byte{}, fmt.Errorf("the token is empty or shorter than %d characters; make one by: latchkey operators hash", minTokenLength)
	}
	return sha256.Sum256([]byte(token)), nil
}

// tokenField names the field that holds the token, or "" unless there is
// exactly one.
func (o Operator) tokenField() string {
	name := ""
	for _, f := range []struct{ name, value string }{
		{"token_sha256", o.TokenSHA256}, {"token_env", o.TokenEnv}, {"token_file", o.TokenFile},
	} {
		switch {
		case f.value == "":
		case name != "":
			return ""
		default:
			name = f.name
		}
	}
	return name
}

func parseDigest(text string) (digest [32]byte, err error) {
	raw, err := hex.DecodeString(strings.TrimPrefix(text, "sha256:"))
	if err != nil || len(raw) != len(digest) {
		return digest, errors.New(`not 64 hexadecimal digits; make it by: printf %s "$TOKEN" | sha256sum`)
	}
	// This is what that command prints when the variable is not set.
	if [32]byte(raw) == sha256.Sum256(nil) {
		return digest, errors.New("the digest of an empty token; check that $TOKEN was set, and make it again")
	}
	return [32]byte(raw), nil
}

func envToken(name string, getenv func(string) (string, bool)) (string, error) {
	token, ok := getenv(name)
	switch {
	case ok && token != strings.TrimSpace(token):
		return "", fmt.Errorf("the token in the environment variable %s has white space around it, which no client sends; remove it", name)
	case ok:
		return token, nil
	case isVariable(name) && name == strings.ToUpper(name):
		return "", fmt.Errorf("the environment variable %s is not set; set it to the token", name)
	default:
		return "", errors.New("no environment variable has this name; write the name of one that holds the token, not the token")
	}
}

func fileToken(name string) (string, error) {
	data, mode, err := readFile(name)
	if err != nil {
		// Less the name, which may be a token put in the wrong place.
		if at, ok := errors.AsType[*fs.PathError](err); ok {
			err = at.Err
		}
		return "", fmt.Errorf("%w; name a file that holds the token", err)
	}
	if mode.Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s can be read by others than its owner; run: chmod 600 %s", name, name)
	}
	return strings.TrimSuffix(string(data), "\n"), nil
}

// readFile reads a regular file. Others are refused, since reading a pipe or a
// device could wait for ever.
func readFile(name string) ([]byte, fs.FileMode, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	data, err := os.ReadFile(name)
	return data, info.Mode(), err
}

// CertsDigest returns the SHA-256 of Truvera's CERTS-TOKEN, read from the
// environment as an operator's token is.
func (a Admin) CertsDigest(getenv func(string) (string, bool)) ([32]byte, error) {
	return Operator{TokenEnv: a.CertsTokenEnv}.Digest(getenv) // whose rules for a token are the same
}
