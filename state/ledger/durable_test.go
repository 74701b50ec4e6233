package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"tutti/state/store"
	"tutti/state/tx"
)

// story is a fixed run of blocks of shard 0 of 2, with what the model makes of them.
type story struct {
	p       Params
	genesis GenesisAccounts // nil: storyAccounts of testAccounts
	models  []*model        // by height
	txs     [][]tx.Signed
	in      [][]tx.Bundle
}

const storyAccounts = 600 // more than a page in a partition

func newStory(t testing.TB, blocks int) *story {
	s := &story{p: testParams(t, 0, 2, storyAccounts)}
	s.p.Table = PartitionTable{{First: 0, Log2: 0, Shard: 0}, {First: 1, Log2: 0, Shard: 1}}
	m := newModel(&s.p, testAccounts(&s.p, storyAccounts))
	s.models, s.txs, s.in = []*model{m}, [][]tx.Signed{nil}, [][]tx.Bundle{nil}
	rng := rand.New(rand.NewPCG(7, 8))
	var received []tx.Receipt
	for h := 1; h <= blocks; h++ {
		var txs []tx.Signed
		for i := range uint64(6) {
			from := s.p.GenesisID((uint64(h)*17 + i) % storyAccounts)
			to := s.p.GenesisID(rng.Uint64N(storyAccounts))
			if i == 0 {
				to = tx.MakeID(1, 7)
			}
			x := transfer(&s.p, from, to, 5, m.accounts[from].Nonce)
			if i == 1 {
				x = opening(&s.p, from, 9, m.accounts[from].Nonce, keyOf(tx.ID(h)<<40))
			}
			if from != to {
				txs = append(txs, x)
			}
		}
		var in []tx.Bundle
		if h%2 == 0 {
			r := []tx.Receipt{{From: tx.MakeID(1, 1), To: s.p.GenesisID(3), Amount: 4}, {From: tx.MakeID(1, 1), To: tx.MakeID(0, 1<<20), Amount: 6}}
			in = append(in, receiptBundle(&s.p, 1, uint64(h), uint64(len(received)), uint64(h/2), r, received...))
			received = append(received, r...)
		}
		m, _ = m.block(txs, in)
		s.models, s.txs, s.in = append(s.models, m), append(s.txs, txs), append(s.in, in)
	}
	return s
}

func (s *story) options(fs vfs.FS, create bool) Options {
	o := testOptions(s.p, storyAccounts)
	o.FS, o.Create, o.Workers = fs, create, 1
	if s.genesis != nil {
		o.Genesis = s.genesis
	}
	return o
}

// headers are those of the story's blocks, up to one that is not final yet.
func (s *story) headers() (hs headers) {
	for h := range s.models {
		t := Trusted{Hash: blockName(uint64(h)), State: s.models[max(h, StateLag)-StateLag].root()}
		if h > 0 {
			t.Parent = blockName(uint64(h - 1))
		}
		if h > StateLag {
			t.Diff = s.models[h-StateLag].diff(s.models[h-StateLag-1])
		}
		hs = append(hs, t)
	}
	return hs
}

// extend executes and finalises the block after the ledger's final one.
func (s *story) extend(l *Ledger) error {
	height, parent := l.Final()
	h := height + 1
	ctx := context.Background()
	built, err := l.Build(ctx, BuildInput{Parent: parent, Height: h, Candidates: s.txs[h], Bundles: s.in[h], MaxBytes: 1 << 20, MaxTxs: 100})
	if err != nil {
		return err
	}
	if built.Txs != len(s.txs[h]) {
		return fmt.Errorf("left out: %v", built.Left)
	}
	if _, err := l.Execute(ctx, ExecuteInput{Parent: parent, Block: blockName(h), Height: h, Body: built.Body, Want: built.Commitments}); err != nil {
		return err
	}
	return l.Finalise(ctx, blockName(h))
}

