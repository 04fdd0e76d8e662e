package keystore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// checkFormat reads the format file, or makes directory and file for a new
// store. Where it returns an error nothing has been written.
func checkFormat(path string, fsys vfs.FS) error {
	err := readFormat(path, fsys)
	if errors.Is(err, fs.ErrNotExist) {
		return createFormat(path, fsys)
	}
	if err != nil {
		return err
	}
	if _, err := fsys.Stat(fsys.PathJoin(path, manifestFile)); err == nil {
		return ErrIsBackup
	}
	return nil
}

// readFormat reads the format file; where there is none the error is
// fs.ErrNotExist.
func readFormat(path string, fsys vfs.FS) error {
	f, err := fsys.Open(fsys.PathJoin(path, formatFile))
	if err != nil {
		return plain(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return plain(err)
	}
	head, number, ok := strings.Cut(strings.TrimSpace(string(text)), formatHead)
	version, err := strconv.Atoi(number)
	switch {
	case !ok || head != "" || err != nil || version < 1 || number != strconv.Itoa(version):
		return ErrNotStore
	case version > schema:
		return fmt.Errorf("has schema %d, this version knows up to %d: it %w", version, schema, ErrNewer)
	}
	return nil
}

func createFormat(path string, fsys vfs.FS) error {
	entries, err := fsys.List(path)
	switch {
	case err == nil && slices.ContainsFunc(entries, func(e string) bool { return e != formatFile+".new" }):
		return ErrNotStore // a format file half made is what a crash right here leaves
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return plain(err)
	}
	if err := makeDir(path, fsys); err != nil {
		return plain(err)
	}
	return plain(writeFile(path, formatFile, fmt.Sprintf("%s%d\n", formatHead, schema), fsys))
}

// writeFile makes a file of the directory, whole or not at all.
func writeFile(path, name, text string, fsys vfs.FS) error {
	name = fsys.PathJoin(path, name)
	f, err := fsys.Create(name+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(name+".new", name); err != nil {
		return err
	}
	return syncDir(path, fsys)
}

// makeDir makes the directory and those missing above it. Each is synced into
// its parent: a directory that a crash takes away takes the store with it.
func makeDir(path string, fsys vfs.FS) error {
	var parents []string
	for dir := fsys.PathDir(path); ; dir = fsys.PathDir(dir) {
		parents = append(parents, dir)
		if _, err := fsys.Stat(dir); err == nil || dir == fsys.PathDir(dir) {
			break
		}
	}
	if err := fsys.MkdirAll(path, 0o700); err != nil {
		return err
	}
	for _, dir := range parents {
		// A parent we may not read is not one we made.
		if err := syncDir(dir, fsys); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

func syncDir(path string, fsys vfs.FS) error {
	dir, err := fsys.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// plain drops the operation and path of a file error: Open names the path.
func plain(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
