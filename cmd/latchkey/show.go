package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"
)

// printable returns text for a terminal: names are whatever others chose, and may
// hold what a terminal obeys.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '�'
	}, text)
}

// printTable prints rows below a heading. What is empty shows as a dash.
func printTable(w io.Writer, heading []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if heading != nil {
		fmt.Fprintln(t, strings.Join(heading, "\t"))
	}
	for _, row := range rows {
		shown := make([]string, len(row))
		for i, cell := range row {
			if shown[i] = printable(cell); cell == "" {
				shown[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(shown, "\t"))
	}
	return t.Flush()
}

// printFields prints names and values, a pair a line, without the empty ones.
func printFields(w io.Writer, fields [][]string) error {
	var rows [][]string
	for _, f := range fields {
		if f[1] != "" {
			rows = append(rows, f)
		}
	}
	return printTable(w, nil, rows)
}

// printJSON prints a value for programs.
func printJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(value)
}
