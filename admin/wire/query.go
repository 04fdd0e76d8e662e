package wire

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"latchkey/apikey"
)

// Param returns a query parameter, and the fallback if it is absent. One that
// is given more than once is an error: which of them counts would be a guess.
func (c *Call) Param(name, fallback string) (string, error) {
	values := c.QueryArgs().PeekMulti(name)
	switch len(values) {
	case 0:
		return fallback, nil
	case 1:
		return string(values[0]), nil
	}
	return "", BadRequest(name, "is given more than once")
}

// OnlyParams refuses parameters that the call does not have, which would change nothing.
func (c *Call) OnlyParams(names ...string) error {
	for name := range c.QueryArgs().All() {
		if !slices.Contains(names, string(name)) {
			return BadRequest("query", fmt.Sprintf("%.40q is no parameter of this call; it has %s", name, strings.Join(names, ", ")))
		}
	}
	return nil
}

// IntParam returns a whole number between least and most.
func (c *Call) IntParam(name string, fallback, least, most int) (int, error) {
	text, err := c.Param(name, strconv.Itoa(fallback))
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most || text != strconv.Itoa(n) {
		return 0, BadRequest(name, fmt.Sprintf("must be a whole number from %d to %d", least, most))
	}
	return n, nil
}

// ChoiceParam returns one of the choices.
func (c *Call) ChoiceParam(name, fallback string, choices ...string) (string, error) {
	text, err := c.Param(name, fallback)
	if err != nil {
		return "", err
	}
	if !slices.Contains(choices, text) {
		return "", BadRequest(name, "must be one of: "+strings.Join(choices, ", "))
	}
	return text, nil
}

// CursorParam returns the key a page begins or ends at, the zero ID if the
// parameter is absent. Whether the key exists is for the store to say.
func (c *Call) CursorParam(name string) (apikey.ID, error) {
	text, err := c.Param(name, "")
	if err != nil || text == "" && !c.QueryArgs().Has(name) {
		return apikey.ID{}, err
	}
	id, err := apikey.ParseID(text)
	if err != nil || id.IsZero() { // the zero ID would count as none, and the page as the first
		return apikey.ID{}, BadRequest(name, "must be the id of a key from this list")
	}
	return id, nil
}

// PathID returns the key ID in the path. What is not an ID names no key.
func (c *Call) PathID(name string) (apikey.ID, error) {
	text, _ := c.UserValue(name).(string)
	id, err := apikey.ParseID(text)
	if err != nil {
		return apikey.ID{}, NotFound()
	}
	return id, nil
}

// PageURL returns the absolute address of another page of this list.
func (c *Call) PageURL(query url.Values) string {
	scheme := "http"
	if c.IsTLS() {
		scheme = "https"
	}
	return (&url.URL{Scheme: scheme, Host: string(c.Host()), Path: string(c.Path()), RawQuery: query.Encode()}).String()
}
