package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestCommandsOfTheDocuments holds every line of a document that runs this program to
// be one that it understands: command, flags, scenarios, and files that are there.
func TestCommandsOfTheDocuments(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, page := range append(pages, "../README.md", "../CONTRIBUTING.md") {
		text, err := os.ReadFile(page)
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("go run \\./bench ([^`\n]+)").FindAllStringSubmatch(string(text), -1) {
			commands++
			if err := understood(strings.Fields(m[1])); err != nil {
				t.Errorf("%s: %q: %v", page, m[0], err)
			}
		}
	}
	if commands < 5 {
		t.Errorf("%d commands seen; is this the source tree?", commands)
	}
}

// understood says what this program does not understand of its arguments.
func understood(args []string) error {
	if slices.Contains(args, "--help") {
		return nil
	}
	c, rest, err := rootCommand().Find(args)
	if err != nil {
		return err
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	rest = c.Flags().Args()
	if err := c.ValidateArgs(rest); err != nil {
		return err
	}
	switch c.Name() {
	case "run", "compare":
		_, err = find(rest)
	case "report":
		_, err = os.Stat(filepath.Join("..", rest[0]))
	}
	return err
}
