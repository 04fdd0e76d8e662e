package admin_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"latchkey/apikey"
	"latchkey/internal/wiretest"
)

// The oracle says by plain checks of its own, over encoding/json and net/netip,
// what a body asks for. What it does not take, the plane must not take either.

// texts returns the strings of a list without null in it.
func texts(list []*string) (out []string, ok bool) {
	for _, s := range list {
		if s == nil {
			return nil, false
		}
		out = append(out, *s)
	}
	return out, true
}

// blocks returns the networks that the entries stand for.
func blocks(list []*string) (out []netip.Prefix, ok bool) {
	entries, ok := texts(list)
	if !ok || len(entries) > 256 {
		return nil, false
	}
	for _, e := range entries {
		p, err := netip.ParsePrefix(e)
		if !strings.Contains(e, "/") {
			var a netip.Addr
			a, err = netip.ParseAddr(e)
			p = netip.PrefixFrom(a, a.BitLen())
			if a.Zone() != "" {
				return nil, false
			}
		}
		if err != nil {
			return nil, false
		}
		if p.Addr().Is4In6() {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if p != p.Masked() || !p.IsValid() {
			return nil, false
		}
		out = append(out, p)
	}
	return out, true
}

var instant = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// at reads a time (RFC 3339) that can be written as one again.
func at(text string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, text)
	return t.UTC().Truncate(time.Microsecond), err == nil && instant.MatchString(text) && t.UTC().Year() <= 9999
}

func characters(s *string, least, most int) bool {
	return s == nil || utf8.RuneCountInString(*s) >= least && utf8.RuneCountInString(*s) <= most
}

func within(n *int, least, most int) bool { return n == nil || *n >= least && *n <= most }

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// A wish is what a call that creates a key asks for.
type wish struct {
	tenant, name, subject, environment, version, webhook string
	ips                                                  []netip.Prefix
	scopes                                               []string
	days                                                 int
	expires                                              func(now time.Time) time.Time
}

// wishOf returns what the body of a creation asks for. The tenant is the one that
// it names, if it does.
func wishOf(path string, body []byte, now time.Time) (w wish, ok bool) {
	never := func(time.Time) time.Time { return time.Time{} }
	after := func(d time.Duration) func(time.Time) time.Time {
		return func(now time.Time) time.Time { return now.Add(d).Truncate(time.Microsecond) }
	}
	switch path {
	case "/keys":
		var b struct {
			IPs   []*string `json:"ips"`
			Alias *string   `json:"alias"`
		}
		if len(bytes.TrimSpace(body)) > 0 {
			if _, ok = wiretest.Strict(body, &b, "ips", "alias"); !ok {
				return w, false
			}
		}
		w.name, w.expires = deref(b.Alias), after(time.Hour)
		w.ips, ok = blocks(b.IPs)
		return w, ok && characters(b.Alias, 1, 255)
	case "/keys/temporary-key":
		var b struct {
			Account *int  `json:"subaccount"`
			Team    *int  `json:"selectedTeamId"`
			Test    *bool `json:"isTestmode"`
		}
		if len(bytes.TrimSpace(body)) > 0 {
			nulls, ok := wiretest.Strict(body, &b, "subaccount", "selectedTeamId", "isTestmode")
			if !ok || nulls["subaccount"] || nulls["selectedTeamId"] || nulls["isTestmode"] {
				return w, false
			}
		}
		w.name, w.expires = "temporary", after(time.Hour)
		if b.Account != nil {
			w.tenant = strconv.Itoa(*b.Account)
		}
		if b.Team != nil {
			w.subject = strconv.Itoa(*b.Team)
		}
		if deref(b.Test) {
			w.environment = "test"
		}
		return w, within(b.Account, 0, 1<<53-1) && within(b.Team, 0, 1<<53-1)
	case "/v1/api-keys":
		return straitWish(body, now)
	case "/api/keys":
		var b struct {
			User *string   `json:"userId"`
			IPs  []*string `json:"whitelistedIPs"`
			Text *string   `json:"description"`
		}
		nulls, ok := wiretest.Strict(body, &b, "userId", "whitelistedIPs", "description")
		if !ok || nulls["userId"] || b.User == nil {
			return w, false
		}
		w.subject, w.name, w.version, w.expires = *b.User, deref(b.Text), "2024-05-22", never
		w.ips, ok = blocks(b.IPs)
		return w, ok && characters(b.User, 1, 255) && characters(b.Text, 1, 200)
	}
	return w, false
}

