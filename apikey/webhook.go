package apikey

import (
	"encoding/base64"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// MaxWebhookURL is the longest webhook URL, in bytes.
const MaxWebhookURL = 2048

// webhookSecretPrefix marks a webhook's secret, as Standard Webhooks has it
// (https://github.com/standard-webhooks/standard-webhooks, "Signature scheme").
const webhookSecretPrefix = "whsec_"

// NewWebhookSecret returns the secret that 256 bits of entropy make.
func NewWebhookSecret(entropy [32]byte) Secret {
	return Secret(webhookSecretPrefix + base64.StdEncoding.EncodeToString(entropy[:]))
}

// WebhookKey returns the bytes that the secret stands for in signatures of
// Standard Webhooks.
func WebhookKey(s Secret) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.TrimPrefix(string(s), webhookSecretPrefix))
}

// CheckWebhookURL reports why a URL cannot be a webhook's, in words that begin
// with a verb, and "" if it can. A host that is written as an address must be a
// public one unless private ones are allowed; where a name leads is found out
// when it is dialled.
func CheckWebhookURL(text string, allowPrivate bool) string {
	if len(text) > MaxWebhookURL {
		return "must have at most 2048 characters"
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || !visibleASCII(text):
		return "must be a URL such as https://example.com/hooks"
	case u.Scheme != "https" || u.Hostname() == "" || strings.ContainsAny(u.Hostname(), "[]"):
		return "must be an https URL with a host"
	case u.User != nil:
		return "must not hold a user name or password"
	case u.Fragment != "":
		return "must not have a fragment"
	case u.Port() != "" && !validPort(u.Port()):
		return "must have a port from 1 to 65535, or none"
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && !allowPrivate && !PublicAddr(addr) {
		return "must not lead to a loopback, private, link-local or otherwise special address"
	}
	return ""
}

func validPort(digits string) bool {
	n, err := strconv.ParseUint(digits, 10, 16)
	return err == nil && n > 0
}

// PublicAddr reports whether an address is one that any host of the internet
// may have: none of the blocks that IANA's registries of special-purpose
// addresses (RFC 6890) take out, and none that wraps an IPv4 address, which
// could be one of those.
func PublicAddr(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsValid() || a.Zone() != "" || !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, block := range specialBlocks() {
		if block.Contains(a) {
			return false
		}
	}
	return true
}

// specialBlocks are the blocks that netip's own predicates do not cover.
func specialBlocks() []netip.Prefix {
	block := netip.MustParsePrefix
	return []netip.Prefix{
		block("0.0.0.0/8"),       // this network (RFC 791)
		block("100.64.0.0/10"),   // carriers' NAT (RFC 6598)
		block("192.0.0.0/24"),    // protocol assignments (RFC 6890)
		block("192.0.2.0/24"),    // documentation (RFC 5737)
		block("192.88.99.0/24"),  // 6to4 relays (RFC 7526)
		block("198.18.0.0/15"),   // benchmarks (RFC 2544)
		block("198.51.100.0/24"), // documentation
		block("203.0.113.0/24"),  // documentation
		block("240.0.0.0/4"),     // reserved (RFC 1112)
		block("::/96"),           // IPv4-compatible (RFC 4291)
		block("64:ff9b::/96"),    // NAT64 (RFC 6052)
		block("64:ff9b:1::/48"),  // local NAT64 (RFC 8215)
		block("100::/64"),        // discard (RFC 6666)
		block("2001::/23"),       // protocol assignments, Teredo among them (RFC 4380)
		block("2001:db8::/32"),   // documentation (RFC 3849)
		block("2002::/16"),       // 6to4 (RFC 3056)
		block("3fff::/20"),       // documentation (RFC 9637)
		block("5f00::/16"),       // segment routing (RFC 9602)
		block("fec0::/10"),       // site-local (RFC 3879)
	}
}
