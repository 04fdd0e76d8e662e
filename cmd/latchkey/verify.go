package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"latchkey/keystore"
)

func verifyCommand() *cobra.Command {
	var config, store string
	c := &cobra.Command{
		Use:   "verify {--config FILE | --store DIR}",
		Short: "Check a whole key store",
		Long: "Read the whole of a key store that no process has open, or of a backup's directory, and\n" +
			"print a line for everything that is not as it must be. Nothing is written. The exit status\n" +
			"is 0 if the store is sound.",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			path, err := storeFlag(config, store)
			if err != nil {
				return err
			}
			return verify(path, c.OutOrStdout())
		},
	}
	configFlag(c, &config, "the configuration `file` that names the store")
	c.Flags().StringVar(&store, "store", "", "the store's `directory`")
	return c
}

// storeFlag returns the store that is meant.
func storeFlag(config, store string) (string, error) {
	if (config == "") == (store == "") {
		return "", usageError{errors.New("name the store with either --config or --store")}
	}
	if store != "" {
		return store, nil
	}
	cfg, err := loadConfig(config)
	if err != nil {
		return "", err
	}
	return cfg.Store.Path, nil
}

// mostProblems is how many problems are printed: one fault, such as another
// store's sealing key, can make a line for each of many rows.
const mostProblems = 50

// verify checks the store and says what it found.
func verify(path string, out io.Writer) error {
	var m keystore.Manifest
	backup := keystore.IsBackup(path)
	if backup {
		var err error
		if m, err = keystore.ReadBackup(path, ""); err != nil {
			return err
		}
	}
	s, err := inspect(path, out)
	if err == nil && backup {
		err = m.Agrees(s)
	}
	for _, f := range s.Families {
		fmt.Fprintf(out, "%-28s %d\n", f.Name, f.Rows)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: sound; keys: %d, tables: %d, revision: %d\n", path, s.Keys(), s.Tables, s.Revision)
	return err
}

// inspect prints what is off in a store; if anything is, that is an error.
func inspect(path string, out io.Writer) (keystore.Summary, error) {
	printed := 0
	s, err := keystore.Verify(path, keystore.Options{}, func(problem string) {
		if printed++; printed <= mostProblems {
			fmt.Fprintln(out, problem)
		}
	})
	if more := s.Problems - mostProblems; more > 0 {
		fmt.Fprintf(out, "and %d more\n", more)
	}
	if err == nil && s.Problems > 0 {
		err = fmt.Errorf("key store %s is not sound: %d problems; keep it as it is, and restore the newest backup that verifies", path, s.Problems)
	}
	return s, err
}
