package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"latchkey/config"
)

// Exit statuses.
const (
	exitOK          = 0
	exitFailure     = 1 // what was asked for could not be done, or its answer not be written; stderr says why
	exitUsage       = 2 // the command line was not understood
	exitNotFound    = 3 // the admin plane knows no such key, or not for this operator
	exitRefused     = 4 // the admin plane does not know the token, or the operator may not do that
	exitUnreachable = 5 // the admin plane did not answer
)

// usageError marks a mistake in the command line.
type usageError struct{ error }

// Unwrap returns the mistake.
func (e usageError) Unwrap() error { return e.error }

// run runs the command line until it is done or ctx ends, and returns the exit
// status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "latchkey: %v; see %s --help\n", err, c.CommandPath())
		return exitUsage
	}
	if problems := (config.Problems{}); errors.As(err, &problems) {
		// Each line begins with file and line, where editors look for them.
		fmt.Fprintln(stderr, problems)
		return exitFailure
	}
	fmt.Fprintf(stderr, "latchkey: %v\n", err)
	return statusOf(err)
}

// statusOf returns the exit status for what a call came to.
func statusOf(err error) int {
	if errors.As(err, new(unreachableError)) {
		return exitUnreachable
	}
	if e := (*callError)(nil); errors.As(err, &e) && !e.astray {
		switch e.status {
		case 404:
			return exitNotFound
		case 401, 403:
			return exitRefused
		}
	}
	return exitFailure
}

// rootCommand returns the whole command line.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "latchkey",
		Short:         "An API gateway that issues, checks and revokes API keys",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },

		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return emptyFlag(c) },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(serveCommand(), checkCommand(), healthCommand(), demoCommand(), keysCommand(), auditCommand(), operatorsCommand(),
		reloadCommand(), explainCommand(), verifyCommand(), backupCommand(), restoreCommand(), manCommand(), versionCommand())
	return root
}

// mayBeEmpty annotates a flag whose empty value means something.
const mayBeEmpty = "may be empty"

// emptyFlag refuses flags that were given and say nothing, as where a script's variable is
// not set: what is restricted by nothing is not what was meant.
func emptyFlag(c *cobra.Command) (err error) {
	c.Flags().Visit(func(f *pflag.Flag) {
		list, _ := f.Value.(pflag.SliceValue)
		empty := f.Value.String() == "" || list != nil && (len(list.GetSlice()) == 0 || slices.Contains(list.GetSlice(), ""))
		if _, may := f.Annotations[mayBeEmpty]; empty && !may && err == nil {
			err = usageError{fmt.Errorf("--%s is empty; give it a value or leave it out", f.Name)}
		}
	})
	return err
}

// noArguments refuses arguments, and with them commands that do not exist.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if c.HasSubCommands() {
		return usageError{fmt.Errorf("there is no command %q", args[0])}
	}
	return usageError{fmt.Errorf("%s takes no arguments, got %q", c.CommandPath(), args[0])}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version and exit",
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), "latchkey", version())
			return err
		},
	}
}

// buildInfo returns the metric that says which build this is.
func buildInfo() prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "latchkey_build_info", Help: "1; its labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": version(), "goversion": runtime.Version()}})
	g.Set(1)
	return g
}

// version returns the module's version, with the commit of a build from a
// checkout.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" {
		v = "(devel)"
	}
	return v + " " + info.GoVersion
}
