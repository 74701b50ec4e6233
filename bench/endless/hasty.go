package endless

import "github.com/cockroachdb/pebble/v2/vfs"

// hasty is the operating system's file system, on which nothing is synced: what a power cut leaves is not the question.
func hasty() vfs.FS { return hastyFS{vfs.Default} }

type hastyFS struct{ vfs.FS }

func (h hastyFS) Unwrap() vfs.FS { return h.FS }

func (h hastyFS) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return hastyFile{f}, nil
}

func (h hastyFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return h.file(h.FS.Create(name, c))
}

func (h hastyFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return h.file(h.FS.OpenReadWrite(name, c, o...))
}

func (h hastyFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return h.file(h.FS.ReuseForWrite(from, to, c))
}

func (h hastyFS) OpenDir(name string) (vfs.File, error) { return h.file(h.FS.OpenDir(name)) }

type hastyFile struct{ vfs.File }

func (hastyFile) Sync() error                { return nil }
func (hastyFile) SyncData() error            { return nil }
func (hastyFile) SyncTo(int64) (bool, error) { return false, nil }
