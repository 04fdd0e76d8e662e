package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"latchkey/apikey"
	"latchkey/bench/soak"
)

// A soakRun is the load of TestSoak. What several goroutines touch is under the
// site's lock.
type soakRun struct {
	notes
	*crashSite
	up      *mortal
	kill    func()
	version int // of the configuration in force
	format  apikey.SecretFormat
	asked   atomic.Int64

	pool       []*soakKey // that are good
	over       []string   // secrets of the latest keys that were revoked or rotated, and what refuses each
	overBy     []string
	now        soak.Sample // what has been counted since the last one
	took       []time.Duration
	down, back time.Time // the latest restart of the upstream; back is zero while it lasts
	told       int       // errors that were reported
}

// A soakKey is a key that requests are made with.
type soakKey struct {
	issued
	changes atomic.Int32 // odd while a change that could refuse it is under way, or has ended it
}

const (
	overKept = 200             // so many keys that are over are tried again and again
	settling = 1 * time.Second // until the gateway has seen all connections of a killed upstream end
)

func newSoakRun(t *testing.T) *soakRun {
	m := &mortal{t: t, addr: "127.0.0.1:0"}
	s := &soakRun{up: m, kill: m.live(), format: apikey.NewSecretFormat("lk"), now: blankSample()}
	t.Cleanup(func() { s.kill() })
	s.crashSite = newSite(t, "")
	s.store = ", cache_bytes: 1MiB, block_cache_bytes: 1MiB" // which are full within minutes, or they would grow for days
	s.write(soakSite(0, "http://"+m.addr, ""))
	// Connections rest for less than the gateway's own limit, which would end them.
	// How long an answer takes is for the series to say; only one that never comes is wrong.
	s.client = &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 20 * time.Second}}
	return s
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func blankSample() soak.Sample {
	return soak.Sample{Explained: map[string]int{}, Unexplained: map[string]int{}}
}

// fill issues the keys to begin with.
func (s *soakRun) fill(n int) {
	s.t.Helper()
	for range n {
		k, err := issue(s.client, s.admin)
		if err != nil {
			s.t.Fatal(err)
		}
		s.pool = append(s.pool, &soakKey{issued: k})
	}
}

// requests makes requests at the rate, whether or not the ones before were answered.
func (s *soakRun) requests(stop <-chan struct{}) {
	var all sync.WaitGroup
	defer all.Wait()
	begun := time.Now()
	for n := 0; ; n++ {
		from := begun.Add(time.Duration(n) * time.Second / time.Duration(*soakRate))
		wait := time.Until(from)
		if wait > 0 {
			select {
			case <-stop:
				return
			case <-time.After(wait):
			}
		}
		late := time.Since(from)
		s.note(func() { s.now.Late = max(s.now.Late, milliseconds(late)) })
		if wait > 0 {
			from = from.Add(late) // that the timer is late is not the gateway's doing
		}
		all.Go(func() { s.request(n, from) })
	}
}

// request makes the n-th request: one of ten with a made-up key, one of twenty with
// one that is over, and the rest, every fourth of them with a body, with good ones.
func (s *soakRun) request(n int, from time.Time) {
	method := "GET"
	if n%4 == 3 {
		method = "POST"
	}
	switch {
	case n%10 == 0:
		entropy := [32]byte{}
		for i := range entropy {
			entropy[i] = byte(rand.Uint32())
		}
		secret := s.format.New(apikey.EnvironmentLive, entropy)
		if n%20 == 0 {
			secret = secret[:len(secret)-1] + "-" // which its spelling gives away
		}
		s.ask(method, secret, apikey.InvalidKey.String(), from, nil)
	case n%20 == 5:
		secret, by := "", ""
		s.note(func() {
			if len(s.over) > 0 {
				i := rand.IntN(len(s.over))
				secret, by = s.over[i], s.overBy[i]
			}
		})
		if secret != "" {
			s.ask(method, secret, by, from, nil)
		}
	default:
		k := s.pick()
		s.ask(method, k.Key, "", from, k)
	}
}

func (s *soakRun) pick() (k *soakKey) {
	s.note(func() { k = s.pool[rand.IntN(len(s.pool))] })
	return k
}

