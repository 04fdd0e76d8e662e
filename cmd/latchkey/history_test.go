package main

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// generations is how many keys a lineage has at most: one, and those that replaced it
// one after the other.
const generations = 4

// A keyModel is one key as all clients would see it if every operation on it
// happened at one instant.
type keyModel struct {
	there, revoked bool
	replaced       bool
	graceEnds      int // hour of the history's clock; of one that was replaced
	value          int // which edit was the last; 0 before the first
}

// lineage is the state of the register that a history is held against. It is
// comparable, and a step makes a new one.
type lineage [generations]keyModel

// noGrace ends a replaced key whatever the clock says.
const noGrace = math.MinInt

// What clients do. An edit sets two fields to values that belong together: the API
// version, which tells the edit, and the list of addresses, which admits one of two.
const (
	doIssue  = "issue"
	doUse    = "use"
	doRead   = "read"
	doEdit   = "edit"
	doRotate = "rotate"
	doRevoke = "revoke"
)

// What they are told besides the codes of the data plane.
const (
	allowed    = "allowed"
	invalid    = "invalid_api_key"
	revokedKey = "revoked_api_key"
	rotatedKey = "rotated_api_key"
	notHere    = "ip_not_allowed"

	done    = "done"
	notLive = "not live"
	fault   = "fault" // nothing was changed, and nothing said of the key
	lost    = "lost"  // no answer came: it has happened, will happen, or never will
)

// A keyCall is an operation on one key of a lineage.
type keyCall struct {
	what       string
	generation int
	value      int // of an edit
	from       int // address that a use comes from, 1 or 2
	hour       int // when it is made
	grace      int // of a rotation, in hours
}

// A keyAnswer is what the client learned.
type keyAnswer struct {
	result string
	value  int // of the key that was used or read, where it was live
}

// listed is the address that an edit of the value puts on the list.
func listed(value int) int { return value%2 + 1 }

// state returns how the key stands at an hour, as a use from no address in particular
// would be told.
func (k *keyModel) state(hour int) string {
	switch {
	case !k.there:
		return invalid
	case k.revoked:
		return revokedKey
	case k.replaced && hour >= k.graceEnds:
		return rotatedKey
	}
	return allowed
}

// answer returns what an operation is told if it happens now, and what there is after
// it.
func (l lineage) answer(c keyCall) (keyAnswer, lineage) {
	k := &l[c.generation]
	state := k.state(c.hour)
	no := keyAnswer{result: notLive}
	if state == invalid {
		no.result = invalid
	}
	switch c.what {
	case doIssue:
		k.there = true
	case doUse, doRead:
		switch {
		case state != allowed:
			return keyAnswer{result: state}, l
		case c.what == doUse && k.value != 0 && listed(k.value) != c.from:
			return keyAnswer{result: notHere}, l
		}
		return keyAnswer{allowed, k.value}, l
	case doEdit:
		if state != allowed {
			return no, l
		}
		k.value = c.value
	case doRotate:
		if state != allowed || k.replaced {
			return no, l
		}
		k.replaced, k.graceEnds = true, c.hour+c.grace
		if c.grace == 0 {
			k.graceEnds = noGrace
		}
		l[c.generation+1] = keyModel{there: true, value: k.value}
	case doRevoke:
		if !k.there || k.revoked {
			return no, l
		}
		k.revoked = true
	}
	return keyAnswer{result: done}, l
}

// keyRegister is the law: a key is a register, and every operation on it happens at
// one instant between its call and its answer.
func keyRegister() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return lineage{} },
		Step: func(state, input, output any) (bool, any) {
			before, got := state.(lineage), output.(keyAnswer)
			want, after := before.answer(input.(keyCall))
			switch got.result {
			case fault:
				return true, before
			case lost: // as if it had happened; one that has not is put behind all others
				return true, after
			}
			return got == want, after
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
	}
}

// A keyHistory is what clients did to one lineage and were told, in the order that an
// atomic counter saw.
type keyHistory struct {
	clock atomic.Int64
	mu    sync.Mutex
	calls []porcupine.Operation
}

