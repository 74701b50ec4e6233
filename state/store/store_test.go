package store

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"
)

func fresh(t *testing.T) (*Store, Options) {
	t.Helper()
	o := Options{FS: vfs.NewMem(), Dir: "a/b/store", Binding: [32]byte{1}}
	s, err := Create(o, func(s *Store) error {
		b := s.NewBatch()
		b.Progress(Progress{1, 2, 3, 4})
		return s.Commit(b)
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

func TestReadBack(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s, o := fresh(t)
	b := s.NewBatch()
	for h := range uint64(300) {
		b.Block(h, []byte{byte(h)})
	}
	b.Page(7, 1, []byte("p71"))
	b.Page(7, 0, []byte("p70"))
	b.Page(300, 0, []byte("p300"))
	b.Page(0, 1<<31, []byte("p0"))
	b.Key(5, []byte("key"))
	b.DropBlocks(290)
	for h := range uint64(9) {
		b.Credits(h, []byte{byte(h)})
		b.Opened(h, []byte{byte(h)})
	}
	b.DropEffects(8)
	if b.Bytes() == 0 {
		t.Error("a batch of no bytes")
	}
	if err := s.Commit(b); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := s.Progress(); err != nil || p != (Progress{1, 2, 3, 4}) {
		t.Errorf("%+v, %v", p, err)
	}
	var heights []uint64
	if err := s.Blocks(295, func(h uint64, v []byte) error { heights = append(heights, h); return nil }); err != nil || !reflect.DeepEqual(heights, []uint64{295, 296, 297, 298, 299}) {
		t.Error(heights, err)
	}
	heights = nil
	stop := errors.New("stop")
	if err := s.Blocks(0, func(h uint64, v []byte) error { heights = append(heights, h); return stop }); err != stop || !reflect.DeepEqual(heights, []uint64{290}) {
		t.Error(heights, err)
	}
	var pages []string
	if err := s.PagedPartitions(func(p uint16) error {
		return s.Pages(p, func(n uint32, v []byte) error {
			pages = append(pages, fmt.Sprintf("%d %d %s", p, n, v))
			return nil
		})
	}); err != nil || !reflect.DeepEqual(pages, []string{"0 2147483648 p0", "7 0 p70", "7 1 p71", "300 0 p300"}) {
		t.Error(pages, err)
	}
	for place, want := range map[uint64]string{5: "key", 6: ""} {
		if v, err := s.Key(place); err != nil || string(v) != want {
			t.Errorf("key %d: %q, %v", place, v, err)
		}
	}
	for height, want := range map[uint64]string{7: "", 8: "\x08", 9: ""} {
		if v, err := s.Credits(height); err != nil || string(v) != want {
			t.Errorf("credits %d: %q, %v", height, v, err)
		}
		if v, err := s.Opened(height); err != nil || string(v) != want {
			t.Errorf("opened %d: %q, %v", height, v, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestLoad reads back what was loaded in bulk, over several tables, and what came by batches after it.
func TestLoad(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	const pages = 2*bulkBytes/(1<<20) + 5 // of 1 MiB: three tables
	v := make([]byte, 1<<20)
	o := Options{FS: vfs.NewMem(), Dir: "store", Binding: [32]byte{1}}
	s, err := Create(o, func(s *Store) error {
		err := s.Load(func(b *Bulk) error {
			b.Key(0, []byte("key"))
			for n := range uint32(pages) {
				v[0] = byte(n)
				b.Page(3, n, v)
			}
			return nil
		})
		b := s.NewBatch()
		b.Page(3, 7, []byte("again"))
		b.Progress(Progress{Final: 9})
		return errors.Join(err, s.Commit(b))
	})
	if err != nil {
		t.Fatal(err)
	}
	m := s.Metrics()
	if m.LoadBytes < pages<<20 || m.LoadBytes > (pages+1)<<20 || m.Tables < 3 || m.LogBytes == 0 || m.LogBytes > 1<<20 || m.WrittenBytes() < m.LoadBytes+m.LogBytes {
		t.Errorf("metrics %+v", m)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if names, err := o.FS.List("store"); err != nil || len(names) != 2 {
		t.Errorf("the folder holds %v, %v", names, err)
	}
	if s, err = Open(o); err != nil {
		t.Fatal(err)
	}
	next := uint32(0)
	if err := s.Pages(3, func(n uint32, v []byte) error {
		if n != next || n == 7 && string(v) != "again" || n != 7 && (len(v) != 1<<20 || v[0] != byte(n)) {
			return fmt.Errorf("page %d has %d bytes", n, len(v))
		}
		next++
		return nil
	}); err != nil || next != pages {
		t.Error(next, err)
	}
	if v, err := s.Key(0); err != nil || string(v) != "key" {
		t.Errorf("key %q, %v", v, err)
	}
	if err := s.Load(func(b *Bulk) error { b.Page(4, 1, v); b.Page(4, 0, v); return nil }); err == nil || s.Err() != nil {
		t.Errorf("out of order: %v, fatal %v", err, s.Err())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestLoadFails injects an error at each write of a bulk load: the folder is refused afterwards.
func TestLoadFails(t *testing.T) {
	for n := range int32(1000) {
		mem := vfs.NewMem()
		o := Options{FS: errorfs.Wrap(mem, errorfs.ErrInjected.If(errorfs.And(errorfs.Writes, errorfs.OnIndex(n)))), Dir: "store"}
		s, err := Create(o, func(s *Store) error {
			if err := s.Load(func(b *Bulk) error { b.Page(0, 0, []byte("page")); return nil }); err != nil {
				return err
			}
			b := s.NewBatch()
			b.Progress(Progress{})
			return s.Commit(b)
		})
		if err == nil {
			if err := s.Close(); err != nil && !errors.Is(err, errorfs.ErrInjected) {
				t.Fatal(err)
			}
			if n < 10 {
				t.Errorf("there are only %d writes", n)
			}
			return
		}
		o.FS = mem
		if s, err := Open(o); err == nil {
			if _, err := s.Progress(); err != nil {
				t.Fatalf("write %d: %v", n, err)
			}
			_ = s.Close()
		} else if !errors.Is(err, ErrIncomplete) && !errors.Is(err, ErrMissing) {
			t.Fatalf("write %d: %v", n, err)
		}
	}
	t.Error("there is no end of writes")
}

// TestStalls adds up the times in which writes wait.
func TestStalls(t *testing.T) {
	var s stalls
	s.end() // without a beginning
	if n, d := s.read(time.Now()); n != 0 || d != 0 {
		t.Error(n, d)
	}
	s.begin()
	if n, d := s.read(s.since.Add(3 * time.Second)); n != 1 || d != 3*time.Second {
		t.Error(n, d)
	}
	s.end()
	n, d := s.read(time.Now().Add(time.Hour))
	if n != 1 || d <= 0 || d > time.Minute {
		t.Error(n, d)
	}
}

func TestReceipts(t *testing.T) {
	s, _ := fresh(t)
	put := func(edit func(b *Batch) error) {
		t.Helper()
		b := s.NewBatch()
		if err := errors.Join(edit(b), s.Commit(b)); err != nil {
			t.Fatal(err)
		}
	}
	put(func(b *Batch) error {
		for _, shard := range []uint16{1, 2, 65535} {
			for _, first := range []uint64{0, 10, 25, 300} {
				b.Receipts(shard, first, []byte(fmt.Sprint("before ", shard, "/", first)), []byte(fmt.Sprint(shard, "/", first)))
			}
		}
		return nil
	})
	from := func(shard uint16, seq uint64) (firsts []uint64) {
		t.Helper()
		if err := s.Receipts(shard, seq, func(first uint64, v []byte) (bool, error) {
			if string(v) != fmt.Sprint(shard, "/", first) {
				t.Errorf("shard %d, first %d: %s", shard, first, v)
			}
			firsts = append(firsts, first)
			return first < 25, nil
		}); err != nil {
			t.Fatal(err)
		}
		return firsts
	}
	for _, shard := range []uint16{1, 2, 65535} {
		for seq, want := range map[uint64][]uint64{0: {0, 10, 25}, 9: {0, 10, 25}, 10: {10, 25}, 24: {10, 25}, 25: {25}, 299: {25}, 1 << 40: {300}} {
			if got := from(shard, seq); !reflect.DeepEqual(got, want) {
				t.Errorf("shard %d from %d: %v, want %v", shard, seq, got, want)
			}
		}
	}
	if got := from(7, 0); got != nil {
		t.Errorf("a shard without receipts: %v", got)
	}
	// 24 is in the range that begins at 10: only the one before goes, and only of that shard.
	put(func(b *Batch) error {
		return errors.Join(b.DropReceipts(2, 24), b.DropReceipts(7, 24), b.DropReceipts(1, 0))
	})
	befores := func(shard uint16) (firsts []uint64) {
		t.Helper()
		for _, first := range []uint64{0, 10, 25, 300} {
			v, err := s.Before(shard, first)
			if err != nil || v != nil && string(v) != fmt.Sprint("before ", shard, "/", first) {
				t.Errorf("shard %d, before %d: %q, %v", shard, first, v, err)
			}
			if v != nil {
				firsts = append(firsts, first)
			}
		}
		return firsts
	}
	for shard, want := range map[uint16][]uint64{1: {0, 10, 25}, 2: {10, 25}, 65535: {0, 10, 25}} {
		if got := from(shard, 0); !reflect.DeepEqual(got, want) {
			t.Errorf("shard %d: %v, want %v", shard, got, want)
		}
		if got := befores(shard); !reflect.DeepEqual(got, append(want, 300)) {
			t.Errorf("shard %d: what is before %v, want %v", shard, got, want)
		}
	}
	put(func(b *Batch) error { b.DropAllReceipts(65535); return nil })
	if from(65535, 0) != nil || befores(65535) != nil || from(1, 0) == nil || from(2, 0) == nil {
		t.Error("not exactly the receipts to one shard are gone")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRestore: a folder under restore is refused by all others, keeps its notes, and becomes a ledger at the end.
func TestRestore(t *testing.T) {
	o := Options{FS: vfs.NewMem(), Dir: "a/store", Binding: [32]byte{1}}
	if err := o.FS.MkdirAll("a/store", 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := o.FS.Create("a/store/RESTORE.new", vfs.WriteCategoryUnspecified) // an attempt that crashed early
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	s, err := Restore(o)
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	for _, name := range []string{"a1", "a2", "b1", "a3"} {
		b.Note([]byte(name), []byte("note "+name))
	}
	b.DropNote([]byte("a2"))
	for h := range uint64(9) {
		b.Block(h, []byte{byte(h)})
		b.Key(h, []byte{byte(h)})
	}
	b.DropBlocksAbove(5)
	b.Progress(Progress{Final: 5})
	if err := errors.Join(s.Commit(b), s.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = Open(o)
	var r *RefusedError
	if !errors.Is(err, ErrRestoring) || !errors.As(err, &r) || r.Remedy == "" {
		t.Errorf("opened as a ledger: %v", err)
	}
	if _, err := Create(o, nil); !errors.Is(err, ErrRestoring) {
		t.Errorf("created over it: %v", err)
	}
	other := o
	other.Binding[0]++
	if _, err := Restore(other); !errors.Is(err, ErrBinding) {
		t.Errorf("restored as another ledger: %v", err)
	}
	if s, err = Restore(o); err != nil {
		t.Fatal(err)
	}
	var notes []string
	if err := s.Notes('a', func(name, v []byte) error {
		notes = append(notes, string(name)+": "+string(v))
		return nil
	}); err != nil || !reflect.DeepEqual(notes, []string{"a1: note a1", "a3: note a3"}) {
		t.Error(notes, err)
	}
	b = s.NewBatch()
	b.DropKeys(8)
	if err := errors.Join(s.Commit(b), s.Promote(o)); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(o); !errors.Is(err, ErrExists) {
		t.Errorf("restored over a ledger: %v", err)
	}
	if s, err = Open(o); err != nil {
		t.Fatal(err)
	}
	if err := s.Notes('b', func(name, _ []byte) error { return fmt.Errorf("note %s", name) }); err != nil {
		t.Error(err)
	}
	var got []uint64
	if err := s.BlocksWhile(3, func(h uint64, v []byte) (bool, error) { got = append(got, h); return true, nil }); err != nil || !reflect.DeepEqual(got, []uint64{3, 4, 5}) {
		t.Error(got, err)
	}
	got = nil
	if err := s.Keys(6, func(place uint64, v []byte) (bool, error) { got = append(got, place); return true, nil }); err != nil || !reflect.DeepEqual(got, []uint64{6, 7}) {
		t.Error(got, err)
	}
	for h, want := range map[uint64]string{5: "\x05", 6: ""} {
		if v, err := s.Block(h); err != nil || string(v) != want {
			t.Errorf("block %d: %q, %v", h, v, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	full := o
	full.Dir = "a"
	if _, err := Restore(full); !errors.Is(err, ErrIncomplete) {
		t.Errorf("restored into a folder of something else: %v", err)
	}
}

// TestUpgrade: an older folder is refused or upgraded, and counts as upgraded only after the upgrade was done.
func TestUpgrade(t *testing.T) {
	s, o := fresh(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	write := func(content string) {
		t.Helper()
		f, err := o.FS.Create(o.FS.PathJoin(o.Dir, formatFile), vfs.WriteCategoryUnspecified)
		if err == nil {
			_, err = f.Write([]byte(content))
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	binding := "01" + strings.Repeat("00", 31)
	for _, first := range []string{"tutti-ledger 0", "tutti-ledger 3", "tutti-ledger 01", ""} {
		write(first + "\n" + binding + "\n")
		upgraded := o
		upgraded.Upgrade = func(*Store, int) error { return errors.New("called") }
		if _, err := Open(upgraded); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %v", first, err)
		}
	}
	write("tutti-ledger 1\n" + binding + "\n")
	if _, err := Open(o); !errors.Is(err, ErrFormat) {
		t.Errorf("no way to upgrade: %v", err)
	}
	broken := errors.New("broken")
	o.Upgrade = func(*Store, int) error { return broken }
	if _, err := Open(o); !errors.Is(err, broken) {
		t.Error(err)
	}
	calls := 0
	o.Upgrade = func(s *Store, version int) error {
		calls += version
		b := s.NewBatch()
		b.Before(7, 9, []byte("new"))
		return s.Commit(b)
	}
	for range 2 {
		s, err := Open(o)
		if err != nil || calls != 1 {
			t.Fatal(calls, err)
		}
		if v, err := s.Before(7, 9); err != nil || string(v) != "new" {
			t.Error(v, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCreateFails(t *testing.T) {
	o := Options{FS: vfs.NewMem(), Dir: "store"}
	broken := errors.New("broken")
	if _, err := Create(o, func(*Store) error { return broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if _, err := Open(o); !errors.Is(err, ErrIncomplete) {
		t.Errorf("a ledger whose creation failed: %v", err)
	}
	s, _ := fresh(t)
	b := s.NewBatch()
	b.set(key('s'), []byte("short"))
	if err := s.Commit(b); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Progress(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a short progress record: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
