package admin_test

import (
	"errors"
	"strings"
	"testing"

	"latchkey/admin"
	"latchkey/apikey"
)

func TestReadAudit(t *testing.T) {
	revoked := func(revision string) string {
		return `{"revision":` + revision + `,"cursor":"` + revision + `.0","at":"2026-01-02T03:04:05.000006Z","actor":"ops","action":"revoked","key_id":"` +
			absentID + `","tenant":"acme","fields":["revoked_at"]}`
	}
	used := `{"at":"2026-01-02T03:04:05Z","actor":"key x","action":"used","key_id":"` + absentID + `","tenant":"acme","fields":[]}`
	for _, tc := range []struct {
		name, text string
		events     int
		fault      string // in the error; empty means none
	}{
		{"nothing", "", 0, "it is empty; a log without events is []"},
		{"nothing but spaces", " \n", 0, "it is empty"},
		{"an event of two kinds of key", strings.Replace(revoked("3"), "{", `{"signing_key_id":"k",`, 1), 0, "event 1: not an event"},
		{"an answer without events", "[]", 0, ""},
		{"an answer", "[" + revoked("3") + "," + revoked("2") + "]\n", 2, ""},
		{"several answers", "[" + revoked("3") + "]\n[" + revoked("2") + "," + revoked("1") + "]", 3, ""},
		{"an event a line", revoked("3") + "\n" + revoked("2") + "\n", 2, ""},
		{"a last use is no event", "[" + used + "," + revoked("3") + "]", 1, ""},
		{"a field of a later version", `[{"later":1,` + revoked("3")[1:] + "]", 1, ""},
		{"cut in an answer", "[" + revoked("3") + ",", 0, "behind event 0: unexpected EOF"},
		{"cut in a line", revoked("3") + "\n" + revoked("2")[:20], 1, "behind event 1: unexpected EOF"},
		{"an event without a revision", revoked("3") + revoked("0"), 1, "event 2: not an event"},
		{"an event of no key", strings.ReplaceAll(revoked("3"), absentID, "all"), 0, "event 1: not an event"},
		{"an event at no time", strings.ReplaceAll(revoked("3"), "2026-", ""), 0, "event 1: not an event"},
		{"an error in place of an answer", `{"type":"about:blank","title":"Unauthorized","status":401}`, 0, "event 1: not an event"},
		{"other text", "revoked " + absentID, 0, "behind event 0: invalid character"},
		{"null", "null", 0, "event 1: not an event"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := 0
			err := admin.ReadAudit(strings.NewReader(tc.text), func(e apikey.Event) error {
				n++
				if e.Action != apikey.ActionRevoked || e.Key.String() != absentID || e.At.Nanosecond() != 6000 || e.Tenant != "acme" {
					t.Errorf("event %+v", e)
				}
				return nil
			})
			if n != tc.events || (err == nil) != (tc.fault == "") || err != nil && !strings.HasPrefix(err.Error(), tc.fault) {
				t.Errorf("%d events, %v; want %d, %s", n, err, tc.events, tc.fault)
			}
		})
	}
	stop := errors.New("stop")
	if err := admin.ReadAudit(strings.NewReader(revoked("1")), func(apikey.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the callee's error comes back as %v", err)
	}
}
