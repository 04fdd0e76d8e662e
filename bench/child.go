package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"latchkey/bench/load"
	"latchkey/bench/origin"
)

// What the harness starts of itself, each in a process that can be pinned.

// pinnedCommand becomes another program on the cores it is given, with room for many
// connections.
func pinnedCommand() *cobra.Command {
	return &cobra.Command{
		Use: "pinned CORES -- COMMAND...", Hidden: true, Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] != "" {
				set, err := parseCores(args[0])
				if err != nil {
					return err
				}
				if err := unix.SchedSetaffinity(0, &set); err != nil {
					return fmt.Errorf("run on the cores %s: %w", args[0], err)
				}
			}
			// 10,000 connections take 20,000 descriptors. Without the right to ask for more
			// the limit stays, and is the system's to deal with.
			_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 17, Max: 1 << 17})
			path, err := exec.LookPath(args[1])
			if err != nil {
				return err
			}
			return syscall.Exec(path, args[1:], os.Environ())
		},
	}
}

// parseCores reads a list such as 0,2-3.
func parseCores(list string) (set unix.CPUSet, err error) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, errFrom := strconv.Atoi(first)
		to, errTo := strconv.Atoi(last)
		if errFrom != nil || errTo != nil || from < 0 || to < from || to > 1023 {
			return set, fmt.Errorf("cores %q: want a list such as 0,2-3", list)
		}
		for core := from; core <= to; core++ {
			set.Set(core)
		}
	}
	return set, nil
}

// What the load says on its standard output, a line each.
const (
	saysMeasuring = "measuring"
	saysMeasured  = "measured"
)

// An order is what the load is told on its standard input.
type order struct {
	Plan    load.Plan
	Changes changes
}

// loadCommand carries a plan out.
func loadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "load", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var o order
			if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
				return fmt.Errorf("read the order: %w", err)
			}
			changing := o.Changes.start(c.Context())
			r, err := load.Run(c.Context(), o.Plan, func() {
				changing.reset()
				fmt.Println(saysMeasuring)
			}, func() { fmt.Println(saysMeasured) })
			if err != nil {
				return err
			}
			return json.NewEncoder(os.Stdout).Encode(outcome{r, changing.stop()})
		},
	}
}

// An outcome is the last line the load says.
type outcome struct {
	Load    load.Result
	Changes changed
}

// originCommand is the upstream.
func originCommand() *cobra.Command {
	return &cobra.Command{
		Use: "origin ADDRESS", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return serve(c.Context(), args[0], origin.Serve)
		},
	}
}

// forwarderCommand is the floor of the stack: fasthttp's server and client as they
// are, and no key check.
func forwarderCommand() *cobra.Command {
	return &cobra.Command{
		Use: "forwarder ADDRESS TARGET", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			client := &fasthttp.HostClient{Addr: args[1], MaxConns: 1 << 16, DisablePathNormalizing: true}
			server := &fasthttp.Server{MaxRequestBodySize: 64 << 20, Handler: func(ctx *fasthttp.RequestCtx) {
				if err := client.Do(&ctx.Request, &ctx.Response); err != nil {
					ctx.Error("upstream", fasthttp.StatusBadGateway)
				}
			}}
			return serve(c.Context(), args[0], server.Serve)
		},
	}
}

// serve serves on an address until ctx ends.
func serve(ctx context.Context, addr string, serve func(net.Listener) error) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	if err := serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}
