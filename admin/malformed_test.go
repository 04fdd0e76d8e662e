package admin_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/admin"
	"latchkey/apikey"
	"latchkey/internal/dialecttest"
)

// answerWithin bounds how long any answer takes, on a machine that is busy.
const answerWithin = 5 * time.Second

// TestMalformedCalls sends calls that are more or less spoilt, 20,000 of them,
// each worker over one connection to a plane of its own. Every answer must be
// below 500 and in the dialect's own form; a call that is refused must write
// nothing; one that succeeds must be one that the oracle takes too, and have done
// exactly what it asked for.
func TestMalformedCalls(t *testing.T) {
	const workers = 2
	calls := 20_000
	if testing.Short() {
		calls = 2_000
	}
	for w := range workers {
		t.Run(fmt.Sprintf("worker %d", w), func(t *testing.T) {
			t.Parallel()
			newTrial(t, uint64(w)).run(calls / workers)
		})
	}
}

// A trial is a plane under malformed calls.
type trial struct {
	*testing.T
	plane     *dialecttest.Plane
	conn      *dialecttest.Conn
	gen       *generator
	contracts map[string]*dialecttest.Contract // by form
	kept      map[string]keptAnswer            // by operator and Idempotency-Key

	statuses map[int]int
	intact   int // calls that nothing was spoilt in
	slowest  time.Duration
	before   state
}

type keptAnswer struct{ call, answer string }

// A state is what a refused call must leave as it is.
type state struct {
	revision uint64
	written  int64
	totals   string
}

func newTrial(t *testing.T, seed uint64) *trial {
	tr := &trial{T: t, plane: startAll(t), kept: map[string]keptAnswer{}, statuses: map[int]int{}, contracts: map[string]*dialecttest.Contract{}}
	for _, d := range dialects(t) {
		tr.contracts[d.Name] = dialecttest.LoadContract(t, d)
	}
	tr.conn = tr.plane.Conn()
	t.Cleanup(tr.conn.Close)
	tr.gen = &generator{Rand: rand.New(rand.NewPCG(20_000, seed)), kinds: kinds()}
	for n := range 60 {
		spec := apikey.Spec{Tenant: []string{"acme", "acme", "globex"}[n%3], Name: fmt.Sprint(n)}
		var entropy [40]byte
		entropy[0], entropy[39] = byte(n), 0xee
		c, err := apikey.Issue(spec, apikey.NewCredentials(apikey.NewSecretFormat("lk"), "", tr.plane.Now.Add(time.Duration(n)*time.Millisecond), entropy), tr.plane.Now)
		if err == nil {
			err = tr.plane.Store.Create(apikey.Origin{At: tr.plane.Now, Actor: "test"}, c)
		}
		if err != nil {
			t.Fatal(err)
		}
		tr.gen.ids = append(tr.gen.ids, c.Keys[0].ID.String())
	}
	return tr
}

func (tr *trial) state() state {
	s := state{written: tr.plane.Written()}
	for _, tenant := range []string{"acme", "globex", "default", "1"} {
		for _, which := range []apikey.Which{apikey.WhichLive, apikey.WhichEnded} {
			page, err := tr.plane.Store.List(apikey.Query{Tenant: tenant, Which: which, Limit: 1})
			if err != nil {
				tr.Fatal(err)
			}
			s.totals += fmt.Sprint(page.Total, " ")
		}
	}
	if events := tr.events(0, 1); len(events) > 0 {
		s.revision = events[0].Revision
	}
	return s
}

// events returns the newest events behind a revision.
func (tr *trial) events(behind uint64, limit int) []apikey.Event {
	events, err := tr.plane.Store.Audit(apikey.AuditQuery{Tenant: apikey.AnyTenant, Limit: limit})
	if err != nil {
		tr.Fatal(err)
	}
	return slices.DeleteFunc(events, func(e apikey.Event) bool { return e.Revision <= behind })
}

func (tr *trial) run(calls int) {
	tr.before = tr.state()
	for n, wrong := 0, 0; n < calls && wrong < 10; n++ {
		if n%50 == 0 { // keys that calls can still end
			tr.refresh()
		}
		a := tr.gen.next()
		if err := tr.try(a); err != nil {
			tr.Errorf("call %d: %v\n%.2000q", n, err, a.raw())
			wrong++
		}
	}
	good := 0
	for status, n := range tr.statuses {
		if status < 300 {
			good += n
		}
	}
	tr.Logf("%v; %d untouched; %d connections; slowest answer %v", tr.statuses, tr.intact, tr.conn.Dials, tr.slowest)
	if !tr.Failed() && (good < calls/20 || tr.intact < calls/50 || len(tr.statuses) < 12) {
		tr.Errorf("%d of %d calls succeeded, %d were untouched, and %d statuses were seen; that is too few to show anything", good, calls, tr.intact, len(tr.statuses))
	}
}

