package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"latchkey/apikey"
)

// What the command line calls of dialects, where they are mounted by default.
const (
	straitKeys  = "/v1/api-keys"
	truveraKeys = "/keys"
)

// newKey is what a key is to be, as the flags say.
type newKey struct {
	name, subject, environment, apiVersion string
	scopes, ips                            []string
	expires                                string
	expiresIn                              time.Duration
	rotateDays                             int
	webhook                                string
}

func createCommand(r *remote) *cobra.Command {
	var k newKey
	c := &cobra.Command{
		Use:   "create --name NAME",
		Short: "Issue a key and print its secret, this once",
		Long: "Issue a key and print its secret, this once.\n\n" +
			"With --allow-ip, --subject or --api-version the secret is made on this machine and the key is\n" +
			"imported, for which the operator needs the role admin; otherwise the role issuer is enough.",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			switch f := c.Flags(); {
			case f.Changed("expires-in") && k.expiresIn <= 0:
				return usageError{errors.New("--expires-in is not above zero")}
			case f.Changed("rotate-every-days") && k.rotateDays <= 0:
				return usageError{errors.New("--rotate-every-days is not above zero")}
			}
			expires, err := k.check(time.Now())
			if err != nil {
				return err
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			made, err := k.create(c.Context(), api, expires)
			if err != nil {
				return err
			}
			return printNew(c, api, made, r.output == "json")
		},
	}
	f := c.Flags()
	f.StringVar(&k.name, "name", "", "the key's `name`, for people (required)")
	f.StringVar(&k.subject, "subject", "", "the `user` or team it is for")
	f.StringSliceVar(&k.scopes, "scope", nil, "a `scope` that it has; may be given more than once")
	f.StringSliceVar(&k.ips, "allow-ip", nil, "an `address` or CIDR block it may be used from; may be given more than once (default any)")
	f.StringVar(&k.environment, "environment", "", "its `environment` (default live)")
	f.StringVar(&k.apiVersion, "api-version", "", "the upstream API's version that it is tied to, a `date`")
	f.StringVar(&k.expires, "expires", "", "when it expires, a `time` such as 2027-01-31T00:00:00Z (default never)")
	f.DurationVar(&k.expiresIn, "expires-in", 0, "after how long it expires, a `duration` such as 2160h")
	f.IntVar(&k.rotateDays, "rotate-every-days", 0, "rotate it each time this number of `days` is over; needs --rotation-webhook")
	f.StringVar(&k.webhook, "rotation-webhook", "", "`URL` that new secrets are delivered to")
	return c
}

// check returns when the key expires, or what the command line has wrong.
func (k *newKey) check(now time.Time) (expires time.Time, err error) {
	bad := func(format string, args ...any) (time.Time, error) {
		return time.Time{}, usageError{fmt.Errorf(format, args...)}
	}
	if k.name == "" {
		return bad("give the key a name with --name")
	}
	if _, err := apikey.ParseAllowlist(k.ips); err != nil {
		return bad("--allow-ip: %w", err)
	}
	switch {
	case k.expires != "" && k.expiresIn != 0:
		return bad("--expires and --expires-in exclude each other; give one")
	case k.expiresIn > 0:
		expires = now.Add(k.expiresIn)
	case k.expires != "":
		if expires, err = time.Parse(time.RFC3339, k.expires); err != nil {
			return bad("--expires %q is not a time such as 2027-01-31T00:00:00Z", k.expires)
		}
	}
	if (k.rotateDays > 0) != (k.webhook != "") {
		return bad("--rotate-every-days and --rotation-webhook come together")
	}
	if k.rotateDays > 0 && k.imported() {
		return bad("--rotate-every-days does not go with --allow-ip, --subject or --api-version")
	}
	return expires, nil
}

// imported reports whether the key has a field that the call which issues keys
// does not know.
func (k *newKey) imported() bool { return len(k.ips) > 0 || k.subject != "" || k.apiVersion != "" }

// create makes the key and returns what is known of it only now.
func (k *newKey) create(ctx context.Context, api *client, expires time.Time) (made shownKey, err error) {
	body := map[string]any{"name": k.name}
	set := func(name, value string) {
		if value != "" {
			body[name] = value
		}
	}
	if !expires.IsZero() {
		set("expires_at", expires.UTC().Format(time.RFC3339Nano))
	}
	if len(k.scopes) > 0 {
		body["scopes"] = k.scopes
	}
	if !k.imported() {
		set("environment_id", k.environment)
		set("rotation_webhook_url", k.webhook)
		if k.rotateDays > 0 {
			body["rotation_interval_days"] = k.rotateDays
		}
		var out struct {
			ID, Key       string
			WebhookSecret string `json:"rotation_webhook_secret"`
		}
		err = api.dialectCall(ctx, "strait", "POST", straitKeys, body, &out)
		return shownKey{ID: out.ID, Secret: out.Key, WebhookSecret: out.WebhookSecret}, err
	}
	set("environment", k.environment)
	set("subject", k.subject)
	set("api_version", k.apiVersion)
	if len(k.ips) > 0 {
		body["allowed_ips"] = k.ips
	}
	var entropy [32]byte
	rand.Read(entropy[:]) // never fails: crypto/rand ends the process instead
	made.Secret = apikey.NewSecretFormat("lk").New(k.environment, entropy)
	body["secret"] = made.Secret
	made.ID, err = api.importOne(ctx, body)
	return made, err
}

