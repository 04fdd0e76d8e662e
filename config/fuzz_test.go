package config

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fasthttp/router"
	"github.com/valyala/fasthttp"
)

// FuzzSize holds sizes against math/big, and what is written of one to be read as it.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"0", "1025", "16KiB", "64MiB", "8589934591GiB", "8589934592GiB", "9223372036854775808", "-1", "+1", "1.5KiB", "1 KiB", "KiB", "1KiBKiB", "1_0", "01"} {
		f.Add(s)
	}
	form := regexp.MustCompile(`^([0-9]+)(KiB|MiB|GiB|)$`)
	f.Fuzz(func(t *testing.T, text string) {
		want := big.NewInt(-1)
		if m := form.FindStringSubmatch(text); m != nil {
			want.SetString(m[1], 10)
			want.Lsh(want, map[string]uint{"": 0, "KiB": 10, "MiB": 20, "GiB": 30}[m[2]])
		}
		got := Size(-1)
		err := got.UnmarshalText([]byte(text))
		if (err == nil) != (want.Sign() >= 0 && want.IsInt64()) || err == nil && int64(got) != want.Int64() {
			t.Fatalf("%q is read as %d, %v, want %s", text, got, err, want)
		}
		var again Size
		if err == nil && (again.UnmarshalText([]byte(got.String())) != nil || again != got) {
			t.Fatalf("%d is written as %s, which is read as %d", got, got, again)
		}
	})
}

// FuzzScalar holds the other single values against what Go says they are.
func FuzzScalar(f *testing.F) {
	for _, s := range []string{"true", "True", "7", "-7", "+7", "007", "0.5", "1e400", "NaN", "0x1p-2", "500ms", "1h2m", "-1s", "9223372036s", "10.0.0.0/8", "10.0.0.1/8", "::ffff:10.0.0.0/104", "::ffff:0:0/95", "192.0.2.1", "fe80::1%eth0", "10.0.0.0/08", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var flag bool
		if err := setScalar(&flag, text); (err == nil) != (text == "true" || text == "false") || flag != (text == "true") {
			t.Errorf("%q is read as %t, %v", text, flag, err)
		}
		var n int
		if err := setScalar(&n, text); err == nil && new(big.Int).SetInt64(int64(n)).String() != strings.TrimLeft(strings.Replace("+"+text, "+-", "-", 1), "+") &&
			!regexp.MustCompile(`^[+-]?0*`+strings.TrimLeft(strconv.Itoa(n), "-")+`$`).MatchString(text) {
			t.Errorf("%q is read as %d", text, n)
		}
		var share float64
		if err := setScalar(&share, text); err == nil {
			want, wantErr := strconv.ParseFloat(text, 64)
			if wantErr != nil || want != share && !(math.IsNaN(want) && math.IsNaN(share)) {
				t.Errorf("%q is read as %v, want %v, %v", text, share, want, wantErr)
			}
		}
		var d time.Duration
		if err := setScalar(&d, text); err == nil {
			var again time.Duration
			if d < 0 || setScalar(&again, d.String()) != nil || again != d {
				t.Errorf("%q is read as %s, which is read as %s", text, d, again)
			}
		}
		checkBlock(t, text)
	})
}

// checkBlock holds a block against net's reading of it: the first address of it is in
// both, and its neighbour in neither.
func checkBlock(t *testing.T, text string) {
	t.Helper()
	var block netip.Prefix
	err := setScalar(&block, text)
	addr, addrErr := netip.ParseAddr(text)
	_, network, cidrErr := net.ParseCIDR(text)
	if err != nil {
		if addrErr == nil && addr.Zone() == "" {
			t.Errorf("%q is refused: %v", text, err)
		}
		return
	}
	if addrErr == nil {
		if !block.IsSingleIP() || block.Addr() != addr.Unmap() {
			t.Errorf("%q is read as %s", text, block)
		}
		return
	}
	if block.Addr().Is4In6() {
		return // of more than the mapped addresses: net has no such block
	}
	if cidrErr != nil {
		t.Fatalf("%q is read as %s, but: %v", text, block, cidrErr)
	}
	first := block.Masked().Addr()
	for _, ip := range []netip.Addr{first, first.Prev(), block.Addr()} {
		if ip.IsValid() && block.Contains(ip) != network.Contains(ip.AsSlice()) {
			t.Errorf("%q is read as %s, net has it as %s; %s is in one of them", text, block, network, ip)
		}
	}
}

