package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/itchyny/gojq"
)

// standIns are programs that documents use and that a machine may not have. Where it
// has them, its own are run, unless LATCHKEY_STANDINS is set.
func standIns() map[string]func() {
	found := map[string]func(){
		"curl": func() { os.Exit(curlMain(os.Args, os.Stdout, os.Stderr)) },
		"jq":   func() { os.Exit(jqMain(os.Args, os.Stdin, os.Stdout, os.Stderr)) },
	}
	for name := range found {
		_, err := exec.LookPath(name)
		if err == nil && filepath.Base(os.Args[0]) != name && os.Getenv("LATCHKEY_STANDINS") == "" {
			delete(found, name)
		}
	}
	return found
}

// curlMain does what curl would with the few options that documents use.
func curlMain(words []string, stdout, stderr io.Writer) int {
	c, err := parseCurl(words)
	if err == nil {
		_, err = c.do(stdout)
	}
	if err != nil {
		fmt.Fprintln(stderr, "curl:", err)
		return 22
	}
	return 0
}

// A curlCall is what a command line of curl asks for.
type curlCall struct {
	method, url   string
	header        http.Header
	body          []byte
	include, fail bool
}

func parseCurl(words []string) (*curlCall, error) {
	c := &curlCall{method: "GET", header: http.Header{}}
	for i := 1; i < len(words); i++ {
		value := ""
		switch words[i] {
		case "-X", "-H", "-d", "--data-binary":
			if i+1 == len(words) {
				return nil, fmt.Errorf("%s has no value", words[i])
			}
			value = words[i+1]
		}
		switch words[i] {
		case "-i":
			c.include = true
		case "--fail", "-f":
			c.fail = true
		case "-s", "-S", "-sS", "--silent", "--show-error":
		case "-X":
			c.method = value
		case "-H":
			name, text, _ := strings.Cut(value, ": ")
			c.header.Set(name, text)
		case "-d", "--data-binary":
			c.body = []byte(value)
			if file, named := strings.CutPrefix(value, "@"); named {
				var err error
				if c.body, err = os.ReadFile(file); err != nil {
					return nil, err
				}
			}
			if c.method == "GET" {
				c.method = "POST"
			}
		default:
			if strings.HasPrefix(words[i], "-") || c.url != "" {
				return nil, fmt.Errorf("%q is not understood", words[i])
			}
			c.url = words[i]
			continue
		}
		if value != "" {
			i++
		}
	}
	return c, nil
}

// do makes the call, writes the answer and returns its status.
func (c *curlCall) do(w io.Writer) (int, error) {
	req, err := http.NewRequest(c.method, c.url, bytes.NewReader(c.body))
	if err != nil {
		return 0, err
	}
	req.Header = c.header
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if c.fail && res.StatusCode >= 400 {
		return res.StatusCode, errors.New(res.Status)
	}
	if c.include {
		fmt.Fprintf(w, "%s %s\r\n", res.Proto, res.Status)
		if err := res.Header.Write(w); err != nil {
			return 0, err
		}
		fmt.Fprint(w, "\r\n")
	}
	_, err = io.Copy(w, res.Body)
	return res.StatusCode, err
}

// curl runs a line of curl and returns the status of the answer.
func curl(t *testing.T, line string) int {
	t.Helper()
	c, err := parseCurl(shellWords(line))
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	status, err := c.do(io.Discard)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return status
}

// jqMain does what jq would with the few options that documents use.
func jqMain(words []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := func() error {
		var program string
		var names []string
		var values []any
		var files []string
		raw, lines := false, false
		for i := 1; i < len(words); i++ {
			switch word := words[i]; {
			case word == "-c":
			case word == "-r":
				raw = true
			case word == "-R":
				lines = true
			case (word == "--arg" || word == "--slurpfile") && i+2 < len(words):
				names = append(names, "$"+words[i+1])
				var value any = words[i+2]
				if word == "--slurpfile" {
					list, err := readJSON(words[i+2])
					if err != nil {
						return err
					}
					value = list
				}
				values = append(values, value)
				i += 2
			case strings.HasPrefix(word, "-"):
				return fmt.Errorf("%q is not understood", word)
			case program == "":
				program = word
			default:
				files = append(files, word)
			}
		}
		query, err := gojq.Parse(program)
		if err != nil {
			return err
		}
		code, err := gojq.Compile(query, gojq.WithVariables(names))
		if err != nil {
			return err
		}
		read := readJSON
		if lines {
			read = readLines
		}
		inputs, err := decodeAll(stdin, len(files) == 0)
		for _, file := range files {
			var more []any
			if err == nil {
				more, err = read(file)
			}
			inputs = append(inputs, more...)
		}
		if err != nil {
			return err
		}
		for _, input := range inputs {
			results := code.Run(input, values...)
			for result, more := results.Next(); more; result, more = results.Next() {
				if err, failed := result.(error); failed {
					return err
				}
				if text, isText := result.(string); isText && raw {
					fmt.Fprintln(stdout, text)
					continue
				}
				text, err := gojq.Marshal(result)
				if err != nil {
					return err
				}
				fmt.Fprintf(stdout, "%s\n", text)
			}
		}
		return nil
	}()
	if err != nil {
		fmt.Fprintln(stderr, "jq:", err)
		return 5
	}
	return 0
}

// readJSON reads the values of a file.
func readJSON(name string) ([]any, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return decodeAll(f, true)
}

// readLines reads the lines of a file.
func readLines(name string) (values []any, err error) {
	text, err := os.ReadFile(name)
	for line := range strings.Lines(string(text)) {
		values = append(values, strings.TrimSuffix(line, "\n"))
	}
	return values, err
}

// decodeAll reads values to the end of r, if it is to be read.
func decodeAll(r io.Reader, wanted bool) (values []any, err error) {
	for d := json.NewDecoder(r); wanted; {
		var value any
		if err := d.Decode(&value); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, nil
}
