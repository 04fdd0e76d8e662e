package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"latchkey/apikey"
)

// edited returns the fields of a head that begin with X-Edit, in
// every spelling.
func edited(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		if strings.HasPrefix(strings.ReplaceAll(strings.ToLower(name), "_", "-"), "x-edit") {
			out[name] = values
		}
	}
	return out
}

func TestRequestHeadersAreEdited(t *testing.T) {
	h := start(t, nil, func(o *Options) {
		o.Routes[0].Public = true
		o.Routes[0].RequestEdits = Edits{
			Set:    map[string]string{"X-Edit-Set": "ours", "X-Edit-New": "made", "Authorization": "Basic b3Vycw=="},
			Remove: []string{"X-Edit-Removed", "Cookie"},
		}
	})
	for _, tc := range []struct {
		name   string
		fields []string
		want   http.Header
	}{
		{"what the client leaves out is set", nil, http.Header{}},
		{"what the client sent is replaced", []string{"X-Edit-Set: theirs"}, http.Header{}},
		{"in every case", []string{"x-edit-set: theirs", "X-EDIT-SET: theirs"}, http.Header{}},
		{"in every spelling", []string{"X_Edit_Set: theirs", "X.Edit-Set: theirs"}, http.Header{}},
		{"several lines become one", []string{"X-Edit-Set: a", "X-Edit-Set: b", "X-Edit-Set: c"}, http.Header{}},
		{"all lines are removed", []string{"X-Edit-Removed: a", "x-edit-removed: b", "X_EDIT_REMOVED: c"}, http.Header{}},
		{"others keep their lines and order", []string{"X-Edit-Other: b", "X-Edit-Other: a"}, http.Header{"X-Edit-Other": {"b", "a"}}},
		{"a longer name is another", []string{"X-Edit-Settings: kept"}, http.Header{"X-Edit-Settings": {"kept"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h.get("/x", append(tc.fields, "Authorization: Basic dGhlaXJz", "Cookie: theirs")...)
			got := h.last().Header
			want := tc.want.Clone()
			want["X-Edit-Set"], want["X-Edit-New"] = []string{"ours"}, []string{"made"}
			if diff := cmp.Diff(want, edited(got)); diff != "" {
				t.Errorf("fields at the upstream (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"Basic b3Vycw=="}, got["Authorization"]); diff != "" {
				t.Errorf("Authorization (-want +got):\n%s", diff)
			}
			if got["Cookie"] != nil {
				t.Errorf("Cookie = %q, want none", got["Cookie"])
			}
		})
	}
}

func TestAKeyOfTheGatewaysOwnCanBeSetForTheUpstream(t *testing.T) {
	h := start(t, nil, func(o *Options) {
		o.Routes[0].RequestEdits = Edits{Set: map[string]string{"X-API-Key": "of the upstream"}}
	})
	key := h.issue(apikey.Spec{})
	h.get("/", "X-API-Key: "+key)
	if diff := cmp.Diff([]string{"of the upstream"}, h.last().Header["X-Api-Key"]); diff != "" {
		t.Errorf("X-API-Key (-want +got):\n%s", diff)
	}
}
