package main

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"latchkey/apikey"
	"latchkey/keystore"
)

// A standing is how a key stands.
type standing struct {
	name     string
	ips      string    // its allowlist, separated by commas; empty admits every address
	expires  time.Time // zero means never
	grace    time.Time // when the grace of a replaced key ends
	revoked  bool
	replaced bool
}

// verdict returns the code with which a request from the loopback is refused at a
// time, "" if it is admitted.
func (s *standing) verdict(at time.Time) string {
	over := func(end time.Time) bool { return !end.IsZero() && !at.Before(end) }
	switch {
	case s.revoked:
		return "revoked_api_key"
	case over(s.grace):
		return "rotated_api_key"
	case over(s.expires):
		return "expired_api_key"
	case s.ips != "" && !strings.Contains(s.ips, "127.0.0.0/8"):
		return "ip_not_allowed"
	}
	return ""
}

// String is for people.
func (s standing) String() string {
	return fmt.Sprintf("%q for %q, expires %s, grace %s, revoked %t, replaced %t", s.name, s.ips,
		s.expires.Format(time.RFC3339Nano), s.grace.Format(time.RFC3339Nano), s.revoked, s.replaced)
}

// ends returns when the key stops admitting by itself, the zero time if it does not.
func (s *standing) ends() time.Time {
	if s.grace.IsZero() || !s.expires.IsZero() && s.expires.Before(s.grace) {
		return s.expires
	}
	return s.grace
}

// same reports whether a key stands as another does.
func (s *standing) same(o *standing) bool {
	return s.name == o.name && s.ips == o.ips && s.expires.Equal(o.expires) && s.grace.Equal(o.grace) &&
		s.revoked == o.revoked && s.replaced == o.replaced
}

// An account is a key whose creation was acknowledged, as it stands by all that was
// acknowledged since.
type account struct {
	issued
	standing
	asked *standing // what a change that was not answered would make of it
}

// An entry is what the audit log is to have of a call.
type entry struct {
	action apikey.Action
	key    string
}

// A ledger is what a gateway has acknowledged, and what it was asked and has not
// answered.
type ledger struct {
	*crashSite
	mu       sync.Mutex
	accounts map[string]*account // by ID
	idle     []*account          // that whoever takes them may change
	fresh    []*account          // to which something was acknowledged since the last check
	doubtful []*account          // of which something was asked that was not answered
	orders   []order             // that were not answered

	calls      map[string][]entry // acknowledged, by the ID of the call
	answered   atomic.Int64       // of them
	tally      map[apikey.Action]int
	swept      time.Time // by then what is over was swept
	unanswered int       // calls
	done       int       // of which so many were found to have been done
}

func newLedger(s *crashSite) *ledger {
	return &ledger{crashSite: s, accounts: map[string]*account{}, calls: map[string][]entry{}, tally: map[apikey.Action]int{}}
}

// take returns a key that can be changed and that nobody else changes, nil if there
// is none.
func (l *ledger) take() *account {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.idle) > 0 {
		last := len(l.idle) - 1
		i := rand.IntN(last + 1)
		a := l.idle[i]
		l.idle[i] = l.idle[last]
		l.idle = l.idle[:last]
		if end := a.ends(); end.IsZero() || time.Until(end) > time.Second {
			return a
		}
	}
	return nil
}

// opened notes an acknowledged key.
func (l *ledger) opened(a *account) {
	l.accounts[a.ID] = a
	l.fresh = append(l.fresh, a)
	l.idle = append(l.idle, a)
}

// changed notes that a key now stands otherwise.
func (l *ledger) changed(a *account, now standing) {
	a.standing, a.asked = now, nil
	l.fresh = append(l.fresh, a)
	if now.verdict(time.Now()) == "" || now.verdict(time.Now()) == "ip_not_allowed" {
		l.idle = append(l.idle, a)
	}
}

// check holds a gateway that has just started to the ledger: every key to which
// something was acknowledged since the last check, and some others at random.
func (l *ledger) check(others int) {
	l.t.Helper()
	for _, o := range l.orders {
		if err := errors.Join(l.send(o), l.send(o)); err != nil { // the second of which is always a repetition
			l.t.Fatal(err)
		}
	}
	l.orders = nil
	for _, a := range l.doubtful {
		l.resolve(a)
	}
	l.doubtful = nil
	sample := map[string]*account{}
	for _, a := range l.fresh {
		sample[a.ID] = a
	}
	l.fresh = nil
	for id, a := range maps.All(l.accounts) { // in random order
		if others--; others < 0 {
			break
		}
		sample[id] = a
	}
	for _, a := range sample {
		l.checkRequest(a)
		if now, err := l.shown(a.ID); err != nil {
			l.t.Fatal(err)
		} else if !now.same(&a.standing) {
			l.t.Errorf("key %s is shown as %s, and by what was acknowledged it is %s", a.ID, now, a.standing)
		}
	}
}

// checkRequest uses a key.
func (l *ledger) checkRequest(a *account) {
	l.t.Helper()
	before := time.Now()
	status, code, err := use(l.client, l.proxy, a.Key)
	if err != nil {
		l.t.Fatal(err)
	}
	want := []string{a.verdict(before), a.verdict(time.Now())} // it may end in between
	if !slices.Contains(want, code) || (code == "") != (status == 200) {
		l.t.Errorf("key %s stands as %s, and a request with it gets %d %q, want %q", a.ID, a.standing, status, code, want[0])
	}
}

