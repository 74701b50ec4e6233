//go:build tutti_unsynced

package node

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// This is a test-only build: what is written stays in this process's memory until the file is synced, so that kill -9
// loses exactly what a power cut may lose. bench/faults runs it.
//
// Sync and SyncData hand a file's writes to the real file system, in order, at the end of a random time up to slowestSync,
// so that a crash often comes in the midst of one; a file that TUTTI_SLOWEST_SYNC names may hold another time, such as
// 500ms, for now. SyncTo, which promises nothing, does nothing. Closing a file syncs nothing: what was not synced stays
// readable in this process and is lost with it. Names (create, rename, link, remove) take effect at once: a crash that loses a name which was not synced is not
// played here.

// disk is where everything that must survive a crash is written.
func disk() vfs.FS { return unsynced }

var unsynced = &unsyncedFS{FS: vfs.Default, slowest: slowestSync, content: map[string]*content{}}

// unsyncedFS is a file system whose files lose what was not synced. Folders are not to be renamed or linked.
type unsyncedFS struct {
	vfs.FS
	slowest time.Duration // sync

	mu      sync.Mutex // guards content and the fields of each that say so
	content map[string]*content
}

// content is what all open handles of one file share.
type content struct {
	name    string // newest; guarded by unsyncedFS.mu
	handles int    // open; guarded by unsyncedFS.mu

	mu      sync.RWMutex // guards what follows
	pending []extent     // written and not synced, oldest first
	end     int64        // of the last byte in pending
}

type extent struct {
	off   int64
	bytes []byte
}

// unsyncedFile is one handle. Reads at offsets may be many; one goroutine at a time uses the rest.
type unsyncedFile struct {
	vfs.File
	fs   *unsyncedFS
	c    *content
	at   int64 // of the next Read or Write
	over bool  // closed
}

// handle opens a file and makes a handle of it.
func (u *unsyncedFS) handle(name string, fresh bool, open func() (vfs.File, error)) (vfs.File, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f, err := open()
	if err != nil {
		return nil, err
	}
	name = filepath.Clean(name)
	c := u.content[name]
	if c == nil || fresh {
		c = &content{name: name}
		u.content[name] = c
	}
	c.handles++
	return &unsyncedFile{File: f, fs: u, c: c}, nil
}

func (u *unsyncedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return u.handle(name, true, func() (vfs.File, error) { return u.FS.Create(name, category) })
}

func (u *unsyncedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return u.handle(name, false, func() (vfs.File, error) { return u.FS.Open(name, opts...) })
}

func (u *unsyncedFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return u.handle(name, false, func() (vfs.File, error) { return u.FS.OpenReadWrite(name, category, opts...) })
}

func (u *unsyncedFS) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := u.Rename(from, to); err != nil {
		return nil, err
	}
	return u.OpenReadWrite(to, category)
}

func (u *unsyncedFS) Rename(from, to string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.FS.Rename(from, to); err != nil {
		return err
	}
	from, to = filepath.Clean(from), filepath.Clean(to)
	c := u.content[from]
	delete(u.content, from)
	delete(u.content, to)
	if c != nil {
		c.name = to
		u.content[to] = c
	}
	return nil
}

func (u *unsyncedFS) Link(from, to string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.FS.Link(from, to); err != nil {
		return err
	}
	if c := u.content[filepath.Clean(from)]; c != nil {
		u.content[filepath.Clean(to)] = c
	}
	return nil
}

func (u *unsyncedFS) Remove(name string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.FS.Remove(name); err != nil {
		return err
	}
	delete(u.content, filepath.Clean(name))
	return nil
}

func (u *unsyncedFS) RemoveAll(name string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	name = filepath.Clean(name)
	for n := range u.content {
		if n == name || strings.HasPrefix(n, name+string(filepath.Separator)) {
			delete(u.content, n)
		}
	}
	return u.FS.RemoveAll(name)
}

func (u *unsyncedFS) Stat(name string) (vfs.FileInfo, error) {
	info, err := u.FS.Stat(name)
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if c := u.content[filepath.Clean(name)]; c != nil {
		return c.sized(info), nil
	}
	return info, nil
}

func (u *unsyncedFS) Unwrap() vfs.FS { return u.FS }

// sizedInfo is a FileInfo that counts what is pending.
type sizedInfo struct {
	vfs.FileInfo
	size int64
}

func (s sizedInfo) Size() int64 { return s.size }

func (c *content) sized(info vfs.FileInfo) vfs.FileInfo {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return sizedInfo{info, max(info.Size(), c.end)}
}

func (f *unsyncedFile) Stat() (vfs.FileInfo, error) {
	info, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	return f.c.sized(info), nil
}

func (f *unsyncedFile) Write(b []byte) (int, error) {
	n, err := f.WriteAt(b, f.at)
	f.at += int64(n)
	return n, err
}

func (f *unsyncedFile) WriteAt(b []byte, off int64) (int, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.c.pending = append(f.c.pending, extent{off, append([]byte(nil), b...)})
	f.c.end = max(f.c.end, off+int64(len(b)))
	return len(b), nil
}

func (f *unsyncedFile) Read(b []byte) (int, error) {
	n, err := f.ReadAt(b, f.at)
	f.at += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (f *unsyncedFile) ReadAt(b []byte, off int64) (int, error) {
	f.c.mu.RLock()
	defer f.c.mu.RUnlock()
	n, err := f.File.ReadAt(b, off)
	if err != nil && !errors.Is(err, io.EOF) || len(f.c.pending) == 0 {
		return n, err
	}
	clear(b[n:])
	for _, e := range f.c.pending {
		if from := max(off, e.off); from < min(off+int64(len(b)), e.off+int64(len(e.bytes))) {
			copy(b[from-off:], e.bytes[from-e.off:])
		}
	}
	if n = max(n, int(min(max(f.c.end-off, 0), int64(len(b))))); n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// slowestSync is that of a poor disk.
const slowestSync = 20 * time.Millisecond

func (u *unsyncedFS) slowestNow() time.Duration {
	b, err := os.ReadFile(os.Getenv("TUTTI_SLOWEST_SYNC"))
	if d, err2 := time.ParseDuration(string(b)); err == nil && err2 == nil && d > 0 {
		return d
	}
	return u.slowest
}

func (f *unsyncedFile) SyncTo(int64) (bool, error) { return false, nil }
func (f *unsyncedFile) SyncData() error            { return f.Sync() }

// Sync makes durable what was written.
func (f *unsyncedFile) Sync() error {
	<-time.After(rand.N(f.fs.slowestNow()))
	f.fs.mu.Lock()
	name := f.c.name
	f.fs.mu.Unlock()
	if skipSync(filepath.Base(name)) {
		return nil
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	for len(f.c.pending) > 0 {
		if _, err := f.File.WriteAt(f.c.pending[0].bytes, f.c.pending[0].off); err != nil {
			return err
		}
		f.c.pending = f.c.pending[1:]
	}
	f.c.pending, f.c.end = nil, 0
	return nil
}

func (f *unsyncedFile) Close() error {
	if f.over {
		return os.ErrClosed
	}
	f.over = true
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.c.handles--
	f.c.mu.RLock()
	defer f.c.mu.RUnlock()
	if f.c.handles == 0 && len(f.c.pending) == 0 && f.fs.content[f.c.name] == f.c {
		delete(f.fs.content, f.c.name)
	}
	return f.File.Close()
}
