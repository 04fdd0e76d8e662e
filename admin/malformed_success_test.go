package admin_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"latchkey/apikey"
	"latchkey/internal/wiretest"
)

// checkSuccess holds a call that succeeded against what it asked for.
func (tr *trial) checkSuccess(a *attempt, res *http.Response, body []byte, target *apikey.Key) error {
	if a.method == "GET" {
		return tr.checkRead(a, body)
	}
	if a.token == "viewer-token" && !strings.HasSuffix(a.path(), "temporary-key") {
		return fmt.Errorf("a viewer's call is answered %s", res.Status)
	}
	if len(a.body) > 0 && a.method != "DELETE" && !jsonType(a.ctype) {
		return fmt.Errorf("a body of type %q is answered %s", a.ctype, res.Status)
	}
	path := a.path()
	creates := path == "/keys" || path == "/keys/temporary-key" || path == "/v1/api-keys" || path == "/api/keys"
	if a.method == "POST" && a.idem != "" {
		replayed, err := tr.checkKept(a, res, body)
		if replayed || err != nil {
			return err
		}
	}
	events := tr.events(tr.before.revision, 10)
	switch {
	case a.method == "POST" && creates:
		return tr.checkCreated(a, body, events)
	case a.method == "POST":
		return tr.checkRotated(a, body, events, target)
	case a.method == "DELETE":
		k, err := tr.plane.Store.ByID(apikey.AnyTenant, target.ID)
		if err != nil || k.RevokedAt.IsZero() && target.Live() || !a.reaches(target) || len(events) != bool2int(target.Live()) {
			return fmt.Errorf("%s, but the key is %+v, %v, with %d events", res.Status, k, err, len(events))
		}
		return nil
	}
	return tr.checkUpdated(a, events, target)
}

func jsonType(t string) bool {
	media, rest, _ := strings.Cut(strings.ToLower(t), ";")
	media = strings.TrimSpace(media)
	utf8 := !strings.Contains(rest, "charset") || strings.Contains(rest, "charset=utf-8") || strings.Contains(rest, `charset="utf-8"`)
	return t == "" || utf8 && (media == "application/json" || strings.HasSuffix(media, "+json"))
}

// reaches reports whether the call's operator may touch the key.
func (a *attempt) reaches(k *apikey.Key) bool {
	tenant, ok := a.tenantOf("")
	return a.token == "root-token" && a.tenant == "" || ok && tenant == k.Tenant
}

// checkKept holds a call with an Idempotency-Key against those before it.
func (tr *trial) checkKept(a *attempt, res *http.Response, body []byte) (replayed bool, err error) {
	operator := a.token
	if strings.HasSuffix(a.path(), "temporary-key") {
		operator = "certs"
	}
	for i := range len(a.idem) {
		if a.idem[i] <= ' ' || a.idem[i] > '~' || len(a.idem) > 255 {
			return false, fmt.Errorf("the Idempotency-Key %q is taken", a.idem)
		}
	}
	name := operator + " " + a.idem
	this := keptAnswer{strings.Join([]string{a.method, a.target, a.tenant, string(a.body)}, "\x00"), string(body)}
	before, known := tr.kept[name]
	replayed = res.Header.Get("Idempotent-Replayed") == "true"
	switch {
	case replayed != known:
		err = fmt.Errorf("replayed: %t, but made before: %t, of %q", replayed, known, tr.keepers())
	case replayed && before != this:
		err = fmt.Errorf("replayed with another call or answer than %+v", before)
	case replayed && len(tr.events(tr.before.revision, 1)) > 0:
		err = fmt.Errorf("the replay made a key")
	}
	tr.kept[name] = this
	return replayed, err
}

