package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey/admin"
	"latchkey/config"
	"latchkey/keystore"
)

// runCommand runs the command line and returns its exit status and output.
func runCommand(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(context.Background(), args, &out, &errs)
	return status, out.String(), errs.String()
}

func TestBackupIsForAdministratorsOfAllTenants(t *testing.T) {
	cfg := testConfig(t, upstreamOK(t).URL)
	for _, o := range []struct{ name, role, tenant string }{
		{"one-tenant", "admin", "acme"}, {"issuer", "issuer", "*"}, {"viewer", "viewer", "*"},
	} {
		t.Setenv("BACKUP_"+strings.ToUpper(strings.ReplaceAll(o.name, "-", "_")), "token-of-"+o.name+"-long-enough")
		cfg.Admin.Operators = append(cfg.Admin.Operators, config.Operator{Name: o.name, Role: o.role, Tenant: o.tenant,
			TokenEnv: "BACKUP_" + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))})
	}
	g := startGateway(t, cfg)
	for token, want := range map[string]int{testToken: 200, "token-of-one-tenant-long-enough": 403,
		"token-of-issuer-long-enough": 403, "token-of-viewer-long-enough": 403, "nobody": 401, "": 401} {
		req, err := http.NewRequest("POST", g.admin+"/backup", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != want {
			t.Errorf("with the token %q: %s, %v; want %d", token, res.Status, err, want)
		}
		if isArchive := bytes.Contains(body, []byte("latchkey store")); isArchive != (want == 200) {
			t.Errorf("with the token %q: an archive: %t", token, isArchive)
		}
	}
}

// TestBackupOfARunningGateway makes both kinds of backup and verifies them.
func TestBackupOfARunningGateway(t *testing.T) {
	t.Setenv("LATCHKEY_TOKEN", testToken)
	g := startGateway(t, testConfig(t, upstreamOK(t).URL))
	if _, err := issue(http.DefaultClient, g.admin); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	unpacked, archive := filepath.Join(dir, "backup"), filepath.Join(dir, "backup.tar")
	for _, args := range [][]string{{"--to", unpacked}, {"--archive", archive}} {
		status, stdout, stderr := runCommand(t, append([]string{"backup", "--server", g.admin}, args...)...)
		if status != 0 || !strings.Contains(stdout, "keys: 1, revision: 2") {
			t.Fatalf("backup %v: %d, %s%s", args, status, stdout, stderr)
		}
		if info, err := os.Stat(args[1]); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v: others can read it", args[1], info.Mode(), err)
		}
		if status, _, stderr := runCommand(t, append([]string{"backup", "--server", g.admin}, args...)...); status != 1 || !strings.Contains(stderr, "is there already") {
			t.Errorf("backup %v again: %d, %s", args, status, stderr)
		}
	}
	if status, stdout, stderr := runCommand(t, "verify", "--store", unpacked); status != 0 || !strings.Contains(stdout, "sound; keys: 1") {
		t.Errorf("verify: %d, %s%s", status, stdout, stderr)
	}
	if err := os.WriteFile(filepath.Join(unpacked, "SEAL"), []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := runCommand(t, "verify", "--store", unpacked); status != 1 || !strings.Contains(stderr, "SEAL of the backup is not as it was") {
		t.Errorf("verify of a changed backup: %d, %s", status, stderr)
	}
	wantFiles(t, dir, "backup", "backup.tar")
	if files, err := filepath.Glob(filepath.Join(g.app.storePath(), "backup*")); err != nil || len(files) > 0 {
		t.Errorf("left in the store: %v, %v", files, err)
	}
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s has %q, want %q", dir, got, want)
	}
}

// TestACutBackupIsNoBackup has the connection end at many places of an archive.
func TestACutBackupIsNoBackup(t *testing.T) {
	t.Setenv("LATCHKEY_TOKEN", testToken)
	s, err := keystore.Open(filepath.Join(t.TempDir(), "store"), keystore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, err := s.Backup("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(a)
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	for _, whole := range []bool{false, true} {
		for n := 100; n <= bytes.LastIndexByte(text, '}'); n += 2500 { // what follows is padding
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set(admin.PlaneField, "admin")
				w.Write(text[:n])
				if !whole { // a cut connection; else an answer that claims to be whole
					w.(http.Flusher).Flush()
					panic(http.ErrAbortHandler)
				}
			}))
			dir := t.TempDir()
			for _, args := range [][]string{{"--to", filepath.Join(dir, "b")}, {"--archive", filepath.Join(dir, "b.tar")}} {
				if status, stdout, stderr := runCommand(t, append([]string{"backup", "--server", server.URL}, args...)...); status != 1 || !strings.Contains(stderr, "nothing was kept") {
					t.Errorf("cut to %d of %d bytes: backup %v: %d, %s%s", n, len(text), args, status, stdout, stderr)
				}
			}
			wantFiles(t, dir)
			server.Close()
		}
	}
}

func TestBackupSaysWhatIsWrong(t *testing.T) {
	g := startGateway(t, testConfig(t, upstreamOK(t).URL))
	dir := t.TempDir()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Errorf("redirected, with %q", r.Header) }))
	defer elsewhere.Close()
	redirect := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer redirect.Close()
	for _, tc := range []struct {
		name, token string
		args        []string
		status      int
		want        string
	}{
		{"neither target", testToken, nil, 2, "either --to or --archive"},
		{"both targets", testToken, []string{"--to", "a", "--archive", "b"}, 2, "either --to or --archive"},
		{"no token", "", []string{"--to", filepath.Join(dir, "a"), "--server", g.admin}, 1, "no operator's token"},
		{"a token that is not known", "some-other-token", []string{"--to", filepath.Join(dir, "a"), "--server", g.admin}, 4, "401: the credentials are not known here"},
		{"a server that sends elsewhere", testToken, []string{"--to", filepath.Join(dir, "a"), "--server", redirect.URL}, 1, "307"},
		{"a server that is none", testToken, []string{"--to", filepath.Join(dir, "a"), "--server", "http://" + freePorts(t, 1)[0]}, 5, "no answer from"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("LATCHKEY_TOKEN", tc.token)
			status, _, stderr := runCommand(t, append([]string{"backup"}, tc.args...)...)
			if status != tc.status || !strings.Contains(stderr, tc.want) || tc.token != "" && strings.Contains(stderr, tc.token) {
				t.Errorf("%d, %s; want %d, %s", status, stderr, tc.status, tc.want)
			}
			wantFiles(t, dir)
		})
	}
}