func straitWish(body []byte, now time.Time) (w wish, ok bool) {
	var b struct {
		Project     *string   `json:"project_id"`
		Name        *string   `json:"name"`
		Scopes      []*string `json:"scopes"`
		Days        *int      `json:"expires_in_days"`
		At          *string   `json:"expires_at"`
		Environment *string   `json:"environment_id"`
		Every       *int      `json:"rotation_interval_days"`
		Webhook     *string   `json:"rotation_webhook_url"`
	}
	nulls, ok := wiretest.Strict(body, &b, "project_id", "name", "scopes", "expires_in_days", "expires_at", "environment_id", "rotation_interval_days", "rotation_webhook_url")
	for _, null := range nulls {
		ok = ok && !null
	}
	if !ok || b.Name == nil || b.Days != nil && b.At != nil || (b.Every == nil) != (b.Webhook == nil) {
		return w, false
	}
	w.tenant, w.name, w.environment, w.days, w.webhook = deref(b.Project), *b.Name, deref(b.Environment), deref(b.Every), deref(b.Webhook)
	w.expires = func(time.Time) time.Time { return time.Time{} }
	if b.Days != nil {
		w.expires = func(now time.Time) time.Time { return now.AddDate(0, 0, *b.Days).Truncate(time.Microsecond) }
	}
	if b.At != nil {
		end, good := at(*b.At)
		ok = ok && good && end.After(now)
		w.expires = func(time.Time) time.Time { return end }
	}
	if b.Webhook != nil {
		u, err := url.Parse(w.webhook)
		ok = ok && err == nil && strings.EqualFold(u.Scheme, "https") && u.Hostname() != "" && u.User == nil && u.Fragment == "" && len(w.webhook) <= 2048
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil && (ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified()) {
			ok = false
		}
	}
	var scopes bool
	w.scopes, scopes = texts(b.Scopes)
	return w, ok && scopes && characters(b.Project, 1, 128) && characters(b.Name, 1, 255) && characters(b.Environment, 1, 64) &&
		within(b.Days, 1, 36500) && within(b.Every, 1, 36500)
}

// lineWish returns what a line of an import asks for, and the digest that the key
// is known by.
func lineWish(line []byte, now time.Time) (w wish, digest string, ok bool) {
	var b struct {
		Secret, SHA256, Tenant, Name, Environment, Subject *string
		Scopes                                             []*string
		IPs                                                []*string `json:"allowed_ips"`
		At                                                 *string   `json:"expires_at"`
		ID                                                 *string   `json:"id"`
		Version                                            *string   `json:"api_version"`
	}
	nulls, ok := wiretest.Strict(line, &b, "secret", "sha256", "tenant", "name", "environment", "subject", "scopes", "allowed_ips", "expires_at", "id", "api_version")
	for _, f := range []string{"secret", "sha256", "tenant", "environment", "id", "api_version"} {
		ok = ok && !nulls[f]
	}
	if !ok || (b.Secret == nil) == (b.SHA256 == nil) {
		return w, "", false
	}
	w.tenant, w.name, w.environment, w.subject, w.version = deref(b.Tenant), deref(b.Name), deref(b.Environment), deref(b.Subject), deref(b.Version)
	w.expires = func(time.Time) time.Time { return time.Time{} }
	if b.At != nil {
		end, good := at(*b.At)
		ok = ok && good && end.After(now)
		w.expires = func(time.Time) time.Time { return end }
	}
	digest = deref(b.SHA256)
	if b.Secret != nil {
		d := apikey.DigestOf([]byte(*b.Secret))
		digest = fmt.Sprintf("%x", d[:])
		ok = ok && len(*b.Secret) >= 16
	}
	var scopes, ips bool
	w.scopes, scopes = texts(b.Scopes)
	w.ips, ips = blocks(b.IPs)
	return w, digest, ok && scopes && ips && characters(b.Tenant, 1, 128) && characters(b.Name, 0, 255) && characters(b.Environment, 1, 64) && characters(b.Subject, 0, 255)
}

// sound reports what no stored key may have, by rules of the oracle's own.
func (w *wish) sound() bool {
	visible := func(s string) bool {
		return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
	}
	for i, s := range w.scopes {
		if s == "" || len(s) > 128 || !visible(s) || strings.ContainsAny(s, `"\`) || slices.Contains(w.scopes[:i], s) {
			return false
		}
	}
	control := strings.IndexFunc(w.name, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) >= 0
	return len(w.scopes) <= 64 && !control && visible(strings.ReplaceAll(w.subject, " ", "")) && strings.TrimSpace(w.subject) == w.subject &&
		visible(w.environment) && visible(w.tenant) && w.tenant != "*" && w.tenant != "" && len(w.tenant) <= 128
}

// differs says in what the key is not as it was wished for.
func (w *wish) differs(k *apikey.Key) string {
	var ips []netip.Prefix
	for _, a := range k.AllowedIPs {
		ips = append(ips, a.Block)
	}
	got := fmt.Sprintf("%q %q %q %q %q %q %v %q %d %v", k.Tenant, k.Name, k.Subject, k.Environment, k.Pin.Version, k.Rotation.WebhookURL, ips, k.Scopes, k.Rotation.EveryDays, k.ExpiresAt)
	want := fmt.Sprintf("%q %q %q %q %q %q %v %q %d %v", w.tenant, w.name, w.subject, w.environment, w.version, w.webhook, w.ips, w.scopes, w.days, w.expires(k.CreatedAt))
	if got != want {
		return fmt.Sprintf("the key is %s, wished for was %s", got, want)
	}
	return ""
}