// ask makes a request that is to be refused with the code, or admitted if that is
// empty, and counts it. A key that is changed meanwhile may be either.
func (s *soakRun) ask(method, secret, code string, from time.Time, k *soakKey) {
	before := int32(0)
	if k != nil {
		before = k.changes.Load()
	}
	id := fmt.Sprint("soak-", s.asked.Add(1))
	status, body, err := askWithID(s.client, method, s.proxy, id, secret)
	ended := time.Now()
	s.note(func() { s.took = append(s.took, ended.Sub(from)) })
	var refusal struct{ Code string }
	switch {
	case err != nil:
		s.wrong(from, 0, method+", no answer", err.Error())
		return
	case status == 200:
		if body != id {
			s.wrong(from, 0, method+", another's answer", fmt.Sprintf("%s was answered %.80q", id, body))
			return
		}
	default:
		if err := json.Unmarshal([]byte(body), &refusal); err != nil || refusal.Code == "" {
			refusal.Code = "without a code"
		}
	}
	changing := k != nil && (before%2 == 1 || k.changes.Load() != before)
	if refusal.Code != code && (!changing || status >= 500) {
		kind := fmt.Sprint(method, " ", status, " ", refusal.Code)
		if status < 500 {
			kind += ", want " + cmp.Or(code, "200")
		}
		s.wrong(from, status, kind, id)
	}
}

// wrong counts an answer that is not the one that is due. A restart of the upstream
// explains that there is none of the upstream's.
func (s *soakRun) wrong(from time.Time, status int, kind, detail string) {
	s.note(func() {
		during := !s.down.IsZero() && (s.back.IsZero() || from.Before(s.back.Add(settling)))
		if during && (status == 502 || status == 503 || status == 504) {
			s.now.Explained[kind]++
			return
		}
		s.now.Unexplained[kind]++
		if s.told++; s.told <= 20 { // the first ones tell
			s.t.Errorf("%v: %s: %s", time.Now().UTC().Format(time.TimeOnly), kind, detail)
		}
	})
}

// changes changes keys, fifteen times less often than requests are made.
func (s *soakRun) changes(stop <-chan struct{}) {
	tick := time.NewTicker(15 * time.Second / time.Duration(*soakRate))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		what := []func() error{s.issueOne, s.patchOne, s.rotateOne, s.revokeOne}[n%4]
		if err := what(); err != nil {
			s.wrong(time.Now(), 0, "a change of a key", err.Error())
			continue
		}
		s.note(func() { s.now.Changes++ })
	}
}

func (s *soakRun) issueOne() error {
	made, err := issue(s.client, s.admin)
	if err != nil {
		return err
	}
	s.ask("GET", made.Key, "", time.Now(), nil)
	s.note(func() { s.pool = append(s.pool, &soakKey{issued: made}) })
	return nil
}

// patchOne limits a key to other addresses, and lifts that again.
func (s *soakRun) patchOne() error {
	k := s.pick()
	k.changes.Add(1)
	for _, step := range []struct{ body, code string }{
		{`{"ips": ["192.0.2.0/24"]}`, apikey.IPNotAllowed.String()}, {`{"ips": []}`, ""},
	} {
		if _, err := s.change("PATCH", "/keys/"+k.ID, step.body, 200); err != nil {
			return err
		}
		s.ask("GET", k.Key, step.code, time.Now(), nil)
	}
	k.changes.Add(1)
	return nil
}

// rotateOne rotates a key without a grace.
func (s *soakRun) rotateOne() error {
	k := s.take()
	answer, err := s.change("POST", "/v1/api-keys/"+k.ID+"/rotate", `{"grace_period_minutes": 0}`, 201)
	if err != nil {
		return err
	}
	var made struct {
		ID  string `json:"new_key_id"`
		Key string `json:"key"`
	}
	if err := json.Unmarshal(answer, &made); err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	s.end(k, apikey.RotatedKey)
	s.ask("GET", made.Key, "", time.Now(), nil)
	s.note(func() { s.pool = append(s.pool, &soakKey{issued: issued{made.ID, made.Key}}) })
	return nil
}

func (s *soakRun) revokeOne() error {
	k := s.take()
	if err := revoke(s.client, s.admin, k.ID); err != nil {
		return err
	}
	s.end(k, apikey.RevokedKey)
	return nil
}

// take removes a key from the pool, before it is ended.
func (s *soakRun) take() (k *soakKey) {
	s.note(func() {
		i := rand.IntN(len(s.pool))
		k = s.pool[i]
		s.pool[i] = s.pool[len(s.pool)-1]
		s.pool = s.pool[:len(s.pool)-1]
		k.changes.Add(1)
	})
	return k
}

// end tries a key whose end was acknowledged, and remembers it for more tries.
func (s *soakRun) end(k *soakKey, by apikey.Verdict) {
	s.ask("GET", k.Key, by.String(), time.Now(), nil)
	s.note(func() {
		s.over, s.overBy = append(s.over, k.Key), append(s.overBy, by.String())
		if n := len(s.over) - overKept; n > 0 {
			s.over, s.overBy = s.over[n:], s.overBy[n:]
		}
	})
}

// change makes a call of the admin plane.
func (s *soakRun) change(method, path, body string, want int) ([]byte, error) {
	res, err := call(s.client, method, s.admin+path, body)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != want {
		err = fmt.Errorf("%s answered %s", method, res.Status)
	}
	return answer, err
}