// shown returns how a key stands by the admin plane.
func (l *ledger) shown(id string) (s standing, err error) {
	var k struct {
		Name       string    `json:"name"`
		AllowedIPs []string  `json:"allowed_ips"`
		ExpiresAt  time.Time `json:"expires_at"`
		RevokedAt  time.Time `json:"revoked_at"`
		ReplacedBy string    `json:"replaced_by"`
		GraceEnds  time.Time `json:"grace_ends_at"`
	}
	if _, err := l.ask("GET", "/export?key="+id, "", "", &k); err != nil {
		return s, err
	}
	return standing{name: k.Name, ips: strings.Join(k.AllowedIPs, ","), expires: k.ExpiresAt, grace: k.GraceEnds,
		revoked: !k.RevokedAt.IsZero(), replaced: k.ReplacedBy != ""}, nil
}

// resolve finds out whether a change that was not answered was made. If so it was
// made as a whole, and stays.
func (l *ledger) resolve(a *account) {
	l.t.Helper()
	now, err := l.shown(a.ID)
	if err != nil {
		l.t.Fatal(err)
	}
	if a.asked.replaced && !a.replaced {
		a.asked.grace = now.grace // the answer would have said
	}
	switch {
	case now.same(a.asked):
		l.done++
	case !now.same(&a.standing):
		l.t.Errorf("key %s stood as %s and was to become %s; it is neither: %s", a.ID, a.standing, a.asked, now)
	}
	l.changed(a, now)
}

// audit holds the audit log of the store, which nobody has open, to the ledger:
// every acknowledged change is in it once, nothing was done twice, and what nobody
// acknowledged was asked for.
func (l *ledger) audit() {
	l.t.Helper()
	store, err := keystore.Open(l.storePath(), keystore.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	defer store.Close()
	strangers, once := 0, map[entry]int{}
	for q := (apikey.AuditQuery{Tenant: apikey.AnyTenant, Limit: 1000}); ; {
		events, err := store.Audit(q)
		if err != nil {
			l.t.Fatal(err)
		}
		if len(events) == 0 {
			break
		}
		q.Before = events[len(events)-1].Place
		for _, e := range events {
			is := entry{e.Action, e.Key.String()}
			if e.Action != apikey.ActionUpdated {
				once[is]++
			}
			want := l.calls[e.RequestID]
			if i := slices.Index(want, is); i >= 0 {
				l.calls[e.RequestID] = slices.Delete(want, i, i+1)
			} else if e.RequestID != "" {
				strangers++
			}
		}
	}
	for id, want := range l.calls {
		if len(want) > 0 {
			l.t.Errorf("call %s was acknowledged, and the audit log lacks %v", id, want)
		}
	}
	for is, n := range once {
		if n > 1 {
			l.t.Errorf("the audit log has key %s %s %d times", is.key, is.action, n)
		}
	}
	if strangers > 2*l.unanswered {
		l.t.Errorf("the audit log has %d changes of which nothing was acknowledged, and only %d calls were not answered", strangers, l.unanswered)
	}
	l.auditKeys(store, once)
}

// auditKeys requires that the log has the creation of every key, and the end of
// every key that is over by the clock; and that no call made two keys.
func (l *ledger) auditKeys(store *keystore.Store, once map[entry]int) {
	l.t.Helper()
	names := map[string]int{}
	for before := (apikey.ID{}); ; {
		keys, err := store.Scan(apikey.AnyTenant, before, 1000)
		if err != nil {
			l.t.Fatal(err)
		}
		if len(keys) == 0 {
			break
		}
		before = keys[len(keys)-1].ID
		for _, k := range keys {
			id := k.ID.String()
			if once[entry{apikey.ActionCreated, id}] != 1 {
				l.t.Errorf("the audit log lacks the creation of key %s", id)
			}
			if swept := !k.EndedAt.IsZero() && !k.EndedAt.Equal(k.Rotation.GraceEndsAt); swept != (once[entry{apikey.ActionEnded, id}] == 1) {
				l.t.Errorf("key %s was swept: %t; the audit log differs", id, swept)
			}
			if end := k.EndsAt(); !end.IsZero() && end.Before(l.swept) {
				l.t.Errorf("key %s is over since %s, and was not swept", id, end)
			}
			if strings.HasPrefix(k.Name, ordered) && !strings.HasSuffix(k.Name, "(rotated)") {
				if names[k.Name]++; names[k.Name] == 2 {
					l.t.Errorf("an order was carried out twice: %s", k.Name)
				}
			}
		}
	}
}

// requireLoad says what was acknowledged, and requires that it was enough for the
// kills to mean something.
func (l *ledger) requireLoad(kills int) {
	l.t.Helper()
	l.t.Logf("%d kills; acknowledged: %v; %d calls were not answered, of which %d were found done", kills, l.tally, l.unanswered, l.done)
	for _, action := range []apikey.Action{apikey.ActionCreated, apikey.ActionUpdated, apikey.ActionRotated, apikey.ActionRevoked} {
		if l.tally[action] == 0 {
			l.t.Errorf("no key was %s", action)
		}
	}
	if l.unanswered < kills {
		l.t.Errorf("only %d calls were cut off by a kill", l.unanswered)
	}
}
