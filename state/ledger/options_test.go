package ledger

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"tutti/state/tx"
)

// script is a tree of blocks that the model made, a few at each height, the first of which becomes final.
type script struct {
	r       *powerRun
	heights [][]*proposed
}

func newScript(t testing.TB, seed uint64, heights int) *script {
	s := &script{r: newPowerRun(t, seed)}
	s.r.told = 0
	for range heights {
		final := s.r.final[len(s.r.final)-1]
		tree := []*proposed{s.r.propose(final)}
		for range s.r.rng.IntN(4) {
			parent := final
			if i := s.r.rng.IntN(len(tree) + 1); i < len(tree) {
				parent = tree[i].certified
			}
			tree = append(tree, s.r.propose(parent))
		}
		s.heights = append(s.heights, tree)
		s.r.final = append(s.r.final, tree[0].certified)
	}
	return s
}

// play is a way to run a script: all that must not matter.
type play struct {
	s    *script
	rng  *rand.Rand
	o    Options
	l    *Ledger
	done map[tx.Hash]*Executed
}

func newPlay(s *script, rng *rand.Rand, workers int) (*play, error) {
	p := &play{s: s, rng: rng, o: s.r.o, done: map[tx.Hash]*Executed{}}
	c := &clock{time.Unix(1e9, 0)}
	p.o.FS, p.o.Workers, p.o.CacheBytes = vfs.NewMem(), workers, [...]int64{0, 1 << 16, 1 << 24}[rng.IntN(3)]
	p.o.PageCycle = [...]time.Duration{time.Second, 7 * time.Second, time.Hour}[rng.IntN(3)]
	p.o.Now = func() time.Time {
		c.at = c.at.Add(time.Duration(rng.IntN(3)) * time.Second)
		return c.at
	}
	var err error
	p.l, err = Open(p.o)
	p.o.Create = false
	return p, err
}

// height executes the blocks of a height, or some of them, in an order of its own, and finalises the first.
func (p *play) height(tree []*proposed) error {
	if p.rng.IntN(5) == 0 {
		if err := p.l.Close(); err != nil {
			return err
		}
		var err error
		if p.l, err = Open(p.o); err != nil {
			return err
		}
	}
	known := map[tx.Hash]bool{tree[0].parent.name: true}
	waiting := slices.Clone(tree)
	for len(waiting) > 0 {
		i := p.rng.IntN(len(waiting))
		b := waiting[i]
		if !known[b.parent.name] {
			if !slices.ContainsFunc(waiting, func(x *proposed) bool { return x.name == b.parent.name }) {
				waiting = slices.Delete(waiting, i, i+1) // its parent was left out
			}
			continue
		}
		waiting = slices.Delete(waiting, i, i+1)
		if b != tree[0] && p.rng.IntN(4) == 0 {
			continue
		}
		if err := p.block(b); err != nil {
			return err
		}
		known[b.name] = true
		if b != tree[0] && p.rng.IntN(6) == 0 {
			p.l.Abandon(b.name)
			known[b.name] = false
		}
	}
	return p.l.Finalise(context.Background(), tree[0].name)
}

// block executes a block, perhaps after building it, perhaps twice.
func (p *play) block(b *proposed) error {
	if p.rng.IntN(2) == 0 && !slices.Contains(b.outcomes, false) {
		built, err := p.l.Build(context.Background(), BuildInput{
			Parent: b.parent.name, Height: b.model.height, Candidates: b.txs, Bundles: b.bundles, MaxBytes: 1 << 20, MaxTxs: 100,
		})
		if err != nil {
			return err
		}
		if !slices.Equal(built.Body, b.body) || match(built.Commitments, b.want) != nil {
			return fmt.Errorf("built another block at height %d", b.model.height)
		}
	}
	for range 1 + p.rng.IntN(2) {
		done, err := b.execute(p.l)
		if err != nil {
			return err
		}
		p.done[b.name] = done
	}
	return nil
}

// TestOptionsDoNotMatter plays random scripts with different numbers of workers, page cycles, caches, restarts, orders of
// siblings, with and without Build. All must give the same, to the byte.
func TestOptionsDoNotMatter(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		seed := rapid.Uint64Range(0, 1<<32).Draw(r, "seed")
		s := newScript(t, seed, rapid.IntRange(1, 7).Draw(r, "heights"))
		results := map[tx.Hash]*Executed{}
		stored := map[uint64]string{}
		for i, workers := range []int{1, 2, 3, 5, 8} {
			p, err := newPlay(s, rand.New(rand.NewPCG(seed, uint64(i))), workers)
			if err != nil {
				r.Fatal(err)
			}
			for h, tree := range s.heights {
				if err := p.height(tree); err != nil {
					r.Fatalf("%d workers, height %d: %v", workers, h+1, err)
				}
				value := string(p.l.last.appendStored(nil))
				if other, ok := stored[uint64(h)]; ok && other != value {
					r.Fatalf("%d workers, height %d: another block is stored", workers, h+1)
				}
				stored[uint64(h)] = value
			}
			if err := s.r.check(p.l); err != nil {
				r.Fatalf("%d workers: %v", workers, err)
			}
			for name, done := range p.done {
				if other := results[name]; other != nil && !reflect.DeepEqual(other, done) {
					r.Fatalf("%d workers: another result of block %v", workers, name)
				}
				results[name] = done
			}
			if err := p.l.Close(); err != nil {
				r.Fatal(err)
			}
		}
	})
}