// checkCreated holds the one key that the call made against what it asked for.
func (tr *trial) checkCreated(a *attempt, body []byte, events []apikey.Event) error {
	w, ok := wishOf(a.path(), a.body, tr.plane.Now)
	tenant, allowed := a.tenantOf(w.tenant)
	w.tenant = tenant
	if !ok || !allowed || !w.sound() {
		return fmt.Errorf("accepted, but the oracle does not take it (%t %t %t): %s", ok, allowed, w.sound(), body)
	}
	if len(events) != 1 || events[0].Action != apikey.ActionCreated {
		return fmt.Errorf("the log has %+v, want one creation", events)
	}
	var answer struct{ ID, Key, JWT string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	secret, id := answer.Key, answer.ID
	if answer.JWT != "" {
		secret, id = answer.JWT, answer.Key
	}
	k, err := tr.plane.Store.ByID(tenant, events[0].Key)
	if err != nil {
		return err
	}
	if id != "" && k.ID.String() != id || k.Digest != apikey.DigestOf([]byte(secret)) || k.State(tr.plane.Now) != apikey.StateActive {
		return fmt.Errorf("the answer %s is not about the key that was made, %s", body, k.ID)
	}
	if problem := w.differs(&k); problem != "" {
		return fmt.Errorf("%s", problem)
	}
	return nil
}

// checkRotated holds a rotation against what it asked for.
func (tr *trial) checkRotated(a *attempt, body []byte, events []apikey.Event, target *apikey.Key) error {
	var b struct {
		Minutes *int `json:"grace_period_minutes"`
	}
	if len(bytes.TrimSpace(a.body)) > 0 {
		if nulls, ok := wiretest.Strict(a.body, &b, "grace_period_minutes"); !ok || nulls["grace_period_minutes"] || !within(b.Minutes, 0, 10080) {
			return fmt.Errorf("accepted, but the oracle does not take it: %s", body)
		}
	}
	grace := time.Hour
	if b.Minutes != nil {
		grace = time.Duration(*b.Minutes) * time.Minute
	}
	old, err := tr.plane.Store.ByID(apikey.AnyTenant, target.ID)
	if err != nil {
		return err
	}
	heir, err := tr.plane.Store.ByID(target.Tenant, old.Rotation.ReplacedBy)
	if err != nil {
		return err
	}
	var answer struct {
		Key string
		New string `json:"new_key_id"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	if !a.reaches(target) || len(events) != 2 || !target.Rotation.ReplacedBy.IsZero() || heir.Digest != apikey.DigestOf([]byte(answer.Key)) || heir.ID.String() != answer.New ||
		!old.Rotation.GraceEndsAt.Equal(heir.CreatedAt.Add(grace)) {
		return fmt.Errorf("the key became %+v, with %+v after it, in %d events: %s", old, heir, len(events), body)
	}
	return nil
}

// checkUpdated holds a change of a key against what it asked for.
func (tr *trial) checkUpdated(a *attempt, events []apikey.Event, target *apikey.Key) error {
	var b struct {
		IPs     []*string `json:"ips"`
		Peach   []*string `json:"whitelistedIPs"`
		Alias   *string   `json:"alias"`
		Text    *string   `json:"description"`
		Version *string   `json:"apiVersion"`
	}
	fields := []string{"ips", "alias"}
	most := 255
	if a.method == "PUT" {
		fields, most = []string{"whitelistedIPs", "description", "apiVersion"}, 200
	}
	nulls, ok := map[string]bool{}, true
	if a.method == "PUT" || len(bytes.TrimSpace(a.body)) > 0 {
		nulls, ok = wiretest.Strict(a.body, &b, fields...)
	}
	var list []netip.Prefix
	valid := false
	name := b.Alias
	if list, valid = blocks(b.IPs); a.method == "PUT" {
		name = b.Text
		if list, valid = blocks(b.Peach); b.Version == nil || *b.Version != "2024-05-22" {
			ok = false
		}
	}
	if !ok || !valid || !a.reaches(target) || !characters(name, 1, most) || !target.Live() || len(events) > 1 {
		return fmt.Errorf("accepted, but the oracle does not take it")
	}
	want := *target
	if _, there := nulls[fields[0]]; there {
		want.AllowedIPs = nil
	}
	if _, there := nulls[fields[1]]; there {
		want.Name = ""
		if name != nil {
			want.Name = *name
		}
	}
	k, err := tr.plane.Store.ByID(target.Tenant, target.ID)
	if err != nil {
		return err
	}
	var got []netip.Prefix
	for _, a := range k.AllowedIPs {
		got = append(got, a.Block)
	}
	if _, there := nulls[fields[0]]; !there {
		list = got
		if fmt.Sprint(k.AllowedIPs) != fmt.Sprint(target.AllowedIPs) {
			list = nil
		}
	}
	if k.Name != want.Name || fmt.Sprint(got) != fmt.Sprint(list) || k.Digest != want.Digest || k.Tenant != want.Tenant || !k.Live() {
		return fmt.Errorf("the key became %+v, wished for was the name %q and %v", k, want.Name, list)
	}
	return nil
}

// checkRead holds what a reading call shows against who may see it.
func (tr *trial) checkRead(a *attempt, body []byte) error {
	var ids []string
	decoded := any(nil)
	switch {
	case a.path() == "/export":
		for line := range bytes.Lines(body) {
			var k struct{ ID string }
			if err := json.Unmarshal(line, &k); err != nil {
				return err
			}
			ids = append(ids, k.ID)
		}
	default:
		if err := json.Unmarshal(body, &decoded); err != nil {
			return err
		}
		if page, ok := decoded.(map[string]any); ok {
			if decoded = page["data"]; decoded == nil {
				decoded = []any{page}
			}
		}
	}
	list, _ := decoded.([]any)
	for _, one := range list {
		for _, name := range []string{"key_id", "id", "key"} {
			if id, ok := one.(map[string]any)[name].(string); ok {
				ids = append(ids, id)
				break
			}
		}
	}
	tenant, allowed := a.tenantOf("")
	limit, well := a.limit()
	if !well || len(ids) > limit || len(list) > 0 && len(list) != len(ids) {
		return fmt.Errorf("%d keys in answer to a query with limit %d, which is well-formed: %t", len(ids), limit, well)
	}
	for _, text := range ids {
		id, err := apikey.ParseID(text)
		if err != nil {
			return err
		}
		k, err := tr.plane.Store.ByID(apikey.AnyTenant, id)
		if err != nil {
			return err
		}
		if a.token != "root-token" && (!allowed || k.Tenant != tenant) {
			return fmt.Errorf("shows a key of %s to an operator of %s", k.Tenant, tenant)
		}
	}
	return nil
}
