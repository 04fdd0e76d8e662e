package config

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing wrong with a configuration.
type Problem struct {
	Path    string // dotted, such as routes[1].upstream; "" means the whole file
	Line    int    // counted from 1; 0 means unknown, as in a Config built in code
	Message string // what is wrong, and what to do; holds no secret
}

// Problems is everything wrong with a configuration, sorted by line. Parse and
// Validate return it as their error.
type Problems struct {
	File string // the name given to Parse; "" for a Config built in code
	List []Problem
}

// Error writes one problem per line, as file:line: path: message.
func (p Problems) Error() string {
	var b strings.Builder
	// Names and files are the writer's own, and may hold line breaks.
	oneLine := strings.NewReplacer("\n", `\n`, "\r", `\r`)
	for i, problem := range p.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		if p.File != "" {
			fmt.Fprintf(&b, "%s:%d: ", p.File, problem.Line)
		}
		if problem.Path != "" {
			b.WriteString(oneLine.Replace(problem.Path) + ": ")
		}
		b.WriteString(oneLine.Replace(problem.Message))
	}
	return b.String()
}

// problems returns list as an error, or nil if it is empty. Problems of one
// line keep the order in which they were found.
func problems(file string, list []Problem) error {
	if len(list) == 0 {
		return nil
	}
	slices.SortStableFunc(list, func(a, b Problem) int { return a.Line - b.Line })
	return Problems{File: file, List: list}
}
