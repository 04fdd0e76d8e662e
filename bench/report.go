package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"latchkey/bench/result"
)

func scenariosCommand() *cobra.Command {
	return &cobra.Command{
		Use: "scenarios", Short: "List the scenarios", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, s := range scenarios() {
				fmt.Fprintf(c.OutOrStdout(), "%-18s %s\n", s.name, s.about)
			}
			return nil
		},
	}
}

func diffCommand() *cobra.Command {
	var old, changed string
	c := &cobra.Command{
		Use:   "diff OLD.json [NEW.json]",
		Short: "Say what differs between two builds",
		Long: "Compare two results, or two builds of one result (run or compare with --build a=… --build\n" +
			"b=…, which takes their samples in turn and is the more exact), by medians and a\n" +
			"Mann-Whitney U test. Four rounds are the least that can show a difference.",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			a, errA := result.Read(args[0])
			b, errB := result.Read(args[len(args)-1])
			if err := errors.Join(errA, errB); err != nil {
				return err
			}
			return result.Diff(c.OutOrStdout(), a, old, b, changed)
		},
	}
	c.Flags().StringVar(&old, "old", "latchkey", "the `system` of the first result")
	c.Flags().StringVar(&changed, "new", "latchkey", "the `system` of the second")
	return c
}

func reportCommand() *cobra.Command {
	var into string
	c := &cobra.Command{
		Use:   "report RESULT.json...",
		Short: "Write results into a page",
		Long: "Write the tables of results into a Markdown page, each between a line <!-- bench NAME -->\n" +
			"and the next <!-- end --> where NAME.json is the result's file, and the charts beside it into\n" +
			"the results' own directories.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, names []string) error {
			page, err := os.ReadFile(into)
			if err != nil {
				return fmt.Errorf("--into: %w", err)
			}
			for _, name := range names {
				if page, err = report(page, into, name); err != nil {
					return err
				}
			}
			return os.WriteFile(into, page, 0o644)
		},
	}
	c.Flags().StringVar(&into, "into", "docs/benchmarks.md", "the `page`")
	return c
}

// report returns the page with the tables and charts of one result.
func report(page []byte, into, name string) ([]byte, error) {
	f, err := result.Read(name)
	if err != nil {
		return nil, err
	}
	base := strings.TrimSuffix(filepath.Base(name), ".json")
	begin, end := []byte("<!-- bench "+base+" -->\n"), []byte("<!-- end -->")
	from := bytes.Index(page, begin)
	if from < 0 {
		return nil, fmt.Errorf("%s: has no line %q to put %s after", into, bytes.TrimSpace(begin), name)
	}
	from += len(begin)
	length := bytes.Index(page[from:], end)
	if length < 0 {
		return nil, fmt.Errorf("%s: has no line %q after %q", into, end, bytes.TrimSpace(begin))
	}
	dir := filepath.Join(filepath.Dir(name), base)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	charts, err := f.WriteCharts(dir)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := f.WriteMarkdown(&text); err != nil {
		return nil, err
	}
	fmt.Fprintln(&text)
	for _, chart := range charts {
		place, err := filepath.Rel(filepath.Dir(into), filepath.Join(dir, chart))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&text, "![%s](%s)\n", strings.TrimSuffix(chart, ".svg"), filepath.ToSlash(place))
	}
	return bytes.Join([][]byte{page[:from], text.Bytes(), page[from+length:]}, nil), nil
}