// importOne imports a key and returns its ID.
func (c *client) importOne(ctx context.Context, key map[string]any) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	line, err := json.Marshal(key)
	if err != nil {
		return "", err
	}
	res, err := c.stream(ctx, "POST", "/import", "application/x-ndjson", strings.NewReader(string(line)+"\n"))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var out importedLine
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return "", fmt.Errorf("read the answer to the import: %w", err)
	}
	if out.Error != "" {
		return "", errors.New("the key was refused: " + printable(out.Error))
	}
	return out.ID, nil
}

// importedLine is what an import says of a line.
type importedLine struct {
	Line  int    `json:"line"`
	ID    string `json:"id,omitempty"`
	Error string `json:"error,omitempty"`
}

// printNew prints a key with its secret. The secret must not be lost to a call
// that fails now, so what else there is to say of the key is left out then.
func printNew(c *cobra.Command, api *client, made shownKey, asJSON bool) error {
	shown := made
	if k, err := api.key(c.Context(), made.ID); err == nil {
		shown = k
		shown.Secret, shown.WebhookSecret, shown.Replaces = made.Secret, made.WebhookSecret, made.Replaces
	}
	if err := shown.print(c.OutOrStdout(), asJSON); err != nil {
		return fmt.Errorf("key %s was made, and its secret could not be written, so it is lost: %w; end the key by latchkey keys revoke %s, and make another", made.ID, err, made.ID)
	}
	if !asJSON {
		fmt.Fprintln(c.ErrOrStderr(), "The secret is shown this once and kept nowhere; store it now.")
	}
	return nil
}

func rotateCommand(r *remote) *cobra.Command {
	var grace time.Duration
	c := &cobra.Command{
		Use:   "rotate ID",
		Short: "Replace a key by a new one and print its secret, this once",
		Long: "Replace a key by one that inherits all but ID, secret and name, and print the secret, this once.\n" +
			"The old key goes on for the grace.",
		Args: oneID,
		RunE: func(c *cobra.Command, args []string) error {
			body := map[string]any{}
			if c.Flags().Changed("grace") {
				if grace < 0 || grace%time.Minute != 0 {
					return usageError{errors.New("--grace is a whole number of minutes, such as 90m, or 0 to end the old key at once")}
				}
				body["grace_period_minutes"] = int(grace / time.Minute)
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			var out struct {
				ID     string `json:"new_key_id"`
				OldID  string `json:"old_key_id"`
				Secret string `json:"key"`
			}
			if err := api.dialectCall(c.Context(), "strait", "POST", straitKeys+"/"+args[0]+"/rotate", body, &out); err != nil {
				return err
			}
			return printNew(c, api, shownKey{ID: out.ID, Replaces: out.OldID, Secret: out.Secret}, r.output == "json")
		},
	}
	c.Flags().DurationVar(&grace, "grace", 0, "how long the old key goes on, a `duration` such as 90m (default the gateway's keys.grace)")
	return c
}

func revokeCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Revoke a key",
		Long:  "Revoke a key. Once this has ended with status 0, no later request with the key is admitted. Repeating it is no error.",
		Args:  oneID,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			if err := api.dialectCall(c.Context(), "strait", "DELETE", straitKeys+"/"+args[0], nil, nil); err != nil {
				return err
			}
			return printDone(c.OutOrStdout(), r.output == "json", "revoked", args[0])
		},
	}
}

// printDone says what became of a key.
func printDone(w io.Writer, asJSON bool, what, id string) error {
	if asJSON {
		return printJSON(w, map[string]string{"id": id, "state": what})
	}
	_, err := fmt.Fprintln(w, what, id)
	return err
}

func updateCommand(r *remote) *cobra.Command {
	var name string
	var ips []string
	var anyIP bool
	c := &cobra.Command{
		Use:   "update ID",
		Short: "Change a key's name or the addresses it may be used from",
		Long:  "Change a key's name or the addresses it may be used from. What no flag names stays as it is.",
		Args:  oneID,
		RunE: func(c *cobra.Command, args []string) error {
			body := map[string]any{}
			if _, err := apikey.ParseAllowlist(ips); err != nil {
				return usageError{fmt.Errorf("--allow-ip: %w", err)}
			}
			switch {
			case len(ips) > 0 && anyIP:
				return usageError{errors.New("--allow-ip and --any-ip exclude each other; give one")}
			case len(ips) > 0:
				body["ips"] = ips
			case anyIP:
				body["ips"] = []string{}
			}
			if c.Flags().Changed("name") {
				if body["alias"] = any(name); name == "" {
					body["alias"] = nil
				}
			}
			if len(body) == 0 {
				return usageError{errors.New("say what to change: --name, --allow-ip or --any-ip")}
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			refused := api.dialectCall(c.Context(), "truvera", "PATCH", truveraKeys+"/"+args[0], body, nil)
			if e := (*callError)(nil); refused != nil && (!errors.As(refused, &e) || e.status != 404) {
				return refused
			}
			k, err := api.key(c.Context(), args[0])
			if refused != nil {
				if err == nil { // Truvera knows live keys alone
					refused = fmt.Errorf("the key is %s, and can be changed no more", k.State)
				}
				return refused
			}
			if err != nil {
				return err
			}
			return k.print(c.OutOrStdout(), r.output == "json")
		},
	}
	c.Flags().StringVar(&name, "name", "", "the `name`, for people; an empty one removes it")
	c.Flag("name").Annotations = map[string][]string{mayBeEmpty: nil}
	c.Flags().StringSliceVar(&ips, "allow-ip", nil, "an `address` or CIDR block it may be used from, in place of those so far; may be given more than once")
	c.Flags().BoolVar(&anyIP, "any-ip", false, "let it be used from any address")
	return c
}