// refresh makes the newest keys of two tenants the ones that calls are about.
func (tr *trial) refresh() {
	tr.gen.ids = tr.gen.ids[:0]
	for _, tenant := range []string{"acme", "globex"} {
		page, err := tr.plane.Store.List(apikey.Query{Tenant: tenant, Which: apikey.WhichAll, Limit: 40})
		if err != nil {
			tr.Fatal(err)
		}
		for _, k := range page.Keys {
			tr.gen.ids = append(tr.gen.ids, k.ID.String())
		}
	}
}

// try makes a call and judges the answer.
func (tr *trial) try(a *attempt) error {
	raw := a.raw()
	var target apikey.Key // as it was before the call
	if id, err := apikey.ParseID(a.segment()); err == nil {
		target, _ = tr.plane.Store.ByID(apikey.AnyTenant, id)
	}
	began := time.Now()
	res, body, err := tr.conn.Call(a.method, raw, answerWithin)
	if err != nil {
		return err
	}
	tr.slowest = max(tr.slowest, time.Since(began))
	tr.statuses[res.StatusCode]++
	after := tr.state()
	defer func() { tr.before = after }()
	imports := a.method == "POST" && a.path() == "/import"
	switch {
	case res.StatusCode >= 500:
		return fmt.Errorf("%s: %s", res.Status, body)
	case imports && bytes.HasPrefix([]byte(res.Header.Get("Content-Type")), []byte("application/x-ndjson")):
		return tr.checkImport(a, res, body)
	case !a.readable():
		if res.StatusCode != 400 || !res.Close || after != tr.before {
			return fmt.Errorf("what is no HTTP is answered %s, %s, and the store went from %+v to %+v", res.Status, body, tr.before, after)
		}
		return nil
	case res.StatusCode >= 400:
		// A call that is refused for what an earlier one did (the key is over, the
		// Idempotency-Key was used) has the log synced, with an empty record, before
		// it says so.
		wrote := after.written - tr.before.written
		over := !target.ID.IsZero() && (!target.Live() || !target.Rotation.ReplacedBy.IsZero())
		marked := wrote > 0 && wrote <= 128 && (over || bytes.Contains(body, []byte("Idempotency-Key")))
		if after.revision != tr.before.revision || after.totals != tr.before.totals || !imports && wrote != 0 && !marked {
			return fmt.Errorf("%s, but the store went from %+v to %+v", res.Status, tr.before, after)
		}
		if a.mustSucceed(&target) {
			return fmt.Errorf("a call as it should be is refused: %s %s", res.Status, body)
		}
		return tr.checkForm(a, res, body)
	case a.method == "GET" && after != tr.before:
		return fmt.Errorf("a reading call changed the store from %+v to %+v", tr.before, after)
	}
	if a.intact {
		tr.intact++
	}
	if err := tr.checkContract(a, res, body); err != nil {
		return err
	}
	return tr.checkSuccess(a, res, body, &target)
}

func (a *attempt) path() string { p, _, _ := strings.Cut(a.target, "?"); return p }

// readable reports whether the call's head is HTTP/1.1 (RFC 9112).
func (a *attempt) readable() bool {
	control := func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
	return !strings.Contains(a.target, " ") && strings.IndexFunc(a.target+a.tenant+a.ctype+a.idem, control) < 0
}

// segment returns the part of the path where a key's ID is.
func (a *attempt) segment() string {
	p := strings.TrimSuffix(a.path(), "/rotate")
	return p[strings.LastIndexByte(p, '/')+1:]
}

// mustSucceed reports whether nothing is wrong with the call, and the key that it
// is about, if there is one, can be the object of any call.
func (a *attempt) mustSucceed(target *apikey.Key) bool {
	one := strings.Contains(a.kind.path, "{id}")
	return a.intact && (!one || target.Tenant == "acme" && target.Live() && target.Rotation.ReplacedBy.IsZero())
}

var forms = []struct {
	name string
	path *regexp.Regexp
}{
	{"truvera", regexp.MustCompile(`^/keys(?s:/.*)?$`)},
	{"strait", regexp.MustCompile(`^/v1/api-keys(?s:/.*)?$`)},
	{"peach", regexp.MustCompile(`^/api/keys(?s:/.*)?$`)},
	{"plane", regexp.MustCompile(``)},
}

func (a *attempt) form() string {
	for _, f := range forms {
		if f.path.MatchString(a.path()) {
			return f.name
		}
	}
	return ""
}

// checkForm holds the answer to a refused call against the form of the dialect.
func (tr *trial) checkForm(a *attempt, res *http.Response, body []byte) error {
	if len(body) > 4<<10 {
		return fmt.Errorf("%s with %d bytes, as if the call were in it", res.Status, len(body))
	}
	id := res.Header.Get("X-Request-Id")
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	var err error
	var told string
	status := res.StatusCode
	switch a.form() {
	case "truvera":
		var e struct {
			Status        int
			Type, Message string
		}
		if err = d.Decode(&e); e.Type != "" {
			told, status = e.Message, e.Status
		}
	case "strait":
		var e struct {
			Error struct {
				Code, Message string
				Details       []struct{ Field, Message string }
			}
			RequestID string `json:"request_id"`
		}
		err = d.Decode(&e)
		if told = e.Error.Message; e.RequestID != id || (e.Error.Code == "validation_failed") != (status == 422) || (len(e.Error.Details) > 0) != (status == 422) {
			told = ""
		}
	case "peach":
		var e struct {
			Status  int
			Message string
		}
		err = d.Decode(&e)
		told, status = e.Message, e.Status
	default:
		var e struct {
			Type, Title, Detail string
			Status              int
			RequestID           string `json:"request_id"`
		}
		err = d.Decode(&e)
		if told, status = e.Detail, e.Status; e.RequestID != id || e.Title == "" {
			told = ""
		}
	}
	if err != nil || told == "" || status != res.StatusCode || d.More() || res.Header.Get("Cache-Control") != "no-store" || res.Header.Get(admin.PlaneField) != "admin" || id == "" {
		return fmt.Errorf("%s in another form than that of %s: %s (%v)", res.Status, a.form(), body, err)
	}
	return tr.checkContract(a, res, body)
}

