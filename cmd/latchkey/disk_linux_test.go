package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"latchkey/internal/nettest"
	"latchkey/keystore"
)

var fullFor = flag.Duration("full", time.Second, "how long TestFullDisk keeps the disk full, once under load and once without")

// TestFullDisk fills the disk under a gateway that is under load. For as long as
// it is full, changes are answered 507, keys are read and admitted as before, and
// the process neither grows nor works nor talks more. With room again changes are
// taken, by the same process.
func TestFullDisk(t *testing.T) {
	s := newCrashSite(t)
	s.client.Timeout = time.Minute
	disk := mountSmall(t, filepath.Join(filepath.Dir(s.config), "store"))
	child, out := s.start()
	var revoked, live []issued
	for i := range 40 {
		k, err := issue(s.client, s.admin)
		if err == nil && i%4 == 0 {
			err = revoke(s.client, s.admin, k.ID)
			revoked = append(revoked, k)
		} else {
			live = append(live, k)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	load := &fullDiskLoad{site: s, live: live, revoked: revoked, stop: make(chan struct{})}
	for range 3 {
		load.all.Go(load.use)
	}
	for range 3 {
		load.all.Go(load.change)
	}
	nettest.Until(t, "there is load", func() bool { return load.used.Load() > 1000 && load.made.Load() > 100 })

	filler := fill(t, disk)
	nettest.Until(t, "changes are refused", func() bool { return load.refused.Load() > 10 })
	before := load.counts()
	rss, _ := memory(t, child.Process.Pid)
	lines := complaints(t, out.Name())
	began := time.Now()
	<-time.After(*fullFor)
	held := time.Since(began)
	grown, _ := memory(t, child.Process.Pid)
	after := load.counts()
	said := complaints(t, out.Name()) - lines
	t.Logf("%s full under load: %d changes refused, %d requests answered as before, %d lists; memory %s, then %s; %d lines logged beside those of calls",
		held.Round(time.Millisecond), after.refused-before.refused, after.used-before.used, after.listed-before.listed, mebibytes(rss), mebibytes(grown), said)
	if after.refused == before.refused || after.used == before.used || after.listed == before.listed {
		t.Errorf("from %+v to %+v: there was no load", before, after)
	}
	if made := after.made - before.made; made > 3 { // one each that was under way
		t.Errorf("%d keys were made on a full disk", made)
	}
	if grown > rss+32<<20 {
		t.Errorf("memory grew from %s to %s", mebibytes(rss), mebibytes(grown))
	}
	if status, text := importLine(t, s); status != 507 || !strings.Contains(text, "and 0 keys were imported") {
		t.Errorf("an import is answered %d %s, want 507, since not even a refusal can be kept", status, text)
	}
	if most := 10 + 2*int(held/time.Second); said > most {
		t.Errorf("%d lines logged in %s, want %d at the most", said, held, most)
	}
	close(load.stop)

	// Nobody asks for anything now, and nothing is tried again and again.
	began, worked := time.Now(), cpu(t, child.Process.Pid)
	<-time.After(*fullFor)
	held, worked = time.Since(began), cpu(t, child.Process.Pid)-worked
	t.Logf("%s full without load: %s of one core", held.Round(time.Millisecond), worked)
	if worked > held/4+100*time.Millisecond {
		t.Errorf("it worked for %s of %s, with nothing to do", worked, held)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	var k issued
	nettest.Until(t, "changes are taken again", func() (made bool) {
		var err error
		k, err = issue(s.client, s.admin)
		return err == nil
	})
	load.all.Wait() // not before there is room: a change that was under way waits for it
	if status, _, err := use(s.client, s.proxy, k.Key); status != 200 {
		t.Errorf("a new key gets %d, %v", status, err)
	}
	for _, k := range revoked {
		if status, code, err := use(s.client, s.proxy, k.Key); status != 401 {
			t.Errorf("a revoked key gets %d %s, %v", status, code, err)
		}
	}
	if err := child.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err != nil {
		t.Errorf("the gateway, interrupted: %v", err)
	}
	found, err := keystore.Verify(disk, keystore.Options{}, func(problem string) { t.Error(problem) })
	if want := len(live) + len(revoked) + int(load.made.Load()) + 1; err != nil || found.Keys() < want {
		t.Errorf("%d keys in the store, %v; %d were answered", found.Keys(), err, want)
	}
}

// importLine imports a line that is no key, and returns what comes of it.
func importLine(t *testing.T, s *crashSite) (status int, text string) {
	t.Helper()
	res, err := call(s.client, "POST", s.admin+"/import", "{}")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(all)
}

// mountSmall mounts a file system of 64 MiB at the path, until the test ends.
func mountSmall(t *testing.T, at string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", at, "tmpfs", syscall.MS_NODEV|syscall.MS_NOSUID|syscall.MS_NOEXEC, "size=64m,mode=0700"); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return at
}

// fill writes a file until the disk has no room for another byte.
func fill(t *testing.T, disk string) (name string) {
	t.Helper()
	name = filepath.Join(disk, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096} {
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	return name
}

// A fullDiskLoad uses keys, and makes and lists some.
type fullDiskLoad struct {
	site          *crashSite
	live, revoked []issued
	stop          chan struct{}
	all           sync.WaitGroup

	used, made, refused, listed atomic.Int64
}

type fullDiskCounts struct{ used, made, refused, listed int64 }

func (l *fullDiskLoad) counts() fullDiskCounts {
	return fullDiskCounts{l.used.Load(), l.made.Load(), l.refused.Load(), l.listed.Load()}
}

func (l *fullDiskLoad) ended() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

func (l *fullDiskLoad) use() {
	for n := 0; !l.ended(); n++ {
		k, want := l.live[n%len(l.live)], 200
		if n%4 == 3 {
			k, want = l.revoked[n%len(l.revoked)], 401
		}
		status, code, err := use(l.site.client, l.site.proxy, k.Key)
		if err != nil || status != want {
			l.site.t.Errorf("key %s gets %d %s, %v; want %d", k.ID, status, code, err, want)
			return
		}
		l.used.Add(1)
	}
}

func (l *fullDiskLoad) change() {
	for n := 0; !l.ended(); n++ {
		if n%4 == 3 {
			res, err := call(l.site.client, "GET", l.site.admin+"/api/keys", "")
			if err != nil || res.StatusCode != 200 {
				l.site.t.Errorf("the list was not answered: %v %v", res, err)
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			l.listed.Add(1)
			continue
		}
		res, err := call(l.site.client, "POST", l.site.admin+"/api/keys", `{"userId": "u"}`)
		if err != nil {
			l.site.t.Errorf("a change was not answered: %v", err)
			return
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		switch res.StatusCode {
		case http.StatusCreated:
			l.made.Add(1)
		case http.StatusInsufficientStorage:
			l.refused.Add(1)
		default:
			l.site.t.Errorf("a change was answered %d %s", res.StatusCode, body)
			return
		}
	}
}

// complaints counts the lines of a log that are not about one call.
func complaints(t *testing.T, name string) (n int) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if !bytes.Contains(line, []byte(`"msg":"admin call"`)) {
			n++
		}
	}
	return n
}

// cpu returns for how long a process has worked.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The name may have blanks in it; fields 14 and 15 are 12 and 13 behind it.
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int64
	for _, field := range f[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ is 100 on all that Linux runs on
}
