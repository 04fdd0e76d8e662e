package proxy

import (
	"bytes"
	"net/url"
	"strings"
)

// A Credential is a place where a request may carry its key. Exactly one field
// is set.
type Credential struct {
	Header string // the name of a header field, in any case
	Bearer bool   // Authorization: Bearer <key> (RFC 6750, section 2.1)
	Query  string // the name of a query parameter
}

// describe says in words where a key may be.
func describe(places []Credential) string {
	var words []string
	for _, c := range places {
		switch {
		case c.Bearer:
			words = append(words, "as Authorization: Bearer <key>")
		case c.Header != "":
			words = append(words, "in the header "+c.Header)
		default:
			words = append(words, "in the query parameter "+c.Query)
		}
	}
	return strings.Join(words, ", or ")
}

// A credential is the key a request presented, and where.
type credential struct {
	value []byte // nil if there is none; what cannot be a key is "?", which none is
	place Credential
}

// twice stands for a place that holds more than one key: which of them counts
// would be a guess, and another server may guess differently.
const twice = "?"

// findCredential looks at the places in order and returns the first key. For a
// key in a field it does not allocate.
func findCredential(places []Credential, h *head) credential {
	for _, place := range places {
		var first []byte
		found := 0
		note := func(value []byte) {
			if found++; found == 1 {
				first = value
			}
		}
		switch {
		case place.Bearer:
			for _, f := range h.fields {
				if token, ok := bearer(f); ok {
					note(token)
				}
			}
		case place.Header != "":
			for _, f := range h.fields {
				if len(f.value) > 0 && len(f.name) == len(place.Header) && bytes.EqualFold(f.name, []byte(place.Header)) {
					note(f.value)
				}
			}
		default:
			first, found = parameters(h.query, place.Query)
		}
		switch found {
		case 0:
		case 1:
			return credential{first, place}
		default:
			return credential{[]byte(twice), place}
		}
	}
	return credential{}
}

// parameters returns the first of the query's parameters of the name that are not
// empty, and how many of them there are.
func parameters(query []byte, wanted string) (first []byte, found int) {
	eachParameter(query, func(name, value string, _ []byte) {
		if name == wanted && value != "" {
			if found++; found == 1 {
				first = []byte(value)
			}
		}
	})
	return first, found
}

// bearer returns the token of an Authorization field of the scheme Bearer.
func bearer(f field) ([]byte, bool) {
	const scheme = "Bearer "
	if !is(f.name, "Authorization") || len(f.value) <= len(scheme) || !bytes.EqualFold(f.value[:len(scheme)], []byte(scheme)) {
		return nil, false
	}
	return bytes.Trim(f.value[len(scheme):], " \t"), true
}

// eachParameter calls f with each decoded parameter of a query and its bytes. A
// parameter that cannot be decoded is given as it is.
func eachParameter(query []byte, f func(name, value string, raw []byte)) {
	for len(query) > 0 {
		raw, rest, _ := bytes.Cut(query, []byte("&"))
		query = rest
		name, value, _ := strings.Cut(string(raw), "=")
		f(unescape(name), unescape(value), raw)
	}
}

func unescape(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}

// withoutParameter returns the query without the parameters of the name, and
// the very same query if there are none.
func withoutParameter(query []byte, name string) []byte {
	var kept [][]byte
	removed := false
	eachParameter(query, func(n, _ string, raw []byte) {
		if n == name {
			removed = true
			return
		}
		kept = append(kept, raw)
	})
	if !removed {
		return query
	}
	return bytes.Join(kept, []byte("&"))
}
