package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCommandLineDocument holds docs/cli.md to be what the commands say of themselves.
func TestCommandLineDocument(t *testing.T) {
	const file = "../../docs/cli.md"
	var want bytes.Buffer
	writeCommandLine(&want, rootCommand())
	if *update {
		if err := os.WriteFile(file, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("docs/cli.md is stale; run this test with -update (-want +got):\n%s", diff)
	}
}