// FuzzExpand holds the replacing of ${NAME} against regular expressions.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "a", "${A}", "x${A}${B}y", "$${A}", "$$${A}", "$$$${A}", "${A", "${}", "${1A}", "${UNSET}", "$", "${A}}", "${${A}}", "$A", "$${", "${a-b}"} {
		f.Add(s)
	}
	place := regexp.MustCompile(`\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{`)
	env := map[string]string{"A": "a}${B}", "B": "", "_9": "$${A}"}
	f.Fuzz(func(t *testing.T, text string) {
		ok := true
		want := place.ReplaceAllStringFunc(text, func(found string) string {
			if found == "$${" {
				return "${"
			}
			value, set := env[strings.Trim(found, "${}")]
			ok = ok && set
			return value
		})
		got, err := expand(text, func(name string) (string, bool) { value, set := env[name]; return value, set })
		if (err == nil) != ok || err == nil && got != want {
			t.Errorf("%q becomes %q, %v, want %q, %t", text, got, err, want, ok)
		}
	})
}

// FuzzPattern requires of a path that is taken for a route that fasthttp/router, whose
// syntax it has, takes it too, and that its shape is one for every naming of its
// parameters.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{"/", "/a/b/", "/{x}", "/{x}/{y}", "/{x:[0-9]{3}/?}", "/{x:(?:a|b)}", "/{x:(a)}", "/{r:*}", "/{r:*}/a", "/a{x}", "/{x?}", "/{x}/{x}", "//", "/.", "/a%2fb", "/%zz", "/{", "/}", "/{}", "/{x:}", "/{a:{}}", "/é", "/a*", "a", "/{x:[0-9]{?}/?}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		shape, err := parsePattern(path)
		if err != nil {
			if err.Error() == "" || shape != "" {
				t.Errorf("%q is refused with %q, %v", path, shape, err)
			}
			return
		}
		nested := regexp.MustCompile(`\{[^{}]*\{`).MatchString(path) // where an expression may have what looks like a parameter
		func() {
			defer func() {
				if p := recover(); p != nil && !(nested && strings.Contains(path, "?")) { // one to be left out, to the router
					t.Errorf("%q is taken, but by fasthttp/router: %v", path, p)
				}
			}()
			router.New().GET(path, func(*fasthttp.RequestCtx) {})
		}()
		renamed := regexp.MustCompile(`/\{([A-Za-z0-9_.-]+)([:}])`).ReplaceAllString(path, "/{r$1$2")
		if again, err := parsePattern(renamed); !nested && (err != nil || again != shape) {
			t.Errorf("%q has the shape %q, but %q has %q, %v", path, shape, renamed, again, err)
		}
		if again, err := parsePattern(strings.TrimSuffix(path, "/") + "/"); !strings.HasSuffix(shape, "{*}") && (err != nil || again != shape) {
			t.Errorf("%q has the shape %q, but with a slash at its end %q, %v", path, shape, again, err)
		}
	})
}

