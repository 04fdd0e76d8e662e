// Package keystore keeps keys on disk, in Pebble.
//
// It decides how keys are laid out, that a change is durable before it is
// answered, and that a change and everything derived from it (lists, counts,
// due times, audit log) are written together or not at all. It is the only
// package that knows Pebble. What a key may become is decided in package
// apikey; what is served without asking the store, in package cache.
package keystore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"latchkey/apikey"
)

// Errors of Open and of a store's methods.
var (
	// ErrLocked reports that another process has the store open.
	ErrLocked = errors.New("is open in another process; stop that one first")
	// ErrNewer reports a store written by a later version of Latchkey.
	ErrNewer = errors.New("was written by a newer version of latchkey; run that version, or restore a backup made by this one")
	// ErrNotStore reports a directory that has files in it but no store.
	ErrNotStore = errors.New("has files in it but is not a latchkey store; name an empty or missing directory")
	// ErrIsBackup reports an unpacked backup, which would no longer be one once it is used.
	ErrIsBackup = errors.New("is a backup; make a store of it with latchkey restore, in a directory of its own")
	// errNoDatabase reports that all keys are gone, and not that there were none.
	errNoDatabase = errors.New(databaseAt + ", its database, is missing or empty; restore a backup, or remove the directory to begin without keys")
	// ErrClosed reports the use of a store after Close.
	ErrClosed = errors.New("key store is closed")
)

// schema is the version of the layout. It is kept in the file formatFile, in
// front of the database, so that a store of a newer version is refused before
// anything in it is opened.
const (
	schema     = 1
	formatFile = "FORMAT"
	formatHead = "latchkey store "
	databaseAt = "db"
)

// Options configures Open. The zero value is usable.
type Options struct {
	BlockCacheBytes int64        // memory for Pebble's block cache; zero means 64 MiB
	ReserveBytes    uint64       // free disk space below which changes are refused, a sixteenth of the disk at the most; zero means 64 MiB
	Logger          *slog.Logger // nil discards

	// OnFatal is called when the write-ahead log can no longer be trusted. It
	// must end the process; nil means exit status 1.
	OnFatal func(error)

	// FS is the file system; nil means the operating system's.
	FS vfs.FS

	retry time.Duration // between two tries of a write that lacks room; zero means a second
}

// A Store is an open key store. Its methods may be called by any goroutine.
type Store struct {
	db                  *pebble.DB
	options             *pebble.Options
	path                string
	fs                  vfs.FS
	disk                *disk // what the database takes for its file system
	lock                *pebble.Lock
	filter              *digestFilter
	sealer              sealer
	watcher             Watcher
	total               int // keys when it was opened
	logger              *logger
	events              *eventCounts
	metrics, ownMetrics []metric // of Pebble, and ours
	damaged             damagedDigests

	// life is held for reading by every operation and for writing by Close, so
	// that none runs on a closed database: Pebble answers that with a panic.
	life   sync.RWMutex
	closed bool
	scan   sync.WaitGroup // the goroutine that fills the filter

	// write is held from reading what a change is about until the change is
	// visible, but not while it is synced: writers in a row share one fsync.
	write    sync.Mutex
	revision uint64 // of the last change; guarded by write

	staging atomic.Bool // there is a Staging
	backing atomic.Bool // there is a backup under way
}

// Open opens the store in the directory, and makes it (with mode 0700) if there
// is none. The store belongs to one process at a time.
func Open(path string, o Options) (*Store, error) {
	s, err := open(path, o.withDefaults())
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w; let this user (%d) read and write all of it", err, os.Getuid())
		}
		return nil, fmt.Errorf("key store %s: %w", path, err)
	}
	return s, nil
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnFatal == nil {
		o.OnFatal = func(error) { os.Exit(1) }
	}
	if o.BlockCacheBytes == 0 {
		o.BlockCacheBytes = 64 << 20
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = 64 << 20
	}
	if o.retry == 0 {
		o.retry = time.Second
	}
	return o
}

func open(path string, o Options) (*Store, error) {
	if err := checkFormat(path, o.FS); err != nil {
		return nil, err
	}
	events := newEventCounts()
	logger := &logger{slog: o.Logger, onFatal: o.OnFatal, dropped: &events.dropped}
	options := pebbleOptions(o, logger, events)
	compactions := newCompactions()
	options.Experimental.CompactionScheduler = compactions
	disk := newDisk(options.FS, path, o, logger)
	options.FS = disk
	options.EnsureDefaults()
	s := &Store{options: options, path: path, fs: o.FS, disk: disk, watcher: nobody{},
		logger: logger, events: events}
	s.metrics, s.ownMetrics = newMetrics(disk, events)
	if err := s.load(); err != nil {
		return nil, errors.Join(err, s.release())
	}
	disk.inUse.Store(true)
	compactions.opened()
	s.scan.Add(1)
	go func() {
		defer s.scan.Done()
		if err := s.fillFilter(); err != nil && !errors.Is(err, ErrClosed) {
			o.Logger.Error("filter of known keys is off; unknown keys are looked up on disk", "error", err)
		}
	}()
	return s, nil
}

