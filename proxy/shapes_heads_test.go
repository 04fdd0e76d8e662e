package proxy

import (
	"slices"
	"strings"
)

func lineShapes() []shape {
	return slices.Concat(
		refused("a bare LF or CR, wherever it is",
			"GET /a HTTP/1.1\nHost: h||", "GET /a HTTP/1.1\nHost: h\n\n", "GET /a HTTP/1.1|Host: h\n|", "GET /a HTTP/1.1|Host: h|\n"+evil, "GET /a HTTP/1.1|Host: h\n\n"+evil,
			"GET /a HTTP/1.1\rHost: h||", "GET /a HTTP/1.1\r\r\nHost: h||", get+"X: \ry||", get+"X: y\r||", get+"X: y\r\r\n|", get+"X\r: y||", get+"\rX: y||", get+"X: y\nZ: z||",
			"\nGET /a HTTP/1.1|Host: h||", "\rGET /a HTTP/1.1|Host: h||", "GET /\ra HTTP/1.1|Host: h||", "GET /\na HTTP/1.1|Host: h||", "GET\r/a HTTP/1.1|Host: h||"),
		refused("a folded line", get+"X: y| z||", get+"X: y|\tz||", get+"X:| y||", get+" X: y||", "GET /a HTTP/1.1| Host: h||", "GET /a HTTP/1.1|\tX: y|Host: h||", get+"X: y|\x20|"+evil, get+"X: y| Content-Length: 30||"+evil),
		refused("more than one empty line before a request", "||"+get+"|", "|||"+get+"|"),
		[]shape{
			{"an empty line before a request is passed over", "|" + get + "|", "200", "GET /a "},
			{"also before the next one", post + "Content-Length: 5||hello|" + evil, "200 200", "POST /a hello\nGET /evil "},
		})
}

func fieldShapes() []shape {
	var fields []string
	for _, line := range []string{
		"X : y", "X\t: y", "X\x0b: y", "X\x0c: y", "X\x00: y", "X\xa0: y", "X Y: z", "X\tY: z", ": y", ":", "X", "X=y", "X;Y: z", "X(: z", "\"X\": y", "X/Y: z", "X@: z", "X\x7f: y", "\xc3\xa9: y", "\x80: y", "\x00: y", "{X}: y", "[X]: y", "X,Y: z", "X?: z", "X\\: z", "X<: z", // names
		"X: \x00", "X: y\x00z", "X: \x01", "X: \x07", "X: \x08", "X: \x0b", "X: \x0c", "X: \x1b", "X: \x7f", "X: y\x0bz", "X:\x0by", // values
	} {
		fields = append(fields, get+line+"||"+evil)
	}
	long := get + "X: " + strings.Repeat("y", 20<<10) + "||" + evil
	many := get + strings.Repeat("X: y|", 300) + "|" + evil
	return slices.Concat(
		refused("a field that is none", fields...),
		[]shape{
			{"a name may be any token, a value any text", get + "!#$%&'*+-.^_`~09Az: \t!\"(),/:;<=>?@[\\]{}\xe9\x80 \t||", "200", "GET /a "},
			{"a value may be empty", get + "X:|Y: \t ||", "200", "GET /a "},
			{"a head too long", long, "431", ""},
			{"a head of too many fields", many, "431", ""},
			{"a head that goes on without an end of line", "GET /" + strings.Repeat("a", 20<<10), "414", ""},
			{"an expectation but the one", post + "Expect: 200-ok|Content-Length: 5||hello" + evil, "417", ""},
			{"an expectation hidden", post + "Expect: y 100-continue|Content-Length: 5||hello" + evil, "417", ""},
			{"an expectation with something behind it", post + "Expect: 100-continue, 100-continue|Content-Length: 5||hello" + evil, "417", ""},
			{"an expectation that is empty", post + "Expect:|Content-Length: 5||hello" + evil, "417", ""},
			{"an expectation stays behind", post + "Expect: 100-CONTINUE|Content-Length: 5||hello" + evil, "200 200", "POST /a hello\nGET /evil "},
			{"an expectation of a request without a body", get + "Expect: 100-continue||" + evil, "200 200", "GET /a \nGET /evil "},
			{"h2c is not for a gateway", get + "Connection: Upgrade, HTTP2-Settings|Upgrade: h2c|HTTP2-Settings: AAMAAABkAAQAAP__||" + evil, "200 200", "GET /a \nGET /evil "},
			{"h2c among others", get + "Connection: Upgrade|Upgrade: websocket, h2c||" + evil, "200 200", "GET /a \nGET /evil "},
			{"a WebSocket that the upstream declines", get + "Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Version: 777||" + evil, "200 200", "GET /a \nGET /evil "},
			{"two upgrades", get + "Connection: Upgrade|Upgrade: websocket|Upgrade: h2c||", "400", ""},
			{"Connection takes no identity away", get + "Connection: close, X-Latchkey-Tenant, X-API-Key, Host, X-Forwarded-For, X-Request-Id||", "200.", "GET /a "},
			{"nothing follows on a connection to be closed", get + "Connection: x,CLOSE||" + evil, "200.", "GET /a "},
		})
}

