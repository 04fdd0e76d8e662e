package keystore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"latchkey/apikey"
)

// A Summary says what Verify has read.
type Summary struct {
	Families []FamilyCount // in the order of the layout
	Tables   int           // files of the database whose checksums were compared
	Revision uint64        // of the newest event of the audit log
	Problems int
}

// Keys returns how many keys there are, of all tenants and states.
func (s Summary) Keys() int { return s.Rows(familyRecord) }

// SigningKeys returns how many keys that sign tokens there are, retired ones too.
func (s Summary) SigningKeys() int { return s.Rows(familySigning) }

// Rows returns how many rows a family has.
func (s Summary) Rows(family byte) int {
	for _, f := range s.Families {
		if f.Family == family {
			return f.Rows
		}
	}
	return 0
}

// A FamilyCount is how many rows a family has.
type FamilyCount struct {
	Family byte // the first byte of its rows' keys
	Name   string
	Rows   int
}

// Verify reads the whole of a store that no process has open, or of a copy of
// one, and calls report with a line for each thing that is not as it must be. It
// writes nothing and takes constant memory. The error says what kept it from
// reading the store at all. No line holds a secret or a digest.
func Verify(path string, o Options, report func(problem string)) (Summary, error) {
	o = o.withDefaults()
	s, err := verify(path, o, report)
	if err != nil {
		return s, fmt.Errorf("key store %s: %w", path, err)
	}
	return s, nil
}

func verify(path string, o Options, report func(string)) (s Summary, err error) {
	if err := readFormat(path, o.FS); errors.Is(err, fs.ErrNotExist) {
		return s, errNoStore
	} else if err != nil {
		return s, err
	}
	db, err := openReadOnly(path, o)
	if errors.Is(err, fs.ErrNotExist) {
		return s, errNoStore
	}
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	v := &verifier{r: db, report: report}
	marks := newSyncedMarks(o.FS, o.FS.PathJoin(path, databaseAt))
	if err := errors.Join(marks.read(), marks.check(func(err error) { v.problem("%v", err) })); err != nil {
		return v.summary, err
	}
	sound, err := v.tables(path, db, o)
	if err != nil {
		return v.summary, err
	}
	if !sound {
		// Pebble looks for the flipped bit at every read of a damaged block, which
		// takes up to a second, and there is a read for nearly every row.
		v.problem("rows are not compared, because tables are damaged")
		return v.summary, nil
	}
	sealed, err := hasSealed(db)
	if err != nil {
		return v.summary, err
	}
	sealer, err := readSealer(path, o.FS)
	switch {
	case err == nil:
		v.open = sealer.open
	case sealed || !errors.Is(err, fs.ErrNotExist):
		v.problem("%v", errSealKey)
	}
	v.rows()
	return v.summary, nil
}

// openReadOnly opens a database and writes nothing.
func openReadOnly(path string, o Options) (*pebble.DB, error) {
	return openDatabase(path, readOnly(o))
}

func readOnly(o Options) *pebble.Options {
	o.FS = readOnlyFS{o.FS}
	events := newEventCounts()
	logger := &logger{slog: o.Logger, onFatal: o.OnFatal, dropped: &events.dropped}
	options := pebbleOptions(o, logger, events)
	options.ReadOnly = true
	options.EventListener.DataCorruption = func(pebble.DataCorruptionInfo) {} // the reader is told
	options.EnsureDefaults()
	return options
}

// errNoStore reports a directory in which there is nothing to verify.
var errNoStore = errors.New("is not a latchkey store; name the directory that has " + formatFile + " and " + databaseAt + " in it")

// tables compares the checksum of every block of every table, also of blocks
// that no row is read from, and reports whether all are sound.
func (v *verifier) tables(path string, db *pebble.DB, o Options) (sound bool, err error) {
	levels, err := db.SSTables()
	if err != nil {
		return false, err
	}
	sound = true
	options := readOnly(o)
	seen := map[string]bool{} // of tables alone: about one in 64 MiB
	for _, level := range levels {
		for _, t := range level {
			name := fmt.Sprintf("%s.sst", t.BackingSSTNum)
			if seen[name] {
				continue
			}
			seen[name] = true
			v.summary.Tables++
			if err := verifyTable(options.FS.PathJoin(path, databaseAt, name), options); err != nil {
				v.problem("table %s: %v", name, plain(err))
				sound = false
			}
		}
	}
	return sound, nil
}