func TestFolders(t *testing.T) {
	s := newStory(t, 1)
	fs := vfs.NewMem()
	refused := func(name string, o Options, reason error) {
		t.Helper()
		l, err := Open(o)
		var r *store.RefusedError
		if !errors.Is(err, reason) || !errors.As(err, &r) || r.Remedy == "" {
			t.Errorf("%s: %v, want %v with a remedy", name, err, reason)
		}
		if err == nil {
			_ = l.Close()
		}
	}
	refused("nothing there", s.options(fs, false), store.ErrMissing)
	if err := fs.MkdirAll("ledger", 0o700); err != nil {
		t.Fatal(err)
	}
	refused("an empty folder", s.options(fs, false), store.ErrMissing)
	l, err := Open(s.options(fs, true))
	if err != nil {
		t.Fatal(err)
	}
	refused("open already", s.options(fs, false), store.ErrLocked)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	refused("create over a ledger", s.options(fs, true), store.ErrExists)
	other := s.options(fs, false)
	other.Params.GenesisHash[0] ^= 1
	refused("another chain", other, store.ErrBinding)

	write := func(name, content string) {
		t.Helper()
		f, err := fs.Create("ledger/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write("FORMAT", "tutti-ledger 3\nwhatever\n")
	refused("a later format", s.options(fs, false), store.ErrFormat)
	write("FORMAT", "")
	refused("a torn format file", s.options(fs, false), store.ErrFormat)
	if err := fs.Remove("ledger/FORMAT"); err != nil {
		t.Fatal(err)
	}
	refused("an incomplete ledger", s.options(fs, false), store.ErrIncomplete)
	refused("create over an incomplete ledger", s.options(fs, true), store.ErrIncomplete)
}

func TestOptions(t *testing.T) {
	s := newStory(t, 0)
	for name, edit := range map[string]func(*Options){
		"no folder":        func(o *Options) { o.Dir = "" },
		"no verifier":      func(o *Options) { o.Verifier = nil },
		"no headers":       func(o *Options) { o.Headers = nil },
		"no possession":    func(o *Options) { o.Possession = nil },
		"no genesis":       func(o *Options) { o.Genesis = nil },
		"no genesis block": func(o *Options) { o.Params.GenesisBlock = tx.Hash{} },
		"shard":            func(o *Options) { o.Params.Shard = 2 },
		"no fees":          func(o *Options) { o.Params.Fees = nil },
		"account limit":    func(o *Options) { o.Params.AccountLimit = storyAccounts - 1 },
		"no account limit": func(o *Options) { o.Params.AccountLimit = 0 },
		"opening cap":      func(o *Options) { o.Params.OpenCap = tx.MaxBodyTx + 1 },
		"receipt window":   func(o *Options) { o.Params.ReceiptWindow = MaxReceiptWindow + 1 },
		"too few supplies": func(o *Options) { o.Params.Supplies = o.Params.Supplies[:1] },
		"huge supplies":    func(o *Options) { o.Params.Supplies = []uint64{1 << 62, 1 << 62} },
		"supply above":     func(o *Options) { o.Params.Supplies = []uint64{storyAccounts*testBalance + 1, 0} },
		"supply below":     func(o *Options) { o.Params.Supplies = []uint64{storyAccounts*testBalance - 1, 0} },
		"account elsewhere": func(o *Options) {
			o.Genesis = func(yield func(GenesisAccount) bool) { yield(GenesisAccount{ID: tx.MakeID(1, 0)}) }
		},
		"account out of order": func(o *Options) {
			o.Genesis = func(yield func(GenesisAccount) bool) { yield(GenesisAccount{ID: tx.MakeID(0, 1)}) }
		},
		"table": func(o *Options) { o.Params.Table = nil },
	} {
		o := s.options(vfs.NewMem(), true)
		edit(&o)
		if _, err := Open(o); !errors.Is(err, ErrParams) && !errors.Is(err, ErrTable) {
			t.Errorf("%s: %v", name, err)
		}
		if names, _ := o.FS.List("ledger"); len(names) > 0 {
			t.Errorf("%s: left %v behind", name, names)
		}
	}
	root, err := GenesisRoot(s.p, testAccounts(&s.p, storyAccounts))
	if err != nil || root != s.models[0].root() {
		t.Errorf("genesis root %v, %v", root, err)
	}
}

// isStored tells whether a stored page is as the base has it.
func (l *Ledger) isStored(number uint16, page uint32, v []byte) bool {
	cells, slot := make([]cell, pageAccounts), int(l.table.route[number])
	l.cellsAt(l.base, slot, page<<pageLog, cells)
	n := min(pageAccounts, l.base.meta.Next[slot]-page<<pageLog)
	return bytes.Equal(v[8:], appendPage(nil, 0, cells[:n])[8:])
}

// TestPageCycle: pages are rewritten in time, differences below a whole cycle are dropped, and every height recovers.
func TestPageCycle(t *testing.T) {
	const blocks, cycle = 60, 8
	s := newStory(t, blocks)
	c := &clock{time.Unix(1e9, 0)}
	fs := vfs.NewMem()
	o := s.options(fs, true)
	o.Now, o.PageCycle = c.now, cycle*time.Second
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	for h := 1; h <= blocks; h++ {
		c.at = c.at.Add(time.Second)
		if err := s.extend(l); err != nil {
			t.Fatal(err)
		}
		first, pages, oldest := uint64(1<<63), 0, uint64(1<<63)
		if err := l.store.Blocks(0, func(h uint64, v []byte) error { first = min(first, h); return nil }); err != nil {
			t.Fatal(err)
		}
		if err := allPages(l.store, func(number uint16, page uint32, v []byte) error {
			pages++
			if !l.isStored(number, page, v) { // then all its differences must be there
				oldest = min(oldest, binary.BigEndian.Uint64(v))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if oldest+1 < first {
			t.Fatalf("height %d: a page is of height %d and the first difference of %d", h, oldest, first)
		}
		if h > 3*cycle && first < uint64(h-3*cycle) {
			t.Fatalf("height %d: differences from %d on are kept", h, first)
		}
		if h == blocks && pages != 3 {
			t.Fatalf("%d pages", pages)
		}
		if h%7 == 0 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			o.Create = false
			if l, err = Open(o); err != nil {
				t.Fatal(err)
			}
			if err := s.models[h].agrees(l); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPagePace: ten minutes, but no more than so many pages a second, unless options say otherwise.
func TestPagePace(t *testing.T) {
	l := &Ledger{}
	for pages, want := range map[uint32]time.Duration{0: 10 * time.Minute, 38_400: 10 * time.Minute, 195_312: 3051750 * time.Millisecond} {
		if got := l.pageCycle(pages); got != want {
			t.Errorf("%d pages in %s, want %s", pages, got, want)
		}
	}
	if l.o.PageCycle = time.Second; l.pageCycle(1<<20) != time.Second {
		t.Error("the option has no say")
	}
}

// TestIdlePages: the first cycle stores every page; after it only pages that changed are written, an idle shard's
// differences are dropped all the same, and what is stored recovers at every height.
func TestIdlePages(t *testing.T) {
	const accounts, cycle = 256 * (pageAccounts + 3), 8 // two pages in each partition
	p := testParams(t, 0, 1, accounts)
	c := &clock{time.Unix(1e9, 0)}
	o := testOptions(p, accounts)
	o.Now, o.PageCycle = c.now, cycle*time.Second
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	from, to := p.GenesisID(256*pageAccounts+5), p.GenesisID(9) // on second and first pages of partitions 5 and 9
	heights := func() (all []uint64, at map[[2]uint32]uint64, first uint64) {
		t.Helper()
		at, first = map[[2]uint32]uint64{}, 1<<63
		if err := allPages(l.store, func(number uint16, page uint32, v []byte) error {
			h := binary.BigEndian.Uint64(v)
			all, at[[2]uint32{uint32(number), page}] = append(all, h), h
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := l.store.Blocks(0, func(h uint64, v []byte) error { first = min(first, h); return nil }); err != nil {
			t.Fatal(err)
		}
		return all, at, first
	}
	h := uint64(0)
	run := func(n int, pay bool) {
		t.Helper()
		for range n {
			h++
			c.at = c.at.Add(time.Second)
			var txs []tx.Signed
			if pay {
				r, _ := l.Account(from)
				txs = append(txs, transfer(&p, from, to, 1, r.Nonce))
			}
			step(t, l, blockName(h-1), h, blockName(h), txs)
			finalise(t, l, blockName(h))
		}
	}
	run(2*cycle+2, true)
	settled, _, _ := heights()
	slices.Sort(settled)
	if len(settled) != 512 || settled[256] == 0 { // some of the first were stored as of the genesis block
		t.Fatalf("the first cycle left pages as they were: %v", settled)
	}
	run(3*cycle, false) // whatever had changed is stored again by then
	before, beforeAt, _ := heights()
	run(3*cycle, false)
	after, _, first := heights()
	if !slices.Equal(before, after) || first < h-3*cycle {
		t.Errorf("an idle shard: pages from %v to %v, differences from %d on at %d", before, after, first, h)
	}
	run(1, true)
	paid := h
	run(3*cycle, false)
	_, at, _ := heights()
	for place, height := range at {
		changed := place == [2]uint32{5, 1} || place == [2]uint32{9, 0}
		if changed && height < paid || !changed && height != beforeAt[place] {
			t.Errorf("page %v is of height %d, was of %d, paid at %d", place, height, beforeAt[place], paid)
		}
	}
	root := l.Stats().Root
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o.Create = false
	if l, err = Open(o); err != nil {
		t.Fatal(err)
	}
	if l.Stats().Root != root {
		t.Error("another root after a start")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCorruption changes what is stored, one thing at a time. The ledger must notice, and say what to do.
func TestCorruption(t *testing.T) {
	const blocks = 5
	s := newStory(t, blocks)
	original := vfs.NewMem()
	l, err := Open(s.options(original, true))
	if err != nil {
		t.Fatal(err)
	}
	for range blocks {
		if err := s.extend(l); err != nil {
			t.Fatal(err)
		}
	}
	values := map[uint64][]byte{}
	var page []byte
	err = errors.Join(
		l.store.Blocks(0, func(h uint64, v []byte) error { values[h] = append([]byte{}, v...); return nil }),
		l.store.Pages(0, func(n uint32, v []byte) error {
			if n == 1 {
				page = append([]byte{}, v...)
			}
			return nil
		}), l.Close())
	if err != nil {
		t.Fatal(err)
	}
	flip := func(v []byte, at int) []byte {
		v = append([]byte{}, v...)
		v[(at+len(v))%len(v)] ^= 1
		return v
	}
	for name, spoil := range map[string]func(*store.Batch){
		"a balance in a page":         func(b *store.Batch) { b.Page(0, 1, flip(page, 8+7)) },
		"a key in a page":             func(b *store.Batch) { b.Page(0, 1, flip(page, 8+RecordBytes+30)) },
		"the height of a page":        func(b *store.Batch) { b.Page(0, 1, flip(page, 0)) },
		"a cut page":                  func(b *store.Batch) { b.Page(0, 1, page[:len(page)-1]) },
		"a page of another partition": func(b *store.Batch) { b.Page(3, 0, page) },
		"a page too many":             func(b *store.Batch) { b.Page(0, 9, page) },
		"a page too full":             func(b *store.Batch) { b.Page(0, 2, page) },
		"a page from the future": func(b *store.Batch) {
			b.Page(0, 1, flip(page, 7))
			b.Page(0, 1, append([]byte{0, 0, 0, 0, 0, 0, 0, 9}, page[8:]...))
		},
		"an old difference":           func(b *store.Batch) { b.Block(2, flip(values[2], -70)) },
		"a truncated difference":      func(b *store.Batch) { b.Block(2, values[2][:len(values[2])-1]) },
		"an old block cut":            func(b *store.Batch) { b.Block(1, values[1][:50]) },
		"the base's root":             func(b *store.Batch) { b.Block(3, flip(values[3], 70)) },
		"the base's counters":         func(b *store.Batch) { b.Block(3, flip(values[3], storedFixed+4+15)) },
		"the final block's root":      func(b *store.Batch) { b.Block(5, flip(values[5], 70)) },
		"the final block's diff hash": func(b *store.Batch) { b.Block(5, flip(values[5], 100)) },
		"the final block's parent":    func(b *store.Batch) { b.Block(5, flip(values[5], 40)) },
		"the final difference":        func(b *store.Batch) { b.Block(5, flip(values[5], -3)) },
		"the final height":            func(b *store.Batch) { b.Block(5, flip(values[5], storedFixed+4+7)) },
		"a block too many":            func(b *store.Batch) { b.Block(6, values[5]) },
		"a block missing":             func(b *store.Batch) { b.Progress(store.Progress{Final: 6}) },
		"differences dropped":         func(b *store.Batch) { b.DropBlocks(3) },
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			if ok, err := vfs.Clone(original, fs, "ledger", "ledger"); err != nil || !ok {
				t.Fatal(ok, err)
			}
			d, err := store.Open(store.Options{FS: fs, Dir: "ledger", Binding: s.p.hash()})
			if err != nil {
				t.Fatal(err)
			}
			b := d.NewBatch()
			spoil(b)
			if err := errors.Join(d.Commit(b), d.Close()); err != nil {
				t.Fatal(err)
			}
			l, err := Open(s.options(fs, false))
			if err == nil {
				_ = l.Close()
				t.Fatal("not noticed")
			}
			var r *store.RefusedError
			if !errors.Is(err, store.ErrCorrupt) || !errors.As(err, &r) || !strings.Contains(r.Remedy, "sync from the other validators") {
				t.Fatalf("%v", err)
			}
		})
	}
}

// TestCrash takes a copy of the disk as a crash would leave it before every sync of a run, with and without some of
// what was not synced, and opens each copy.
func TestCrash(t *testing.T) {
	const blocks = 5
	s := newStory(t, blocks+1)
	disk := vfs.NewCrashableMem()
	type crash struct {
		fs     *vfs.MemFS
		height int // finalised, as far as the caller knows; -1: not even created
	}
	var mu sync.Mutex
	var crashes []crash
	height := -1
	rng := rand.New(rand.NewPCG(9, 10))
	take := func() {
		mu.Lock()
		defer mu.Unlock()
		crashes = append(crashes, crash{disk.CrashClone(vfs.CrashCloneCfg{}), height},
			crash{disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng}), height})
	}
	fs := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpRename:
			take()
		}
		return nil
	}))
	c := &clock{time.Unix(1e9, 0)}
	options := func(fs vfs.FS, create bool) Options {
		o := s.options(fs, create)
		o.Now, o.PageCycle = c.now, 3*time.Second
		return o
	}
	l, err := Open(options(fs, true))
	if err != nil {
		t.Fatal(err)
	}
	for h := range blocks {
		mu.Lock()
		height = h
		mu.Unlock()
		c.at = c.at.Add(time.Second)
		if err := s.extend(l); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	height = blocks
	mu.Unlock()
	take()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i, crash := range crashes {
		l, err := Open(options(crash.fs, false))
		if err != nil {
			if crash.height >= 0 || !errors.Is(err, store.ErrMissing) && !errors.Is(err, store.ErrIncomplete) {
				t.Fatalf("crash %d after height %d: %v", i, crash.height, err)
			}
			refused++
			continue
		}
		h, _ := l.Final()
		if int(h) < crash.height || int(h) > max(crash.height, 0)+1 {
			t.Fatalf("crash %d after height %d: recovered height %d", i, crash.height, h)
		}
		if err := s.models[h].agrees(l); err != nil {
			t.Fatalf("crash %d after height %d: %v", i, crash.height, err)
		}
		if err := s.extend(l); err != nil {
			t.Fatalf("crash %d after height %d: going on: %v", i, crash.height, err)
		}
		if err := s.models[h+1].agrees(l); err != nil {
			t.Fatalf("crash %d after height %d: going on: %v", i, crash.height, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 || refused == len(crashes) || len(crashes) < 2*blocks {
		t.Fatalf("%d crashes, %d of them refused: the test does not crash where it should", len(crashes), refused)
	}
	t.Logf("%d crashes, %d of them during creation", len(crashes), refused)
}

// TestWriteFailures makes the disk fail at every write and sync of a block. That is fatal, says so, and loses nothing.
func TestWriteFailures(t *testing.T) {
	s := newStory(t, 3)
	for _, c := range []struct {
		name string
		kind errorfs.OpKind
		err  error
		full bool
	}{
		{"disk full at a write", errorfs.OpFileWrite, &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, true},
		{"failed write", errorfs.OpFileWrite, syscall.EIO, false},
		{"failed sync", errorfs.OpFileSyncData, syscall.EIO, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			var mu sync.Mutex
			failing, failed := false, false
			l, err := Open(s.options(errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
				mu.Lock()
				defer mu.Unlock()
				if failing && op.Kind == c.kind {
					failed = true
					return c.err
				}
				return nil
			})), true))
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := s.extend(l); err != nil {
					t.Fatal(err)
				}
			}
			mu.Lock()
			failing = true
			mu.Unlock()
			err = s.extend(l)
			mu.Lock()
			if !failed {
				t.Fatal("pebble does no operation of this kind when it commits")
			}
			mu.Unlock()
			var f *store.FatalError
			if !errors.Is(err, ErrFatal) || !errors.As(err, &f) || f.DiskFull != c.full || !errors.Is(err, c.err) {
				t.Fatalf("%v", err)
			}
			if want := "the disk is full"; strings.Contains(err.Error(), want) != c.full || !strings.Contains(err.Error(), "Remedy") {
				t.Fatalf("%v", err)
			}
			if again := s.extend(l); !errors.Is(again, ErrFatal) {
				t.Fatalf("after the failure: %v", again)
			}
			if h, _ := l.Final(); h != 2 {
				t.Fatalf("final height %d", h)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			r, err := Open(s.options(disk.CrashClone(vfs.CrashCloneCfg{}), false))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.models[2].agrees(r); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.extend(r), s.models[3].agrees(r), r.Close()); err != nil {
				t.Fatal(err)
			}
		})
	}
}
