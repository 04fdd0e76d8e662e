package admin_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"unicode/utf16"
)

// A kind is one call of the admin plane, as the generator knows it.
type kind struct {
	method, path string // "{id}" stands for a key's ID
	fields       []pair // of a valid body; none if the call has no body
	params       []pair // of a valid query
	lines        bool   // the body is a field list a line
}

// A pair is a name and a value: JSON in a body, text in a query.
type pair struct{ name, value string }

func kinds() []kind {
	ips := `["10.0.0.0/8", "2001:db8::7"]`
	return []kind{
		{method: "GET", path: "/keys", params: []pair{{"offset", "1"}, {"limit", "5"}}},
		{method: "POST", path: "/keys", fields: []pair{{"ips", ips}, {"alias", `"My Key"`}}},
		{method: "POST", path: "/keys/temporary-key", fields: []pair{{"subaccount", "1"}, {"selectedTeamId", "7"}, {"isTestmode", "true"}}},
		{method: "GET", path: "/keys/{id}"},
		{method: "PATCH", path: "/keys/{id}", fields: []pair{{"ips", ips}, {"alias", `"Other"`}}},
		{method: "DELETE", path: "/keys/{id}"},
		{method: "GET", path: "/v1/api-keys", params: []pair{{"project_id", "acme"}, {"limit", "5"}, {"cursor", "{id}"}, {"include_revoked", "true"}}},
		{method: "POST", path: "/v1/api-keys", fields: []pair{{"project_id", `"acme"`}, {"name", `"CI"`}, {"scopes", `["orders:read"]`},
			{"expires_in_days", "90"}, {"environment_id", `"staging"`}, {"rotation_interval_days", "30"}, {"rotation_webhook_url", `"https://hooks.example/x"`}}},
		{method: "POST", path: "/v1/api-keys", fields: []pair{{"name", `"CI"`}, {"expires_at", `"2027-01-31T00:00:00Z"`}}},
		{method: "DELETE", path: "/v1/api-keys/{id}"},
		{method: "POST", path: "/v1/api-keys/{id}/rotate", fields: []pair{{"grace_period_minutes", "30"}}},
		{method: "GET", path: "/api/keys", params: []pair{{"status", "active"}, {"limit", "5"}, {"startingAfter", "{id}"}, {"endingBefore", "{id}"}, {"offset", "1"}}},
		{method: "POST", path: "/api/keys", fields: []pair{{"userId", `"u-1"`}, {"whitelistedIPs", ips}, {"description", `"CI"`}}},
		{method: "GET", path: "/api/keys/{id}"},
		{method: "PUT", path: "/api/keys/{id}", fields: []pair{{"apiVersion", `"2024-05-22"`}, {"description", `"d"`}, {"whitelistedIPs", ips}}},
		{method: "DELETE", path: "/api/keys/{id}"},
		{method: "GET", path: "/audit", params: []pair{{"tenant", "acme"}, {"key", "{id}"}, {"since", "2026-01-01T00:00:00Z"}, {"limit", "5"}, {"before", "9"}}},
		{method: "GET", path: "/export", params: []pair{{"tenant", "acme"}}},
		{method: "POST", path: "/import", lines: true, params: []pair{{"atomic", "false"}}, fields: []pair{{"sha256", `"{digest}"`},
			{"tenant", `"acme"`}, {"name", `"ci"`}, {"environment", `"live"`}, {"subject", `"u1"`}, {"scopes", `["orders:read"]`},
			{"allowed_ips", ips}, {"expires_at", `"2027-01-01T00:00:00Z"`}, {"api_version", `"2024-05-22"`}}},
	}
}

// An attempt is one generated call.
type attempt struct {
	kind   *kind
	intact bool // nothing in it was spoilt
	method string
	target string
	token  string // of the operator; a call that takes the CERTS-TOKEN sends that instead
	tenant string // in X-Latchkey-Tenant; "" sends none
	ctype  string // in Content-Type; "" sends none
	idem   string // in Idempotency-Key; "" sends none
	body   []byte
}

// raw is the call on the wire.
func (a *attempt) raw() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: admin.test\r\n", a.method, a.target)
	if strings.HasSuffix(a.kind.path, "temporary-key") {
		fmt.Fprintf(&b, "CERTS-TOKEN: certs-token\r\n")
	} else if a.token != "" {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", a.token)
	}
	for _, h := range []pair{{"X-Latchkey-Tenant", a.tenant}, {"Content-Type", a.ctype}, {"Idempotency-Key", a.idem}} {
		if h.value != "" {
			fmt.Fprintf(&b, "%s: %s\r\n", h.name, h.value)
		}
	}
	if len(a.body) > 0 {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(a.body))
	}
	b.WriteString("\r\n")
	b.Write(a.body)
	return b.Bytes()
}

