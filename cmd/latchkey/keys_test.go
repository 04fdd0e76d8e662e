package main

import (
	"bytes"
	"context"
	"regexp"
	"syscall"
	"testing"
)

// fullDisk takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestASecretThatCannotBeWritten: the key is there by then, and whoever asked for it must
// know which one to end.
func TestASecretThatCannotBeWritten(t *testing.T) {
	g := startGateway(t, testConfig(t, upstreamOK(t).URL))
	t.Setenv("LATCHKEY_TOKEN", testToken)
	t.Setenv("LATCHKEY_SERVER", g.admin)
	var errs bytes.Buffer
	status := run(context.Background(), []string{"keys", "create", "--name", "lost", "--tenant", "acme"}, fullDisk{}, &errs)
	m := regexp.MustCompile(`^latchkey: key (\S+) was made, and its secret could not be written, so it is lost: .*; end the key by (latchkey keys revoke \S+), and make another\n$`).FindStringSubmatch(errs.String())
	if status != 1 || m == nil {
		t.Fatalf("status %d, %q", status, errs.String())
	}
	if status, _, stderr := runCommand(t, "keys", "revoke", m[1], "--tenant", "acme"); status != 0 {
		t.Errorf("what it says to run: %d, %s", status, stderr)
	}
}
