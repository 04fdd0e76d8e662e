package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// A bystander is a client with no part in an attack, and the upstream of the gateway
// that is attacked, which answers with a request's X-Id. It is a process of its own:
// beside attackers that keep their process busy it would measure how long it waits there,
// which is many times what the gateway takes.
type bystander struct {
	t      *testing.T
	addr   string // of the upstream
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

// probed is what a bystander has found.
type probed struct {
	Took   []time.Duration // sorted
	Failed int64
}

func newBystander(t *testing.T) *bystander {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// TestMain runs bystand where the binary is called by that name.
	child := &exec.Cmd{Path: self, Args: []string{"bystander"}, Stderr: os.Stderr}
	b := &bystander{t: t}
	if b.stdin, err = child.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	b.stdout = bufio.NewReader(out)
	if _, err := fmt.Fscanln(b.stdout, &b.addr); err != nil {
		t.Fatalf("the bystander does not say where its upstream is: %v", err)
	}
	return b
}

// probe has it ask for /probe behind the URL from now on.
func (b *bystander) probe(url string) {
	b.t.Helper()
	if _, err := fmt.Fprintln(b.stdin, url); err != nil {
		b.t.Fatal(err)
	}
}

// end ends the probing. The upstream lives on.
func (b *bystander) end() (p probed) {
	b.t.Helper()
	if _, err := fmt.Fprintln(b.stdin, "end"); err != nil {
		b.t.Fatal(err)
	}
	if err := json.NewDecoder(b.stdout).Decode(&p); err != nil {
		b.t.Fatalf("the bystander does not say what it found: %v", err)
	}
	return p
}

// bystand is the bystander's process. It ends with its standard input.
func bystand() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go (&mortal{}).serve(c)
		}
	}()
	fmt.Println(l.Addr())
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		p := probe(in.Text())
		in.Scan()
		if err := json.NewEncoder(os.Stdout).Encode(probed{p.end(), p.failed.Load()}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