// checkContract holds an answer of a dialect against its OpenAPI document.
func (tr *trial) checkContract(a *attempt, res *http.Response, body []byte) error {
	if tr.gen.n%6 != 0 {
		return nil // it takes longer than the call
	}
	contract := tr.contracts[a.form()]
	if !regexp.MustCompile(`^(/keys|/api/keys)(/[^/]+)?$|^/v1/api-keys(/[^/]+|/[^/]+/rotate)?$`).MatchString(a.path()) {
		return nil // below a dialect's paths
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(a.raw())))
	if contract == nil || a.method != "GET" && len(bytes.TrimSpace(a.body)) == 0 || err != nil || strings.ContainsAny(a.path(), "%{*;") || strings.Contains(a.target, "#") || a.path() == "/keys/temporary-key" && a.method != "POST" || strings.Contains(a.path(), "..") || strings.Contains(a.path(), "//") {
		return nil // it has no document, or the document's router reads the path in another way
	}
	if res.StatusCode < 300 && a.ctype != "application/json" {
		req.Header.Del("Content-Type")
	}
	quiet := &errorList{TB: tr}
	contract.Check(quiet, "answer", req, res, body)
	return errors.Join(quiet.errs...)
}

// An errorList keeps what a test would report.
type errorList struct {
	testing.TB
	errs []error
}

func (l *errorList) Errorf(format string, args ...any) {
	l.errs = append(l.errs, fmt.Errorf(format, args...))
}

// checkImport holds what an import says of its lines against what it did.
func (tr *trial) checkImport(a *attempt, res *http.Response, body []byte) error {
	var made []string
	lines := bytes.Split(a.body, []byte("\n"))
	for answer := range bytes.Lines(body) {
		var r result
		if err := json.Unmarshal(answer, &r); err != nil || (r.ID == "") == (r.Error == "") || r.Line < 1 || r.Line > len(lines) {
			return fmt.Errorf("answer %q, %v", answer, err)
		}
		if r.ID == "" {
			continue
		}
		made = append(made, r.ID)
		w, digest, ok := lineWish(bytes.Trim(lines[r.Line-1], " \t\r"), tr.plane.Now)
		tenant, known := a.tenantOf(w.tenant)
		w.tenant = tenant
		id, err := apikey.ParseID(r.ID)
		if !ok || !known || !w.sound() || err != nil {
			return fmt.Errorf("line %d was imported, but the oracle does not take it (%t %t %t)", r.Line, ok, known, w.sound())
		}
		k, err := tr.plane.Store.ByID(tenant, id)
		if err != nil {
			return err
		}
		if problem := w.differs(&k); problem != "" || len(digest) == 64 && !strings.EqualFold(fmt.Sprintf("%x", k.Digest[:]), digest) {
			return fmt.Errorf("line %d: %s", r.Line, problem)
		}
	}
	var created []string
	for _, e := range tr.events(tr.before.revision, 20) {
		created = append(created, e.Key.String())
	}
	slices.Sort(made)
	slices.Sort(created)
	if !slices.Equal(made, created) || a.intact && len(made) != len(lines) || res.StatusCode != 200 && res.StatusCode != 422 {
		return fmt.Errorf("%s says that %v were imported, the log has %v: %s", res.Status, made, created, body)
	}
	if a.intact {
		tr.intact++
	}
	return nil
}

// tenantOf returns the tenant that a call is about which names one in its own
// field, or does not.
func (a *attempt) tenantOf(named string) (string, bool) {
	own := map[string]string{"acme-token": "acme", "acme-admin-token": "acme", "viewer-token": "acme", "globex-token": "globex", "root-token": "*"}[a.token]
	if strings.HasSuffix(a.kind.path, "temporary-key") {
		own = "*"
	}
	header := strings.TrimSpace(a.tenant)
	if a.path() == "/import" && named != "" {
		return named, own == "*" || own == named // a line's own field goes before the header
	}
	if named != "" && header != "" && named != header {
		return "", false
	}
	if named = max(named, header); named == "" {
		named = map[bool]string{true: "default", false: own}[own == "*"]
	}
	return named, own == "*" || own == named
}

// keepers are the names of answers that were kept, for messages.
func (tr *trial) keepers() []string { return slices.Sorted(maps.Keys(tr.kept)) }