// A generator makes attempts. What it makes depends on its seed and the IDs alone.
type generator struct {
	*rand.Rand
	kinds []kind
	ids   []string // of keys that are there, whosever they are
	n     int
}

func pick[T any](g *generator, from []T) T { return from[g.IntN(len(from))] }

func (g *generator) next() *attempt {
	g.n++
	k := &g.kinds[g.n%len(g.kinds)]
	a := &attempt{kind: k, intact: true, method: k.method, token: "acme-token"}
	if k.path == "/import" {
		a.token = "root-token"
	}
	a.target = strings.ReplaceAll(k.path, "{id}", g.id(a))
	if len(k.params) > 0 {
		a.target += g.query(a)
	}
	if len(k.fields) > 0 {
		a.ctype = "application/json"
		if k.lines {
			a.ctype = "application/x-ndjson"
		}
		var lines [][]byte
		for range 1 + g.IntN(3)*bool2int(k.lines) {
			lines = append(lines, g.object(a))
		}
		a.body = bytes.Join(lines, []byte("\n"))
		if g.spoil(a, 3) {
			a.body = g.mangle(a.body)
		}
	}
	g.head(a)
	return a
}

func bool2int(b bool) int {
	if b {
		return 1
	}
	return 0
}

// spoil decides, once in so many times, that something in the attempt is spoilt.
func (g *generator) spoil(a *attempt, once int) bool {
	if g.IntN(once) != 0 {
		return false
	}
	a.intact = false
	return true
}

func (g *generator) id(a *attempt) string {
	id := pick(g, g.ids)
	if !g.spoil(a, 4) {
		return id
	}
	return pick(g, []string{strings.ToUpper(id), id[:35], id + "0", "{" + id + "}", "urn:uuid:" + id, strings.ReplaceAll(id, "-", ""), "0",
		"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "019ca945-0000-7000-8000-0123456789ab", id[:8] + "_" + id[9:],
		"%30" + id[1:], id + "%00", id + "/", "..", "%2e%2e%2f" + id, id + "%20", "string", "lk_live_x", strings.Repeat("a", 3000), "%ff%fe", id + ";x=1", "*", ""})
}

// head spoils what comes before the body.
func (g *generator) head(a *attempt) {
	if g.spoil(a, 12) {
		a.method = pick(g, []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "BREW"})
	}
	if g.IntN(4) == 0 {
		a.token, a.intact = "root-token", false
	}
	if g.spoil(a, 10) {
		a.token = pick(g, []string{"viewer-token", "globex-token", "acme-admin-token"})
	} else if g.spoil(a, 60) {
		a.token = pick(g, []string{"", "nobody", "root-token x", strings.Repeat("t", 9000)})
	}
	if g.spoil(a, 6) {
		a.tenant = pick(g, []string{"acme", "globex", "nowhere", "ACME", "*", "a b", "\x80", strings.Repeat("t", 129), "default", "a\tb", "acme,globex", "{}"})
	}
	if len(a.body) > 0 && g.spoil(a, 8) {
		a.ctype = pick(g, []string{"", "text/plain", "application/JSON", "application/json; charset=utf-16", "application/json;charset=UTF-8",
			"application/merge-patch+json", "application/json, text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded",
			"application/jsonx", "a", ";", "application/x-ndjson", "application/json; charset=\"utf-8", "application/json; a=b; a=c", "\x80"})
	}
	if a.method == "POST" && g.IntN(5) == 0 {
		a.idem, a.intact = fmt.Sprintf("k-%d", g.IntN(40)), false
		if g.spoil(a, 3) {
			a.idem = pick(g, []string{"a b", strings.Repeat("k", 255), strings.Repeat("k", 256), "\xc3\xa9", "\"quoted\"", "a\tb", "\x7f"})
		}
	}
}

