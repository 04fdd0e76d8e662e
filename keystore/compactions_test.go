package keystore

import (
	"path"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"latchkey/internal/nettest"
)

// A store that was killed with compactions due opens without waiting for one, and they
// run when it is open.
func TestOpenDoesNotWaitForCompactions(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s := openWith(t, storeAt, Options{FS: mem})
	s.scan.Wait()
	s.options.Experimental.CompactionScheduler.(*compactions).open.Store(false)
	for n := range 8 { // tables that lie over each other
		mustCreate(t, s, manyKeys("acme", 10*n, 10)...)
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	mustCreate(t, s, testKey("acme", 80)) // in the log: Open makes a table of it

	var tables atomic.Int32
	stopped := make(chan struct{})
	killed := errorfs.Wrap(mem.CrashClone(vfs.CrashCloneCfg{}), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && path.Ext(op.Path) == ".sst" && tables.Add(1) == 2 {
			<-stopped // the first compaction's
		}
		return nil
	}))
	release := sync.OnceFunc(func() { close(stopped) })
	t.Cleanup(release)
	opened := make(chan *Store, 1)
	go func() {
		s, err := Open(storeAt, Options{FS: killed})
		if err != nil {
			t.Error(err)
		}
		opened <- s
	}()
	nettest.Until(t, "a compaction begins", func() bool { return tables.Load() == 2 })
	nettest.Until(t, "Open returns", func() bool { return len(opened) == 1 })
	again := <-opened
	release()
	defer again.Close()
	nettest.Until(t, "the compaction has an effect", func() bool { return again.db.Metrics().Levels[0].TablesCount == 0 })
	for n := range 81 {
		k := testKey("acme", n)
		if _, err := again.ByDigest(&k.Digest); err != nil {
			t.Errorf("key %d: %v", n, err)
		}
	}
}
