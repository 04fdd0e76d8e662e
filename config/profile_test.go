package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"latchkey/config"
)

// TestLoadProfile holds profiles to be files that only their owner can have made and
// can read, and errors to show no token.
func TestLoadProfile(t *testing.T) {
	const secret = "a-token-that-nobody-may-see"
	for _, tc := range []struct {
		name, text string
		mode       fs.FileMode
		owner      int // zero means whoever runs the test
		want       string
	}{
		{"good", "server: http://h:1\ntoken: " + secret + "\n", 0o600, 0, ""},
		{"empty", "\n", 0o600, 0, ""},
		{"read-only", "token_file: x", 0o400, 0, ""},
		{"readable by the group", "token: " + secret, 0o640, 0, "can be read by others"},
		{"readable by all", "token: " + secret, 0o604, 0, "can be read by others"},
		{"writable by all", "token: " + secret, 0o602, 0, "can be read by others"},
		{"another user's", "token: " + secret, 0o600, 12345, "belongs to another user"},
		{"an unknown field", "tokn: " + secret, 0o600, 0, ":1: tokn"},
		{"two tokens", "token: " + secret + "\ntoken_file: x", 0o600, 0, ":1: token: given beside token_file"},
		{"a list", "[" + secret + "]", 0o600, 0, ":1: "},
		{"no YAML", "token: [" + secret, 0o600, 0, "not valid YAML"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "profile.yaml")
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if tc.owner != 0 {
				if os.Geteuid() != 0 {
					t.Skip("only root can give a file away")
				}
				if err := os.Chown(file, tc.owner, -1); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(file, tc.mode); err != nil {
				t.Fatal(err)
			}
			p, err := config.LoadProfile(file)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("LoadProfile() = %v", err)
			case tc.want == "" && tc.name == "good" && *p != (config.Profile{Server: "http://h:1", Token: secret}):
				t.Errorf("LoadProfile() = %+v", p)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("LoadProfile() = %v, want an error with %q", err, tc.want)
			case err != nil && strings.Contains(err.Error(), secret):
				t.Errorf("the error shows the token: %v", err)
			}
		})
	}
	if _, err := config.LoadProfile(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of an absent file: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := config.LoadProfile(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("of a directory: %v", err)
	}
}