func (g *generator) query(a *attempt) string {
	var parts []string
	for _, p := range a.kind.params {
		if g.IntN(2) == 0 {
			continue
		}
		name, value := p.name, p.value
		if value == "{id}" {
			value = g.id(a)
			a.intact = false // it may be another tenant's
		}
		if g.spoil(a, 5) {
			id := pick(g, g.ids)
			value = pick(g, []string{"", "0", "-1", "-0", "1.0", "1e2", "+5", "05", "64", "65", "100", "101", "1000", "1001", "2147483647", "2147483648",
				"18446744073709551615", "18446744073709551616", "9007199254740993", "NaN", "0x10", "%31", " 5", "5%00", "true", "TRUE", "inactive", "active",
				"revoked", "*", "globex", "acme", id, strings.ToUpper(id), "%zz", "%", "٣", "%ff", "00000000-0000-0000-0000-000000000000",
				"2026-13-01T00:00:00Z", "2026-01-01T00:00:00+01:00", "2026-01-01T00:00:00%2B01:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "2026-01-01",
				"2026-03-01T1:00:00Z", strings.Repeat("9", 400), "a&limit=7", "a;limit=7", "1#2", "1?2"})
		} else {
			value = url.QueryEscape(value)
		}
		if g.spoil(a, 12) {
			name = pick(g, []string{strings.ToUpper(name), name + "[]", "%" + fmt.Sprintf("%02x", name[0]) + name[1:], " " + name, ""})
		}
		parts = append(parts, name+"="+value)
		if g.spoil(a, 20) {
			parts = append(parts, name+"="+pick(g, []string{value, "1", ""}))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	g.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	return "?" + strings.Join(parts, "&")
}

// object writes a body from the kind's fields, some of them spoilt.
func (g *generator) object(a *attempt) []byte {
	var b bytes.Buffer
	b.WriteString("{")
	put := func(name, value string) {
		if b.Len() > 1 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s: %s", name, value)
	}
	for i, f := range a.kind.fields {
		name, value := `"`+f.name+`"`, strings.ReplaceAll(f.value, "{digest}", fmt.Sprintf("%064x", g.Uint64()))
		switch {
		case g.spoil(a, 12):
			value = g.value()
		case i > 0 && g.spoil(a, 12), g.spoil(a, 60):
			continue
		case g.spoil(a, 40):
			put(name, value)
		case g.spoil(a, 40):
			name = pick(g, []string{strings.ToUpper(name), `"\u00` + fmt.Sprintf("%02x", f.name[0]) + f.name[1:] + `"`, name[:len(name)-2] + `"`, f.name, `"` + f.name + ` "`, `""`})
		}
		put(name, value)
	}
	if g.spoil(a, 25) {
		put(pick(g, []string{`"unknown"`, `"__proto__"`, `"id"`, `"key"`, `"tenant"`, `"\ud800"`, `"\u0000"`, `"whitelistedIps"`}), g.value())
	}
	b.WriteString("}")
	return b.Bytes()
}

// value makes a JSON value, or what only looks like one.
func (g *generator) value() string {
	text := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	switch g.IntN(12) {
	case 0, 8, 9:
		return `"` + strings.Repeat(pick(g, []string{"a", "é", "😀"}), pick(g, []int{0, 1, 64, 65, 128, 129, 199, 200, 201, 255, 256, 2048, 2100})) + `"`
	case 1, 2:
		return "[" + g.ip() + ", " + g.ip() + "]"
	case 3:
		n := pick(g, []int{64, 65, 255, 256, 257, 1000})
		return "[" + strings.TrimSuffix(strings.Repeat(`"192.0.2.7",`, n), ",") + "]"
	case 4:
		n := pick(g, []int{2, 100, 9000, 11000, 30000})
		return strings.Repeat("[", n) + strings.Repeat("]", n)
	case 5:
		return text(pick(g, []string{"https://127.0.0.1/x", "http://hooks.example/", "https://u:p@hooks.example/", "https://hooks.example/#f", "https://", "https://[::1]/",
			"https://hooks.example:99999/", "HTTPS://hooks.example", "https://hooks.example/ x", "//hooks.example", "https://hooks.example/" + strings.Repeat("p", 2100)}))
	case 6:
		return text(pick(g, []string{"2027-01-31", "2020-01-01T00:00:00Z", "2027-01-31T0:00:00Z", "2027-01-31T00:00:00,5Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00Z",
			"2027-02-29T00:00:00Z", "2028-02-29T00:00:00+24:00", "2027-01-31T23:59:60Z", "2027-01-31t00:00:00z", "2027-01-31T00:00:00.123456789Z", "1969-12-31T23:59:59Z"}))
	case 7:
		return pick(g, []string{`["a", "a"]`, `["a", null]`, `["a", 1]`, `[" "]`, `["\u00e9"]`, `[[]]`, `[{}]`, `["\""]`, `["a:b", "c"]`, `[null]`, `["` + strings.Repeat("s", 129) + `"]`})
	}
	return pick(g, []string{"null", "true", "false", "0", "-0", "1.0", "1e2", "1e999", "-1e999", "9007199254740991", "9007199254740993", "18446744073709551616", "-1", "36500", "36501",
		"10080", "10081", "01", "+1", ".5", "0x10", "NaN", "Infinity", "1_000", `""`, `" "`, `"\u0000"`, `"\ud800"`, `"\udc00\ud800"`, `"\ud83d\ude00"`, `"\ufffd"`, "\"\xff\"", "\"\xed\xa0\x80\"",
		"\"\xc0\xaf\"", "\"\x00\"", "\"a\nb\"", `"\x41"`, "'a'", "[]", "{}", `{"a":1}`, "[", "]", "", "nul", "undefined", `"2023-11-29"`, `"1999-01-01"`, `"*"`, `"globex"`, `"\r\n"`, "\"\u2028\"", `"a\/b"`, `"é"`})
}

func (g *generator) ip() string {
	return pick(g, []string{`"192.0.2.7"`, `"10.0.0.0/8"`, `"10.0.0.1/8"`, `"::ffff:10.0.0.1"`, `"::ffff:10.0.0.0/104"`, `"::ffff:0:0/95"`, `"fe80::1%eth0"`, `"fe80::1%25eth0"`, `"010.0.0.1"`,
		`" 192.0.2.7"`, `"192.0.2.7 "`, `"192.0.2.7/33"`, `"192.0.2.7/032"`, `"::/-1"`, `"::/129"`, `"２.2.2.2"`, `""`, `"*"`, `"localhost"`, `"10.0.1"`, `"0x7f.1"`, `"2130706433"`, `"1.2.3.4/0"`, `"0.0.0.0/0"`,
		`"::1"`, `"2001:DB8::1"`, `"[::1]"`, `"::1:80"`, `"1.2.3.4:80"`, `"10.0.0.0/255.0.0.0"`, `"::%/0"`, `"1.2.3.4\u0000"`, `"` + strings.Repeat("1", 60) + `"`, "null", "1", "[]"})
}

// mangle spoils the bytes of a body.
func (g *generator) mangle(body []byte) []byte {
	at := g.IntN(len(body) + 1)
	insert := func(s string) []byte { return append(append(append([]byte{}, body[:at]...), s...), body[at:]...) }
	switch g.IntN(16) {
	case 0:
		return body[:at]
	case 1:
		return append(body, pick(g, []string{"{}", "x", "\x00", " \n\t ", "]", "}", ",", "null", "\n{}", "//"})...)
	case 2:
		return append([]byte(pick(g, []string{"\ufeff", "\xff\xfe", " \r\n", "/* c */", "// c\n", ")]}',\n", "\x00"})), body...)
	case 3: // UTF-16
		var out []byte
		for _, u := range utf16.Encode([]rune(string(body))) {
			out = append(out, byte(u), byte(u>>8))
		}
		return out
	case 4:
		return insert(pick(g, []string{"\xff", "\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x00", "\x1f", "\u00a0", "\ufeff", "/**/"}))
	case 5:
		return bytes.ReplaceAll(body, []byte(`"`), []byte("'"))
	case 6:
		return append(append([]byte("["), body...), ']')
	case 7:
		n := pick(g, []int{100, 10001, 32000, 65536})
		return append(append([]byte(strings.Repeat(pick(g, []string{"[", `{"a":`}), n)), body...), strings.Repeat("]", n)...)
	case 8:
		if g.IntN(20) == 0 { // these are long
			return []byte(`{"scopes": [` + strings.Repeat("1,", 100_000) + `1]}`)
		}
		return []byte(`{"ips": [` + strings.Repeat("0,", 30_000) + `0]}`)
	case 9:
		return append(body, bytes.Repeat([]byte(" "), max(0, pick(g, []int{65535, 65536, 65537})-len(body)))...)
	case 10:
		return []byte(pick(g, []string{"", " ", "null", "[]", "{", "}", "{}", "{}{}", `""`, "1", "true", "\n", "{,}", `{"":}`, `{"a"}`, `{"a":1,}`, "\x00", "{\"\xff\":1}"}))
	case 11, 12:
		if at < len(body) {
			out := bytes.Clone(body)
			out[at] ^= 1 << g.IntN(8)
			return out
		}
	case 13:
		return insert(pick(g, []string{",", ":", "{", "}", "[", "]", `"`, `\`, "0", "e", "-", ".", "\n", "\t"}))
	case 14:
		return bytes.Replace(body, []byte("}"), []byte(",}"), 1)
	}
	to := min(len(body), at+1+g.IntN(8))
	return append(append([]byte{}, body[:at]...), body[to:]...)
}
