package main

import (
	"context"
	"net"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary stand in for latchkey: in scripts, and as the
// child that the crash test kills.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"latchkey": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
	}})
}

// TestScripts runs the command line as a user does.
func TestScripts(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { busy.Close() }) // the scripts run in parallel, after this function
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("BUSY", busy.Addr().String())
			e.Setenv("TOKEN", "a-token-of-some-length")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": wantStatus, "oneline": oneLine},
	})
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
