// Command bench loads the gateway as its users would, alone or beside other proxies,
// and says what it did: requests a second, latency, processor time, memory. It starts
// everything itself, on the loopback interface, and leaves nothing running.
//
//	go run ./bench run hit
//	go run ./bench compare --rounds 5 hit body-64k-down
//
// See docs/benchmarks.md for what it found.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	root := rootCommand()
	if err := root.ExecuteContext(ctx); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "bench",
		Short:         "Load the gateway, alone or beside other proxies",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(), compareCommand(), diffCommand(), reportCommand(), soakCommand(), scenariosCommand(),
		loadCommand(), originCommand(), forwarderCommand(), pinnedCommand())
	return root
}
