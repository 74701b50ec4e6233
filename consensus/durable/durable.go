// Package durable replaces small files so that a crash at any moment leaves the old one or the new one, whole.
package durable

import (
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TempSuffix is what the name of a file in the making ends with; a crash may leave one, which the next Replace overwrites.
const TempSuffix = ".tmp"

// Replace makes a file of these bytes the one at path, whose folder exists: it is synced before it has that name, and the folder
// after. b is not modified. Errors are the file system's; after one the old file may still be there, or the new one.
func Replace(fs vfs.FS, path string, b []byte) error {
	temp := path + TempSuffix
	f, err := fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(slices.Clone(b)) // vfs may modify what it writes
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(temp, path); err != nil {
		return err
	}
	dir, err := fs.OpenDir(fs.PathDir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
