package ledger

import (
	"errors"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/tx"
)

// exported is the parts of a ledger as of its base.
type exported struct {
	base       Base
	outline    *Outline
	difference Difference
	chunks     []*Chunk
	keys       [][]DirectoryKey
	outboxes   []*Outbox
}

func export(t testing.TB, l *Ledger) *exported {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	b, child := l.base, l.last
	for child.parent != b {
		child = child.parent
	}
	x := &exported{base: Base{
		Height: b.height, Block: b.hash, State: b.root, Diff: b.diff, ParentState: child.done.Commitments.State, ParentDiff: child.done.Commitments.Diff,
	}}
	var err error
	x.outline, err = l.Outline()
	must(err)
	m, err := x.outline.Verify(b.root, &l.o.Params)
	must(err)
	ds, err := l.Differences(b.height, 1)
	must(err)
	x.difference = ds[0]
	for slot, n := range l.o.Params.Table.Partitions(l.o.Params.Shard) {
		for k := uint32(0); k<<chunkLog < m.Next[slot]; k++ {
			c, err := l.Chunk(n, k)
			must(err)
			x.chunks = append(x.chunks, c)
		}
	}
	for at := uint64(0); at < m.Directory.Count(); at += 10 {
		keys, err := l.DirectoryKeys(at, int(min(10, m.Directory.Count()-at)))
		must(err)
		x.keys = append(x.keys, keys)
	}
	for i := range m.Channels {
		if c := &m.Channels[i]; c.Acked < c.Sent.Count() {
			o, err := l.Outbox(c.Shard, c.Acked, c.Sent.Count())
			must(err)
			x.outboxes = append(x.outboxes, o)
		}
	}
	return x
}

func (x *exported) feed(r *Rebuilder) error {
	if err := r.Outline(x.outline); err != nil {
		return err
	}
	if err := r.Difference(&x.difference); err != nil {
		return err
	}
	for _, c := range x.chunks {
		if err := r.Chunk(c); err != nil {
			return err
		}
	}
	for _, k := range x.keys {
		if err := r.Keys(k); err != nil {
			return err
		}
	}
	for _, o := range x.outboxes {
		if err := r.Outbox(o); err != nil {
			return err
		}
	}
	return nil
}

// storyAt is a story with BLS keys and what a ledger of it, at a height, exports.
func storyAt(t testing.TB, blocks, height int) (*story, Options, *Ledger, *exported) {
	s := newStory(t, blocks)
	o := s.options(vfs.NewMem(), true)
	o.Genesis = withBLS(o.Genesis)
	l := mustOpen(t, o)
	for range height {
		if err := s.extend(l); err != nil {
			t.Fatal(err)
		}
	}
	return s, o, l, export(t, l)
}