// FuzzAddresses holds hosts with ports, addresses to listen on and upstreams' targets
// against net, netip and net/url.
func FuzzAddresses(f *testing.F) {
	for _, s := range []string{"h", "h:80", "h:0", "h:65536", ":80", "[::1]:80", "[::1]", "[::1", "::1", "[fe80::1%eth0]:1", "h.example.", "-h", "a..b", "http://h", "http://h:80", "https://[::1]:1", "http://u:p@h", "http://h/", "http://h?", "http://h#", "http://h:", "http://h:+1", "ftp://h", "H:+1", "0.0.0.0:08"} {
		f.Add(s)
	}
	name := regexp.MustCompile(`^[0-9a-z_]([0-9a-z_-]*[0-9a-z_])?(\.[0-9a-z_]([0-9a-z_-]*[0-9a-z_])?)*$`)
	f.Add("http://h%80")
	f.Add("http://h%25")
	f.Add("https://[fe80::1%25eth0]:1")
	f.Add("https://[fe80::1%25%25eth0]:1")
	f.Add("http://[fe80::1%25%41]")
	f.Fuzz(func(t *testing.T, text string) {
		if isHostAndPort(text) {
			host, port, err := net.SplitHostPort(text)
			if err != nil {
				host, port = strings.Trim(text, "[]"), "1"
			}
			addr, addrErr := netip.ParseAddr(host)
			if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || !name.MatchString(host) && (addrErr != nil || addr.Zone() != "") {
				t.Errorf("%q is taken for a host, %q, and port, %q", text, host, port)
			}
		}
		if host, port, err := splitAddress(text); err == nil {
			wantHost, wantPort, splitErr := net.SplitHostPort(text)
			n, numberErr := strconv.Atoi(wantPort)
			if splitErr != nil || numberErr != nil || n != port || port < 0 || port > 65535 || host != strings.ToLower(wantHost) && netip.MustParseAddr(host) != netip.MustParseAddr(wantHost).Unmap() {
				t.Errorf("%q is taken for the address of %q, port %d", text, host, port)
			}
		}
		if targetProblem(text) == "" {
			u, err := url.Parse(text)
			plain, escapeErr := url.PathUnescape(text) // a zone may be escaped in many ways
			if err != nil || escapeErr != nil || !strings.EqualFold(plain, u.Scheme+"://"+u.Host) || u.Hostname() == "" {
				t.Errorf("%q is taken for a target: %+v, %v, %v", text, u, err, escapeErr)
			}
		}
	})
}

// FuzzTokenDigest holds digests in the file to their form, and tokens to what a client
// can send.
func FuzzTokenDigest(f *testing.F) {
	good := strings.Repeat("0f", 32)
	for _, s := range []string{good, "sha256:" + good, "sha256:sha256:" + good, strings.ToUpper(good), good[1:], good + "\n", "a-token-of-some-length", "a token of some length", "short", "", "character"} {
		f.Add(s)
	}
	form := regexp.MustCompile(`^(sha256:)?[0-9a-fA-F]{64}$`)
	token := regexp.MustCompile(`^[!-~]{16,}$`)
	f.Fuzz(func(t *testing.T, text string) {
		digest, err := parseDigest(text)
		if (err == nil) != form.MatchString(text) && !strings.Contains(strings.ToLower(text), "e3b0c44298fc1c14") {
			t.Errorf("%q: %x, %v", text, digest, err)
		}
		if err == nil {
			if again, err := parseDigest(strings.ToLower(text)); err != nil || again != digest {
				t.Errorf("%q is read as %x, in lower case as %x, %v", text, digest, again, err)
			}
		}
		_, short := TokenDigest("")
		_, wrong := TokenDigest(" a token with spaces ")
		said := fmt.Sprint(short, wrong) // whatever the token
		_, err = TokenDigest(text)
		if (err == nil) != token.MatchString(text) {
			t.Errorf("%q as a token: %v", text, err)
		}
		if err != nil && len(text) > 8 && strings.Contains(err.Error(), text) && !strings.Contains(said, text) {
			t.Errorf("%q: the error shows it: %v", text, err)
		}
	})
}

// FuzzProfile writes a profile by other means, which must be read as what it was
// written of.
func FuzzProfile(f *testing.F) {
	f.Add("http://127.0.0.1:8081", "a-token", "")
	f.Add("http://h:1", "", "/etc/token # of mine")
	f.Add("${HOME}", "$${", "")
	f.Add("0042", "true", "")
	f.Add("a: b\n- c", "~", "")
	f.Add("\xc3", "\xa9", "") // one letter, only put together
	f.Fuzz(func(t *testing.T, server, token, tokenFile string) {
		want := Profile{Server: server, Token: token, TokenFile: tokenFile}
		text, err := json.Marshal(map[string]string{"server": escape(server), "token": escape(token), "token_file": escape(tokenFile)})
		if err != nil || !utf8.ValidString(server) || !utf8.ValidString(token) || !utf8.ValidString(tokenFile) {
			return
		}
		file := filepath.Join(t.TempDir(), "profile.yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := LoadProfile(file)
		if token != "" && tokenFile != "" {
			if err == nil {
				t.Errorf("%s is taken", text)
			}
			return
		}
		if err != nil || *p != want {
			t.Errorf("%s is read as %+v, %v, want %+v", text, p, err, want)
		}
	})
}

// escape writes text so that nothing in it is replaced.
func escape(text string) string { return strings.ReplaceAll(text, "${", "$${") }
