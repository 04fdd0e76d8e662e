package proxy

import (
	"slices"
	"strings"
)

// A shape is what a client may send on a connection. The shapes are those of the
// published research: Linhart and others 2005, Regilero 2016 to 2020, Kettle 2019
// to 2025 (CL.TE, TE.CL, TE.TE, CL.0, 0.CL, client-side and pause-based desync),
// HTTP Garden 2024, and the CVEs of llhttp, nginx, HAProxy, Apache and others.
type shape struct {
	rule    string
	sends   string // "|" stands for the end of a line
	answers string // statuses, in order; the connection is closed after a refusal, and where there is a "."
	passes  string // what the upstream is to get, as "METHOD target body" each
}

// Parts of shapes.
const (
	post = "POST /a HTTP/1.1|Host: h|"
	get  = "GET /a HTTP/1.1|Host: h|"
	evil = "GET /evil HTTP/1.1|Host: h||" // seen by whom the framing fools
)

// refused are shapes of which nothing passes.
func refused(rule string, all ...string) (out []shape) {
	for _, sends := range all {
		out = append(out, shape{rule, sends, "400", ""})
	}
	return out
}

// shapes returns all of them, with the ends of lines in place.
func shapes() []shape {
	all := slices.Concat(lengthShapes(), codingShapes(), chunkShapes(), lineShapes(), fieldShapes(), requestLineShapes(), hostShapes(), pipelineShapes())
	for i := range all {
		all[i].sends = strings.ReplaceAll(all[i].sends, "|", "\r\n")
	}
	return all
}

func lengthShapes() []shape {
	return slices.Concat(
		refused("CL.TE and TE.CL: a length and a coding",
			post+"Content-Length: 6|Transfer-Encoding: chunked||0||G",
			post+"Transfer-Encoding: chunked|Content-Length: 4||1f|"+evil+"|0||",
			post+"Content-Length: 0|Transfer-Encoding: chunked||0||"+evil,
			get+"Transfer-Encoding: chunked|Content-Length: 0||5|hello|0||"+evil),
		refused("several lengths, even if they agree",
			post+"Content-Length: 5|Content-Length: 5||hello"+evil, post+"Content-Length: 5|content-length: 0||hello"+evil,
			post+"Content-Length: 5, 5||hello"+evil, post+"Content-Length: 5,||hello"+evil, post+"Content-Length: ,5||hello"+evil,
			post+"Content-Length: 5|Content-Length:||hello"+evil),
		refused("a length that is not digits",
			post+"Content-Length: +5||hello"+evil, post+"Content-Length: -5||hello"+evil, post+"Content-Length: -0||"+evil,
			post+"Content-Length: 0x5||hello"+evil, post+"Content-Length: 5e0||hello"+evil, post+"Content-Length: 5.0||hello"+evil,
			post+"Content-Length: 1_0||hello"+evil, post+"Content-Length: \"5\"||hello"+evil, post+"Content-Length: 5 5||hello"+evil,
			post+"Content-Length: 5;||hello"+evil, post+"Content-Length: 5a||hello"+evil, post+"Content-Length: a||hello"+evil,
			post+"Content-Length:||hello"+evil, post+"Content-Length: \u0665||hello"+evil, post+"Content-Length: 5\u00a0||hello"+evil),
		refused("a length out of range",
			post+"Content-Length: 9223372036854775808||hello"+evil, post+"Content-Length: 18446744073709551621||hello"+evil,
			post+"Content-Length: 4294967301000000000000||hello"+evil),
		refused("a length with a control character",
			post+"Content-Length: 5\x00||hello"+evil, post+"Content-Length: \x0b5||hello"+evil, post+"Content-Length: 5\x0c||hello"+evil,
			post+"Content-Length: 5\r||hello"+evil, post+"Content-Length: \n5||hello"+evil),
		refused("a length whose name has something around it",
			post+"Content-Length : 5||hello"+evil, post+"Content-Length\t: 5||hello"+evil, post+"Content-Length\x0b: 5||hello"+evil,
			post+"Content-Length\x00: 5||hello"+evil, post+" Content-Length: 5||hello"+evil, post+"\tContent-Length: 5||hello"+evil,
			post+"Content\\Length: 5||hello"+evil, post+"Content Length: 5||hello"+evil, post+"\xefContent-Length: 5||hello"+evil),
		[]shape{
			{"a length has one spelling on the way out", post + "content-LENGTH:\t0005 ||hello", "200", "POST /a hello"},
			{"what another field's name makes of a length does not count", post + "Content_Length: 5|Content.Length: 5|Content-Length: 0||" + evil, "200 200", "POST /a \nGET /evil "},
			{"CL.0: a GET may have a body, which is no request", get + "Content-Length: 29||GET /evil HTTP/1.1\r\nHost: h\r\n", "200", "GET /a GET /evil HTTP/1.1\r\nHost: h\r\n"},
			{"so may a HEAD", "HEAD /a HTTP/1.1|Host: h|Content-Length: 5||hello", "200", "HEAD /a hello"},
			{"0.CL: without a length there is no body", post + "|" + evil, "200 200", "POST /a \nGET /evil "},
			{"so also with a field before that looks like an end", post + "X: 5|X-Content-Length: 5||" + evil, "200 200", "POST /a \nGET /evil "},
		})
}