// do makes a call and notes it. A call that got no answer has no end.
func (h *keyHistory) do(client int, c keyCall, perform func(keyCall) keyAnswer) keyAnswer {
	o := porcupine.Operation{ClientId: client, Input: c, Call: h.clock.Add(1)}
	got := perform(c)
	o.Output, o.Return = got, h.clock.Add(1)
	if got.result == lost {
		if o.Return = math.MaxInt64; c.what == doUse || c.what == doRead {
			return got // says nothing and does nothing
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, o)
	return got
}

// A keyLoad says what clients do to a lineage.
type keyLoad struct {
	seed           uint64
	clients, calls int
	hours          int  // by which the clock steps on in the middle
	alone          bool // the key is made before anyone else begins
}

// run has the clients call perform, which is told what to do and does it on the planes
// of a gateway. A key that replaces another is used once its making has been answered.
func (l keyLoad) run(perform func(keyCall) keyAnswer) []porcupine.Operation {
	var h keyHistory
	var known, edits, begun atomic.Int32
	known.Store(1)
	if l.alone {
		h.do(0, keyCall{what: doIssue}, perform)
	}
	var all sync.WaitGroup
	for client := range l.clients {
		rng := rand.New(rand.NewPCG(l.seed, uint64(client)))
		all.Go(func() {
			if client == 0 && !l.alone {
				h.do(client, keyCall{what: doIssue}, perform)
			}
			for range l.calls {
				c := keyCall{what: doUse, generation: rng.IntN(int(known.Load())), from: 1 + rng.IntN(2), grace: rng.IntN(2)}
				late := int(begun.Add(1)) > l.clients*l.calls/2
				if late {
					c.hour = l.hours
				}
				switch n := rng.IntN(100); {
				case n < 14:
					c.what, c.value = doEdit, int(edits.Add(1))
				case n < 19 && c.generation < generations-1:
					c.what = doRotate
				case n < 20, n < 23 && late: // else there would be little to see
					c.what = doRevoke
				case n < 34:
					c.what = doRead
				}
				if got := h.do(client, c, perform); c.what == doRotate && got.result == done {
					known.Store(int32(c.generation + 2))
				}
				runtime.Gosched()
			}
		})
	}
	all.Wait()
	return h.calls
}

// lawful reports whether there is an order of the calls that explains all answers.
func lawful(t *testing.T, calls []porcupine.Operation) bool {
	t.Helper()
	result := porcupine.CheckOperationsTimeout(keyRegister(), calls, time.Minute)
	if result == porcupine.Unknown {
		t.Fatalf("no verdict on %d calls within a minute; make the histories shorter", len(calls))
	}
	return result == porcupine.Ok
}

// described returns the calls in the order of their beginnings.
func described(calls []porcupine.Operation) string {
	slices.SortFunc(calls, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	var b strings.Builder
	for _, c := range calls {
		fmt.Fprintf(&b, "client %d, %d to %d: %+v: %+v\n", c.ClientId, c.Call, c.Return, c.Input, c.Output)
	}
	return b.String()
}

// TestTheRegisterKnowsTheLaw holds the model against histories that can be judged by
// hand.
func TestTheRegisterKnowsTheLaw(t *testing.T) {
	use := func(generation, hour int) keyCall {
		return keyCall{what: doUse, generation: generation, from: 1, hour: hour}
	}
	issue, revoke := keyCall{what: doIssue}, keyCall{what: doRevoke}
	edit := func(value int) keyCall { return keyCall{what: doEdit, value: value} }
	rotate := func(grace int) keyCall { return keyCall{what: doRotate, grace: grace} }
	yes := keyAnswer{result: done}
	says := func(result string) keyAnswer { return keyAnswer{result: result} }
	call := func(from, to int64, c keyCall, a keyAnswer) porcupine.Operation {
		return porcupine.Operation{Input: c, Output: a, Call: from, Return: to}
	}
	made := call(1, 2, issue, yes)
	for _, tc := range []struct {
		name  string
		calls []porcupine.Operation
		want  bool
	}{
		{"revoked and refused", []porcupine.Operation{made, call(3, 4, revoke, yes), call(5, 6, use(0, 0), says(revokedKey))}, true},
		{"revoked and admitted", []porcupine.Operation{made, call(3, 4, revoke, yes), call(5, 6, use(0, 0), says(allowed))}, false},
		{"admitted meanwhile", []porcupine.Operation{made, call(3, 6, revoke, yes), call(4, 7, use(0, 0), says(allowed))}, true},
		{"refused and then admitted, meanwhile", []porcupine.Operation{made, call(3, 9, revoke, yes),
			call(4, 5, use(0, 0), says(revokedKey)), call(6, 7, use(0, 0), says(allowed))}, false},
		{"read as revoked and then admitted, meanwhile", []porcupine.Operation{made, call(3, 9, revoke, yes),
			call(4, 5, keyCall{what: doRead}, says(revokedKey)), call(6, 7, use(0, 0), says(allowed))}, false},
		{"unknown before it is issued", []porcupine.Operation{call(1, 4, issue, yes), call(2, 3, use(0, 0), says(invalid))}, true},
		{"unknown after it was issued", []porcupine.Operation{made, call(3, 4, use(0, 0), says(invalid))}, false},
		{"a fault says nothing", []porcupine.Operation{made, call(3, 4, use(0, 0), says(fault)), call(5, 6, revoke, says(fault)), call(7, 8, use(0, 0), says(allowed))}, true},
		{"edited", []porcupine.Operation{made, call(3, 4, edit(2), yes), call(5, 6, use(0, 0), keyAnswer{allowed, 2})}, true},
		{"edited, and the old value", []porcupine.Operation{made, call(3, 4, edit(2), yes), call(5, 6, use(0, 0), says(allowed))}, false},
		{"edited, and the other address", []porcupine.Operation{made, call(3, 4, edit(1), yes), call(5, 6, use(0, 0), says(notHere))}, true},
		{"edited back", []porcupine.Operation{made, call(3, 9, edit(2), yes), call(4, 9, edit(4), yes), call(5, 6, use(0, 0), keyAnswer{allowed, 4}),
			call(7, 8, use(0, 0), keyAnswer{allowed, 2}), call(10, 11, use(0, 0), keyAnswer{allowed, 4})}, false},
		{"replaced at once", []porcupine.Operation{made, call(3, 4, rotate(0), yes), call(5, 6, use(0, 0), says(rotatedKey)), call(7, 8, use(1, 0), says(allowed))}, true},
		{"replaced at once, and the old one", []porcupine.Operation{made, call(3, 4, rotate(0), yes), call(5, 6, use(0, 0), says(allowed))}, false},
		{"replaced with a grace", []porcupine.Operation{made, call(3, 4, rotate(1), yes), call(5, 6, use(0, 0), says(allowed)), call(7, 8, use(0, 2), says(rotatedKey))}, true},
		{"replaced with a grace that is over", []porcupine.Operation{made, call(3, 4, rotate(1), yes), call(5, 6, use(0, 2), says(allowed))}, false},
		{"the heir has what was edited", []porcupine.Operation{made, call(3, 4, edit(2), yes), call(5, 6, rotate(1), yes), call(7, 8, use(1, 0), says(allowed))}, false},
		{"replaced twice", []porcupine.Operation{made, call(3, 4, rotate(1), yes), call(5, 6, rotate(1), yes)}, false},
		{"revoked twice", []porcupine.Operation{made, call(3, 4, revoke, yes), call(5, 6, revoke, yes)}, false},
		{"no answer, and done", []porcupine.Operation{made, call(3, math.MaxInt64, revoke, says(lost)), call(5, 6, use(0, 0), says(revokedKey))}, true},
		{"no answer, and not done", []porcupine.Operation{made, call(3, math.MaxInt64, revoke, says(lost)), call(5, 6, use(0, 0), says(allowed))}, true},
		{"no answer, and done and undone", []porcupine.Operation{made, call(3, math.MaxInt64, revoke, says(lost)), call(5, 6, use(0, 0), says(revokedKey)), call(7, 8, use(0, 0), says(allowed))}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := lawful(t, tc.calls); got != tc.want {
				t.Errorf("lawful: %t, want %t", got, tc.want)
			}
		})
	}
}
