//go:build tutti_unsynced && !tutti_skipsync

package node

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestUnsyncedDisk compares the file system, before and after a crash, with a plain model: the process sees all that it
// wrote, the real file has what was synced. bench/faults runs this test, since it needs the build tag.
func TestUnsyncedDisk(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		u := &unsyncedFS{FS: vfs.Default, slowest: 1, content: map[string]*content{}}
		path := filepath.Join(t.TempDir(), "a")
		var seen, durable []byte
		f := open(t, u, path)
		for range 40 {
			switch r.IntN(7) {
			case 0, 1, 2:
				off := r.IntN(len(seen) + 10)
				b := bytes.Repeat([]byte{byte(r.Uint32())}, 1+r.IntN(50))
				if _, err := f.WriteAt(bytes.Clone(b), int64(off)); err != nil {
					t.Fatal(err)
				}
				seen = append(seen, make([]byte, max(0, off+len(b)-len(seen)))...)
				copy(seen[off:], b)
			case 3:
				if err := f.SyncData(); err != nil {
					t.Fatal(err)
				}
				durable = bytes.Clone(seen)
			case 4:
				if full, err := f.SyncTo(1 << 20); full || err != nil {
					t.Fatal(full, err)
				}
			case 5:
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				f = open(t, u, path)
			case 6:
				to := path + "x"
				if err := u.Rename(path, to); err != nil {
					t.Fatal(err)
				}
				path = to
			}
			g, err := u.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(g)
			if err != nil || !bytes.Equal(got, seen) {
				t.Fatalf("seed %d: the process reads %x, wrote %x (%v)", seed, got, seen, err)
			}
			if info, err := u.Stat(path); err != nil || info.Size() != int64(len(seen)) {
				t.Fatalf("seed %d: %v bytes, wrote %d (%v)", seed, info.Size(), len(seen), err)
			}
			if err := g.Close(); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, durable) {
				t.Fatalf("seed %d: after a crash %x, synced %x (%v)", seed, got, durable, err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T, u *unsyncedFS, path string) vfs.File {
	t.Helper()
	f, err := u.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestUnsyncedNames: handles outlive the names of their files, and a new file under an old name has nothing of the old.
func TestUnsyncedNames(t *testing.T) {
	u := &unsyncedFS{FS: vfs.Default, slowest: 1, content: map[string]*content{}}
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write := func(path, text string, sync bool) vfs.File {
		f, err := u.Create(path, vfs.WriteCategoryUnspecified)
		if err == nil {
			_, err = f.Write([]byte(text))
		}
		if err == nil && sync {
			err = f.Sync()
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	read := func(path string) string {
		f, err := u.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(f)
		if err != nil || f.Close() != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	old := write(a, "old", true)
	fresh := write(b, "fresh", false)
	if err := u.Rename(b, a); err != nil {
		t.Fatal(err)
	}
	if got := read(a); got != "fresh" {
		t.Errorf("after the rename it reads %q", got)
	}
	if got, err := os.ReadFile(a); err != nil || len(got) != 0 {
		t.Errorf("a rename made %q durable that was not synced (%v)", got, err)
	}
	buf := make([]byte, 3)
	if _, err := old.ReadAt(buf, 0); err != nil || string(buf) != "old" {
		t.Errorf("the handle of the replaced file reads %q (%v)", buf, err)
	}
	if err := fresh.Sync(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(a); err != nil || string(got) != "fresh" {
		t.Errorf("synced after the rename: %q (%v)", got, err)
	}
	if err := u.Remove(a); err != nil {
		t.Fatal(err)
	}
	again := write(a, "x", false)
	if got := read(a); got != "x" {
		t.Errorf("a new file under the old name reads %q", got)
	}
	for _, f := range []vfs.File{old, fresh, again} {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(a); got != "x" {
		t.Errorf("closed without a sync, it reads %q in this process", got)
	}
}
