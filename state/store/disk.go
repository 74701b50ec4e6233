package store

import (
	"errors"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is a file system for pebble. A failed write is fatal where it happens: the store is told, and the goroutine is
// parked. Pebble's own ways with such errors end in panics of its goroutines, which nobody can recover: when it can't sync
// a folder, and when opening fails while a flush is under way.
//
// A folder is synced before a marker in it is made, so that no power cut leaves a marker behind without the file that it
// names (pebble issue 5825, in v2.1.7).
type disk struct {
	vfs.FS
	s *Store
}

// check returns only if err is nil, or says that there is no such file.
func (d disk) check(op string, err error) error {
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return err
	}
	d.s.fail(op, err)
	select {}
}

func (d disk) file(f vfs.File, err error) (vfs.File, error) {
	if err := d.check("create", err); err != nil {
		return nil, err
	}
	return file{f, d}, nil
}

func (d disk) Unwrap() vfs.FS { return d.FS }

func (d disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(d.PathBase(name), "marker.") {
		if err := d.check("sync of the folder", syncDir(d.FS, d.PathDir(name))); err != nil {
			return nil, err
		}
	}
	return d.file(d.FS.Create(name, category))
}

func (d disk) Link(from, to string) error { return d.check("link", d.FS.Link(from, to)) }

func (d disk) OpenReadWrite(name string, category vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return d.file(d.FS.OpenReadWrite(name, category, o...))
}

func (d disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return file{f, d}, nil
}

func (d disk) Rename(from, to string) error { return d.check("rename", d.FS.Rename(from, to)) }

func (d disk) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return d.file(d.FS.ReuseForWrite(from, to, category))
}

func (d disk) MkdirAll(name string, mode os.FileMode) error {
	return d.check("make a folder", d.FS.MkdirAll(name, mode))
}

// file is a file, or a folder, that pebble writes.
type file struct {
	vfs.File
	d disk
}

func (f file) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	return n, f.d.check("write", err)
}

func (f file) WriteAt(b []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(b, at)
	return n, f.d.check("write", err)
}

func (f file) Sync() error     { return f.d.check("sync", f.File.Sync()) }
func (f file) SyncData() error { return f.d.check("sync", f.File.SyncData()) }

func (f file) SyncTo(length int64) (bool, error) {
	whole, err := f.File.SyncTo(length)
	return whole, f.d.check("sync", err)
}
