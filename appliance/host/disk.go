package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// DiskSpace is the room on the file system that holds path (or its nearest existing parent), in bytes: free is what
// this user may still write.
func DiskSpace(path string) (free, total uint64, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return 0, 0, fmt.Errorf("host: disk space: %w", err)
	}
	var s unix.Statfs_t
	for {
		err = unix.Statfs(path, &s)
		if !errors.Is(err, fs.ErrNotExist) || path == "/" {
			break
		}
		path = filepath.Dir(path)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("host: disk space of %s: %w", path, err)
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}

// SyncLatency says how long a write of 4 KiB takes to be durable.
type SyncLatency struct {
	P50, P99, Max time.Duration
}

// ProbeSync appends 4 KiB and syncs, writes times over, to a file of its own in dir, and removes the file.
func ProbeSync(dir string, writes int) (SyncLatency, error) {
	if writes < 1 || writes > 10_000 {
		return SyncLatency{}, fmt.Errorf("host: sync probe: %d writes: need 1 to 10000", writes)
	}
	f, err := os.CreateTemp(dir, ".sync-probe-*")
	if err != nil {
		return SyncLatency{}, fmt.Errorf("host: sync probe: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	page := make([]byte, 4096)
	took := make([]time.Duration, writes)
	for i := range took {
		start := time.Now()
		if _, err := f.Write(page); err != nil {
			return SyncLatency{}, fmt.Errorf("host: sync probe: %w", err)
		}
		if err := f.Sync(); err != nil {
			return SyncLatency{}, fmt.Errorf("host: sync probe: %w", err)
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return SyncLatency{P50: took[writes/2], P99: took[writes*99/100], Max: took[writes-1]}, nil
}

// CreateFile makes a new file at path with exactly data and perm. After a crash the file is whole or absent. It never
// overwrites: if something is at path the error wraps fs.ErrExist and nothing changed.
func CreateFile(path string, data []byte, perm fs.FileMode) error {
	return writeFile(path, perm, renameNew, whole(path, data))
}

// CreateFrom is CreateFile of what write writes, for files that are too large for memory. If write fails there is no
// file; its error comes back as it is.
func CreateFrom(path string, perm fs.FileMode, write func(io.Writer) error) error {
	return writeFile(path, perm, renameNew, write)
}

// ReplaceFile is CreateFile that takes the place of a file at path: after a crash there is the old file or the new one,
// whole.
func ReplaceFile(path string, data []byte, perm fs.FileMode) error {
	return writeFile(path, perm, os.Rename, whole(path, data))
}

func whole(path string, data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		if _, err := w.Write(data); err != nil {
			return fmt.Errorf("host: write %s: %w", path, err)
		}
		return nil
	}
}

// writeFile writes a temporary file beside path, syncs it, puts it in place, and syncs the folder.
func writeFile(path string, perm fs.FileMode, place func(from, to string) error, write func(io.Writer) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return fmt.Errorf("host: write %s: %w", path, err)
	}
	content := error(nil)
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
		if err != nil && content == nil {
			err = fmt.Errorf("host: write %s: %w", path, err)
		}
	}()
	if content = write(f); content != nil {
		err = content
		return err
	}
	if err = f.Chmod(perm); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = place(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// renameNew is rename(2) that fails when something is at to. Where the file system cannot do that in one step a hard
// link can.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err == unix.EINVAL || err == unix.ENOSYS {
		if err = os.Link(from, to); err == nil {
			err = os.Remove(from)
		}
	}
	return err
}

// SyncDir makes a folder's entries durable: files created, renamed or removed in it.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("host: sync folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("host: sync folder %s: %w", dir, err)
	}
	return nil
}