// load opens the database and reads what is kept in memory.
func (s *Store) load() (err error) {
	if err := s.disk.roomToOpen(); err != nil {
		return err
	}
	if s.lock, err = lockDatabase(s.disk.dir, s.fs); err != nil {
		return err
	}
	s.options.Lock = s.lock
	if err := s.disk.checkSynced(); err != nil {
		return err
	}
	// The sealing key is made right behind the database.
	if _, err := s.fs.Stat(s.fs.PathJoin(s.path, sealFile)); err == nil {
		s.options.ErrorIfNotExists = true
	}
	if s.db, err = openDatabase(s.path, s.options); errors.Is(err, pebble.ErrDBDoesNotExist) {
		return errNoDatabase
	}
	if err != nil {
		return err
	}
	sealed, err := hasSealed(s.db)
	if err != nil {
		return err
	}
	if s.sealer, err = openSealer(s.path, s.fs, sealed); err != nil {
		return err
	}
	if err := errors.Join(s.dropStaged(), s.dropBackup()); err != nil {
		return err
	}
	if s.revision, err = lastRevision(s.db); err != nil {
		return err
	}
	if s.total, err = countAll(s.db); err != nil {
		return err
	}
	s.filter = newDigestFilter(2 * s.total)
	return nil
}

// release closes what load opened.
func (s *Store) release() error {
	s.disk.close()
	var errs []error
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	errs = append(errs, s.disk.synced.close())
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// lockDatabase keeps other processes from the database, before anything in it is
// looked at.
func lockDatabase(dir string, fsys vfs.FS) (*pebble.Lock, error) {
	if err := makeDir(dir, fsys); err != nil {
		return nil, plain(err)
	}
	lock, err := pebble.LockDirectory(dir, fsys)
	return lock, locked(err)
}

func openDatabase(path string, options *pebble.Options) (*pebble.DB, error) {
	db, err := pebble.Open(options.FS.PathJoin(path, databaseAt), options)
	return db, locked(err)
}

// locked tells a lock that another holds from other errors.
func locked(err error) error {
	if errors.Is(err, syscall.EAGAIN) || err != nil && strings.Contains(err.Error(), "lock held by current process") {
		return ErrLocked
	}
	return err
}

func pebbleOptions(o Options, logger *logger, events *eventCounts) *pebble.Options {
	po := &pebble.Options{
		FS:                 o.FS,
		CacheSize:          o.BlockCacheBytes,
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       4 << 20, // bounds the log that a start after a crash replays, which takes some 15 ms a MiB
		Logger:             logger,
		EventListener:      events.listener(logger),
		// Two cores are what the smallest deployments have; a second compaction
		// would take the last one from requests.
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
	}
	for i := range po.Levels {
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	po.WithFSDefaults() // watches for a slow disk, which Pebble does by itself only where it picks the FS
	return po
}

// A Watcher is told the digest of every key that a change replaces: before the change
// becomes visible, and when it is, before it is answered. It is told of the end of
// what it was told the beginning of, also where the change fails.
type Watcher interface {
	Changing(*apikey.Digest)
	Changed(*apikey.Digest)
}

// Notify names who is told of changes. It is called once, before the store is used.
func (s *Store) Notify(w Watcher) { s.watcher = w }

// nobody watches a store until Notify is called.
type nobody struct{}

func (nobody) Changing(*apikey.Digest) {}
func (nobody) Changed(*apikey.Digest)  {}

// Opened returns how many keys the store had when it was opened.
func (s *Store) Opened() int { return s.total }

// Close waits for what is under way and closes the store.
func (s *Store) Close() error {
	s.disk.close() // else a change that waits for room would be waited for
	s.life.Lock()
	if s.closed {
		s.life.Unlock()
		return nil
	}
	s.closed = true
	s.life.Unlock()
	s.scan.Wait()
	if err := s.release(); err != nil {
		return fmt.Errorf("close key store %s: %w", s.path, err)
	}
	return nil
}

// use begins an operation; the caller calls s.life.RUnlock when it returns nil.
func (s *Store) use() error {
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return ErrClosed
	}
	return nil
}

// lastRevision returns the revision of the newest audit row: every change
// writes one.
func lastRevision(r pebble.Reader) (uint64, error) {
	it, err := iter(r, []byte{familyAudit})
	if err != nil {
		return 0, err
	}
	var rev uint64
	if it.Last() && len(it.Key()) >= 9 {
		rev = binary.BigEndian.Uint64(it.Key()[1:])
	}
	return rev, it.Close()
}

// hasSealed reports whether a row holds something sealed.
func hasSealed(r pebble.Reader) (bool, error) {
	for _, family := range []byte{familyReceipt, familyOutbox, familyWebhook, familySigning} {
		it, err := iter(r, []byte{family})
		if err != nil {
			return false, err
		}
		some := it.First()
		if err := it.Close(); err != nil || some {
			return some, err
		}
	}
	return false, nil
}

// countAll returns the number of keys of all tenants.
func countAll(r pebble.Reader) (int, error) {
	it, err := iter(r, []byte{familyCount})
	if err != nil {
		return 0, err
	}
	total := 0
	for it.First(); it.Valid(); it.Next() {
		n, err := countOf(it.Value())
		if err != nil {
			return 0, errors.Join(err, it.Close())
		}
		total += n
	}
	return total, it.Close()
}

// fillFilter adds every digest of the store to the filter, then lets the
// filter answer. Until then it rules nothing out, so the store serves at once
// whatever its size.
func (s *Store) fillFilter() error {
	if err := s.use(); err != nil {
		return err
	}
	it, err := s.iter([]byte{familyDigest})
	s.life.RUnlock()
	if err != nil {
		return err
	}
	n := 0
	for it.First(); it.Valid(); it.Next() {
		if n++; n%1024 == 0 {
			if err := s.use(); err != nil {
				return errors.Join(err, it.Close())
			}
			s.life.RUnlock()
		}
		d := apikey.Digest(it.Key()[1:])
		s.filter.add(&d)
	}
	if err := it.Close(); err != nil {
		return err
	}
	s.filter.ready.Store(true)
	return nil
}

func (s *Store) iter(prefix []byte) (*pebble.Iterator, error) { return iter(s.db, prefix) }

func iter(r pebble.Reader, prefix []byte) (*pebble.Iterator, error) {
	return r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
}
