package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"latchkey/apikey"
)

// A shownKey is a key as an export has it. Secret and WebhookSecret are there once,
// in the output of the command that made them.
type shownKey struct {
	ID              string   `json:"id"`
	Tenant          string   `json:"tenant,omitempty"`
	Name            string   `json:"name,omitempty"`
	Subject         string   `json:"subject,omitempty"`
	Environment     string   `json:"environment,omitempty"`
	State           string   `json:"state,omitempty"`
	Scopes          []string `json:"scopes,omitempty"`
	AllowedIPs      []string `json:"allowed_ips,omitempty"`
	APIVersion      string   `json:"api_version,omitempty"`
	CreatedAt       string   `json:"created_at,omitempty"`
	UpdatedAt       string   `json:"updated_at,omitempty"`
	ExpiresAt       string   `json:"expires_at,omitempty"`
	RevokedAt       string   `json:"revoked_at,omitempty"`
	LastUsedAt      string   `json:"last_used_at,omitempty"`
	Replaces        string   `json:"replaces,omitempty"`
	ReplacedBy      string   `json:"replaced_by,omitempty"`
	GraceEndsAt     string   `json:"grace_ends_at,omitempty"`
	RotateEveryDays int      `json:"rotation_interval_days,omitempty"`
	NextRotationAt  string   `json:"next_rotation_at,omitempty"`
	WebhookURL      string   `json:"rotation_webhook_url,omitempty"`
	WebhookSecret   string   `json:"rotation_webhook_secret,omitempty"`
	Secret          string   `json:"secret,omitempty"`
}

// print prints one key.
func (k *shownKey) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, k)
	}
	every := ""
	if k.RotateEveryDays > 0 {
		every = fmt.Sprintf("every %d days, next %s, to %s", k.RotateEveryDays, k.NextRotationAt, k.WebhookURL)
	}
	return printFields(w, [][]string{
		{"id", k.ID}, {"tenant", k.Tenant}, {"name", k.Name}, {"subject", k.Subject}, {"environment", k.Environment}, {"state", k.State},
		{"scopes", strings.Join(k.Scopes, " ")}, {"allowed ips", strings.Join(k.AllowedIPs, " ")}, {"api version", k.APIVersion},
		{"created", k.CreatedAt}, {"updated", k.UpdatedAt}, {"expires", k.ExpiresAt}, {"revoked", k.RevokedAt}, {"last used", k.LastUsedAt},
		{"replaces", k.Replaces}, {"replaced by", k.ReplacedBy}, {"grace ends", k.GraceEndsAt}, {"rotation", every},
		{"webhook secret", k.WebhookSecret}, {"secret", k.Secret},
	})
}

func keysCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Issue, list, change and revoke keys",
		Long:  "Issue, list, change and revoke keys, by way of the admin plane.",
		Args:  noArguments,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	r := new(remote)
	r.tenantFlags(c)
	c.AddCommand(createCommand(r), listCommand(r), getCommand(r), updateCommand(r), rotateCommand(r), revokeCommand(r), importCommand(r), exportCommand(r))
	return c
}

// oneID takes one argument, the ID of a key. What it got is not repeated: it may be
// a secret.
func oneID(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("%s takes one argument, the ID of a key", c.CommandPath())}
	}
	if id, err := apikey.ParseID(args[0]); err != nil || id.IsZero() {
		return usageError{errors.New("the argument is not the ID of a key, such as 0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d2e; list them with: latchkey keys list")}
	}
	return nil
}

// key returns one key.
func (c *client) key(ctx context.Context, id string) (k shownKey, err error) {
	return k, c.call(ctx, "GET", "/export?key="+id, nil, &k)
}

func getCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "get ID",
		Short: "Show one key",
		Args:  oneID,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			k, err := api.key(c.Context(), args[0])
			if err != nil {
				return err
			}
			return k.print(c.OutOrStdout(), r.output == "json")
		},
	}
}

func listCommand(r *remote) *cobra.Command {
	var all bool
	var limit int
	c := &cobra.Command{
		Use:   "list",
		Short: "List keys, newest first",
		Long:  "List keys, newest first: those of the operator's tenant, or of all tenants for an operator of all who names none.",
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 0 {
				return usageError{errors.New("--limit is a number of keys, or 0 for all")}
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			keys, more, err := api.list(c.Context(), all, limit)
			if err != nil {
				return err
			}
			if r.output == "json" {
				return printJSON(c.OutOrStdout(), keys)
			}
			var rows [][]string
			for _, k := range keys {
				rows = append(rows, []string{k.ID, k.Tenant, k.Name, k.Subject, k.Environment, k.State, strings.Join(k.Scopes, " "),
					strings.Join(k.AllowedIPs, " "), day(k.CreatedAt), day(k.ExpiresAt), day(k.LastUsedAt)})
			}
			if err := printTable(c.OutOrStdout(), []string{"ID", "TENANT", "NAME", "SUBJECT", "ENVIRONMENT", "STATE", "SCOPES", "ALLOWED IPS",
				"CREATED", "EXPIRES", "LAST USED"}, rows); err != nil {
				return err
			}
			if more {
				fmt.Fprintf(c.ErrOrStderr(), "There are more than %d keys; --limit 0 lists all.\n", limit)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "also keys that are revoked, expired or rotated")
	c.Flags().IntVar(&limit, "limit", 50, "at most this `number` of keys; 0 means all")
	return c
}

// list returns the newest keys, and whether there are more. It reads an export as
// far as it needs it: no dialect's list has every field.
func (c *client) list(ctx context.Context, all bool, limit int) (keys []shownKey, more bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // which ends the export where we stop reading
	res, err := c.stream(ctx, "GET", "/export", "", nil)
	if err != nil {
		return nil, false, err
	}
	defer res.Body.Close()
	keys = []shownKey{}
	for d := json.NewDecoder(bufio.NewReader(res.Body)); ; {
		var k shownKey
		if err := d.Decode(&k); err == io.EOF {
			return keys, false, nil
		} else if err != nil {
			return nil, false, fmt.Errorf("read the list of keys: %w", err)
		}
		if !all && k.State != apikey.StateActive.String() {
			continue
		}
		if limit > 0 && len(keys) == limit {
			return keys, true, nil
		}
		keys = append(keys, k)
	}
}

// day shortens a time for a table.
func day(stamp string) string {
	t, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		return stamp
	}
	return t.UTC().Format("2006-01-02 15:04")
}
