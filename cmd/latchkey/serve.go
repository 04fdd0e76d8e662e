package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"latchkey/config"
)

func serveCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the gateway",
		Long: "Run the gateway: the data plane and the admin plane, as the configuration file says.\n" +
			"SIGINT and SIGTERM end it once the requests under way are answered.",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			return serve(c.Context(), cfg, c.ErrOrStderr())
		},
	}
	configFlag(c, &path)
	return c
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
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: ok, %d routes, %d upstreams\n", path, len(cfg.Routes), len(cfg.Upstreams))
			return err
		},
	}
	configFlag(c, &path)
	return c
}

func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "config", "c", "", "the configuration `file` (required)")
}

func loadConfig(path string) (*config.Config, error) {
	if path == "" {
		return nil, usageError{errors.New("name the configuration file with --config")}
	}
	return config.Load(path)
}

// serve runs the gateway until ctx ends.
func serve(ctx context.Context, cfg *config.Config, stderr io.Writer) error {
	logger := slog.New(slog.NewJSONHandler(stderr, nil))
	app, err := New(cfg, logger)
	if err != nil {
		return err
	}
	return errors.Join(app.Run(ctx), app.Close())
}
