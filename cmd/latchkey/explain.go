package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"latchkey/admin"
	"latchkey/config"
)

// A shownExplanation says what would become of a request.
type shownExplanation struct {
	Passes  bool        `json:"passes"`
	Outcome string      `json:"outcome"`
	Status  int         `json:"status,omitempty"`
	Detail  string      `json:"detail,omitempty"`
	Allowed []string    `json:"allowed_methods,omitempty"`
	Route   *admin.Rule `json:"route,omitempty"`
	Key     *shownKey   `json:"key,omitempty"`
}

// print prints the outcome, then what the route asks for, then what the key has.
func (e *shownExplanation) print(w io.Writer) error {
	outcome := "refused with " + fmt.Sprint(e.Status)
	if e.Passes {
		outcome = "passed to the upstream"
	}
	rows := [][]string{{"request", outcome}, {"outcome", e.Outcome}, {"why", e.Detail}, {"allowed methods", strings.Join(e.Allowed, " ")}}
	if r := e.Route; r != nil {
		asks := "a key"
		if r.Public {
			asks = "nothing"
		}
		rows = append(rows, [][]string{{"route", r.Name}, {"route path", r.Path}, {"route hosts", strings.Join(r.Hosts, " ")},
			{"route methods", strings.Join(r.Methods, " ")}, {"route asks for", asks}, {"route scopes", strings.Join(r.Scopes, " ")},
			{"route tenants", strings.Join(r.Tenants, " ")}, {"route environments", strings.Join(r.Environments, " ")}}...)
	}
	if k := e.Key; k != nil {
		rows = append(rows, [][]string{{"key", k.ID}, {"key name", k.Name}, {"key state", k.State}, {"key scopes", strings.Join(k.Scopes, " ")},
			{"key tenant", k.Tenant}, {"key environment", k.Environment}, {"key allowed ips", strings.Join(k.AllowedIPs, " ")},
			{"key expires", k.ExpiresAt}, {"key revoked", k.RevokedAt}, {"key grace ends", k.GraceEndsAt}}...)
	}
	return printFields(w, rows)
}

func explainCommand() *cobra.Command {
	r := new(remote)
	var keyFile, ip, method, path, host string
	c := &cobra.Command{
		Use:   "explain --path PATH --host HOST",
		Short: "Say which rule would decide about a request, and why, without making it",
		Long: "Say which rule would decide about a request, and why. The data plane's own code answers; nothing is sent to\n" +
			"an upstream, counted or logged as a request. The exit status is 0 whether the request would pass or not.",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 { // which may be a key, so it is not repeated
				return usageError{errors.New("latchkey explain takes no arguments; give it a key with --key-file")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" || host == "" {
				return usageError{errors.New("name the request's path and host with --path and --host")}
			}
			body := map[string]string{"method": method, "path": path, "host": host}
			if ip != "" {
				if _, err := netip.ParseAddr(ip); err != nil {
					return usageError{fmt.Errorf("--ip %q is not an address such as 192.0.2.7", ip)}
				}
				body["ip"] = ip
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			if keyFile != "" {
				if body["key"], err = readKey(keyFile, c.InOrStdin()); err != nil {
					return err
				}
			}
			var out shownExplanation
			if err := api.call(c.Context(), "POST", "/explain", body, &out); err != nil {
				return err
			}
			if r.output == "json" {
				return printJSON(c.OutOrStdout(), out)
			}
			return out.print(c.OutOrStdout())
		},
	}
	r.tenantFlags(c)
	c.Flags().StringVar(&keyFile, "key-file", "", "`file` with the key's secret, 0600, or - for stdin (default a request without a key)")
	c.Flags().StringVar(&ip, "ip", "", "the client's `address` (default unknown, which no allowlist admits)")
	c.Flags().StringVar(&method, "method", "GET", "the request's `method`")
	c.Flags().StringVar(&path, "path", "", "its `path` (required)")
	c.Flags().StringVar(&host, "host", "", "its `host` (required)")
	return c
}

// readKey reads a key's secret from a file or from stdin. No error shows it.
func readKey(file string, stdin io.Reader) (string, error) {
	var key string
	if file == "-" {
		text, err := io.ReadAll(io.LimitReader(stdin, 64<<10))
		if err != nil {
			return "", fmt.Errorf("read the key: %w", err)
		}
		key = strings.TrimRight(string(text), "\r\n")
	} else {
		var err error
		key, err = config.ReadTokenFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return "", errors.New("--key-file: no such file; name one that holds the key's secret")
		}
		if err != nil {
			return "", fmt.Errorf("--key-file: %w", err)
		}
	}
	if strings.ContainsAny(key, " \t\r\n") {
		return "", errors.New("--key-file: there is more in it than a secret; it has to hold the secret alone")
	}
	if key == "" {
		return "", errors.New("--key-file: no key is in it; leave the flag out for a request without one")
	}
	return key, nil
}
