package store

import (
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"
)

// tables makes a store whose content is in tables, and names one of them.
func tables(t *testing.T) (Options, string) {
	t.Helper()
	s, o := fresh(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(o) // writes what the log holds into a table
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := o.FS.List("a/b/store/db")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasSuffix(n, ".sst") {
			return o, "a/b/store/db/" + n
		}
	}
	t.Fatalf("no table in %v", names)
	return o, ""
}

func change(t *testing.T, fs vfs.FS, path string, edit func([]byte) []byte) {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if f, err = fs.Create(path, vfs.WriteCategoryUnspecified); err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(edit(b))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedTable: damage is an error for whoever meets it, with a remedy. Nobody waits for ever, and the folder is
// free again afterwards.
func TestDamagedTable(t *testing.T) {
	for name, edit := range map[string]func([]byte) []byte{
		"a flipped bit in the data": func(b []byte) []byte { b[3] ^= 4; return b },
		"a flipped bit at the end":  func(b []byte) []byte { b[len(b)-20] ^= 4; return b },
		"a cut":                     func(b []byte) []byte { return b[:len(b)/2] },
	} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			o, path := tables(t)
			change(t, o.FS, path, edit)
			for range 2 {
				s, err := Open(o)
				if err == nil {
					_, err = s.Progress()
					if late := s.Commit(s.NewBatch()); !errors.Is(late, ErrCorrupt) {
						t.Errorf("a batch after damage was found: %v", late)
					}
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				}
				var r *RefusedError
				if !errors.Is(err, ErrCorrupt) || !errors.As(err, &r) || r.Remedy == "" {
					t.Errorf("%v", err)
				}
			}
		})
	}
}

// TestUnsyncedFolder: a folder that can't be synced ends the store, not the process.
func TestUnsyncedFolder(t *testing.T) {
	o, _ := tables(t)
	for n := int32(1); ; n++ {
		var syncs atomic.Int32
		f := o
		f.FS = errorfs.Wrap(o.FS, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileSync && strings.HasSuffix(op.Path, "db") && syncs.Add(1) == n {
				return syscall.EIO
			}
			return nil
		}))
		s, err := Open(f)
		if err == nil {
			if syncs.Load() >= n {
				t.Fatal("a folder was not synced, and nothing was said")
			}
			if n < 3 {
				t.Fatalf("only %d syncs of the folder", n-1)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return
		}
		var fatal *FatalError
		if !errors.As(err, &fatal) || !errors.Is(err, syscall.EIO) {
			t.Fatalf("sync %d: %v", n, err)
		}
		// The lock of a process that ended is free; here a copy of the folder is another's.
		fs := vfs.NewMem()
		if ok, err := vfs.Clone(o.FS, fs, "a", "a"); err != nil || !ok {
			t.Fatal(ok, err)
		}
		o.FS = fs
	}
}

// TestPowerCutAtOpening cuts the power before every operation of an opening that writes what the log holds into a table,
// with some of what was not synced left behind. Every copy must open.
func TestPowerCutAtOpening(t *testing.T) {
	mem := vfs.NewCrashableMem()
	o := Options{FS: mem, Dir: "store"}
	s, err := Create(o, func(s *Store) error {
		b := s.NewBatch()
		b.Progress(Progress{Final: 7})
		return s.Commit(b)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var left []*vfs.MemFS
	rng := rand.New(rand.NewPCG(1, 2))
	f := o
	f.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			mu.Lock()
			defer mu.Unlock()
			for _, percent := range []int{0, 50, 50, 50, 50, 50} {
				left = append(left, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}))
			}
		}
		return nil
	}))
	if s, err = Open(f); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i, fs := range left {
		o.FS = fs
		s, err := Open(o)
		if err != nil {
			t.Fatalf("copy %d: %v", i, err)
		}
		if p, err := s.Progress(); err != nil || p.Final != 7 {
			t.Fatalf("copy %d: %+v, %v", i, p, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(left) < 100 {
		t.Errorf("only %d copies", len(left))
	}
}
