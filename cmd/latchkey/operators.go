package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"latchkey/config"
)

func operatorsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "operators",
		Short: "Make what the configuration has of operators",
		Args:  noArguments,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(hashCommand())
	return c
}

// newToken returns an operator's token of 256 random bits.
func newToken() string {
	var entropy [32]byte
	rand.Read(entropy[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(entropy[:])
}

func hashCommand() *cobra.Command {
	r := new(remote)
	var stdin bool
	c := &cobra.Command{
		Use:   "hash",
		Short: "Make an operator's token, and the token_sha256 for the configuration",
		Long: "Make an operator's token and print it, this once, with the token_sha256 that the configuration has of it.\n" +
			"With --stdin the token is read from stdin, and only its token_sha256 is printed. No gateway is asked.",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 { // which may be a token, so it is not repeated
				return usageError{errors.New("latchkey operators hash takes no arguments; give it a token on stdin, with --stdin")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error {
			asJSON, err := r.json()
			if err != nil {
				return err
			}
			token, shown := newToken(), ""
			if stdin {
				text, err := io.ReadAll(io.LimitReader(c.InOrStdin(), 64<<10))
				if err != nil {
					return fmt.Errorf("read the token: %w", err)
				}
				token = strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
			} else {
				shown = token
			}
			digest, err := config.TokenDigest(token)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), struct {
					Token  string `json:"token,omitempty"`
					Digest string `json:"token_sha256"`
				}{shown, hex.EncodeToString(digest[:])})
			}
			return printFields(c.OutOrStdout(), [][]string{{"token", shown}, {"token_sha256", hex.EncodeToString(digest[:])}})
		},
	}
	c.Flags().BoolVar(&stdin, "stdin", false, "read the token from stdin")
	c.Flags().StringVarP(&r.output, "output", "o", "table", "`format` of what is printed: table or json")
	return c
}