func verifyTable(name string, options *pebble.Options) error {
	f, err := options.FS.Open(name)
	if err != nil {
		return err
	}
	source, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	t, err := sstable.NewReader(context.Background(), source, options.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, source.Close())
	}
	return errors.Join(t.ValidateBlockChecksums(), t.Close())
}

// A verifier holds rows against each other. It keeps nothing of them but what
// one row or one list needs.
type verifier struct {
	r       pebble.Reader
	open    func(row, sealed []byte) (apikey.Secret, error) // nil where sealed rows cannot be opened
	report  func(string)
	summary Summary

	lastEvent apikey.Place    // of the audit log that was read
	signers   map[string]bool // signing keys of which the audit log tells; whether they are to be there
	signer    string          // the one that signs, as far as they were read
}

func (v *verifier) problem(format string, args ...any) {
	v.summary.Problems++
	v.report(fmt.Sprintf(format, args...))
}

// rows reads every family.
func (v *verifier) rows() {
	v.signers = map[string]bool{}
	for _, f := range []struct {
		family byte
		name   string
		check  func(key, value []byte)
	}{
		{familyRecord, "records", v.record},
		{familyDigest, "records by digest", v.digest},
		{familyList, "lists", v.listed},
		{familyCount, "totals", v.total},
		{familyDue, "due times", v.due},
		{familyAudit, "audit log", v.event},
		{familyKeyAudit, "audit log by key", v.eventOfKey},
		{familyTenantAudit, "audit log by tenant", v.eventOfTenant},
		{familySigning, "signing keys", v.signing},
		{familyUse, "last uses", v.use},
		{familyReceipt, "receipts", v.receipt},
		{familyOutbox, "deliveries", v.delivery},
		{familyWebhook, "webhook secrets", v.webhook},
		{familyStaged, "rows of an unfinished import", func(_, _ []byte) {}}, // dropped when the store is opened
	} {
		count := FamilyCount{Family: f.family, Name: f.name}
		v.each([]byte{f.family}, f.name, func(key, value []byte) {
			count.Rows++
			f.check(key, value)
		})
		v.summary.Families = append(v.summary.Families, count)
	}
	v.lists()
	v.signersLost()
	v.strangers()
}

// each calls f for every row with the prefix. The first that cannot be read ends
// it.
func (v *verifier) each(prefix []byte, name string, f func(key, value []byte)) {
	it, err := iter(v.r, prefix)
	if err != nil {
		v.problem("%s: %v", name, err)
		return
	}
	for it.First(); it.Valid(); it.Next() {
		f(it.Key(), it.Value())
	}
	if err := it.Close(); err != nil {
		v.problem("%s: reading stopped: %v", name, err)
	}
}

// strangers reports rows of no family.
func (v *verifier) strangers() {
	it, err := v.r.NewIter(nil)
	if err != nil {
		v.problem("rows: %v", err)
		return
	}
	for ok := it.First(); ok; {
		family := it.Key()[:min(len(it.Key()), 1)]
		if len(family) > 0 && v.isFamily(family[0]) {
			ok = it.SeekGE(after(family))
			continue
		}
		v.problem("a row belongs to no family: its key begins with %q", family)
		ok = it.Next()
	}
	if err := it.Close(); err != nil && v.summary.Problems == 0 { // else it is known
		v.problem("rows: reading stopped: %v", err)
	}
}

func (v *verifier) isFamily(b byte) bool {
	for _, f := range v.summary.Families {
		if f.Family == b {
			return true
		}
	}
	return false
}

// has reports whether the row is there. One that cannot be read counts as there:
// reading its family reports it.
func (v *verifier) has(key []byte) bool { return absent(v.r, key) != nil }

// A readOnlyFS does not make the lock file of a database that has none: it is a
// copy, which nobody opens.
type readOnlyFS struct{ vfs.FS }

// Lock implements vfs.FS.
func (f readOnlyFS) Lock(name string) (io.Closer, error) {
	if _, err := f.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(nil), nil
	}
	return f.FS.Lock(name)
}
