// Package wholefile writes files and folders that are there whole or not at all,
// and reads what must be read whole.
//
// A new file has a temporary name beside its own until all of it is on the disk;
// then it is renamed, which replaces what had the name in one step. So a reader, or
// the next run of a program that was killed, sees the old file or the new one.
// [WriteFile] does this for bytes in memory, [Create] for a file that is written
// piece by piece:
//
//	f, err := wholefile.Create(path)
//	defer f.Close() // discards what was not committed
//	_, err = f.WriteAt(data, 0)
//	err = f.Commit()
//
// [CreatePlanned] is for files whose every byte has its place beforehand, as
// tensors have: it also counts what was written to each of them. [TempFolder] and
// [RenameFolder] do for folders what Create and Commit do for files.
//
// Reading is exact: [ReadAt] fills its slice or fails, [Open] refuses what is not a
// regular file, [ReadFile] and [ReadAll] stop at a limit.
//
// Errors say what is wrong and leave the task and, mostly, the file's name to the
// caller. Where a file's content is to blame they wrap an error that the caller
// passes, usually its own ErrFormat.
package wholefile

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// File is a file being written, under a temporary name until [File.Commit]. It may
// be used from several goroutines at once, except Commit and Close.
type File struct {
	path string
	temp *os.File
	done bool
}

// Create begins the file at path, whose folder must exist. It gets the permissions
// of the file that it replaces, or else those that the system gives to new files.
// A deferred Close discards a file that was not committed.
func Create(path string) (*File, error) {
	perm := fs.FileMode(0o666)
	replaced, err := os.Lstat(path)
	keep := err == nil && replaced.Mode().IsRegular()
	if keep {
		perm = replaced.Mode().Perm()
	}
	for {
		temp, err := os.OpenFile(tempName(path), os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f := &File{path: path, temp: temp}
		if keep { // the process's mask may have taken some away
			if err := temp.Chmod(perm); err != nil {
				f.Close()
				return nil, err
			}
		}
		return f, nil
	}
}

// tempName returns a hidden name beside path.
func tempName(path string) string {
	dir, base := filepath.Split(filepath.Clean(path))
	return filepath.Join(dir, fmt.Sprintf(".%s.%08x.tmp", base, rand.Uint32()))
}

// Write appends p to what Write has written so far.
func (f *File) Write(p []byte) (int, error) { return f.temp.Write(p) }

// WriteAt writes p at off bytes from the file's first.
func (f *File) WriteAt(p []byte, off int64) (int, error) { return f.temp.WriteAt(p, off) }

// Commit makes the file durable and gives it its name, replacing a file that has
// it. A failure discards the file.
func (f *File) Commit() error { return f.commit(true) }

// CommitUnsynced is Commit for a caller that makes the file durable itself, with
// [SyncFolder], before somebody relies on it.
func (f *File) CommitUnsynced() error { return f.commit(false) }

func (f *File) commit(durable bool) (err error) {
	defer f.Close()
	if durable {
		err = f.temp.Sync()
	}
	if closeErr := f.temp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.temp.Name(), f.path)
	}
	if err != nil {
		return err
	}
	f.done = true
	if durable {
		syncFolder(filepath.Dir(f.path))
	}
	return nil
}

// SyncFolder makes the files in a folder, and in its folders, durable. A file that goes away or gets another
// name meanwhile is left to who does that.
func SyncFolder(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != dir {
			return nil
		}
		if err != nil || !entry.Type().IsRegular() {
			if err == nil && entry.IsDir() {
				syncFolder(path)
			}
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0) // Windows syncs only what it may write
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	})
}

// syncFolder makes a rename durable where the system lets a folder be synced; the
// file is complete either way, so that a failure only weakens durability.
func syncFolder(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}

// Close discards the file unless it was committed.
func (f *File) Close() error {
	if f.done {
		return nil
	}
	f.done = true
	f.temp.Close() // already closed where Commit failed
	return os.Remove(f.temp.Name())
}

// WriteFile makes data the content of the file at path; see [Create].
func WriteFile(path string, data []byte) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// TempFolder makes a hidden folder beside path, whose parent must exist. What is put
// into it appears at path with [RenameFolder]; the caller removes it where that is
// not reached.
func TempFolder(path string) (string, error) {
	for {
		temp := tempName(path)
		err := os.Mkdir(temp, 0o777)
		if err == nil {
			return temp, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
}

// RenameFolder gives a finished folder its name. The error wraps [fs.ErrExist] where
// something has it.
func RenameFolder(temp, path string) error {
	path = filepath.Clean(path) // a link's name, not what it leads to
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "rename", Path: path, Err: fs.ErrExist}
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	syncFolder(filepath.Dir(path))
	return nil
}
