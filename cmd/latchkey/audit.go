package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// A shownEvent is an event of the audit log.
type shownEvent struct {
	Revision  uint64   `json:"revision,omitempty"`
	Cursor    string   `json:"cursor,omitempty"`
	At        string   `json:"at"`
	Actor     string   `json:"actor"`
	Action    string   `json:"action"`
	KeyID     string   `json:"key_id,omitempty"`
	Signing   string   `json:"signing_key_id,omitempty"`
	Tenant    string   `json:"tenant"`
	Fields    []string `json:"fields"`
	Route     string   `json:"route,omitempty"`
	Address   string   `json:"address,omitempty"`
	RequestID string   `json:"request_id,omitempty"`
}

const eventsPage = 1000 // the most that one call gives

func auditCommand() *cobra.Command {
	r := new(remote)
	var key, since string
	var limit int
	c := &cobra.Command{
		Use:   "audit",
		Short: "Show who did what to which key, newest first",
		Long: "Show who did what to which key, newest first. With --key the first line is the key's last use, if there is\n" +
			"one, which is up to 30 seconds behind.",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			if key != "" {
				if err := oneID(c, []string{key}); err != nil {
					return usageError{errors.New("--key is not the ID of a key")}
				}
				q.Set("key", key)
			}
			if since != "" {
				if _, err := time.Parse(time.RFC3339, since); err != nil {
					return usageError{fmt.Errorf("--since %q is not a time such as 2027-01-31T00:00:00Z", since)}
				}
				q.Set("since", since)
			}
			if limit < 0 {
				return usageError{errors.New("--limit is a number of events, or 0 for all")}
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			events, err := api.audit(c, q, limit)
			if err != nil {
				return err
			}
			if r.output == "json" {
				return printJSON(c.OutOrStdout(), events)
			}
			var rows [][]string
			for _, e := range events {
				rows = append(rows, []string{e.At, e.Actor, e.Action, cmp.Or(e.KeyID, e.Signing), e.Tenant, strings.Join(e.Fields, " "), e.Route, e.Address, e.RequestID})
			}
			return printTable(c.OutOrStdout(), []string{"AT", "ACTOR", "ACTION", "KEY", "TENANT", "FIELDS", "ROUTE", "ADDRESS", "REQUEST"}, rows)
		},
	}
	r.tenantFlags(c)
	c.Flags().StringVar(&key, "key", "", "only what was done to the key with this `ID`")
	c.Flags().StringVar(&since, "since", "", "only what was done since this `time`, such as 2027-01-31T00:00:00Z")
	c.Flags().IntVar(&limit, "limit", 100, "at most this `number` of events; 0 means all")
	return c
}

// audit returns the newest events, a page after the other.
func (api *client) audit(c *cobra.Command, q url.Values, limit int) ([]shownEvent, error) {
	all, number := []shownEvent{}, 0
	for {
		page := eventsPage
		if limit > 0 {
			page = min(page, limit-number)
		}
		q.Set("limit", strconv.Itoa(page))
		var events []shownEvent
		if err := api.call(c.Context(), "GET", "/audit?"+q.Encode(), nil, &events); err != nil {
			return nil, err
		}
		all = append(all, events...)
		if len(events) > 0 && events[0].Cursor == "" {
			events = events[1:] // a last use, which is no event and does not count
		}
		if number += len(events); len(events) < page || number == limit {
			return all, nil
		}
		q.Set("before", events[len(events)-1].Cursor)
	}
}

func reloadCommand() *cobra.Command {
	r := new(remote)
	c := &cobra.Command{
		Use:   "reload",
		Short: "Have a running gateway read its configuration file again",
		Long: "Have a running gateway read its configuration file again, as SIGHUP does. A file that is wrong changes\n" +
			"nothing, and what is wrong with it is printed. The operator needs the role admin and the tenant *.",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			if err := api.call(c.Context(), "POST", "/reload", nil, nil); err != nil {
				return err
			}
			if r.output == "json" {
				return printJSON(c.OutOrStdout(), map[string]bool{"reloaded": true})
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), "reloaded")
			return err
		},
	}
	r.flags(c)
	return c
}
