package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Edits change the fields of a head.
type Edits struct {
	Set    map[string]string // in place of what is there
	Remove []string

	set     []byte   // as lines
	dropped []string // names
}

// compile readies the edits for use. What the gateway says itself, and what says
// how a message is framed, is not to be changed.
func (e *Edits) compile() error {
	names := make([]string, 0, len(e.Set))
	for name := range e.Set {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		e.set = appendField(e.set, []byte(name), []byte(e.Set[name]))
		e.dropped = append(e.dropped, name)
	}
	e.dropped = append(e.dropped, e.Remove...)
	for _, name := range e.dropped {
		if reserved([]byte(name)) {
			return fmt.Errorf("%s is the gateway's own to write", name)
		}
	}
	return nil
}

// reserved reports whether a field, in any spelling, is not to be edited.
func reserved(name []byte) bool {
	dashed := bytes.ReplaceAll(name, []byte("_"), []byte("-"))
	return ours(name) || hopByHop(dashed) || sameField(name, "Date")
}

// drops reports whether a field is not to be passed on, however it is spelt: an
// upstream might take one spelling for the other.
func (e *Edits) drops(name []byte) bool {
	for _, d := range e.dropped {
		if sameField(name, d) {
			return true
		}
	}
	return false
}

// CORS says which pages of other origins may use a route from a browser (Fetch
// Standard, "CORS protocol"). The gateway answers preflights itself, before it
// asks for a key: browsers send none with them.
type CORS struct {
	Origins     []string // such as https://app.example; "*" is any
	Methods     []string // "GET, HEAD and POST" where it is empty: what needs no preflight
	Headers     []string // that requests may carry besides the safelisted ones
	Expose      []string // that pages may read of answers besides the safelisted ones
	Credentials bool     // answers to requests with cookies may be read
	MaxAge      time.Duration
}

// checkCORS reports what no browser would take or no one should be offered: * with
// credentials, and two writers of one field.
func (r *Route) checkCORS() error {
	if r.CORS == nil {
		return nil
	}
	if slices.Contains(r.CORS.Origins, "*") && r.CORS.Credentials {
		return errors.New("CORS for any origin with credentials would let every page act for its visitor")
	}
	for name := range r.ResponseEdits.Set {
		if isCORS([]byte(name)) {
			return fmt.Errorf("%s is written by CORS", name)
		}
	}
	return nil
}

// allows reports whether the origin may use the route.
func (c *CORS) allows(origin string) bool {
	return origin != "" && (slices.Contains(c.Origins, "*") || slices.Contains(c.Origins, origin))
}

// origin returns the request's Origin if there is one, and only one.
func (h *head) origin() string {
	if v := h.values("Origin"); len(v) == 1 {
		return v[0]
	}
	return ""
}

// preflightMethod returns the method that a preflight asks about, nil if the
// request is none.
func (h *head) preflightMethod() []byte {
	if !is(h.method, "OPTIONS") || h.origin() == "" {
		return nil
	}
	for _, f := range h.fields {
		if is(f.name, "Access-Control-Request-Method") {
			return f.value
		}
	}
	return nil
}

// preflight answers a preflight for a route with CORS, and reports whether the
// request was one. The route is the one that the request to come would find. Where
// that leaves CORS to the upstream, this request is one for its own method like any
// other: a route is not lent to a method that it does not take.
func (x *exchange) preflight() bool {
	asked := x.head.preflightMethod()
	if asked == nil {
		return false
	}
	route, _ := x.set.routes.find(x.head.host, asked, x.head.path)
	if route == nil || route.CORS == nil {
		return false
	}
	x.route = route
	c := route.CORS
	x.settle()
	x.answer(204, outcomePreflight)
	x.addCORS()
	if c.allows(x.head.origin()) {
		if len(c.Methods) > 0 {
			x.add("Access-Control-Allow-Methods", strings.Join(c.Methods, ", "))
		}
		if len(c.Headers) > 0 {
			x.add("Access-Control-Allow-Headers", strings.Join(c.Headers, ", "))
		}
		if c.MaxAge > 0 {
			x.add("Access-Control-Max-Age", strconv.Itoa(int(c.MaxAge/time.Second)))
		}
	}
	x.finishAnswer(nil)
	return true
}

// addCORS adds to an answer what lets a page read it, if the route allows that.
func (x *exchange) addCORS() {
	if x.route == nil || x.route.CORS == nil {
		return
	}
	c, origin := x.route.CORS, x.head.origin()
	if slices.Contains(c.Origins, "*") {
		// Whoever asks, even where that is no page: a cache may hand the answer on to
		// one (Fetch Standard, "CORS protocol and HTTP caches").
		origin = "*"
	} else {
		x.add("Vary", "Origin")
		if !c.allows(origin) {
			return
		}
	}
	x.add("Access-Control-Allow-Origin", origin)
	if c.Credentials {
		x.add("Access-Control-Allow-Credentials", "true")
	}
	if len(c.Expose) > 0 && x.head.preflightMethod() == nil {
		x.add("Access-Control-Expose-Headers", strings.Join(c.Expose, ", "))
	}
}

// ownsCORS reports whether a field of the upstream's answer is the gateway's to
// set.
func (x *exchange) ownsCORS(name []byte) bool { return x.route.CORS != nil && isCORS(name) }

func isCORS(name []byte) bool {
	const prefix = "access-control-"
	return len(name) > len(prefix) && bytes.EqualFold(name[:len(prefix)], []byte(prefix))
}

// Maintenance is what a route answers while its upstream is not to be used.
type Maintenance struct {
	Detail     string        // for people; empty means a general text
	RetryAfter time.Duration // zero leaves the header out
}

// closed returns the fault that a route in maintenance answers with, nil for one that
// is open.
func (r *Route) closed() *fault {
	m := r.Maintenance
	if m == nil {
		return nil
	}
	f := &fault{503, maintenance.code, m.Detail, ""}
	if f.detail == "" {
		f.detail = maintenance.detail
	}
	if m.RetryAfter > 0 {
		f.retryAfter = strconv.Itoa(int((m.RetryAfter + time.Second - 1) / time.Second))
	}
	return f
}
