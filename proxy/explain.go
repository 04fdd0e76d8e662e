package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"latchkey/apikey"
	"latchkey/proxy/gate"
)

// A Question is about a request that nobody has sent.
type Question struct {
	Method string
	Target string // the path, with a query or without
	Host   string
	Secret []byte     // the key; empty for a request without
	Client netip.Addr // who would send it; the zero Addr if that is unknown
	Now    time.Time

	// Tenant is whose keys may be told of; another's count as unknown.
	// apikey.AnyTenant stands for all.
	Tenant string
}

// An Explanation says what would become of a request, as far as its head decides.
type Explanation struct {
	Status  int    // of the refusal; zero for a request that would go to the upstream
	Outcome string // as metrics and log have it
	Detail  string // what the client would be told; empty where it would not be refused
	Route   *Route // nil where none is for it
	Allowed []string
	Key     apikey.ID // zero unless found, and where none is asked for
}

// Explain says what would become of a request. It goes through what serves requests,
// and counts, logs and sends nothing. An error says that the store could not be asked.
// A preflight is answered before any of this, and a request with a body that is too
// long in the midst of it: neither is in a question.
func (p *Proxy) Explain(q Question) (Explanation, error) {
	s := p.current.Load()
	var h head
	if f := s.readQuestion(&h, &q); f != nil {
		return explained(f), nil
	}
	route, allowed, f := s.rule(&h)
	if f != nil {
		e := explained(f)
		e.Route, e.Allowed = route, allowed
		return e, nil
	}
	if route.Public {
		return Explanation{Outcome: outcomePublic, Route: route}, nil
	}
	r := gate.Request{Secret: q.Secret, Client: q.Client, Now: q.Now, Demand: &route.Demand}
	if p.throttled(s, &r) > 0 {
		e := explained(tooManyFailures)
		e.Route = route
		return e, nil
	}
	verdict, key, err := s.Gate.Within(q.Tenant).Decide(&r)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Outcome: verdict.String(), Route: route}
	if key != nil {
		e.Key = key.ID
	}
	if verdict != apikey.Allowed {
		e.Status, e.Detail = s.denial(verdict)
	}
	return e, nil
}

// readQuestion reads the head that the request would have.
func (s *settings) readQuestion(h *head, q *Question) *fault {
	if strings.ContainsAny(q.Method+q.Target+q.Host, "\r\n") {
		return badRequest // which would make further lines of it
	}
	text := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n\r\n", q.Method, q.Target, q.Host)
	if len(text) > s.HeaderBytes {
		return headTooLarge
	}
	if f := h.parse(text); f != nil {
		return f
	}
	return h.screen(!s.LoosePaths)
}

func explained(f *fault) Explanation {
	return Explanation{Status: f.status, Outcome: f.code, Detail: f.detail}
}
