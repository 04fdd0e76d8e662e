package keystore

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// syncedFile, in the directory of the database, says how much of the newest log
// and of the MANIFEST has been synced, and what the checksum of that is.
//
// Both files end anywhere after a crash, so Pebble takes a record with a wrong
// checksum for the end, if it does not know of a later one. A flipped bit in the
// last record of the log, or in any of the MANIFEST, would thus take back changes
// that were answered, revocations among them, and nobody would be told. What was
// synced cannot have been torn by a crash: if it is not there, it is damaged.
//
// For a log this is written after each sync and not synced itself, which costs
// next to nothing and survives the end of the process, though perhaps not that of
// the machine: then it speaks of less. For the MANIFEST, which is written seldom,
// it is synced.
const syncedFile = "SYNCED"

// syncedBytes is the length of the file, one sector: it is there whole or not.
const syncedBytes = 512

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // made once, by crc32

// A mark is the length of a file's beginning, and its checksum.
type mark struct {
	bytes int64
	sum   uint32
}

func (m *mark) add(p []byte) {
	m.bytes += int64(len(p))
	m.sum = crc32.Update(m.sum, castagnoli(), p)
}

// syncedMarks are what the file says.
type syncedMarks struct {
	fs   vfs.FS
	path string

	mu    sync.Mutex
	file  vfs.File // nil until the first mark
	marks map[string]mark
}

func newSyncedMarks(fsys vfs.FS, dir string) *syncedMarks {
	return &syncedMarks{fs: fsys, path: fsys.PathJoin(dir, syncedFile), marks: map[string]mark{}}
}

// put notes that so much of the file has been synced. Files that are neither log
// nor MANIFEST are not written on once they are synced; Pebble sees to them.
func (s *syncedMarks) put(name string, m mark) (err error) {
	isLog := strings.HasSuffix(name, ".log")
	if !isLog && !isManifest(name) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks[name] = m
	s.drop(".log", 1)
	s.drop("MANIFEST-", 2) // a new one is not in force at once
	if s.file == nil {
		if s.file, err = s.fs.OpenReadWrite(s.path, vfs.WriteCategoryUnspecified); err != nil {
			return err
		}
	}
	if _, err := s.file.WriteAt(encodeMarks(s.marks), 0); err != nil || isLog {
		return err
	}
	return s.file.Sync()
}

// older reports whether one file of a kind was made before another. Their names are of
// one length, up to a number that no store gets to.
func older(a, b string) bool { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) < 0 }

// drop forgets all but the newest files of a kind.
func (s *syncedMarks) drop(kind string, keep int) {
	names := slices.SortedFunc(maps.Keys(s.marks), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(b, a))
	})
	for _, name := range names {
		if !strings.Contains(name, kind) {
			continue
		}
		if keep--; keep < 0 {
			delete(s.marks, name)
		}
	}
}

func (s *syncedMarks) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// read takes over what the file says. One that is missing or makes no sense says
// nothing: it may be what the end of the machine left.
func (s *syncedMarks) read() error {
	f, err := s.fs.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return plain(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, syncedBytes))
	if err != nil {
		return plain(err)
	}
	s.marks = decodeMarks(text)
	return nil
}

// check compares the files with their marks, and calls damaged for each that is
// not as it was synced. A log that is gone was not needed any more where there is a
// newer one, and only there: Pebble opens a database without any as if nothing had been
// in it. A MANIFEST that is gone was not needed, or Pebble misses it.
func (s *syncedMarks) check(damaged func(error)) error {
	dir := s.fs.PathDir(s.path)
	for _, name := range slices.Sorted(maps.Keys(s.marks)) {
		want := s.marks[name]
		f, err := s.fs.Open(s.fs.PathJoin(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			files, err := s.fs.List(dir)
			if err != nil {
				return plain(err)
			}
			if strings.HasSuffix(name, ".log") && !slices.ContainsFunc(files, func(f string) bool { return strings.HasSuffix(f, ".log") && older(name, f) }) {
				damaged(fmt.Errorf("%s/%s, the log, is missing", databaseAt, name))
			}
			continue
		}
		if err != nil {
			return plain(err)
		}
		sum := crc32.New(castagnoli())
		n, err := io.Copy(sum, io.LimitReader(f, want.bytes))
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("read %s: %w", name, plain(err))
		}
		if n != want.bytes || sum.Sum32() != want.sum {
			damaged(fmt.Errorf("%s/%s is damaged: its first %d bytes are not those that were synced", databaseAt, name, want.bytes))
		}
	}
	return nil
}

// encodeMarks returns a checksum and a line for each mark, in one sector.
func encodeMarks(marks map[string]mark) []byte {
	var lines bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(marks)) {
		fmt.Fprintf(&lines, "%s %d %08x\n", name, marks[name].bytes, marks[name].sum)
	}
	b := fmt.Appendf(nil, "%08x\n%s", crc32.Checksum(lines.Bytes(), castagnoli()), lines.Bytes())
	return append(b, bytes.Repeat([]byte{0}, max(0, syncedBytes-len(b)))...)
}

// decodeMarks reads what encodeMarks wrote, and returns an empty map for
// anything else.
func decodeMarks(b []byte) map[string]mark {
	head, lines, _ := strings.Cut(strings.TrimRight(string(b), "\x00"), "\n")
	marks := map[string]mark{}
	if head != fmt.Sprintf("%08x", crc32.Checksum([]byte(lines), castagnoli())) {
		return marks
	}
	for line := range strings.Lines(lines) {
		var name string
		var m mark
		if _, err := fmt.Sscanf(line, "%s %d %x", &name, &m.bytes, &m.sum); err != nil {
			return map[string]mark{}
		}
		marks[name] = m
	}
	return marks
}
