package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// TestAttackByHeads sends heads that are too large in every way there is.
func TestAttackByHeads(t *testing.T) {
	const attackers = 8
	s := besiege(t, attackers)
	head := func(target, fields string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: a\r\nX-API-Key: " + s.good.Key + "\r\n" + fields + "\r\n"
	}
	long, longer := strings.Repeat("a", 17<<10), strings.Repeat("a", 1<<20)
	bombs := []bomb{
		{"a head that is just bearable", head("/", strings.Repeat("Cookie: a="+strings.Repeat("b", 40)+"\r\n", 250)), "200"},
		{"a field too many", head("/", strings.Repeat("X: y\r\n", 255)), "431"},
		{"100,000 fields", head("/", strings.Repeat("X: y\r\n", 100_000)), "431"},
		{"100,000 fields of different names", head("/", fields(100_000)), "431"},
		{"a value of 17 KiB", head("/", "X: "+long+"\r\n"), "431"},
		{"a value of 1 MiB", head("/", "X: "+longer+"\r\n"), "431"},
		{"a name of 1 MiB", head("/", longer+": x\r\n"), "431"},
		{"a field of 1 MiB without an end", "GET / HTTP/1.1\r\nHost: a\r\nX: " + longer, "431"},
		{"a target of 17 KiB", head("/"+long, ""), "414"},
		{"a target of 1 MiB", head("/"+longer, ""), "414"},
		{"a query of 1 MiB", head("/?"+longer, ""), "414"},
		{"a method of 1 MiB", longer + " / HTTP/1.1\r\nHost: a\r\n\r\n", "431"},
		{"1 MiB of empty lines", strings.Repeat("\r\n", 1<<19), "400"},
	}
	s.attack(attackers, func(attacker, round int) { s.throw(s.proxy, nil, bombs[(attacker+round)%len(bombs)]) })
}

// fields are so many fields, each with a name of its own.
func fields(n int) string {
	var out strings.Builder
	for i := range n {
		fmt.Fprintf(&out, "X-%d: y\r\n", i)
	}
	return out.String()
}

// TestAttackByChunks sends bodies whose chunks are more work than data, with a good
// key, and with none, which is refused before any of the body is looked at.
func TestAttackByChunks(t *testing.T) {
	const attackers = 8
	s := besiege(t, 2*attackers) // with those to the upstream
	data := strings.Repeat("a", 1<<20)
	bombs := []bomb{
		{"100,000 chunks of a byte", strings.Repeat("1\r\na\r\n", 100_000) + "0\r\n\r\n", "200"},
		{"chunks of a byte beyond the limit", strings.Repeat("1\r\na\r\n", 1<<20+1) + "0\r\n\r\n", "413"},
		{"a chunk of 2^63-1 bytes", "7fffffffffffffff\r\n" + data + data, "413"},
		{"a chunk of 2^64-1 bytes", "ffffffffffffffff\r\n" + data, "400"},
		{"a chunk's size of 1 MiB", strings.Repeat("0", 1<<20) + "1\r\na\r\n0\r\n\r\n", "400"},
		{"an extension of 1 MiB", "1;" + data + "\r\na\r\n0\r\n\r\n", "400"},
		{"10,000 extensions", strings.Repeat("1;"+data[:200]+"\r\na\r\n", 10_000) + "0\r\n\r\n", "200"},
		{"a trailer field of 1 MiB", "0\r\nX: " + data + "\r\n\r\n", "400"},
		{"100,000 trailer fields", "0\r\n" + strings.Repeat("X: y\r\n", 100_000) + "\r\n", "400"},
	}
	head := "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
	s.attack(attackers, func(attacker, round int) {
		b := bombs[(attacker+round)%len(bombs)]
		if round%3 == 2 {
			b.name, b.bytes, b.want = "any of them without a key", head+"\r\n"+b.bytes, "401"
		} else {
			b.bytes = head + "X-API-Key: " + s.good.Key + "\r\n\r\n" + b.bytes
		}
		s.throw(s.proxy, nil, b)
	})
}

