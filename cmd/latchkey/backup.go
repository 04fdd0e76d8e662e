package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"latchkey/keystore"
)

func backupCommand() *cobra.Command {
	r := new(remote)
	var dir, archive string
	c := &cobra.Command{
		Use:   "backup {--to DIR | --archive FILE}",
		Short: "Back up a running gateway's key store",
		Long: "Copy the key store of a running gateway, through its admin plane, to a new directory or into\n" +
			"one tar archive. Only an operator with the role admin and the tenant * may. The backup holds what\n" +
			"the store holds, the key of what is sealed in it too: keep it as secret as the store.",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if (dir == "") == (archive == "") {
				return usageError{errors.New("say where the backup goes with either --to or --archive")}
			}
			target, write := dir, func(r io.Reader) (keystore.Manifest, error) { return unpack(r, dir) }
			if archive != "" {
				target, write = archive, func(r io.Reader) (keystore.Manifest, error) { return store(r, archive) }
			}
			if _, err := os.Lstat(target); err == nil {
				return fmt.Errorf("%s is there already; name a new one", target)
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			res, err := api.stream(c.Context(), "POST", "/backup", "", nil)
			if err != nil {
				return err
			}
			defer res.Body.Close()
			bar := newProgress(c.ErrOrStderr(), isTerminal(c.ErrOrStderr()), "backing up", -1)
			body := progressbar.NewReader(res.Body, bar)
			m, err := write(&body)
			_ = bar.Finish() // it is for show
			if err != nil {
				return fmt.Errorf("%s: nothing was kept: %w", target, err)
			}
			if r.output == "json" {
				return printJSON(c.OutOrStdout(), m)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: made at %s; keys: %d, revision: %d\n", target, m.MadeAt.Format(time.RFC3339), m.Keys, m.Revision)
			return err
		},
	}
	r.flags(c)
	c.Flags().StringVar(&dir, "to", "", "the new `directory` for the backup")
	c.Flags().StringVar(&archive, "archive", "", "the new `file` for the backup as one tar archive")
	return c
}

// unpack makes the directory of an archive, whole or not at all.
func unpack(r io.Reader, dir string) (m keystore.Manifest, err error) {
	err = placeDir(dir, func(temp string) error {
		m, err = keystore.ReadArchive(r, temp)
		return err
	})
	return m, err
}

// placeDir has a directory, for this user alone, made beside the path and then
// puts it there, where nothing or an empty directory is.
func placeDir(path string, fill func(temp string) error) error {
	path = filepath.Clean(path)
	temp, err := os.MkdirTemp(filepath.Dir(path), filepath.Base(path)+".new-")
	if err != nil {
		return err
	}
	if err = fill(temp); err == nil {
		// Not os.Rename, which refuses to replace an empty directory.
		if err = syscall.Rename(temp, path); err != nil {
			err = fmt.Errorf("put %s in its place: %w", path, err)
		}
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	return syncDir(filepath.Dir(path))
}

// store writes an archive to a file, whole or not at all.
func store(r io.Reader, path string) (m keystore.Manifest, err error) {
	err = writeWhole(path, func(w io.Writer) error {
		whole := io.TeeReader(r, w)
		if m, err = keystore.ReadArchive(whole, ""); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, whole) // what pads the archive
		return err
	})
	return m, err
}

// syncDir makes a rename in the directory last.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
