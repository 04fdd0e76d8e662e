package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"latchkey/apikey"
)

// An order is a creation with an Idempotency-Key.
type order struct{ name, body string }

// ordered begins the names of keys that were made by an order.
const ordered = "order "

// A refused is an answer that is not the one that was asked for.
type refused struct {
	status int
	text   string
}

func (r *refused) Error() string { return fmt.Sprintf("answered %d %s", r.status, r.text) }

// ask makes a call of the admin plane, with an Idempotency-Key if there is one, and
// reads the answer into out if that is not nil. An answer that says that the call
// has failed is a *refused; any other error means that there is none.
func (s *crashSite) ask(method, path, body, once string, out any) (http.Header, error) {
	req, err := http.NewRequest(method, s.admin+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	if once != "" {
		req.Header.Set("Idempotency-Key", once)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode >= 300:
		return nil, &refused{res.StatusCode, string(text)}
	case out != nil:
		err = json.Unmarshal(text, out)
	}
	return res.Header, err
}

// load makes and changes keys until the gateway is gone.
func (l *ledger) load(stop <-chan struct{}) {
	for going := true; going; {
		select {
		case <-stop:
			return
		default:
		}
		var a *account
		if rand.IntN(4) > 0 || l.crowded() {
			a = l.take()
		}
		switch action := rand.IntN(20); {
		case a == nil:
			going = l.issue()
		case action < 3:
			going = l.revoke(a)
		case action < 5 && !a.replaced:
			going = l.rotate(a, action%2) // minutes; without grace the old key ends at once
		default:
			going = l.patch(a)
		}
	}
}

// crowded reports whether there are keys enough: they make the checks slow.
func (l *ledger) crowded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.idle) > 300
}

// issue makes a key: for good, for a few seconds, or by an order and on a schedule.
// It reports whether it was answered.
func (l *ledger) issue() bool {
	switch rand.IntN(3) {
	case 0:
		return l.create(order{body: `{"name": "plain"}`})
	case 1:
		soon := time.Now().Add(time.Second + rand.N(2*time.Second))
		return l.create(order{body: fmt.Sprintf(`{"name": "brief", "expires_at": %q}`, soon.UTC().Format(time.RFC3339Nano))})
	}
	name := fmt.Sprintf("%s%x", ordered, rand.Uint64())
	return l.create(order{name, fmt.Sprintf(`{"name": %q, "rotation_interval_days": 30, "rotation_webhook_url": "https://hooks.example.com/"}`, name)})
}

func (l *ledger) create(o order) bool {
	err := l.send(o)
	if answer := (*refused)(nil); errors.As(err, &answer) {
		l.t.Errorf("create %s: %v", o.body, err)
	}
	if err == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unanswered++
	if o.name != "" {
		l.orders = append(l.orders, o)
	}
	return false
}

// send makes a key and notes it.
func (l *ledger) send(o order) error {
	var k struct {
		ID, Key, Name string
		ExpiresAt     time.Time `json:"expires_at"`
	}
	once := strings.ReplaceAll(o.name, " ", "-")
	h, err := l.ask("POST", "/v1/api-keys", o.body, once, &k)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.accounts[k.ID]; known != nil {
		if known.Key != k.Key {
			l.t.Errorf("key %s: its order, repeated, is answered with another secret", k.ID)
		}
		return nil
	}
	if h.Get("Idempotent-Replayed") != "" {
		l.done++ // by a call that was not answered, whose ID is not known
	} else {
		l.acknowledged(h, entry{apikey.ActionCreated, k.ID})
	}
	l.opened(&account{issued: issued{k.ID, k.Key}, standing: standing{name: k.Name, expires: k.ExpiresAt}})
	return nil
}

// acknowledged notes what the audit log is to have of a call.
func (l *ledger) acknowledged(h http.Header, is ...entry) {
	l.calls[h.Get("X-Request-Id")] = is
	l.answered.Add(1)
	for _, e := range is {
		l.tally[e.action]++
	}
}

// change makes a call that is to turn a key into next, and reports whether it was
// answered. What follows from the answer is left to noted.
func (l *ledger) change(a *account, next standing, method, path, body string, out any, noted func(next *standing) []entry) bool {
	a.asked = &next
	h, err := l.ask(method, path, body, "", out)
	l.mu.Lock()
	defer l.mu.Unlock()
	if answer := (*refused)(nil); errors.As(err, &answer) {
		if end := a.ends(); !end.IsZero() && !time.Now().Before(end) {
			return true // too late
		}
		l.t.Errorf("%s %s: %v; the key stands as %s", method, path, err, a.standing)
	}
	if err != nil {
		l.unanswered++
		l.doubtful = append(l.doubtful, a)
		return false
	}
	l.acknowledged(h, noted(&next)...)
	l.changed(a, next)
	return true
}

// patch changes name and allowlist through one of the dialects.
func (l *ledger) patch(a *account) bool {
	next := a.standing
	next.name = fmt.Sprintf("patched %x", rand.Uint64())
	next.ips = []string{"", "127.0.0.0/8", "10.0.0.0/8,127.0.0.0/8", "10.0.0.0/8"}[rand.IntN(4)]
	ips := "[]"
	if next.ips != "" {
		ips = `["` + strings.ReplaceAll(next.ips, ",", `","`) + `"]`
	}
	method, path, body := "PATCH", "/keys/"+a.ID, fmt.Sprintf(`{"alias": %q, "ips": %s}`, next.name, ips)
	if rand.IntN(2) == 0 {
		method, path, body = "PUT", "/api/keys/"+a.ID, fmt.Sprintf(`{"apiVersion": "2024-05-22", "description": %q, "whitelistedIPs": %s}`, next.name, ips)
	}
	return l.change(a, next, method, path, body, nil, func(*standing) []entry { return []entry{{apikey.ActionUpdated, a.ID}} })
}

func (l *ledger) revoke(a *account) bool {
	next := a.standing
	next.revoked = true
	return l.change(a, next, "DELETE", "/v1/api-keys/"+a.ID, "", nil, func(*standing) []entry { return []entry{{apikey.ActionRevoked, a.ID}} })
}

// rotate replaces the key, which goes on admitting for so many minutes; none if it
// expires before that, so that there is one way for it to end.
func (l *ledger) rotate(a *account, minutes int) bool {
	if !a.expires.IsZero() {
		minutes = 0
	}
	next := a.standing
	next.replaced = true
	var r struct {
		NewKeyID  string `json:"new_key_id"`
		Key, Name string
		GraceEnds time.Time `json:"grace_expires_at"`
	}
	body := fmt.Sprintf(`{"grace_period_minutes": %d}`, minutes)
	return l.change(a, next, "POST", "/v1/api-keys/"+a.ID+"/rotate", body, &r, func(next *standing) []entry {
		next.grace = r.GraceEnds
		l.opened(&account{issued: issued{r.NewKeyID, r.Key}, standing: standing{name: r.Name, ips: a.ips, expires: a.expires}})
		return []entry{{apikey.ActionRotated, a.ID}, {apikey.ActionCreated, r.NewKeyID}}
	})
}