func requestLineShapes() []shape {
	var lines []string
	for _, line := range []string{
		"GET /a HTTP/0.9", "GET /a HTTP/1.2", "GET /a HTTP/2.0", "GET /a HTTP/1.10", "GET /a HTTP/01.1", "GET /a HTTP/1.01", "GET /a HTTP/1", "GET /a HTTP/1.", "GET /a HTTP/11", "GET /a HTTP/1.1.", "GET /a HTTP/1,1", "GET /a HTTP/+1.1", "GET /a HTTP/ 1.1", "GET /a HTTP /1.1", "GET /a HTTP/1 .1", "GET /a http/1.1", "GET /a Http/1.1", "GET /a HTTP/1.1x", "GET /a HTTP/1.1 x", "GET /a HTTP/1.1 HTTP/1.0", "GET /a HTTPS/1.1", "GET /a XHTTP/1.1", "GET /a ICE/1.0", "GET /a HTTP\\1.1", "GET /a", "GET", "", "GET /a ", "GET /a HTTP/1.\xb2", "GET /a HTTP/1.1\x00", // versions
		"GET  /a HTTP/1.1", "GET /a  HTTP/1.1", "GET /a HTTP/1.1 ", " GET /a HTTP/1.1", "\tGET /a HTTP/1.1", "GET\t/a HTTP/1.1", "GET /a\tHTTP/1.1", "GET\x0b/a HTTP/1.1", "GET\x0c/a HTTP/1.1", "GET /a\x0cHTTP/1.1", "GET /a b HTTP/1.1", "GET\xa0/a HTTP/1.1", "GET\x00/a HTTP/1.1", // whitespace
		"get /a HTTP/1.1", "Get /a HTTP/1.1", "GE\x00T /a HTTP/1.1", "G(T /a HTTP/1.1", "GET: /a HTTP/1.1", "G/T /a HTTP/1.1", "\"GET\" /a HTTP/1.1", "GET, /a HTTP/1.1", "G\xc9T /a HTTP/1.1", "[GET] /a HTTP/1.1", "\x16\x03\x01 /a HTTP/1.1", " /a HTTP/1.1", // methods
		"GET http://h/a HTTP/1.1", "GET HTTP://evil/a HTTP/1.1", "GET http:/a HTTP/1.1", "GET h:80 HTTP/1.1", "GET h/a HTTP/1.1", "GET * HTTP/1.1", "OPTIONS * HTTP/1.1", "OPTIONS *a HTTP/1.1", "GET @evil/a HTTP/1.1", "GET :80/a HTTP/1.1", "GET ?a HTTP/1.1", "GET \\a HTTP/1.1", "GET a HTTP/1.1", "GET javascript:/a HTTP/1.1", // forms
		"GET //evil/a HTTP/1.1", "GET /a#b HTTP/1.1", "GET /a?b#c HTTP/1.1", "GET /a\x00 HTTP/1.1", "GET /a?\x01 HTTP/1.1", "GET /\x7f HTTP/1.1", "GET /\xe9 HTTP/1.1", "GET /a\\b HTTP/1.1", "GET /../a HTTP/1.1", "GET /%2e%2e/a HTTP/1.1", "GET /a%2fb HTTP/1.1", "GET /a%0 HTTP/1.1", "GET /a;b HTTP/1.1", "GET /a%00 HTTP/1.1", // targets
	} {
		lines = append(lines, line+"|Host: h||"+evil)
	}
	return slices.Concat(
		refused("a request line that is none, or that is read in two ways", lines...),
		refused("the preface of HTTP/2", "PRI * HTTP/2.0||SM||"),
		[]shape{
			{"CONNECT makes a tunnel of anything", "CONNECT h:443 HTTP/1.1|Host: h:443||" + evil, "405", ""},
			{"CONNECT in origin-form too", "CONNECT /a HTTP/1.1|Host: h||" + evil, "405", ""},
			{"TRACE shows what the gateway adds", "TRACE /a HTTP/1.1|Host: h||" + evil, "405", ""},
			{"a method may be any token in upper case", "M-SEARCH!#$%&'*+.^_`~1 /a HTTP/1.1|Host: h||" + evil, "200 200", "M-SEARCH!#$%&'*+.^_`~1 /a \nGET /evil "},
			{"a target passes as it is", "GET /a%20b?c=%2F..//;%00&d=http://e/?f HTTP/1.1|Host: h||", "200", "GET /a%20b?c=%2F..//;%00&d=http://e/?f "},
			{"HTTP/1.0 ends its connection", "GET /a HTTP/1.0||" + evil, "200.", "GET /a "},
			{"HTTP/1.0 may keep it", "GET /a HTTP/1.0|Connection: keep-alive||" + evil, "200 200", "GET /a \nGET /evil "},
			{"HTTP/1.0 may not keep what it closes", "GET /a HTTP/1.0|Connection: keep-alive, close||" + evil, "200.", "GET /a "},
		})
}