// TestAttackByJSON sends bodies to the admin plane that are work to read: of 100,000
// entries, and as many as there is room for, deep and long; with an operator's token,
// with none, and with a made-up one, each from an address of its own.
func TestAttackByJSON(t *testing.T) {
	const attackers = 8
	s := besiege(t, attackers*4) // a body, what is read from it, and its head
	list := func(entry string, n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(entry+",", n), ",") + "]"
	}
	members := func(n int) string {
		var out strings.Builder
		for i := range n {
			fmt.Fprintf(&out, `"a%d":1,`, i)
		}
		return "{" + strings.TrimSuffix(out.String(), ",") + "}"
	}
	address := `"10.0.0.1"`
	bombs := []bomb{
		{"100,000 deep", strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), "413"},
		{"30,000 deep", `{"userId": ` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000) + "}", "400"},
		{"10,000 objects deep", strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000), "400"},
		{"60,000 deep without an end", `{"userId": ` + strings.Repeat("[", 60_000), "400"},
		{"100,000 addresses", `{"userId": "u", "whitelistedIPs": ` + list(address, 100_000) + "}", "413"},
		{"5,000 addresses", `{"userId": "u", "whitelistedIPs": ` + list(address, 5_000) + "}", "400"},
		{"100,000 numbers", list("1", 100_000), "413"},
		{"30,000 numbers", `{"userId": ` + list("1", 30_000) + "}", "400"},
		{"100,000 fields", members(100_000), "413"},
		{"5,000 fields", members(5_000), "400"},
		{"a number of 60,000 digits", `{"userId": ` + strings.Repeat("9", 60_000) + "}", "400"},
		{"10,000 escapes", `{"userId": "` + strings.Repeat(`\u0061`, 10_000) + `"}`, "400"},
	}
	call := func(path, token, body string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n" +
			"Content-Length: " + strconv.Itoa(len(body)) + "\r\n" + token + "\r\n" + body
	}
	bearer := "Authorization: Bearer " + testToken + "\r\n"
	s.attack(attackers, func(attacker, round int) {
		b := bombs[(attacker+round)%len(bombs)]
		switch round % 3 {
		case 0:
			b.bytes = call("/api/keys", bearer, b.bytes)
			s.throw(s.admin, nil, b)
		case 1:
			b.name, b.bytes, b.want = "any of them without a token", call("/api/keys", "", b.bytes), "401"
			s.throw(s.admin, loopback(int64(attacker*1_000_000+round)), b)
		case 2:
			b.name, b.bytes, b.want = "any of them with a made-up token", call("/api/keys", "Authorization: Bearer made-up-token\r\n", b.bytes), "401"
			s.throw(s.admin, loopback(int64(attacker*1_000_000+round)), b)
		}
	})
}

// TestAttackByImport has the admin plane read 100,000 lines, none of which is a key; in
// a short attack there are fewer.
func TestAttackByImport(t *testing.T) {
	const attackers = 4
	s := besiege(t, attackers*64) // each reads 256 lines at a time
	n := 100_000
	if *attackFor < long {
		n = 5000
	}
	lines := []struct{ name, text string }{
		{"empty objects", strings.Repeat("{}\n", n)},
		{"numbers", strings.Repeat("1\n", n)},
		{"lines of 64 KiB", strings.Repeat(`{"name": "`+strings.Repeat("a", 65_000)+"\"}\n", 40)},
		{"lines 60,000 deep", strings.Repeat(strings.Repeat("[", 60_000)+"\n", 20)},
	}
	s.attack(attackers, func(attacker, round int) {
		l := lines[(attacker+round)%len(lines)]
		s.throw(s.admin, nil, bomb{l.name, "POST /import HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\n" +
			"Authorization: Bearer " + testToken + "\r\nContent-Length: " + strconv.Itoa(len(l.text)) + "\r\n\r\n" + l.text, "200"})
	})
}