func codingShapes() []shape {
	const smuggled = "||5|hello|0||" + evil
	var obfuscated []string
	for _, line := range []string{ // TE.TE: each of these hid the coding from somebody
		"Transfer-Encoding: xchunked", "Transfer-Encoding: chunkedx", "Transfer-Encoding: identity", "Transfer-Encoding: gzip", "Transfer-Encoding: x",
		"Transfer-Encoding: chunked, identity", "Transfer-Encoding: identity, chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked, chunked",
		"Transfer-Encoding: chunked,", "Transfer-Encoding: ,chunked", "Transfer-Encoding: chunked;", "Transfer-Encoding: chunked;q=1", "Transfer-Encoding: chunked foo",
		"Transfer-Encoding: \"chunked\"", "Transfer-Encoding: 'chunked'", "Transfer-Encoding: c\"hunked\"", "Transfer-Encoding: chunked\"", "Transfer-Encoding: (x) chunked",
		"Transfer-Encoding:", "Transfer-Encoding: chunk", "Transfer-Encoding: chun\u212aed", "Transfer-Encoding: \u00a0chunked", "Transfer-Encoding: chunked\xff", "Transfer-Encoding: \xefchunked",
		"Transfer-Encoding: \x0bchunked", "Transfer-Encoding: chunked\x0b", "Transfer-Encoding: \x0cchunked", "Transfer-Encoding: \x00chunked", "Transfer-Encoding: chunked\x00", "Transfer-Encoding: chu\x00nked", "Transfer-Encoding: \x08chunked",
		"Transfer-Encoding: chunked|Transfer-Encoding: chunked", "Transfer-Encoding: chunked|Transfer-encoding: identity", "Transfer-Encoding: identity|Transfer-Encoding: chunked", "Transfer-Encoding: chunked|transfer-encoding:", "Transfer-Encoding:|Transfer-Encoding: chunked",
		"Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked", "Transfer-Encoding\x0b: chunked", "Transfer-Encoding\x00: chunked", "Transfer-Encoding\xa0: chunked", " Transfer-Encoding: chunked", "\tTransfer-Encoding: chunked", "\x0bTransfer-Encoding: chunked",
		"Transfer-Encoding:| chunked", "Transfer-Encoding|: chunked", "Transfer-Encoding\n: chunked", "Transfer-Encoding:\nchunked", "Transfer-Encoding: \nchunked", "Transfer-Encoding: chunked\n", "Transfer-Encoding:\rchunked", "Transfer-Encoding: chunked\r",
		"X: y\nTransfer-Encoding: chunked", "X: y\rTransfer-Encoding: chunked", "X: y|\x20Transfer-Encoding: chunked", "X\n Transfer-Encoding: chunked", "Transfer Encoding: chunked", "Transfer\\Encoding: chunked",
	} {
		obfuscated = append(obfuscated, post+"Content-Length: 15|"+line+smuggled, post+line+smuggled)
	}
	return slices.Concat(
		refused("TE.TE: a coding other than chunked, or hidden", obfuscated...),
		refused("chunks in HTTP/1.0", "POST /a HTTP/1.0|Host: h|Transfer-Encoding: chunked"+smuggled, "POST /a HTTP/1.0|Host: h|Connection: keep-alive|Transfer-Encoding: chunked"+smuggled),
		[]shape{
			{"chunked in any case, with whitespace around it", post + "tRANSFER-eNCODING: \t chUNKed \t" + smuggled, "200 200", "POST /a hello\nGET /evil "},
			{"what another field's name makes of a coding does not count", post + "Transfer_Encoding: chunked|Transfer.Encoding: chunked|Content-Length: 5||hello" + evil, "200 200", "POST /a hello\nGET /evil "},
			{"nor what Connection names", post + "Connection: Transfer-Encoding, Content-Length|Transfer-Encoding: chunked" + smuggled, "200 200", "POST /a hello\nGET /evil "},
			{"nor a TE field", post + "TE: chunked|Content-Length: 5||hello", "200", "POST /a hello"},
			{"a GET may have chunks", get + "Transfer-Encoding: chunked" + smuggled, "200 200", "GET /a hello\nGET /evil "},
		})
}

