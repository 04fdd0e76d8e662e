package config_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"latchkey/config"
)

func TestOperatorDigest(t *testing.T) {
	const token = "correct horse battery"
	want := sha256.Sum256([]byte(token))
	text := hex.EncodeToString(want[:])
	empty := sha256.Sum256(nil)
	file := func(content string, mode os.FileMode) string {
		name := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	env := map[string]string{"TOKEN": token, "SHORT": "fifteen letters", "EMPTY": ""}
	for _, tc := range []struct {
		name     string
		operator config.Operator
		problem  string
	}{
		{"a digest", config.Operator{TokenSHA256: text}, ""},
		{"a digest with its algorithm", config.Operator{TokenSHA256: "sha256:" + text}, ""},
		{"a digest cut short", config.Operator{TokenSHA256: text[:62]}, "not 64 hexadecimal digits"},
		{"the digest of nothing", config.Operator{TokenSHA256: hex.EncodeToString(empty[:])}, "the digest of an empty token"},
		{"a variable", config.Operator{TokenEnv: "TOKEN"}, ""},
		{"a short token", config.Operator{TokenEnv: "SHORT"}, "shorter than 16"},
		{"an empty token", config.Operator{TokenEnv: "EMPTY"}, "empty or shorter"},
		{"a variable that is not set", config.Operator{TokenEnv: "UNSET"}, "UNSET is not set"},
		{"a file", config.Operator{TokenFile: file(token, 0o600)}, ""},
		{"one newline at its end is not the token's", config.Operator{TokenFile: file(token+"\n", 0o400)}, ""},
		{"a file that its group reads", config.Operator{TokenFile: file(token, 0o640)}, "run: chmod 600"},
		{"a file that others read", config.Operator{TokenFile: file(token, 0o604)}, "run: chmod 600"},
		{"no such file", config.Operator{TokenFile: "nonexistent"}, "no such file"},
		{"nothing", config.Operator{}, "has not exactly one"},
		{"two of them", config.Operator{TokenSHA256: text, TokenEnv: "TOKEN"}, "has not exactly one"},
		{"all of them", config.Operator{TokenSHA256: text, TokenEnv: "TOKEN", TokenFile: "x"}, "has not exactly one"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.operator.Digest(func(name string) (string, bool) { value, ok := env[name]; return value, ok })
			switch {
			case tc.problem == "" && (err != nil || got != want):
				t.Errorf("Digest() = %x, %v, want %x", got, err, want)
			case tc.problem != "" && (err == nil || !strings.Contains(err.Error(), tc.problem)):
				t.Errorf("Digest() = %v, want an error with %q", err, tc.problem)
			}
		})
	}
}
