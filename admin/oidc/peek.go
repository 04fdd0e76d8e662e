package oidc

import (
	"encoding/base64"
	"encoding/json"
	"strings"
)

// maxToken is the length in bytes beyond which a token is not looked at. Those
// in use have one to four thousand.
const maxToken = 16 << 10

// A header is what matters of a token's header before it is verified. Which key
// a signature is checked with is not in here.
type header struct {
	typ         string // in lower case, without "application/"; empty where the token has none
	malformed   bool   // typ is no text
	critical    bool   // the token has extensions that must be understood
	accessToken bool   // typ says so (RFC 9068)
}

// acceptable reports whether a token with the header may be an access token. No
// extension is understood here (RFC 7515, section 4.1.11).
func (h header) acceptable() bool {
	return !h.malformed && !h.critical && (h.typ == "" || h.typ == "jwt" || h.accessToken)
}

// peek reads the header and the issuer of a token that nobody has verified. ok
// says that the token looks like a JWT, in the compact form, with an issuer.
func peek(token string) (h header, issuer string, ok bool) {
	if len(token) > maxToken || strings.Count(token, ".") != 2 {
		return header{}, "", false
	}
	encoded, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	head, claims := object(encoded), object(payload)
	if head["alg"] == nil || claims["iss"] == nil || json.Unmarshal(claims["iss"], &issuer) != nil {
		return header{}, "", false
	}
	_, h.critical = head["crit"]
	if typ, there := head["typ"]; there {
		h.malformed = json.Unmarshal(typ, &h.typ) != nil || h.typ == ""
		h.typ = strings.TrimPrefix(strings.ToLower(h.typ), "application/")
	}
	h.accessToken = h.typ == "at+jwt"
	return h, issuer, true
}

// object returns the members of an encoded JSON object, by their exact names;
// nil if it is none.
func object(encoded string) (members map[string]json.RawMessage) {
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || json.Unmarshal(text, &members) != nil {
		return nil
	}
	return members
}
