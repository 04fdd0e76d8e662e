package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"latchkey/apikey"
)

// maxEdits is how many edits a history over HTTP may make: each has a version of the
// upstream's API for itself.
const maxEdits = 200

// servedKeys are the keys of a whole gateway, used, read and changed over HTTP.
type servedKeys struct {
	*gateway
	client *http.Client
	others []string // secrets of keys that push each other out of the cache
}

func serveKeys(t *testing.T) *servedKeys {
	t.Helper()
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Seen-Version", r.Header.Get("X-Api-Version"))
	}))
	t.Cleanup(echo.Close)
	cfg := testConfig(t, echo.URL)
	cfg.Proxy.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} // so that a client can say where it is
	cfg.Store.CacheBytes = 5 << 10                                                  // about eight keys
	cfg.Admin.Peach.APIVersions = nil
	for n := 1; n <= maxEdits; n++ {
		cfg.Admin.Peach.APIVersions = append(cfg.Admin.Peach.APIVersions, pinned(n))
	}
	g := &servedKeys{gateway: startGateway(t, cfg), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	t.Cleanup(g.client.CloseIdleConnections)
	for range 20 {
		k, err := issue(g.client, g.admin)
		if err != nil {
			t.Fatal(err)
		}
		g.others = append(g.others, k.Key)
	}
	return g
}

// begin returns what performs the calls of a history, on keys of its own.
func (g *servedKeys) begin() func(keyCall) keyAnswer {
	var made [generations]issued // written before anyone is told of them
	return func(c keyCall) keyAnswer {
		key := made[c.generation]
		switch c.what {
		case doUse:
			if rand.IntN(3) == 0 {
				g.use(g.others[rand.IntN(len(g.others))], 1)
			}
			return g.use(key.Key, c.from)
		case doRead:
			return g.read(key.ID)
		case doIssue:
			k, err := issue(g.client, g.admin)
			if err != nil {
				return told(err)
			}
			made[0] = k
			return keyAnswer{result: done}
		case doEdit:
			return g.change("PUT", "/api/keys/"+key.ID, 200, fmt.Sprintf(`{"apiVersion": %q, "whitelistedIPs": [%q]}`,
				pinned(c.value), address(listed(c.value))), nil)
		case doRotate:
			var heir struct {
				ID  string `json:"new_key_id"`
				Key string
			}
			got := g.change("POST", "/v1/api-keys/"+key.ID+"/rotate", 201, fmt.Sprintf(`{"grace_period_minutes": %d}`, 60*c.grace), &heir)
			if got.result == done {
				made[c.generation+1] = issued{heir.ID, heir.Key}
			}
			return got
		}
		return g.change("DELETE", "/api/keys/"+key.ID, 204, "", nil)
	}
}

// use sends a request through the gateway from an address.
func (g *servedKeys) use(key string, from int) keyAnswer {
	req, err := http.NewRequest("GET", g.proxy+"/", nil)
	if err != nil {
		return told(err)
	}
	req.Header.Set("X-API-Key", key)
	req.Header.Set("X-Forwarded-For", address(from).String())
	res, err := g.client.Do(req)
	if err != nil {
		return told(err)
	}
	defer res.Body.Close()
	if res.StatusCode == 200 {
		return keyAnswer{allowed, g.valueOf(res.Header.Get("X-Seen-Version"))}
	}
	var p struct{ Code string }
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
		return told(err)
	}
	return keyAnswer{result: p.Code}
}

// valueOf returns the edit that a version shows. New keys have the newest.
func (g *servedKeys) valueOf(version string) int { return valueOf(version) % maxEdits }

// read asks the admin plane how a key is.
func (g *servedKeys) read(id string) keyAnswer {
	res, err := call(g.client, "GET", g.admin+"/api/keys/"+id, "")
	if err != nil {
		return told(err)
	}
	defer res.Body.Close()
	var k struct {
		Status, APIVersion string
		DeletedAt          *string
	}
	if err := json.NewDecoder(res.Body).Decode(&k); err != nil || res.StatusCode != 200 {
		return told(fmt.Errorf("read answered %s, %w", res.Status, err))
	}
	switch {
	case k.Status == "active":
		return keyAnswer{allowed, g.valueOf(k.APIVersion)}
	case k.DeletedAt != nil:
		return keyAnswer{result: revokedKey}
	}
	return keyAnswer{result: rotatedKey}
}

// change makes a call at the admin plane. One in ten does not wait for its answer.
func (g *servedKeys) change(method, path string, want int, body string, into any) keyAnswer {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if rand.IntN(10) == 0 {
		leave := time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, cancel)
		defer leave.Stop()
	}
	req, err := http.NewRequestWithContext(ctx, method, g.admin+path, strings.NewReader(body))
	if err != nil {
		return told(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	res, err := g.client.Do(req)
	var answer []byte
	if err == nil {
		defer res.Body.Close()
		if answer, err = io.ReadAll(res.Body); err == nil && into != nil && res.StatusCode == want {
			err = json.Unmarshal(answer, into)
		}
	}
	switch {
	case ctx.Err() != nil && err != nil:
		return keyAnswer{result: lost}
	case err != nil:
		return told(err)
	case res.StatusCode == want:
		return keyAnswer{result: done}
	case res.StatusCode == 404 && method == "DELETE", res.StatusCode == 409, res.StatusCode == 400 && strings.Contains(string(answer), "no longer active"):
		return keyAnswer{result: notLive}
	}
	return keyAnswer{result: res.Status} // which no law explains
}

// TestKeysAreRegistersOverHTTP is TestKeysAreRegisters on the two planes of a whole
// gateway. Some clients leave before their change is answered.
func TestKeysAreRegistersOverHTTP(t *testing.T) {
	g := serveKeys(t)
	n := max(1, recorded()/4) // which take as long as four in the process
	calls, results := 0, map[string]int{}
	for seed := range n {
		history := keyLoad{seed: uint64(seed), clients: 6, calls: 12, alone: true}.run(g.begin())
		if !lawful(t, history) {
			t.Fatalf("history %d has no order that explains it:\n%s", seed, described(history))
		}
		for _, c := range history {
			results[c.Input.(keyCall).what+": "+c.Output.(keyAnswer).result]++
		}
		calls += len(history)
	}
	t.Logf("%d histories, %d calls: %v", n, calls, results)
}

// TestTheHistoriesCatchABrokenGatewayOverHTTP unplugs the cache from the store.
func TestTheHistoriesCatchABrokenGatewayOverHTTP(t *testing.T) {
	g := serveKeys(t)
	g.app.store.Notify(deaf{})
	for seed := range 500 {
		if !lawful(t, keyLoad{seed: uint64(seed), clients: 6, calls: 12, alone: true}.run(g.begin())) {
			t.Logf("history %d was rejected", seed)
			return
		}
	}
	t.Error("500 histories were accepted; they prove nothing")
}

// deaf is a watcher who passes nothing on.
type deaf struct{}

func (deaf) Changing(*apikey.Digest) {}
func (deaf) Changed(*apikey.Digest)  {}
