package admin_test

import (
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"latchkey/apikey"
)

var (
	whole = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)
	uuid  = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
)

// parameters returns the query's parameters by name.
func (a *attempt) parameters() map[string][]string {
	out := map[string][]string{}
	_, query, _ := strings.Cut(a.target, "?")
	query, _, _ = strings.Cut(query, "#")
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		for _, text := range []*string{&name, &value} {
			if plain, err := url.QueryUnescape(*text); err == nil {
				*text = plain
			}
		}
		out[name] = append(out[name], value)
	}
	return out
}

// limit returns how many keys a list may have, and whether its query is one that
// the call can have, by checks of the oracle's own.
func (a *attempt) limit() (int, bool) {
	ranges := map[string]map[string][3]int{ // least, most, fallback
		"/keys":        {"limit": {1, 64, 64}, "offset": {0, math.MaxInt32, 0}},
		"/v1/api-keys": {"limit": {1, 100, 50}},
		"/api/keys":    {"limit": {1, 100, 25}, "offset": {0, math.MaxInt32, 0}},
		"/audit":       {"limit": {1, 1000, 100}},
	}[a.path()]
	choices := map[string]map[string][]string{
		"/v1/api-keys": {"include_revoked": {"true", "false"}},
		"/api/keys":    {"status": {"active", "inactive"}},
	}[a.path()]
	cursors := map[string][]string{"/v1/api-keys": {"cursor"}, "/api/keys": {"startingAfter", "endingBefore"}, "/audit": {"key"}}[a.path()]
	limit := math.MaxInt
	p := a.parameters()
	for name, r := range ranges {
		n := r[2]
		if values := p[name]; len(values) > 0 {
			var err error
			if n, err = strconv.Atoi(values[0]); len(values) > 1 || err != nil || n < r[0] || n > r[1] || !whole.MatchString(values[0]) {
				return 0, false
			}
		}
		if name == "limit" {
			limit = n
		}
	}
	for name, allowed := range choices {
		if values := p[name]; len(values) > 1 || len(values) == 1 && !slices.Contains(allowed, values[0]) {
			return 0, false
		}
	}
	for _, name := range cursors {
		values := p[name]
		if len(values) > 1 || len(values) == 1 && values[0] != "" && (!uuid.MatchString(values[0]) || values[0] == apikey.ID{}.String()) {
			return 0, false
		}
	}
	if values := p["before"]; a.path() == "/audit" && len(values) > 0 && !whole.MatchString(values[0]) {
		return 0, false
	}
	if values := p["since"]; a.path() == "/audit" && len(values) > 0 && values[0] != "" {
		if _, ok := at(values[0]); !ok {
			return 0, false
		}
	}
	return limit, true
}