// trace is all of a ledger that a branch could leave a mark on: the table's cells and what it has room for, the tree over
// it and the blocks known. Cells above the accounts opened must be clear.
func trace(t *testing.T, l *Ledger) (sum uint64, room uint64, blocks int) {
	t.Helper()
	if err := l.enter(l.last); err != nil {
		t.Fatal(err)
	}
	defer l.exec.Unlock()
	var h maphash.Hash
	h.SetSeed(traceSeed)
	for slot := range l.table.parts {
		p := &l.table.parts[slot]
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], p.next)
		_, _ = h.Write(n[:])
		for _, c := range p.chunks {
			for i := range c.cells {
				if c.cells[i] != (cell{}) {
					_, _ = h.Write(c.cells[i][:])
				}
			}
		}
	}
	return h.Sum64(), l.table.bytes(), len(l.blocks)
}

var traceSeed = maphash.MakeSeed()

// TestAbandonedBranchesLeaveNoTrace grows branches with openings of accounts and abandons them, again and again. The table
// and the blocks known are what they were, and memory does not grow.
func TestAbandonedBranchesLeaveNoTrace(t *testing.T) {
	const accounts = 300
	p := testParams(t, 0, 2, accounts)
	p.Table = PartitionTable{{First: 0, Log2: 1, Shard: 0}, {First: 2, Log2: 0, Shard: 1}}
	o := testOptions(p, accounts)
	o.Genesis = withBLS(o.Genesis)
	l := mustOpen(t, o)
	m := newModel(&p, o.Genesis)
	step(t, l, p.GenesisBlock, 1, blockName(1), []tx.Signed{transfer(&p, p.GenesisID(1), p.GenesisID(2), 5, 0)})
	finalise(t, l, blockName(1))
	m, _ = m.block([]tx.Signed{transfer(&p, p.GenesisID(1), p.GenesisID(2), 5, 0)}, nil)
	names := uint64(10)
	grow := func() {
		var roots []tx.Hash
		for range 3 {
			parent, height := blockName(1), uint64(1)
			for range 6 {
				names++
				height++
				var txs []tx.Signed
				for i := range uint64(4) {
					txs = append(txs, opening(&p, p.GenesisID(10+i), 7, uint32(height-2), keyOf(tx.ID(names<<20+i))))
				}
				txs = append(txs, transfer(&p, p.GenesisID(20), tx.MakeID(2, 3), 1, uint32(height-2)))
				step(t, l, parent, height, blockName(names), txs)
				if height == 2 {
					roots = append(roots, blockName(names))
				}
				parent = blockName(names)
			}
		}
		if n := l.Stats().Unfinalised; n != 18 {
			t.Fatalf("%d unfinalised blocks", n)
		}
		for _, name := range roots {
			l.Abandon(name)
		}
		if n := l.Stats().Unfinalised; n != 0 {
			t.Fatalf("%d unfinalised blocks after all were abandoned", n)
		}
	}
	live := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	sum, _, blocks := trace(t, l)
	grow() // once, for buffers that are kept
	_, room, _ := trace(t, l)
	before := live()
	for range 20 {
		grow()
		if s, r, b := trace(t, l); s != sum || r != room || b != blocks {
			t.Fatalf("abandoned branches left a trace: table %x, %d bytes, %d blocks; before %x, %d, %d", s, r, b, sum, room, blocks)
		}
	}
	// 20 branches' blocks alone would be above a MiB.
	if after := live(); after > before+256<<10 {
		t.Errorf("memory grew from %d to %d bytes", before, after)
	}
	if err := m.agrees(l); err != nil {
		t.Fatal(err)
	}
	// The next opening gets the id that it would have had.
	if done := step(t, l, blockName(1), 2, blockName(2), []tx.Signed{opening(&p, p.GenesisID(5), 7, 0, keyOf(9))}); done.Opened[0].ID != tx.MakeID(0, accounts/2) {
		t.Errorf("the next account opened is %v", done.Opened[0].ID)
	}
}
