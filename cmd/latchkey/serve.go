package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"latchkey/config"
)

func serveCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "serve [--config FILE]",
		Short: "Run the gateway",
		Long: "Run the gateway: the data plane and the admin plane, as the configuration file says.\n" +
			"SIGINT and SIGTERM end it once the requests under way are answered.\n" +
			"SIGHUP has it read the file again; a file that is wrong changes nothing.\n\n" +
			"Where no operator is configured one is made, and its token written to a file beside the store, which the log\n" +
			"names. Without a file there are no routes, and both planes listen on this machine alone.",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := serveConfig(path)
			if err != nil {
				return err
			}
			return serve(c.Context(), path, cfg, c.ErrOrStderr())
		},
	}
	configFlag(c, &path, "the configuration `file`")
	return c
}

// serveConfig returns the configuration in the file, or that of a gateway that
// nothing was said to.
func serveConfig(path string) (*config.Config, error) {
	if path != "" {
		return config.Load(path)
	}
	cfg := config.Default()
	return &cfg, nil
}

func checkCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Check a configuration file",
		Long:  "Check a configuration file and report everything that is wrong with it. Nothing is started and nothing is written.",
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			if !cfg.Admin.HasAdministrator() {
				fmt.Fprintf(c.ErrOrStderr(), "%s: admin.operators: none has the role admin and the tenant \"*\", so nobody can make a backup or change the keys that sign tokens\n", path)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: ok; routes: %d, upstreams: %d\n", path, len(cfg.Routes), len(cfg.Upstreams))
			return err
		},
	}
	configFlag(c, &path, "the configuration `file` (required)")
	return c
}

// configFlag adds the flag that names a configuration file.
func configFlag(c *cobra.Command, path *string, usage string) {
	c.Flags().StringVarP(path, "config", "c", "", usage)
}

// loadConfig loads the configuration file that the flag named.
func loadConfig(path string) (*config.Config, error) {
	if path == "" {
		return nil, usageError{errors.New("name the configuration file with --config")}
	}
	return config.Load(path)
}

// gcPercent is Go's GOGC where the environment sets none. Most of the heap is
// the key cache, which lives long and is seldom written, so collecting at half
// the growth costs little: with a million keys it takes 80 MiB off the resident
// memory of a build without cgo (BenchmarkServe: 258 MiB against 336).
const gcPercent = 50

// serve runs the gateway until ctx ends. The configuration came from the file at
// path.
func serve(ctx context.Context, path string, cfg *config.Config, stderr io.Writer) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	logger := slog.New(slog.NewJSONHandler(stderr, nil))
	app, err := New(cfg, logger)
	if err != nil {
		return err
	}
	app.reloading.path = path
	if path == "" {
		logger.Warn("there is no configuration file, so the data plane answers everything with 404; write one with routes, and name it with --config")
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	go app.ReloadOn(ctx, hangup)
	return errors.Join(app.Run(ctx), app.Close())
}