// TestRebuild: a rebuilt ledger goes on like the one it is a copy of, in memory and on disk, from any height.
func TestRebuild(t *testing.T) {
	const blocks = 12
	for _, height := range []int{3, 4, 7} {
		s, o, l, x := storyAt(t, blocks, height)
		o.FS, o.Dir, o.Genesis = vfs.NewMem(), "", nil
		memory, err := Rebuild(o, x.base, x.feed)
		if err != nil {
			t.Fatal(err)
		}
		if memory.last.root != x.base.State || memory.Meta().Height != x.base.Height {
			t.Error("another state in memory")
		}
		if err := memory.Close(); err != nil {
			t.Fatal(err)
		}
		o.Dir = "copy"
		c, err := Rebuild(o, x.base, x.feed)
		if err != nil {
			t.Fatal(err)
		}
		for c.last.height < l.last.height {
			if err := s.extend(c); err != nil {
				t.Fatal(err)
			}
		}
		for h := height; h < blocks; h++ {
			if c.last.root != l.last.root || c.last.diff != l.last.diff {
				t.Fatalf("from %d on, at height %d: another state", height, h)
			}
			if h == height+1 { // a stop in between
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				o.Create = false
				if c, err = Open(o); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(s.extend(l), s.extend(c)); err != nil {
				t.Fatal(err)
			}
		}
		compareReads(t, s, l, c)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// compareReads compares what two ledgers say of keys, receipts and proofs.
func compareReads(t *testing.T, s *story, l, c *Ledger) {
	t.Helper()
	for i := range uint64(storyAccounts) {
		id := s.p.GenesisID(i)
		a, oka := l.Account(id)
		b, okb := c.Account(id)
		ka, hasa, erra := l.BLSKey(id)
		kb, hasb, errb := c.BLSKey(id)
		if a != b || oka != okb || ka != kb || hasa != hasb || errors.Join(erra, errb) != nil {
			t.Fatalf("account %s: %+v and %+v, %v, %v", id, a, b, erra, errb)
		}
	}
	ch := &l.Meta().Channels[0]
	a, erra := l.Receipts(ch.Shard, ch.Acked, ch.Sent.Count())
	b, errb := c.Receipts(ch.Shard, ch.Acked, ch.Sent.Count())
	if !slices.Equal(a, b) || len(a) == 0 || errors.Join(erra, errb) != nil {
		t.Errorf("receipts: %d and %d, %v, %v", len(a), len(b), erra, errb)
	}
	ids := []tx.ID{s.p.GenesisID(1), s.p.GenesisID(400)}
	if _, _, err := proveAll(c, l.base.root, ids); err != nil {
		t.Error(err)
	}
}

// TestRebuildRefuses: no part can be changed, left out or given twice.
func TestRebuildRefuses(t *testing.T) {
	_, o, l, good := storyAt(t, 5, 5)
	o.Dir = ""
	if len(good.chunks) != 1 || len(good.keys) < 3 || len(good.outboxes) != 1 {
		t.Fatalf("%d chunks, %d keys, %d outboxes", len(good.chunks), len(good.keys), len(good.outboxes))
	}
	for name, edit := range map[string]func(x *exported){
		"state":              func(x *exported) { x.base.State[0]++ },
		"diff":               func(x *exported) { x.base.Diff[0]++ },
		"height":             func(x *exported) { x.base.Height++ },
		"genesis":            func(x *exported) { x.base.Height = 0 },
		"outline":            func(x *exported) { x.outline.meta = flip(x.outline.meta, 20) },
		"outline's tree":     func(x *exported) { x.outline.accounts.sum++ },
		"difference":         func(x *exported) { x.difference.bytes = flip(x.difference.bytes, len(x.difference.bytes)-1) },
		"difference's meta":  func(x *exported) { x.difference.bytes = flip(x.difference.bytes, 20) },
		"difference cut":     func(x *exported) { x.difference.bytes = x.difference.bytes[:100] },
		"record":             func(x *exported) { x.chunks[0].records = flip(x.chunks[0].records, 5*RecordBytes+7) },
		"a record less":      func(x *exported) { x.chunks[0].records = x.chunks[0].records[:len(x.chunks[0].records)-RecordBytes] },
		"path":               func(x *exported) { x.chunks[0].path[14].sum++ },
		"no chunk":           func(x *exported) { x.chunks = nil },
		"chunk twice":        func(x *exported) { x.chunks = append(x.chunks, x.chunks[0]) },
		"chunk of elsewhere": func(x *exported) { x.chunks[0].Index++ },
		"chunk of then":      func(x *exported) { x.chunks[0].Height++ },
		"key":                func(x *exported) { x.keys[1][0].Key[9]++ },
		"key of another":     func(x *exported) { x.keys[1][0].ID++ },
		"keys swapped":       func(x *exported) { x.keys[0], x.keys[1] = x.keys[1], x.keys[0] },
		"keys missing":       func(x *exported) { x.keys = x.keys[:len(x.keys)-1] },
		"too many keys":      func(x *exported) { x.keys = append(x.keys, x.keys[0]) },
		"no outbox":          func(x *exported) { x.outboxes = nil },
		"outbox twice":       func(x *exported) { x.outboxes = append(x.outboxes, x.outboxes[0]) },
		"receipt":            func(x *exported) { x.outboxes[0].Receipts[1].Amount++ },
		"a receipt less":     func(x *exported) { x.outboxes[0].Receipts = x.outboxes[0].Receipts[1:] },
		"outbox elsewhere":   func(x *exported) { x.outboxes[0].Shard = 7 },
	} {
		x := export(t, l)
		edit(x)
		c, err := Rebuild(o, x.base, x.feed)
		if err == nil {
			_ = c.Close()
		}
		var bad *BadPart
		if !errors.As(err, &bad) && !errors.Is(err, ErrUnfed) && !errors.Is(err, ErrParams) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Rebuild(o, good.base, func(*Rebuilder) error { return nil }); !errors.Is(err, ErrUnfed) {
		t.Errorf("nothing given: %v", err)
	}
	c, err := Rebuild(o, good.base, good.feed)
	if err != nil {
		t.Fatalf("the good one: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func flip(b []byte, at int) []byte {
	c := slices.Clone(b)
	c[at] ^= 1
	return c
}
