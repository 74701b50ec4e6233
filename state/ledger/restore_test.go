package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"tutti/state/store"
	"tutti/state/tx"
)

// headers are what a caller knows of a chain, by height.
type headers []Trusted

func (hs headers) header(height uint64) (Trusted, bool) {
	if height >= uint64(len(hs)) {
		return Trusted{}, false
	}
	return hs[height], true
}

// root is the state root after the block at a height.
func (hs headers) root(height uint64) (tx.Hash, bool) {
	h, ok := hs.header(height + StateLag)
	return h.State, ok
}

// tip is the highest height of which everything can be checked.
func (hs headers) tip() uint64 { return uint64(max(len(hs), 1+StateLag)) - 1 - StateLag }

func mustRestore(t rapid.TB, o RestoreOptions) *Restore {
	t.Helper()
	r, err := OpenRestore(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The steps of a copy from a ledger, all of which go through the encodings. They stop at the first error.

func copyOutline(l *Ledger, r *Restore, hs headers) error {
	o, err := l.Outline()
	if err != nil {
		return err
	}
	if o, err = DecodeOutline(o.Append(nil)); err != nil {
		return err
	}
	root, _ := hs.root(o.Height)
	return r.Begin(o, root)
}

func copyChunks(l *Ledger, r *Restore, hs headers, ids []ChunkID) error {
	if len(ids) == 0 {
		return nil
	}
	var cs []*Chunk
	for _, id := range ids {
		c, err := l.Chunk(id.Partition, id.Index)
		if err != nil {
			return err
		}
		if c, err = DecodeChunk(c.Append(nil)); err != nil {
			return err
		}
		cs = append(cs, c)
	}
	return r.PutChunks(cs, hs.root)
}

func copyKeys(l *Ledger, r *Restore) error {
	if n := r.MissingTops(); n > 0 {
		tops, err := l.DirectoryTops(0, int(n))
		if err != nil {
			return err
		}
		if tops, err = DecodeTops(AppendTops(nil, tops)); err != nil {
			return err
		}
		if err := r.PutTops(tops); err != nil {
			return err
		}
	}
	for _, s := range r.MissingKeys() {
		keys, err := l.DirectoryKeys(s.From, s.Count)
		if err != nil {
			return err
		}
		if keys, err = DecodeKeys(AppendKeys(nil, keys)); err != nil {
			return err
		}
		if err := r.PutKeys(s.From, keys); err != nil {
			return err
		}
	}
	return nil
}

// copyDifferences takes differences up to a height; ErrNotStored: the ledger has dropped the first one.
func copyDifferences(l *Ledger, r *Restore, hs headers, to uint64) error {
	lowest, _ := r.Lowest()
	from := max(min(lowest+1, to), 1)
	if first, last, ok := r.Differences(); ok && first <= from {
		from = last + 1
	}
	for from <= to {
		ds, err := l.Differences(from, 3000)
		if err != nil {
			return err
		}
		ds = ds[:min(uint64(len(ds)), to+1-from)]
		for i := range ds {
			if ds[i], err = DecodeDifference(ds[i].Append(nil)); err != nil {
				return err
			}
		}
		if err := r.PutDifferences(ds, hs.header); err != nil {
			return err
		}
		from += uint64(len(ds))
	}
	return nil
}

func copyOutbox(l *Ledger, r *Restore, s uint64) error {
	spans, err := r.MissingOutbox(s)
	if err != nil {
		return err
	}
	for _, span := range spans {
		o, err := l.Outbox(span.Shard, span.From, span.To)
		if err != nil {
			return err
		}
		if o, err = DecodeOutbox(o.Append(nil)); err != nil {
			return err
		}
		if err := r.PutOutbox(s, o); err != nil {
			return err
		}
	}
	return nil
}

// copyRest takes all that is missing and finishes the ledger at the highest height there is; more makes a block.
func copyRest(l *Ledger, r *Restore, hs func() headers, more func()) error {
	for {
		if r.Outline() == nil {
			if err := copyOutline(l, r, hs()); err != nil {
				return err
			}
		}
		if err := errors.Join(copyChunks(l, r, hs(), r.Missing()), copyKeys(l, r)); err != nil {
			return err
		}
		highest, _ := r.Highest()
		for hs().tip() < max(highest, 1) {
			more()
		}
		s := hs().tip()
		err := copyDifferences(l, r, hs(), s)
		if errors.Is(err, ErrNotStored) {
			oldest, err := l.Oldest()
			if err := errors.Join(err, r.DropBelow(oldest)); err != nil {
				return err
			}
			continue
		}
		if err == nil {
			err = copyOutbox(l, r, s)
		}
		if err == nil {
			err = r.Finish(s, hs()[s+1])
		}
		return err
	}
}

// headers are those of the final blocks.
func (f *forkTest) headers() (hs headers) {
	for _, b := range append(slices.Clone(f.below), f.blocks[0]) {
		t := Trusted{Hash: b.name, State: b.want.State, Diff: b.want.Diff}
		if b.parent != nil {
			t.Parent = b.parent.name
		}
		hs = append(hs, t)
	}
	return hs
}

func (f *forkTest) block(t *rapid.T) {
	f.build(t)
	f.finalise(t)
}

// TestRestoreMovingChain copies a ledger piece by piece while its chain goes on, with both sides closed and opened in
// between, and then runs the copy beside the original.
func TestRestoreMovingChain(tb *testing.T) {
	defer goleak.VerifyNone(tb, goleak.IgnoreCurrent())
	rapid.Check(tb, func(t *rapid.T) {
		f := newForkTest(t, tb)
		defer func() { _ = f.l.Close() }()
		o := RestoreOptions{FS: vfs.NewMem(), Dir: "copy", Params: f.p, Workers: f.o.Workers}
		r := mustRestore(t, o)
		defer func() { _ = r.Close() }()
		for range rapid.IntRange(0, 9).Draw(t, "blocks before") {
			f.block(t)
		}
		for i := range rapid.IntRange(1, 40).Draw(t, "steps") {
			restoreStep(t, f, &r, o, rapid.SampledFrom([]string{
				"block", "block", "block", "block", "outline", "chunks", "chunks", "keys", "differences", "outbox", "drop", "restart", "reopen", "refused",
			}).Draw(t, fmt.Sprint("step ", i)))
		}
		for len(f.below) < StateLag {
			f.block(t)
		}
		if err := copyRest(f.l, r, f.headers, func() { f.block(t) }); err != nil {
			t.Fatal(err)
		}
		runBeside(t, f, o)
	})
}

func restoreStep(t *rapid.T, f *forkTest, r **Restore, o RestoreOptions, step string) {
	hs := f.headers()
	var err error
	switch step {
	case "block":
		f.block(t)
	case "outline":
		if len(hs) > StateLag {
			err = copyOutline(f.l, *r, hs)
		}
	case "chunks":
		missing := rapid.Permutation((*r).Missing()).Draw(t, "chunks")
		err = copyChunks(f.l, *r, hs, missing[:min(len(missing), rapid.IntRange(0, 40).Draw(t, "how many"))])
	case "keys":
		err = copyKeys(f.l, *r)
	case "differences":
		if _, ok := (*r).Lowest(); ok && hs.tip() > 0 {
			if err = copyDifferences(f.l, *r, hs, hs.tip()); errors.Is(err, ErrNotStored) || errors.Is(err, ErrSequence) {
				err = nil
			}
		}
	case "outbox":
		if _, last, ok := (*r).Differences(); ok {
			err = copyOutbox(f.l, *r, last)
		}
	case "drop":
		lowest, _ := (*r).Lowest()
		err = (*r).DropBelow(lowest + rapid.Uint64Range(0, 3).Draw(t, "above the lowest"))
	case "restart":
		if err = (*r).Close(); err == nil {
			*r = mustRestore(t, o)
		}
	case "reopen":
		f.reopen(t)
	case "refused":
		_, err = Open(copyOptions(f, o))
		if !errors.Is(err, store.ErrLocked) && !errors.Is(err, store.ErrRestoring) {
			t.Fatal(err)
		}
		err = nil
	}
	if err != nil {
		t.Fatal(err)
	}
}

func copyOptions(f *forkTest, o RestoreOptions) Options {
	c := f.o
	c.FS, c.Dir, c.Create = o.FS, o.Dir, false
	return c
}

// runBeside opens the copy, brings it to the original's height, and executes more blocks on both.
func runBeside(t *rapid.T, f *forkTest, o RestoreOptions) {
	l, err := Open(copyOptions(f, o))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	chain := append(slices.Clone(f.below), f.blocks[0])
	height, _ := l.Final()
	if err := chain[height].model.agrees(l); err != nil {
		t.Fatalf("the copy: %v", err)
	}
	for range rapid.IntRange(0, 4).Draw(t, "blocks after") {
		f.block(t)
	}
	for _, b := range append(slices.Clone(f.below), f.blocks[0])[height+1:] {
		ctx := context.Background()
		done, err := l.Execute(ctx, ExecuteInput{Parent: b.parent.name, Block: b.name, Height: b.model.height, Body: b.body, Want: b.want})
		if err != nil || done.Root != b.model.root() {
			t.Fatalf("the copy at height %d: %v", b.model.height, err)
		}
		f.clock.at = f.clock.at.Add(time.Duration(rapid.IntRange(0, 12).Draw(t, "seconds")) * time.Second)
		if err := l.Finalise(ctx, b.name); err != nil {
			t.Fatal(err)
		}
		if err := b.model.agrees(l); err != nil {
			t.Fatalf("the copy, going on: %v", err)
		}
		for i, k := range b.model.keys {
			if v, err := l.store.Key(uint64(i)); err != nil || string(v) != k {
				t.Fatalf("key %d of the directory: %x, %v", i, v, err)
			}
		}
		if rapid.IntRange(0, 2).Draw(t, "reopen the copy") == 0 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if l, err = Open(copyOptions(f, o)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
