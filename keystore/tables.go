package keystore

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"latchkey/apikey"
)

// A tableFault is a table that could not be written.
type tableFault struct {
	at      time.Time // by the clock that is never set
	lacking bool      // of room
}

// flush is the category of tables that take what is in memory.
const flush = "pebble-memtable-flush"

// tables reports that what is in memory cannot be written to tables. There is room for
// little of it: then Pebble has changes wait, and all behind them. Tables that only bring
// others in order can wait for longer.
func (d *disk) tables() error {
	fault := d.unsaved.Load()
	switch {
	case fault == nil || time.Since(fault.at) > 5*d.retry: // it would have been tried again
		return nil
	case fault.lacking:
		return fmt.Errorf("%w: a table could not be written", apikey.ErrStoreFull)
	}
	return errTables
}

// errTables is not apikey.ErrStoreFull: there may be room, and it does not help.
var errTables = errors.New("key store cannot write its tables")

// A tableFile is a table that is being written.
type tableFile struct {
	vfs.File
	disk   *disk
	flush  bool        // it takes what is in memory
	failed atomic.Bool // a write of it did
}

// Write implements vfs.File.
func (f *tableFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.note(err)
}

// Sync implements vfs.File.
func (f *tableFile) Sync() error { return f.finished(f.File.Sync()) }

// SyncData implements vfs.File.
func (f *tableFile) SyncData() error { return f.finished(f.File.SyncData()) }

// note remembers that the table could not be written.
func (f *tableFile) note(err error) error {
	if err != nil {
		f.failed.Store(true)
		fault := &tableFault{time.Now(), lacksRoom(err)}
		f.disk.failed.Store(fault)
		if f.flush {
			f.disk.unsaved.Store(fault)
		}
	}
	return err
}

// finished notes that the table is written, unless not all of it is.
func (f *tableFile) finished(err error) error {
	if err == nil && f.flush && !f.failed.Load() {
		f.disk.unsaved.Store(nil)
	}
	return f.note(err)
}
