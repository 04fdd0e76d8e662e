package admin_test

import (
	"strings"
	"testing"

	"latchkey/admin"
	"latchkey/admin/peach"
	"latchkey/admin/truvera"
	"latchkey/admin/wire"
)

func TestTwoDialectsOnOnePathAreAnError(t *testing.T) {
	truvera := truvera.New(truvera.Options{})
	for _, tc := range []struct {
		name  string
		peach admin.Mount
		ok    bool
	}{
		{"the same path", admin.Mount{Dialect: peach.New(peach.Options{APIVersions: []string{"2024-05-22"}})}, false},
		{"another prefix", admin.Mount{Dialect: peach.New(peach.Options{Prefix: "/api", APIVersions: []string{"2024-05-22"}})}, true},
		{"another host", admin.Mount{Host: "peach.test", Dialect: peach.New(peach.Options{APIVersions: []string{"2024-05-22"}})}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := admin.New(admin.Options{Keys: &wire.KeyService{}, Mounts: []admin.Mount{{Dialect: truvera}, tc.peach}})
			if tc.ok != (err == nil) {
				t.Fatalf("New: %v", err)
			}
			if err != nil && (!strings.Contains(err.Error(), "truvera") || !strings.Contains(err.Error(), "peach") || !strings.Contains(err.Error(), "/keys")) {
				t.Errorf("%v does not name both dialects and the path", err)
			}
		})
	}
}
