package keystore

import (
	"errors"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMissingFiles takes away a file of the store, or all that are alike. Either the
// store does not open, and says what is missing, or all of it is there: keys that are
// revoked would be good again, and others unknown.
func TestMissingFiles(t *testing.T) {
	files, keys := damagedStore(t)
	const db = storeAt + "/" + databaseAt + "/"
	cases := map[string]func(name string) bool{
		"all logs":                       func(name string) bool { return strings.HasSuffix(name, ".log") },
		"all tables":                     func(name string) bool { return strings.HasSuffix(name, ".sst") },
		"the database":                   func(name string) bool { return strings.HasPrefix(name, db) },
		"the database, but for its logs": func(name string) bool { return strings.HasPrefix(name, db) && !strings.HasSuffix(name, ".log") },
		"all markers":                    func(name string) bool { return strings.HasPrefix(path.Base(name), "marker.") },
		"all that begins the database": func(name string) bool {
			return strings.HasPrefix(path.Base(name), "marker.") || strings.HasPrefix(path.Base(name), "MANIFEST")
		},
		"all but the database": func(name string) bool { return !strings.HasPrefix(name, db) },
	}
	for name := range files {
		cases[strings.TrimPrefix(name, storeAt+"/")] = func(n string) bool { return n == name }
	}
	var whole []string // what the store can do without
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		left := map[string][]byte{}
		for n, text := range files {
			if !cases[name](n) {
				left[n] = text
			}
		}
		s, err := Open(storeAt, Options{FS: putFiles(t, left)})
		if err != nil {
			continue
		}
		whole = append(whole, name)
		for _, k := range keys {
			got, err := s.ByID(k.Tenant, k.ID)
			if err != nil || got.State(epoch.Add(2*time.Hour)) != k.State(epoch.Add(2*time.Hour)) {
				t.Errorf("without %s the store opens, and has a key as %v, %v", name, got.State(epoch.Add(2*time.Hour)), err)
				break
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("the store opens without %q", whole)
}

// TestWhatIsMissingIsNamed holds the errors of those that a person brings about.
func TestWhatIsMissingIsNamed(t *testing.T) {
	files, _ := damagedStore(t)
	const db = storeAt + "/" + databaseAt + "/"
	for _, tc := range []struct {
		name string
		gone func(name string) bool
		want string
	}{
		{"the log", func(n string) bool { return strings.HasSuffix(n, ".log") }, ".log, the log, is missing, so that answered changes may be missing; restore a backup"},
		{"the database", func(n string) bool { return strings.HasPrefix(n, db) }, errNoDatabase.Error()},
		{"the sealing key and the format", func(n string) bool { return !strings.HasPrefix(n, db) }, ErrNotStore.Error()},
	} {
		left := map[string][]byte{}
		for n, text := range files {
			if !tc.gone(n) {
				left[n] = text
			}
		}
		_, err := Open(storeAt, Options{FS: putFiles(t, left)})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("without %s: %v, want %q", tc.name, err, tc.want)
		}
		if problems(putFiles(t, left)) == 0 {
			t.Errorf("without %s verify finds nothing", tc.name)
		}
	}
	files[storeAt+"/"+manifestFile] = []byte("{}")
	if _, err := Open(storeAt, Options{FS: putFiles(t, files)}); !errors.Is(err, ErrIsBackup) {
		t.Errorf("an unpacked backup: %v, want %v", err, ErrIsBackup)
	}
}
