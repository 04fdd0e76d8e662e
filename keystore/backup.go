package keystore

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"latchkey/apikey"
)

// backupAt is where, in the store's directory, a backup under way keeps its copy
// of the database: hard links for most of it.
const backupAt = "backup"

// manifestFile is the last file of an archive, and says what was before it.
const manifestFile = "BACKUP.json"

// manifestFormat is the version of archives.
const manifestFormat = 1

// A Manifest says what a backup holds.
type Manifest struct {
	Format   int          `json:"format"`
	Version  string       `json:"version"` // of the latchkey that made it
	MadeAt   time.Time    `json:"made_at"`
	Revision uint64       `json:"revision"` // of the newest change in it
	Keys     int          `json:"keys"`     // of all tenants and states
	Files    []BackupFile `json:"files"`
}

// A BackupFile is a file of a backup.
type BackupFile struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Backup copies the store as it stands, with every change that was answered so
// far, and returns the copy as a tar archive whose last file is its manifest. The
// store goes on meanwhile. Closing the archive removes the copy. There is one
// backup at a time; a second is apikey.ErrBackingUp.
func (s *Store) Backup(version string, now time.Time) (io.ReadCloser, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()
	if !s.backing.CompareAndSwap(false, true) {
		return nil, apikey.ErrBackingUp
	}
	m, err := s.checkpoint()
	if err != nil {
		s.endBackup()
		return nil, fmt.Errorf("back up key store: %w", full(err))
	}
	m.Format, m.Version, m.MadeAt = manifestFormat, version, apikey.Instant(now)
	r, w := io.Pipe()
	a := &archive{PipeReader: r, store: s, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		w.CloseWithError(s.writeArchive(tar.NewWriter(w), m))
	}()
	return a, nil
}

// checkpoint copies the database and reads from the copy what the manifest is to
// say: the store itself has changed since.
func (s *Store) checkpoint() (m Manifest, err error) {
	if err := errors.Join(s.checkRoom(), s.dropBackup()); err != nil {
		return m, err
	}
	dir := s.fs.PathJoin(s.path, backupAt)
	if err := s.db.Checkpoint(s.fs.PathJoin(dir, databaseAt), pebble.WithFlushedWAL()); err != nil {
		return m, err
	}
	db, err := openReadOnly(dir, Options{FS: s.fs, BlockCacheBytes: 1 << 20}.withDefaults())
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if m.Revision, err = lastRevision(db); err != nil {
		return m, err
	}
	m.Keys, err = countAll(db)
	return m, err
}

// dropBackup removes the copy of a backup that is over.
func (s *Store) dropBackup() error { return s.fs.RemoveAll(s.fs.PathJoin(s.path, backupAt)) }

func (s *Store) endBackup() {
	if err := s.dropBackup(); err != nil {
		s.logger.Errorf("remove the copy of a backup: %v", err)
	}
	s.backing.Store(false)
}

// writeArchive writes the copy, what stands beside the database, and the manifest.
func (s *Store) writeArchive(w *tar.Writer, m Manifest) error {
	copied := s.fs.PathJoin(s.path, backupAt, databaseAt)
	names, err := s.fs.List(copied)
	if err != nil {
		return err
	}
	slices.Sort(names)
	add := func(name, path string) error {
		f, err := s.addFile(w, name, path, m.MadeAt)
		m.Files = append(m.Files, f)
		return err
	}
	for _, name := range []string{formatFile, sealFile} {
		if err := add(name, s.fs.PathJoin(s.path, name)); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := add(databaseAt+"/"+name, s.fs.PathJoin(copied, name)); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := w.WriteHeader(header(manifestFile, int64(len(text)), m.MadeAt)); err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	return w.Close()
}

func header(name string, size int64, at time.Time) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: at.Truncate(time.Second)}
}

func (s *Store) addFile(w *tar.Writer, name, path string, at time.Time) (BackupFile, error) {
	f, err := s.fs.Open(path)
	if err != nil {
		return BackupFile{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return BackupFile{}, err
	}
	if err := w.WriteHeader(header(name, info.Size(), at)); err != nil {
		return BackupFile{}, err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, sum), f); err != nil {
		return BackupFile{}, err
	}
	return BackupFile{Name: name, Bytes: info.Size(), SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// An archive is a backup that is being read.
type archive struct {
	*io.PipeReader
	store *Store
	done  chan struct{}
}

// Close ends the backup, read to its end or not.
func (a *archive) Close() error {
	err := a.PipeReader.Close()
	<-a.done
	a.store.endBackup()
	return err
}