func hostShapes() []shape {
	var heads []string
	for _, fields := range []string{
		"", "X: y|", "Host: h|Host: h|", "Host: h|host: evil|", "Host: h|HOST:|", "Host:|", "Host: |", "Host: h evil|", "Host: h\tevil|", "Host: h,evil|", "Host: evil@h|", "Host: h:80@evil|", "Host: h/evil|", "Host: h\\evil|", "Host: h?x|", "Host: h#x|",
		"Host: http://h|", "Host: h:|Host: h|", "Host: h:x|", "Host: h:80x|", "Host: h:80:80|", "Host: h:-80|", "Host: h:+80|", "Host: :80|", "Host: .|", "Host: [::1|", "Host: ::1|", "Host: [::1]x|", "Host: [::1%25eth0]|", "Host: [h]|", "Host: h%2eevil|", "Host: h\"|", "Host: <h>|", "Host: h\xe9|", "Host: h\x00|", "Host : h|", " Host: h|", "X: y| Host: h|",
	} {
		heads = append(heads, "GET /a HTTP/1.1|"+fields+"|"+evil)
	}
	return slices.Concat(
		refused("not exactly one Host that is a host", heads...),
		refused("the same in HTTP/1.0", "GET /a HTTP/1.0|Host: h|Host: i||", "GET /a HTTP/1.0|Host:||", "GET /a HTTP/1.0|Host: a@b||"),
		[]shape{{"a host, and a port", "GET /a HTTP/1.1|hOST:\tApi.Example.:08080 ||" + evil, "200 200", "GET /a \nGET /evil "}})
}

func pipelineShapes() []shape {
	return []shape{
		{"requests one after the other", evil + post + "Content-Length: 5||hello" + post + "Transfer-Encoding: chunked||5|hello|0||" + evil, "200 200 200 200", "GET /evil \nPOST /a hello\nPOST /a hello\nGET /evil "},
		{"a good one before a bad one", evil + get + "X : y||" + evil, "200 400", "GET /evil "},
		{"a good one before an ambiguous one", post + "Content-Length: 5||hello" + post + "Content-Length: 5|Transfer-Encoding: chunked||0||" + evil, "200 400", "POST /a hello"},
		{"more than the length is another request, which is none", post + "Content-Length: 5||hello, world" + evil, "200 400", "POST /a hello"},
		{"client-side desync: a body that is a request stays one", post + "Content-Type: text/plain|Content-Length: 31||" + evil + evil, "200 200", "POST /a GET /evil HTTP/1.1\r\nHost: h\r\n\r\n\nGET /evil "},
		{"a HEAD and what follows it", "HEAD /a HTTP/1.1|Host: h||" + evil, "200 200", "HEAD /a \nGET /evil "},
		{"a HEAD before a bad one, whose refusal has a body", "HEAD /a HTTP/1.1|Host: h||" + "GET /a HTTP/1.1\nHost: h||", "200 400", "HEAD /a "},
	}
}
