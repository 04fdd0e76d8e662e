package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary stand in for latchkey: in scripts, and as the
// child that the crash test kills.
func TestMain(m *testing.M) {
	programs := standIns()
	programs["environment"] = printEnvironment
	programs["bystander"] = bystand
	programs["latchkey"] = func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
	}
	testscript.Main(m, programs)
}

// TestScripts runs the command line as a user does.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("one command after the other: little for the race detector, which they keep busy for minutes")
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { busy.Close() }) // the scripts run in parallel, after this function
	upstream := upstreamOK(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			ports := freePorts(t, 3)
			e.Setenv("BUSY", busy.Addr().String())
			e.Setenv("UPSTREAM", upstream.URL)
			e.Setenv("PROXY", ports[0])
			e.Setenv("ADMIN", ports[1])
			e.Setenv("NOBODY", ports[2])
			e.Setenv("NOBODY_PORT", ports[2][strings.LastIndexByte(ports[2], ':')+1:])
			e.Setenv("TOKEN", "a-token-of-some-length")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": wantStatus, "oneline": oneLine, "gateway": serveInScript, "fetch": fetch, "field": field, "nowhere": nowhere,
			"block": runBlock, "others": serveOthers},
	})
}

// fetch makes a call, keeps the body of its answer and checks its status: fetch
// STATUS METHOD URL FILE [NAME:VALUE]... [{BODY}]. It waits for a server that does
// not listen yet.
func fetch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: fetch STATUS METHOD URL FILE [NAME:VALUE]... [{BODY}]")
	}
	var body string
	header := http.Header{}
	for _, arg := range args[4:] {
		name, value, ok := strings.Cut(arg, ":")
		if strings.HasPrefix(arg, "{") || !ok {
			body = arg
		} else {
			header.Set(name, strings.TrimSpace(value))
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		req, err := http.NewRequest(args[1], args[2], strings.NewReader(body))
		ts.Check(err)
		req.Header = header
		res, err := http.DefaultClient.Do(req)
		if errors.Is(err, syscall.ECONNREFUSED) && time.Now().Before(deadline) {
			continue
		}
		ts.Check(err)
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		ts.Check(err)
		if strconv.Itoa(res.StatusCode) != args[0] {
			ts.Fatalf("%s %s answered %s, want %s: %s", args[1], args[2], res.Status, args[0], text)
		}
		ts.Check(os.WriteFile(ts.MkAbs(args[3]), text, 0o600))
		return
	}
}

// field sets a variable to a field of a JSON object in a file, or in what the last
// command printed for stdout: field VARIABLE FILE NAME.
func field(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: field VARIABLE FILE NAME")
	}
	var object map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &object))
	value, ok := object[args[2]].(string)
	if !ok {
		ts.Fatalf("%s has no text %q", args[1], args[2])
	}
	ts.Setenv(args[0], value)
}

// wantStatus runs latchkey and checks its exit status: status N ARGS...
func wantStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: status N ARGS...")
	}
	err := ts.Exec("latchkey", args[1:]...)
	got := "0"
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		got = string(rune('0' + exit.ExitCode()))
	}
	if got != args[0] {
		ts.Fatalf("exit status %s, want %s", got, args[0])
	}
}

// oneLine checks that the last command said one line on stderr.
func oneLine(ts *testscript.TestScript, neg bool, args []string) {
	lines := 0
	for _, c := range ts.ReadFile("stderr") {
		if c == '\n' {
			lines++
		}
	}
	if lines != 1 {
		ts.Fatalf("%d lines on stderr, want 1", lines)
	}
}

// serveInScript runs latchkey serve until the script ends, and goes on once it
// serves: gateway ARGS... Its log is in gateway.log.
func serveInScript(ts *testscript.TestScript, neg bool, args []string) {
	log, err := os.Create(ts.MkAbs("gateway.log"))
	ts.Check(err)
	self, err := os.Executable()
	ts.Check(err)
	child := &exec.Cmd{Path: self, Args: append([]string{"latchkey", "serve"}, args...), Dir: ts.MkAbs(".")}
	for _, name := range []string{"TOKEN", "PROXY", "ADMIN", "UPSTREAM", "CERTS_TOKEN", "HOME"} {
		child.Env = append(child.Env, name+"="+ts.Getenv(name))
	}
	stderr, err := child.StderrPipe()
	ts.Check(err)
	ts.Check(child.Start())
	serving, copied := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(copied)
		defer log.Close()
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(log, lines.Text())
			if strings.Contains(lines.Text(), `"msg":"serving"`) {
				close(serving)
			}
		}
	}()
	ts.Defer(func() {
		_ = child.Process.Signal(os.Interrupt) // it may have ended
		<-copied
		_ = child.Wait()
	})
	select {
	case <-serving:
	case <-copied:
		ts.Fatalf("the gateway did not start:\n%s", ts.ReadFile("gateway.log"))
	}
}

// nowhere checks that a text is in none of the files: nowhere TEXT FILES...
func nowhere(ts *testscript.TestScript, neg bool, args []string) {
	for _, file := range args[1:] {
		if strings.Contains(ts.ReadFile(file), args[0]) {
			ts.Fatalf("%s has what it must not have", file)
		}
	}
}