func chunkShapes() []shape {
	const chunked = post + "Transfer-Encoding: chunked||"
	var bad []string
	for _, body := range []string{
		"0x5|hello|0||", "5x|hello|0||", "+5|hello|0||", "-5|hello|0||", "0_5|hello|0||", "5_|hello|0||", "\"5\"|hello|0||", "5h|hello|0||", "g|hello|0||", "|hello|0||", ";a|hello|0||", // not a size
		" 5|hello|0||", "5 |hello|0||", "5\t|hello|0||", "5 ;a|hello|0||", "\t5|hello|0||", "5\x0b|hello|0||", "5\x0c|hello|0||", "5\x00|hello|0||", "5\xa0|hello|0||", // whitespace
		"10000000000000005|hello|0||", "8000000000000005|hello|0||", "ffffffffffffffff|hello|0||", "00000000000000005|hello|0||", "100000000000000000000000000000005|hello|0||", // overflow
		"5\nhello|0||", "5\rhello|0||", "5\r\rhello|0||", "5|hello\n0||", "5|hello\r0||", "5|hello0||", "5|helloX|0||", "5|hello||0||", "6|hello|0||", "4|hello|0||", // ends of lines
		"5;a\nb|hello|0||", "5;a\rb|hello|0||", "5;\n|hello|0||", "5;a=\"|\"|hello|0||", "5;a\x00|hello|0||", "5;a=\x7f|hello|0||", "5\n;a|hello|0||", "5;" + strings.Repeat("a", 300) + "|hello|0||", // extensions: TERM.EXT, EXT.TERM
		"5|hello|0\n\n", "5|hello|0|\n", "5|hello|0\r\r\n", "5|hello|0\n|", "5|hello|-0||", "5|hello|0 ||", "5|hello|0;\n||", // the last chunk
		"5|hello|0|X : y||", "5|hello|0| X: y||", "5|hello|0|X: y| z||", "5|hello|0|X||", "5|hello|0|: y||", "5|hello|0|X: \x00||", "5|hello|0|X: y\nZ: a||", "5|hello|0|X: y\rZ: a||", "5|hello|0|GET /evil HTTP/1.1|Host: h||", // trailers: TRAIL
	} {
		bad = append(bad, chunked+body+evil)
	}
	return slices.Concat(
		refused("a chunk that is not one", bad...),
		[]shape{
			{"leading zeros of a size, and either case", chunked + "0005|hello|0A|0123456789|000||" + evil, "200 200", "POST /a hello0123456789\nGET /evil "},
			{"extensions stay behind", chunked + "5;a=b;c=\"d;e\"|hello|0;last||" + evil, "200 200", "POST /a hello\nGET /evil "},
			{"trailer fields stay behind", chunked + "5|hello|0|Content-Length: 50|Transfer-Encoding: x|X-Latchkey-Tenant: evil||" + evil, "200 200", "POST /a hello\nGET /evil "},
			{"a request in a chunk is data", chunked + "1f|" + evil + "|0||", "200", "POST /a GET /evil HTTP/1.1\r\nHost: h\r\n\r\n"},
			{"no data", chunked + "0||" + evil, "200 200", "POST /a \nGET /evil "},
		})
}
