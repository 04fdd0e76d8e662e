package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// maxLine is the longest line of an answer that is read whole, in bytes.
const maxLine = 1 << 20

// isTerminal reports whether someone watches what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// newProgress returns a bar that shows how many bytes of size have passed through
// it, or how many have where the size is -1. Nothing is shown unless someone watches.
func newProgress(w io.Writer, watched bool, what string, size int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(size, progressbar.OptionSetWriter(w), progressbar.OptionSetVisibility(watched),
		progressbar.OptionSetDescription(what), progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetRenderBlankState(true), progressbar.OptionClearOnFinish())
}

func importCommand(r *remote) *cobra.Command {
	var atomic bool
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Take in keys that were made elsewhere",
		Long: "Take in keys that were made elsewhere: a JSON object a line of FILE, or of stdin for -, as POST /import\n" +
			"has them. What is refused is named on stderr by its line, and the exit status is 1 then. With\n" +
			"--output json every line's outcome is printed as the gateway gives it.",
		Args: func(c *cobra.Command, args []string) error { return oneFile(c, args, "of keys, or - for stdin") },
		RunE: func(c *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			// An import of nothing first: a refusal that comes while lines are still being
			// sent can be lost to the connection's end.
			if err := api.call(c.Context(), "POST", "/import", nil, nil); err != nil {
				return err
			}
			in, size := io.Reader(c.InOrStdin()), int64(-1)
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("read the keys: %w", err)
				}
				defer f.Close()
				if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
					size = info.Size()
				}
				in = f
			}
			bar := newProgress(c.ErrOrStderr(), isTerminal(c.ErrOrStderr()), "importing", size)
			body := progressbar.NewReader(in, bar)
			res, err := api.stream(c.Context(), "POST", "/import?atomic="+strconv.FormatBool(atomic), "application/x-ndjson",
				struct{ io.Reader }{&body}, http.StatusUnprocessableEntity, http.StatusServiceUnavailable, http.StatusInsufficientStorage)
			_ = bar.Finish() // it is for show
			if err != nil {
				return err
			}
			defer res.Body.Close()
			return reportImport(c, res, r.output == "json")
		},
	}
	c.Flags().BoolVar(&atomic, "atomic", false, "import all keys or none")
	return c
}

// oneFile takes one argument, the name of a file.
func oneFile(c *cobra.Command, args []string, what string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("%s takes one argument, the file %s", c.CommandPath(), what)}
	}
	return nil
}

// reportImport prints what became of an import's lines.
func reportImport(c *cobra.Command, res *http.Response, asJSON bool) error {
	refused := 0
	lines := bufio.NewScanner(res.Body)
	for lines.Buffer(nil, maxLine); lines.Scan(); {
		if asJSON {
			if _, err := fmt.Fprintln(c.OutOrStdout(), lines.Text()); err != nil {
				return err
			}
		}
		var line importedLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("read the answer to the import: %w", err)
		}
		if line.Error == "" {
			continue
		}
		if refused++; !asJSON {
			fmt.Fprintf(c.ErrOrStderr(), "line %d: %s\n", line.Line, printable(line.Error))
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the answer to the import: %w", err)
	}
	imported := res.Header.Get("X-Latchkey-Imported")
	if !asJSON {
		if _, err := fmt.Fprintf(c.OutOrStdout(), "imported %s, refused %d\n", printable(imported), refused); err != nil {
			return err
		}
	}
	switch {
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("the admin plane answered %d: imported %s keys", res.StatusCode, printable(imported))
	case refused > 0:
		return fmt.Errorf("%d lines were refused", refused)
	}
	return nil
}

func exportCommand(r *remote) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "export",
		Short: "Write out all keys, without secrets",
		Long: "Write out all keys, without secrets, a JSON object a line. A file is there only once it is whole, and is\n" +
			"for its owner alone; one of that name is replaced.",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			api, err := r.client()
			if err != nil {
				return err
			}
			res, err := api.stream(c.Context(), "GET", "/export", "", nil)
			if err != nil {
				return err
			}
			defer res.Body.Close()
			bar := newProgress(c.ErrOrStderr(), path != "" && isTerminal(c.ErrOrStderr()), "exporting", -1)
			defer bar.Finish()
			body := progressbar.NewReader(res.Body, bar)
			if path == "" {
				return copyExport(c.OutOrStdout(), &body)
			}
			return writeWhole(path, func(w io.Writer) error { return copyExport(w, &body) })
		},
	}
	c.Flags().StringVarP(&path, "file", "f", "", "write to this `file` (default stdout)")
	return c
}

// copyExport copies an export as it comes.
func copyExport(to io.Writer, from io.Reader) error {
	if _, err := io.Copy(to, struct{ io.Reader }{from}); err != nil {
		return fmt.Errorf("the export broke off, and what was written is not all: %w", err)
	}
	return nil
}

// writeWhole has a file written that others cannot read, under another name until
// it is whole and on disk. What is there already and is no file, such as a pipe, is not
// to be replaced by one.
func writeWhole(path string, write func(io.Writer) error) error {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("write %s: it is there, and is not a regular file; name another, or write to stdout", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return syncDir(filepath.Dir(path))
}
