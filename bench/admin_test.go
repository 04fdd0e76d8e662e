package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"latchkey/apikey"
)

var (
	creates = flag.Int("creates", 50_000, "keys made by BenchmarkAdmin")
	pages   = flag.Int("pages", 2_000, "pages read by BenchmarkAdmin")
)

// BenchmarkAdmin runs the real binary over the store, all of whose keys are of
// one tenant, and times calls of the admin plane over HTTP: keys made on 64
// connections, and pages of 100 keys, from anywhere in the list, on one.
func BenchmarkAdmin(b *testing.B) {
	g := startGateway(b, storePath(b))
	b.Run("create", func(b *testing.B) {
		for b.Loop() {
			began := time.Now()
			var wg sync.WaitGroup
			for range 64 {
				wg.Go(func() {
					c := dialAdmin(b, g.admin)
					defer c.Close()
					for range *creates / 64 {
						c.call(b, "POST", "/api/keys", `{"userId": "user-1", "description": "ci deploy key", "whitelistedIPs": ["10.0.0.0/8"]}`, 201)
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(*creates/64*64)/time.Since(began).Seconds(), "keys/s")
		}
	})
	cursors := sampleIDs(b, g.admin)
	for name, target := range map[string]string{
		"list-peach":  "/api/keys?limit=100&startingAfter=%s",
		"list-strait": "/v1/api-keys?project_id=acme&limit=100&cursor=%s",
	} {
		b.Run(name, func(b *testing.B) {
			c := dialAdmin(b, g.admin)
			defer c.Close()
			for b.Loop() {
				times := make([]time.Duration, *pages)
				for i := range times {
					cursor := cursors[rand.IntN(len(cursors))]
					began := time.Now()
					body := c.call(b, "GET", fmt.Sprintf(target, cursor), "", 200)
					times[i] = time.Since(began)
					if i == 0 && bytes.Count(body, []byte(`"created`)) != 100 {
						b.Fatalf("a page has %d keys: %.300s", bytes.Count(body, []byte(`"created`)), body)
					}
				}
				slices.Sort(times)
				b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(times[len(times)*99/100].Microseconds())/1000, "p99-ms")
			}
		})
	}
	g.stop(b)
}

// BenchmarkImport imports keyCount keys into an empty gateway, line by line and
// all or nothing, and exports them.
func BenchmarkImport(b *testing.B) {
	for _, target := range []string{"/import", "/import?atomic=true"} {
		b.Run(target[1:], func(b *testing.B) {
			for b.Loop() {
				g := startGateway(b, filepath.Join(b.TempDir(), "store"))
				before := residentMiB(b, g.Process.Pid, "VmRSS")
				began := time.Now()
				pr, pw := io.Pipe()
				go func() {
					w := bufio.NewWriterSize(pw, 64<<10)
					for n := range *keyCount {
						d := apikey.DigestOf(fmt.Appendf(nil, "imported secret %d", n))
						fmt.Fprintf(w, `{"sha256":"%x","tenant":"acme","name":"ci","environment":"live","subject":"u1","scopes":["orders:read"],"allowed_ips":["10.0.0.0/8"]}`+"\n", d[:])
					}
					w.Flush()
					pw.Close()
				}()
				req, err := http.NewRequest("POST", "http://"+g.admin+target, pr)
				if err != nil {
					b.Fatal(err)
				}
				lines := fetch(b, req)
				if lines != *keyCount {
					b.Fatalf("%d lines were answered", lines)
				}
				b.ReportMetric(float64(lines)/time.Since(began).Seconds(), "keys/s")
				b.ReportMetric(residentMiB(b, g.Process.Pid, "VmHWM")-before, "rss-grown-MiB")
				began = time.Now()
				req, err = http.NewRequest("GET", "http://"+g.admin+"/export", nil)
				if err != nil {
					b.Fatal(err)
				}
				if lines := fetch(b, req); lines != *keyCount {
					b.Fatalf("%d keys were exported", lines)
				}
				b.ReportMetric(float64(lines)/time.Since(began).Seconds(), "exported/s")
				g.stop(b)
			}
		})
	}
}

// fetch makes the call and returns how many lines its answer has.
func fetch(b *testing.B, req *http.Request) (lines int) {
	b.Helper()
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	req.Header.Set("Content-Type", "application/x-ndjson")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 500))
		b.Fatalf("%s %s", res.Status, text)
	}
	for s := bufio.NewScanner(res.Body); s.Scan(); {
		lines++
	}
	return lines
}

// sampleIDs returns the IDs of keys from all over the list.
func sampleIDs(b *testing.B, admin string) (ids []string) {
	c := dialAdmin(b, admin)
	defer c.Close()
	for range 50 {
		offset := rand.IntN(*keyCount - 200)
		var page struct{ Data []struct{ ID string } }
		if err := json.Unmarshal(c.call(b, "GET", fmt.Sprintf("/api/keys?limit=20&offset=%d", offset), "", 200), &page); err != nil {
			b.Fatal(err)
		}
		for _, k := range page.Data {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// An adminConn is a connection to the admin plane.
type adminConn struct {
	net.Conn
	r *bufio.Reader
}

func dialAdmin(b *testing.B, addr string) *adminConn {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	return &adminConn{c, bufio.NewReader(c)}
}

func (c *adminConn) call(b *testing.B, method, target, body string, want int) []byte {
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nX-Latchkey-Tenant: acme\r\nContent-Length: %d\r\n\r\n%s",
		method, target, operatorToken, len(body), body)
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		b.Fatal(err)
	}
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != want {
		b.Fatalf("%s %s: %s %s, %v", method, target, res.Status, answer, err)
	}
	return answer
}
