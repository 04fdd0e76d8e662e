package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/schollz/progressbar/v3"
)

// TestProgress holds the bar to be there for those who watch, and for nobody else.
func TestProgress(t *testing.T) {
	for _, watched := range []bool{false, true} {
		var shown bytes.Buffer
		bar := newProgress(&shown, watched, "importing", 100)
		body := progressbar.NewReader(strings.NewReader(strings.Repeat("x", 100)), bar)
		if _, err := io.Copy(io.Discard, &body); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(shown.String(), "importing"); got != watched {
			t.Errorf("watched %t: the bar was shown: %t; %q", watched, got, &shown)
		}
	}
}

// TestNobodyWatches names what is no terminal.
func TestNobodyWatches(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, to := range map[string]io.Writer{"a pipe": w, "the null device": null, "a buffer": new(bytes.Buffer)} {
		if isTerminal(to) {
			t.Errorf("%s counts as a terminal", name)
		}
	}
}
