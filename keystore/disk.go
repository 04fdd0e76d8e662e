package keystore

import (
	"errors"
	"fmt"
	"math"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"latchkey/apikey"
)

// A disk is what the database takes for its file system. It stands between
// Pebble and a disk that is full or broken, because Pebble
//
//   - ends the process, or panics with its locks held, where its log or its
//     MANIFEST cannot be written, also for mere want of room. Here such a write
//     waits until there is room: the process goes on, and what waits for the
//     write has not been answered. It seldom has to: Pebble allocates its log
//     before it writes it, and here the MANIFEST is too.
//   - tries again at once, as fast as it can, where a table cannot be written.
//     Here the next table waits: for a second, and after want of room until the
//     reserve is free again.
//   - goes on after a failed write of the log until somebody asks for a sync.
//     Here that ends the process, in one line.
//
// Reads pass through. So do other directories than the database's, such as a
// backup's: a copy that meets a full disk is to fail.
type disk struct {
	vfs.FS
	path    string // of the store
	dir     string // of the database
	reserve uint64
	retry   time.Duration
	logger  *logger
	synced  *syncedMarks

	waiting atomic.Int32               // operations that wait for room
	behind  atomic.Int32               // those of them that write the MANIFEST
	failed  atomic.Pointer[tableFault] // the last there was
	unsaved atomic.Pointer[tableFault] // of the last table that was to take what is in memory; nil where it was written
	full    atomic.Bool                // what was logged last of the room
	inUse   atomic.Bool                // since the store is open
	closing chan struct{}
	ended   sync.Once
}

func newDisk(inner vfs.FS, path string, o Options, l *logger) *disk {
	return &disk{FS: inner, path: path, dir: inner.PathJoin(path, databaseAt), reserve: o.ReserveBytes, retry: o.retry,
		logger: l, synced: newSyncedMarks(inner, inner.PathJoin(path, databaseAt)), closing: make(chan struct{})}
}

// room gives apikey.ErrStoreFull while changes are to be refused: when less is
// free than the reserve, or when a write that was begun still waits. Between this
// look and the write the disk may fill all the same; then the write waits.
func (d *disk) room() error {
	usage, err := d.GetDiskUsage(d.path)
	reserve := d.reserve
	if usage.TotalBytes > 0 {
		reserve = min(reserve, usage.TotalBytes/16)
	}
	scarce := err == nil && usage.AvailBytes < reserve
	waits := d.waiting.Load() > 0
	if full := scarce || waits || errors.Is(d.tables(), apikey.ErrStoreFull); full != d.full.Load() && d.logger.allow() {
		d.full.Store(full)
		if full {
			d.logger.slog.Error("key store: the disk is full, changes are refused until there is room", "free_bytes", usage.AvailBytes, "reserve_bytes", reserve)
		} else {
			d.logger.slog.Info("key store: there is room on the disk again, changes are taken", "free_bytes", usage.AvailBytes, "reserve_bytes", reserve)
		}
	}
	switch {
	case scarce:
		return fmt.Errorf("%w: %d MiB are left, %d MiB are kept in reserve", apikey.ErrStoreFull, usage.AvailBytes>>20, reserve>>20)
	case waits:
		return fmt.Errorf("%w: an earlier change still waits for room", apikey.ErrStoreFull)
	}
	return nil
}

// leastToOpen is what opening a store writes at the least, with some to spare.
const leastToOpen = 1 << 20

// roomToOpen says that the disk is full before Pebble does, which would end the
// process over it.
func (d *disk) roomToOpen() error {
	if usage, err := d.GetDiskUsage(d.path); err == nil && usage.AvailBytes < leastToOpen {
		return fmt.Errorf("%w: %d KiB are left on its disk; free some and start again", apikey.ErrStoreFull, usage.AvailBytes>>10)
	}
	return nil
}

// checkSynced holds the log and the MANIFEST against what was synced of them.
func (d *disk) checkSynced() error {
	if err := d.synced.read(); err != nil {
		return err
	}
	var damaged []error
	err := d.synced.check(func(err error) { damaged = append(damaged, err) })
	if damaged != nil {
		err = fmt.Errorf("%w, so that answered changes may be missing; restore a backup", damaged[0])
	}
	return err
}

// freeBytes returns how much a change could take, for the metrics.
func (d *disk) freeBytes() float64 {
	usage, err := d.GetDiskUsage(d.path)
	if err != nil {
		return math.NaN()
	}
	return float64(usage.AvailBytes)
}

// errStuck is what cannot be read while the MANIFEST waits for room: Pebble holds a
// lock then which closing a snapshot takes, and its metrics. See manifestRoom.
var errStuck = errors.New("key store waits for room on the disk")

func (d *disk) stuck() error {
	if d.behind.Load() > 0 {
		return errStuck
	}
	return nil
}

// lacksRoom reports whether an operation failed for want of room, or of what the
// owner of the files is allowed of it.
func lacksRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// full makes what failed for want of room apikey.ErrStoreFull.
func full(err error) error {
	if lacksRoom(err) && !errors.Is(err, apikey.ErrStoreFull) {
		return fmt.Errorf("%w: %w", apikey.ErrStoreFull, err)
	}
	return err
}

