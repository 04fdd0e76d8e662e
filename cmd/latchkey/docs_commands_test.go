package main

import (
	"bytes"
	"context"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// source is the name of a file here, by its name from the top of the source tree.
func source(name string) string { return filepath.Join("../..", filepath.FromSlash(name)) }

// checkDocumented says what is wrong with a command line of a document that no test runs:
// it is of one of a few kinds, and what it names is there.
func checkDocumented(line string) string {
	if i := strings.Index(line, " #"); i >= 0 {
		line = line[:i]
	}
	words := shellWords(strings.TrimSpace(line))
	for len(words) > 0 && regexp.MustCompile(`^[A-Z_]+=`).MatchString(words[0]) {
		words = words[1:]
	}
	if len(words) == 0 || words[0] == "#" {
		return ""
	}
	switch first, rest := words[0], words[1:]; first {
	case "go":
		return checkGo(rest)
	case "latchkey", "./latchkey":
		return checkLatchkey(rest)
	case "docker", "kubectl":
		return checkFiles(rest)
	case "systemctl", "systemd-sysusers":
		return checkUnits(rest)
	case "install":
		return checkInstall(rest)
	case "sha256sum", "export", "(umask":
		return "" // what a shell does by itself
	default:
		if info, err := os.Stat(source(first)); err == nil && info.Mode()&0o111 != 0 && info.Mode().IsRegular() {
			return "" // a program of the source tree
		}
		return "is of no kind that is checked without being run"
	}
}

// shellWords splits a line as a shell does, as far as quotes go.
func shellWords(line string) (words []string) {
	word, quote, inWord := "", rune(0), false
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, inWord = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if inWord {
				words = append(words, word)
			}
			word, inWord = "", false
		default:
			word, inWord = word+string(c), true
		}
	}
	if inWord {
		words = append(words, word)
	}
	return words
}

// checkGo says what is wrong with the arguments of go. What ./bench is given is checked
// by its own tests, and that tests which are named exist by internal/archtest.
func checkGo(args []string) string {
	switch {
	case len(args) > 0 && args[0] == "test", slices.Equal(args, []string{"mod", "verify"}):
		return ""
	case len(args) < 2 || args[0] != "run" && args[0] != "build":
		return "is no go command that is checked"
	}
	for i, arg := range args {
		if !strings.HasPrefix(arg, "./") {
			continue
		}
		if files, err := filepath.Glob(filepath.Join(source(arg), "*.go")); err != nil || len(files) == 0 {
			return "names no package"
		}
		if arg == "./cmd/latchkey" && args[0] == "run" {
			return checkLatchkey(args[i+1:])
		}
		return ""
	}
	return "names no package"
}

// checkLatchkey says what latchkey does not understand of its arguments.
func checkLatchkey(args []string) string {
	var stdout, stderr bytes.Buffer
	if run(context.Background(), append(slices.Clone(args), "--help"), &stdout, &stderr) != exitOK {
		return "is not understood: " + stderr.String()
	}
	return ""
}

// checkFiles says which file or directory is not there that docker or kubectl is to read.
func checkFiles(args []string) string {
	for i, arg := range args {
		if slices.Contains([]string{"--file", "-f", "-k", "--kustomize"}, arg) {
			if i+1 == len(args) {
				return "names no file"
			}
			if _, err := os.Stat(source(args[i+1])); err != nil {
				return "names no file of the source tree"
			}
		}
	}
	return ""
}

// checkUnits says which unit of deploy/systemd is not there.
func checkUnits(args []string) string {
	for _, arg := range args {
		unit := strings.Replace(arg, ".conf", ".sysusers", 1)
		if ext := path.Ext(unit); ext == "" || strings.HasPrefix(arg, "-") {
			continue // a verb or a flag
		}
		if _, err := os.Stat(source("deploy/systemd/" + unit)); err != nil {
			return "names no unit of deploy/systemd"
		}
	}
	return ""
}

// checkInstall says which file is not there that install is to copy; the binary is
// made by a command before.
func checkInstall(args []string) string {
	var files []string
	for i, arg := range args {
		if !strings.HasPrefix(arg, "-") && (i == 0 || args[i-1] != "-m") {
			files = append(files, arg)
		}
	}
	if len(files) < 2 {
		return "installs nothing"
	}
	for _, file := range files[:len(files)-1] {
		if _, err := os.Stat(source(file)); err != nil && file != "latchkey" {
			return "names no file of the source tree"
		}
	}
	return ""
}
