package wiretest

import (
	"fmt"
	"net/url"
	"strings"

	"latchkey/apikey"
)

// CheckQuery holds what was read of a query against a reading of its own: each
// parameter is there once at most, its value is the text of what was read, and one
// that is absent is the fallback. A cursor may be empty, and is then absent.
func CheckQuery(query string, read, fallbacks map[string]any) error {
	found := map[string][]string{}
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		found[unescape(name)] = append(found[unescape(name)], unescape(value))
	}
	for name, value := range read {
		texts := found[name]
		want := fmt.Sprint(value)
		id, cursor := value.(apikey.ID)
		switch {
		case len(texts) > 1:
			return fmt.Errorf("%q: %s is there %d times", query, name, len(texts))
		case cursor && (len(texts) == 0 || texts[0] == ""):
			if !id.IsZero() {
				return fmt.Errorf("%q: %s is absent, and read as %s", query, name, id)
			}
		case cursor && (id.IsZero() || strings.ToLower(texts[0]) != want):
			return fmt.Errorf("%q: %s is read as %s", query, name, id)
		case !cursor && len(texts) == 0 && fmt.Sprint(fallbacks[name]) != want:
			return fmt.Errorf("%q: %s is absent, and read as %s", query, name, want)
		case !cursor && len(texts) == 1 && texts[0] != want:
			return fmt.Errorf("%q: %s is %q, and read as %s", query, name, texts[0], want)
		}
	}
	return nil
}

// unescape decodes what is encoded in a name or value, and leaves alone what only
// looks so.
func unescape(text string) string {
	if plain, err := url.QueryUnescape(text); err == nil {
		return plain
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if plain, err := url.QueryUnescape(text[i : i+3]); err == nil {
				b.WriteString(plain)
				i += 2
				continue
			}
		}
		b.WriteString(strings.Replace(text[i:i+1], "+", " ", 1))
	}
	return b.String()
}