// patiently does what must not fail for want of room, again and again until it
// does not, or until the store is closed.
func (d *disk) patiently(name string, do func() error) error {
	err := do()
	if !lacksRoom(err) {
		return err
	}
	d.waiting.Add(1)
	defer d.waiting.Add(-1)
	if isManifest(name) {
		d.behind.Add(1)
		defer d.behind.Add(-1)
	}
	d.logger.Errorf("writing %s waits for room on the disk: %v", path.Base(name), plain(err))
	for lacksRoom(err) && d.pause() {
		err = do()
	}
	return err
}

// pause waits for a while, and reports false when the store is closed meanwhile.
func (d *disk) pause() bool {
	select {
	case <-d.closing:
		return false
	case <-time.After(d.retry):
		return true
	}
}

// doubt ends the process over a log that could not be written or synced: nobody
// knows what of it is on the disk. While the store is opened or closed the error
// goes to whoever does that.
func (d *disk) doubt(name string, err error) error {
	if err == nil || !d.inUse.Load() {
		return err
	}
	d.logger.Fatalf("write %s: %w", path.Base(name), plain(err))
	return err
}

// beforeTable waits while tables are not to be written.
func (d *disk) beforeTable() {
	for d.tableWaits() && d.pause() {
	}
}

func (d *disk) tableWaits() bool {
	fault := d.failed.Load()
	return fault != nil && (fault.lacking && d.room() != nil || time.Since(fault.at) < d.retry)
}

// close has nothing wait any more.
func (d *disk) close() {
	d.inUse.Store(false)
	d.ended.Do(func() { close(d.closing) })
}

// Create implements vfs.FS.
func (d *disk) Create(name string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	if d.PathDir(name) != d.dir {
		return d.FS.Create(name, c)
	}
	if isTable(name) {
		d.beforeTable()
		f, err = d.FS.Create(name, c)
		t := &tableFile{File: f, disk: d, flush: c == flush}
		if t.note(err) != nil {
			return nil, err
		}
		return t, nil
	}
	err = d.patiently(name, func() (err error) {
		f, err = d.FS.Create(name, c)
		return err
	})
	return d.careful(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (d *disk) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	if d.PathDir(name) != d.dir {
		return d.FS.ReuseForWrite(old, name, c)
	}
	err = d.patiently(name, func() (err error) {
		f, err = d.FS.ReuseForWrite(old, name, c)
		return err
	})
	return d.careful(name, f, err)
}

// Rename implements vfs.FS.
func (d *disk) Rename(old, name string) error {
	if d.PathDir(name) != d.dir {
		return d.FS.Rename(old, name)
	}
	return d.patiently(name, func() error { return d.FS.Rename(old, name) })
}

// OpenDir implements vfs.FS. Pebble syncs the database's directory for each new
// log, and panics if it cannot.
func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil || d.FS.PathJoin(name) != d.dir {
		return f, err
	}
	return directory{f, d}, nil
}

func (d *disk) careful(name string, f vfs.File, err error) (vfs.File, error) {
	isLog := path.Ext(name) == ".log"
	if err != nil {
		if isLog {
			err = d.doubt(name, err)
		}
		return nil, err
	}
	return &carefulFile{File: f, disk: d, name: name, isLog: isLog, isManifest: isManifest(name)}, nil
}

func isManifest(name string) bool { return strings.HasPrefix(path.Base(name), "MANIFEST-") }

func isTable(name string) bool { return path.Ext(name) == ".sst" || path.Ext(name) == ".blob" }

// A carefulFile is a log, the MANIFEST, or another file that the database cannot
// be without.
type carefulFile struct {
	vfs.File
	disk              *disk
	name              string
	isLog, isManifest bool
	mark              mark  // of what was written
	cutShort          bool  // less was, since a write failed
	allocated         int64 // bytes that need no more room
}

// manifestRoom is allocated for a MANIFEST at a time: some thousand flushes and
// compactions, so that it need not wait for room where the file system can allocate.
const manifestRoom = 1 << 20

// allocate sees to it that there is room for more of the MANIFEST, while there
// is. Not every file system can.
func (f *carefulFile) allocate() {
	if f.isManifest && f.mark.bytes+manifestRoom/2 > f.allocated && f.Preallocate(f.allocated, manifestRoom) == nil {
		f.allocated += manifestRoom
	}
}

// Write implements vfs.File.
func (f *carefulFile) Write(p []byte) (n int, err error) {
	f.allocate()
	f.mark.add(p) // before the write, which may change p
	err = f.disk.patiently(f.name, func() error {
		more, err := f.File.Write(p[n:])
		n += more
		return err
	})
	f.cutShort = f.cutShort || err != nil
	return n, f.end(err)
}

// Sync implements vfs.File. It does not wait for room: after a failed sync the
// system may have dropped what was to be written.
func (f *carefulFile) Sync() error { return f.end(f.marked(f.File.Sync())) }

// SyncData implements vfs.File.
func (f *carefulFile) SyncData() error { return f.end(f.marked(f.File.SyncData())) }

func (f *carefulFile) marked(err error) error {
	if err != nil || f.cutShort {
		return err
	}
	return f.disk.patiently(syncedFile, func() error { return f.disk.synced.put(path.Base(f.name), f.mark) })
}

func (f *carefulFile) end(err error) error {
	if f.isLog {
		return f.disk.doubt(f.name, err)
	}
	return err
}

// A directory is the database's.
type directory struct {
	vfs.File
	disk *disk
}

// Sync implements vfs.File.
func (f directory) Sync() error { return f.disk.doubt(databaseAt, f.File.Sync()) }
