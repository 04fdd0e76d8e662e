package keystore

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// errCutShort reports an archive that ends before its manifest.
var errCutShort = errors.New("backup is cut short: its manifest is missing; make it again")

// maxManifest is the longest manifest there can be, in bytes: of a few hundred
// thousand files.
const maxManifest = 64 << 20

// ReadArchive reads an archive that Backup made, to its end, and compares every
// file with the manifest. Where dir is not empty it is the directory, made by the
// caller, that the files are written to.
func ReadArchive(r io.Reader, dir string) (m Manifest, err error) {
	in := tar.NewReader(r)
	var found []BackupFile
	for {
		h, err := in.Next()
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			return m, errCutShort
		}
		if errors.Is(err, tar.ErrHeader) {
			return m, errors.New("it is not an archive that latchkey made; name a backup as it was made, not compressed")
		}
		if err != nil {
			return m, fmt.Errorf("read backup: %w", err)
		}
		if h.Typeflag != tar.TypeReg || !ofBackup(h.Name) {
			return m, fmt.Errorf("backup has the file %q, which none made by latchkey has", h.Name)
		}
		if h.Name == manifestFile {
			break
		}
		f, err := readFile(in, h.Name, dir)
		if err != nil {
			return m, err
		}
		found = append(found, f)
	}
	text, err := io.ReadAll(io.LimitReader(in, maxManifest))
	if err != nil {
		return m, errCutShort
	}
	if m, err = parseManifest(text); err != nil {
		return m, err
	}
	if err := m.compare(found); err != nil {
		return m, err
	}
	if _, err := in.Next(); err != io.EOF {
		return m, errors.New("backup goes on behind its manifest, or its end is missing; make it again")
	}
	if dir == "" {
		return m, nil
	}
	return m, finish(dir, text)
}

// finish writes the manifest and makes what was written last.
func finish(dir string, manifest []byte) error {
	_, err := readFile(bytes.NewReader(manifest), manifestFile, dir)
	return errors.Join(err, syncDir(filepath.Join(dir, databaseAt), vfs.Default), syncDir(dir, vfs.Default))
}

// ofBackup reports whether a backup can have a file of the name: no other name
// may decide where something is written.
func ofBackup(name string) bool {
	inner, ok := strings.CutPrefix(name, databaseAt+"/")
	return name == formatFile || name == sealFile || name == manifestFile ||
		ok && inner != "" && inner != "." && inner != ".." && !strings.ContainsAny(inner, "/\\\x00")
}

// readFile reads a file of a backup, and writes it below dir if that is not empty.
func readFile(r io.Reader, name, dir string) (BackupFile, error) {
	sum := sha256.New()
	to := io.Writer(sum)
	var f *os.File
	if dir != "" {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return BackupFile{}, err
		}
		var err error
		if f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return BackupFile{}, err
		}
		defer f.Close()
		to = io.MultiWriter(sum, f)
	}
	n, err := io.Copy(to, r)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return BackupFile{}, errCutShort
	}
	if err == nil && f != nil {
		err = f.Sync()
	}
	if err != nil {
		return BackupFile{}, fmt.Errorf("read %s of the backup: %w", name, err)
	}
	return BackupFile{Name: name, Bytes: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// ReadBackup does with an unpacked backup, the directory from, what ReadArchive
// does with an archive.
func ReadBackup(from, dir string) (Manifest, error) {
	text, err := os.ReadFile(filepath.Join(from, manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, fmt.Errorf("it has no %s, so it is no backup; name a directory that latchkey backup made", manifestFile)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("read backup: %w", err)
	}
	m, err := parseManifest(text)
	if err != nil {
		return m, err
	}
	var found []BackupFile
	for _, want := range m.Files {
		if !ofBackup(want.Name) {
			return m, fmt.Errorf("backup has the file %q, which none made by latchkey has", want.Name)
		}
		f, err := os.Open(filepath.Join(from, filepath.FromSlash(want.Name)))
		if errors.Is(err, fs.ErrNotExist) {
			return m, fmt.Errorf("file %s of the backup is missing; use another backup", want.Name)
		}
		if err != nil {
			return m, fmt.Errorf("read backup: %w", err)
		}
		read, err := readFile(f, want.Name, dir)
		f.Close()
		if err != nil {
			return m, err
		}
		found = append(found, read)
	}
	more, err := strangers(from, m.Files)
	if err != nil {
		return m, fmt.Errorf("read backup: %w", err)
	}
	if err := m.compare(append(found, more...)); err != nil || dir == "" {
		return m, err
	}
	return m, finish(dir, text)
}

// strangers returns the names of the database's files that the manifest does not know.
func strangers(from string, known []BackupFile) (out []BackupFile, err error) {
	entries, err := os.ReadDir(filepath.Join(from, databaseAt))
	for _, e := range entries {
		name := databaseAt + "/" + e.Name()
		if !slices.ContainsFunc(known, func(f BackupFile) bool { return f.Name == name }) {
			out = append(out, BackupFile{Name: name})
		}
	}
	return out, err
}

func parseManifest(text []byte) (m Manifest, err error) {
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%s of the backup: %w", manifestFile, err)
	}
	if m.Format < 1 || m.Format > manifestFormat {
		return m, fmt.Errorf("backup has format %d, this version knows up to %d: run a newer latchkey", m.Format, manifestFormat)
	}
	return m, nil
}

// compare requires that the files are those of the manifest.
func (m *Manifest) compare(found []BackupFile) error {
	byName := func(a, b BackupFile) int { return cmp.Compare(a.Name, b.Name) }
	want, found := slices.SortedFunc(slices.Values(m.Files), byName), slices.SortedFunc(slices.Values(found), byName)
	for i, f := range want {
		switch {
		case i >= len(found) || f.Name < found[i].Name:
			return fmt.Errorf("backup lacks the file %s", f.Name)
		case f.Name > found[i].Name:
			return fmt.Errorf("backup has the file %s, of which its manifest does not know", found[i].Name)
		case f != found[i]:
			return fmt.Errorf("file %s of the backup is not as it was when the backup was made; take another backup", f.Name)
		}
	}
	if len(found) > len(want) {
		return fmt.Errorf("backup has the file %s, of which its manifest does not know", found[len(want)].Name)
	}
	return nil
}

// Agrees requires that the store in the backup is the one of which the manifest tells: a
// restore goes by its revision.
func (m *Manifest) Agrees(s Summary) error {
	if s.Revision != m.Revision || s.Keys() != m.Keys {
		return fmt.Errorf("%s of the backup is damaged: it tells of %d keys and revision %d, and the store has %d and %d; take another backup",
			manifestFile, m.Keys, m.Revision, s.Keys(), s.Revision)
	}
	return nil
}

// IsBackup reports whether the directory is an unpacked backup.
func IsBackup(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, manifestFile))
	return err == nil
}

// ForgetBackup makes an unpacked backup a store like any other: its manifest no
// longer holds once it is used.
func ForgetBackup(dir string) error { return os.Remove(filepath.Join(dir, manifestFile)) }
