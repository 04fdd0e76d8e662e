package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"latchkey/bench/result"
	"latchkey/bench/soak"
)

func soakCommand() *cobra.Command {
	var into string
	c := &cobra.Command{
		Use:   "soak SERIES.jsonl",
		Short: "Draw the series of a soak",
		Long: "Draw the series that `go test ./cmd/latchkey -run TestSoak -soak 2h -soak-series SERIES.jsonl`\n" +
			"left, and say in figures what it has in it. A series that is not flat is an error.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, names []string) error {
			f, err := os.Open(names[0])
			if err != nil {
				return err
			}
			defer f.Close()
			series, err := soak.Read(f)
			if err != nil {
				return fmt.Errorf("%s: %w", names[0], err)
			}
			var chart bytes.Buffer
			if err := result.WriteSoakChart(&chart, series); err != nil {
				return fmt.Errorf("%s: %w", names[0], err)
			}
			if err := os.WriteFile(into, chart.Bytes(), 0o644); err != nil {
				return fmt.Errorf("--into: %w", err)
			}
			if err := soak.WriteSummary(c.OutOrStdout(), series); err != nil {
				return err
			}
			var grown []error
			for _, line := range soak.Grown(series) {
				grown = append(grown, errors.New(line))
			}
			return errors.Join(grown...)
		},
	}
	c.Flags().StringVar(&into, "into", "docs/benchmarks/soak.svg", "the `file` to draw into")
	return c
}
