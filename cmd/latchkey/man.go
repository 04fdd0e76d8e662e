package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand writes the man pages; who packages latchkey needs it, nobody else.
func manCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:    "man --dir DIR",
		Short:  "Write the man pages",
		Hidden: true,
		Args:   noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if dir == "" {
				return usageError{fmt.Errorf("name the directory with --dir")}
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("write the man pages: %w", err)
			}
			root := c.Root()
			root.DisableAutoGenTag = true // which has the date, and makes every build differ
			if err := doc.GenManTree(root, &doc.GenManHeader{Title: "LATCHKEY", Section: "1", Source: "latchkey", Manual: "Latchkey"}, dir); err != nil {
				return fmt.Errorf("write the man pages: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "the `directory` to write to, made if need be")
	return c
}

// cliPreface is what docs/cli.md says before the commands.
const cliPreface = `# The command line

This page is made from the commands themselves: ` + "`go test ./cmd/latchkey -run TestCommandLineDocument -update`" + `.

## Reaching the admin plane

` + "`keys`, `audit`, `reload`, `explain` and `backup`" + ` call the admin plane of a running gateway. What they
need is looked for in this order, and the first place that has it counts:

| what | flag | environment | profile | otherwise |
|---|---|---|---|---|
| where | ` + "`--server`" + ` | ` + "`LATCHKEY_SERVER`" + ` | ` + "`server`" + ` | ` + "`" + defaultServer + "`" + ` |
| the operator's token | ` + "`--token-file`" + ` | ` + "`LATCHKEY_TOKEN`" + ` | ` + "`token_file`, or `token`" + ` | an error |
| plain HTTP to another machine | ` + "`--allow-public-plaintext`" + ` | | ` + "`allow_public_plaintext`" + ` | refused |

The profile is ` + "`$XDG_CONFIG_HOME/latchkey/profile.yaml`, or `~/.config/latchkey/profile.yaml`" + `:

` + "```yaml" + `
server: https://latchkey.internal:8081
token_file: /home/alice/.config/latchkey/token
` + "```" + `

The profile must belong to who runs the command, and neither it nor a file with a token
may be readable by others: mode 0600. No token and no key is ever taken as an argument, where others
on the machine and the shell's history would see it. To trust a CA of your own, set
` + "`SSL_CERT_FILE`" + `. Redirects are not followed. The dialects Strait (issue, rotate,
revoke) and Truvera (update) must be enabled at their default paths.

` + "`--output json`" + ` prints for programs: one object, or one list; an import and an export are
an object a line either way. A secret is printed once, by the command that made it, to
stdout; remarks for people go to stderr. Imports and exports show how far they are if
stderr is a terminal.

## Exit statuses

| status | meaning |
|---|---|
| 0 | done |
| 1 | not done, or done and what came of it could not be printed; stderr says why |
| 2 | the command line was not understood, and nothing was done |
| 3 | there is no such key, or not for this operator |
| 4 | the token is not known, or the operator may not do that (401, 403) |
| 5 | the admin plane did not answer; whether it did what was asked for is not known |

## Shells and man pages

` + "`latchkey completion bash`" + ` (also zsh, fish, powershell) prints completions, and
` + "`latchkey man --dir DIR`" + ` writes man pages.
`

// writeCommandLine writes docs/cli.md.
func writeCommandLine(w io.Writer, root *cobra.Command) {
	fmt.Fprint(w, cliPreface)
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			return
		}
		if c.HasParent() && c.Runnable() && !c.HasSubCommands() {
			fmt.Fprintf(w, "\n## %s\n\n", c.CommandPath())
			text := c.Long
			if text == "" {
				text = c.Short + "."
			}
			fmt.Fprintf(w, "%s\n\n```\n%s\n", text, strings.TrimSuffix(c.UseLine(), " [flags]"))
			c.InheritedFlags() // which adds the parents' flags to its own
			c.InitDefaultHelpFlag()
			c.Flags().Lookup("help").Hidden = true
			if usages := c.Flags().FlagUsages(); usages != "" {
				fmt.Fprintf(w, "\n%s", usages)
			}
			fmt.Fprint(w, "```\n")
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
}
