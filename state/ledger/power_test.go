package ledger

import (
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// mishap is what happens to a disk once.
type mishap uint8

const (
	powerCut   mishap = iota // what was not synced is lost, in part
	failOnce                 // one operation fails with EIO
	failing                  // every operation fails from then on
	diskFull                 // every write and every new file fails with ENOSPC from then on, files can be removed
	shortWrite               // one write writes a part and fails
	mishaps
)

func (m mishap) String() string {
	return [...]string{"power cut", "EIO once", "EIO for good", "disk full", "short write"}[m]
}

// powerDisk is a crashable file system to which a mishap happens before its n-th operation that changes something. Use
// of the ledger on it is a process's life: a power cut keeps a copy of the disk as it is left, and life goes on without
// consequence; after an error the process has to end by itself.
type powerDisk struct {
	vfs.FS
	mem *vfs.MemFS

	mu     sync.Mutex
	rng    *rand.Rand
	what   mishap
	left   int // operations until it happens; 0: it happened
	told   int // height that Finalise returned nil for; -1: not created
	trying int // height that may be final on the disk as well

	cut  *vfs.MemFS // after a power cut: the disk
	span [2]int     // told and trying then

	// Planted: the n-th sync of a file of a kind does nothing.
	skipKind string
	skipLeft int
}

func newPowerDisk(mem *vfs.MemFS, rng *rand.Rand, told int) *powerDisk {
	d := &powerDisk{FS: mem, mem: mem, rng: rand.New(rand.NewPCG(rng.Uint64(), 5)), told: told, trying: told, what: mishap(rng.IntN(int(mishaps)))}
	if d.what == powerCut || rng.IntN(2) == 0 { // half of all
		d.what = powerCut
	}
	// Opening takes some dozens of operations, a block a few.
	d.left = 1 + rng.IntN([...]int{40, 80, 120, 200}[rng.IntN(4)])
	return d
}

// note says what may be found on the disk from now on.
func (d *powerDisk) note(told, trying int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.told, d.trying = told, trying
}

func (d *powerDisk) happened() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.left == 0
}

// crash is the disk as the process leaves it behind when it ends now, or left it behind at the power cut, and the
// heights that may be final on it.
func (d *powerDisk) crash() (*vfs.MemFS, [2]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut == nil {
		d.cutPower()
	}
	return d.cut, d.span
}

// cutPower is called with mu held.
func (d *powerDisk) cutPower() {
	percent := [...]int{0, 20, 50, 80, 100}[d.rng.IntN(5)]
	d.cut, d.span = d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: d.rng}), [2]int{d.told, d.trying}
}

// before counts an operation; partial: only a part of the write is to be done.
func (d *powerDisk) before(op, name string, grows bool) (partial bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fault := func(err error) error { return &os.PathError{Op: op, Path: name, Err: err} }
	if d.left == 0 {
		switch {
		case d.what == failing:
			return false, fault(syscall.EIO)
		case d.what == diskFull && grows:
			return false, fault(syscall.ENOSPC)
		}
		return false, nil
	}
	if d.left--; d.left > 0 {
		return false, nil
	}
	switch d.what {
	case powerCut:
		if d.cut == nil {
			d.cutPower()
		}
	case failOnce, failing:
		return false, fault(syscall.EIO)
	case diskFull:
		if !grows {
			d.left = 1
			return false, nil
		}
		return false, fault(syscall.ENOSPC)
	case shortWrite:
		if op != "write" {
			d.left = 1
			return false, nil
		}
		return true, fault(syscall.EIO)
	}
	return false, nil
}

// skips reports whether a sync is the one to leave out.
func (d *powerDisk) skips(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.skipKind == "" || d.skipLeft == 0 || kindOf(name) != d.skipKind {
		return false
	}
	d.skipLeft--
	return d.skipLeft == 0
}

// kindOf is the kind of a pebble file: log, sst, MANIFEST, db for the folder, and so on.
func kindOf(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[i+1:]
	}
	kind, _, _ := strings.Cut(name, "-")
	return kind
}

func (d *powerDisk) file(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &powerFile{f, d, name}, nil
}

func (d *powerDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if _, err := d.before("create", name, true); err != nil {
		return nil, err
	}
	f, err := d.FS.Create(name, c)
	return d.file(name, f, err)
}

func (d *powerDisk) Link(from, to string) error {
	if _, err := d.before("link", to, true); err != nil {
		return err
	}
	return d.FS.Link(from, to)
}

func (d *powerDisk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	if _, err := d.before("open", name, false); err != nil {
		return nil, err
	}
	f, err := d.FS.OpenReadWrite(name, c, o...)
	return d.file(name, f, err)
}

func (d *powerDisk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	return d.file(name, f, err)
}

func (d *powerDisk) Remove(name string) error {
	if _, err := d.before("remove", name, false); err != nil {
		return err
	}
	return d.FS.Remove(name)
}

func (d *powerDisk) RemoveAll(name string) error {
	if _, err := d.before("remove", name, false); err != nil {
		return err
	}
	return d.FS.RemoveAll(name)
}

func (d *powerDisk) Rename(from, to string) error {
	if _, err := d.before("rename", to, false); err != nil {
		return err
	}
	return d.FS.Rename(from, to)
}

func (d *powerDisk) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if _, err := d.before("rename", to, false); err != nil {
		return nil, err
	}
	f, err := d.FS.ReuseForWrite(from, to, c)
	return d.file(to, f, err)
}

func (d *powerDisk) MkdirAll(name string, mode os.FileMode) error {
	if _, err := d.before("mkdir", name, true); err != nil {
		return err
	}
	return d.FS.MkdirAll(name, mode)
}

// powerFile is a file of a powerDisk that is written or synced.
type powerFile struct {
	vfs.File
	d    *powerDisk
	name string
}

func (f *powerFile) Write(b []byte) (int, error) {
	partial, err := f.d.before("write", f.name, true)
	if err != nil {
		n := 0
		if partial {
			n, _ = f.File.Write(b[:len(b)/2])
		}
		return n, err
	}
	return f.File.Write(b)
}

func (f *powerFile) WriteAt(b []byte, at int64) (int, error) {
	if _, err := f.d.before("write at", f.name, true); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, at)
}

func (f *powerFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *powerFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *powerFile) sync(do func() error) error {
	if _, err := f.d.before("sync", f.name, false); err != nil {
		return err
	}
	if f.d.skips(f.name) {
		return nil
	}
	return do()
}
