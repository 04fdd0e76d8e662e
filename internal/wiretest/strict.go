// Package wiretest is what fuzz tests of the admin plane's readers hold them
// against: readings of bodies and queries by other means.
package wiretest

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// Strict decodes an object that has the fields of the struct and no others, each
// once and spelt exactly, and reports which of them are null.
func Strict(data []byte, into any, fields ...string) (nulls map[string]bool, ok bool) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if !utf8.Valid(data) || len(data) > 64<<10 || d.Decode(into) != nil {
		return nil, false
	}
	if len(bytes.Trim(data[d.InputOffset():], " \t\r\n")) > 0 {
		return nil, false
	}
	var raw map[string]json.RawMessage
	if json.Unmarshal(data, &raw) != nil || raw == nil || len(raw) != topNames(data) {
		return nil, false
	}
	nulls = map[string]bool{}
	for name, value := range raw {
		if !slices.Contains(fields, name) {
			return nil, false
		}
		nulls[name] = string(value) == "null"
	}
	plain, _ := json.Marshal(into)
	asked := bytes.ContainsRune(data, '\ufffd') || bytes.Contains(bytes.ToLower(data), []byte(`\ufffd`))
	return nulls, asked || !bytes.ContainsRune(plain, '\ufffd')
}

// topNames counts the names in an object, with those that are there twice.
func topNames(data []byte) (n int) {
	d := json.NewDecoder(bytes.NewReader(data))
	name := true
	for depth := 0; ; {
		t, err := d.Token()
		if err != nil {
			return n
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
			continue
		case json.Delim('}'), json.Delim(']'):
			if depth--; depth == 1 {
				name = true
			}
			continue
		}
		if depth == 1 {
			if name {
				n++
			}
			name = !name
		}
	}
}

// Call returns a call with the query and body, by an operator of the tenant acme.
func Call(query string, body []byte) *wire.Call {
	ctx := new(fasthttp.RequestCtx)
	ctx.Request.SetRequestURI("/")
	ctx.Request.URI().SetQueryString(query)
	ctx.Request.SetBody(body)
	return &wire.Call{RequestCtx: ctx, Operator: wire.Operator{Name: "fuzz", Role: wire.RoleIssuer, Tenant: "acme"}}
}

// Refused reports that a reader did not take a call, and fails the test unless it
// says what the caller did wrong.
func Refused(t testing.TB, err error) bool {
	t.Helper()
	var e *wire.Error
	if err != nil && (!errors.As(err, &e) || e.Status < 400 || e.Status > 422 || e.Error() == "" || !utf8.ValidString(e.Error())) {
		t.Fatalf("refused with %v, want what the caller did wrong", err)
	}
	return err != nil
}

// SameIPs reports whether an allowlist is of the addresses and blocks in the texts.
func SameIPs(list apikey.Allowlist, texts []string) bool {
	return slices.EqualFunc(list, texts, func(a apikey.AllowedIP, text string) bool {
		p, err := netip.ParsePrefix(text)
		if addr, bad := netip.ParseAddr(text); bad == nil {
			p, err = addr.Unmap().Prefix(addr.Unmap().BitLen())
		}
		if p.Addr().Is4In6() {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return err == nil && p == a.Block && p == p.Masked()
	})
}
