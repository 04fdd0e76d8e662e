package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// A block of a document that a script runs sees these in place of the addresses that
// the document has. The variables are set by TestScripts and by others.
var documentAddresses = []string{
	"127.0.0.1:8080", "$PROXY",
	"127.0.0.1:8081", "$ADMIN",
	"http://127.0.0.1:9000", "$UPSTREAM",
	"https://keys.example:8081", "http://$ADMIN",
	"http://tyk.internal:8080", "http://$OTHERS",
	"http://kong.internal:8001", "http://$OTHERS",
	"http://apisix.internal:9180", "http://$OTHERS",
}

// runBlock runs a block of shell of a document as it is written, but for addresses:
// block [-fail|-serve] FILE ANCHOR NUMBER. It ends with the first command that fails;
// with -fail a call by curl fails if the answer is 400 or more. The variables that it
// sets are set for the rest of the script. With -serve it is one line that serves, and goes on in
// the background.
func runBlock(ts *testscript.TestScript, neg bool, args []string) {
	flag := ""
	if len(args) > 0 && strings.HasPrefix(args[0], "-") {
		flag, args = args[0], args[1:]
	}
	if len(args) != 3 || flag != "" && flag != "-fail" && flag != "-serve" {
		ts.Fatalf("usage: block [-fail|-serve] FILE ANCHOR NUMBER")
	}
	where := strings.Join(args, " ")
	text := findBlock(ts, args)
	if line, serves := strings.CutPrefix(strings.TrimSpace(text), "./latchkey serve "); flag == "-serve" {
		if neg || !serves || strings.Contains(line, "\n") {
			ts.Fatalf("%s is not one line that serves", where)
		}
		serveInScript(ts, false, strings.Fields(line))
		return
	}
	replace := strings.Clone(text)
	for i := 0; i < len(documentAddresses); i += 2 {
		replace = strings.ReplaceAll(replace, documentAddresses[i], os.Expand(documentAddresses[i+1], ts.Getenv))
	}
	script := "set -ea\n"
	if flag == "-fail" {
		script += `curl() { command curl --fail --silent --show-error "$@"; }` + "\n"
	}
	if err := ts.Exec("sh", "-c", script+replace+"\nenvironment block.env\n"); (err == nil) == neg {
		ts.Fatalf("%s: %v; want an error: %t", where, err, neg)
	}
	if neg {
		return
	}
	var set []string
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("block.env")), &set))
	for _, entry := range set {
		if name, value, _ := strings.Cut(entry, "="); name != "_" && name != "SHLVL" && ts.Getenv(name) != value {
			ts.Setenv(name, value)
		}
	}
}

// findBlock returns a block of shell, named by the page, the heading's anchor and its
// number under it.
func findBlock(ts *testscript.TestScript, where []string) string {
	d, err := readDocument(where[0])
	ts.Check(err)
	for _, b := range d.blocks {
		if b.language == "sh" && b.where(d) == strings.Join(where, " ") {
			return b.text
		}
	}
	ts.Fatalf("there is no block of shell %q", where)
	return ""
}

// serveOthers answers GET for another product until the script ends, and sets OTHERS to
// the address: others DIR. The answer to GET /a/b is the file DIR/a/b.json.
func serveOthers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: others DIR")
	}
	dir := ts.MkAbs(args[0])
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(r.URL.Path)+".json"))
		if err != nil || r.Method != "GET" {
			http.Error(w, `{"error": "not found"}`, http.StatusNotFound)
			return
		}
		_, _ = w.Write(text)
	}))
	ts.Defer(s.Close)
	ts.Setenv("OTHERS", strings.TrimPrefix(s.URL, "http://"))
}

// printEnvironment writes the variables of its process to a file, for runBlock.
func printEnvironment() {
	text, err := json.Marshal(os.Environ())
	if err == nil {
		err = os.WriteFile(os.Args[1], text, 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
