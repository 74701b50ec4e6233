package ledger

import (
	"fmt"

	"tutti/state/tx"
)

// Bounds on what is kept unfinalised.
const (
	maxDepth  = 4096 // heights above the final block: as many as the machine votes for without finality (simplex.Limits)
	maxBlocks = 8192 // blocks kept, forks and the final ones down to base included; those far above the final one are small
)

// rootAndDiff is what a header carries about a block below it.
type rootAndDiff struct{ root, diff tx.Hash }

// block is an executed block. It is immutable once it is in Ledger.blocks, but for parent, which mu guards and which is
// cleared when the block becomes the base.
type block struct {
	hash     tx.Hash
	parent   *block      // nil: this is the base
	below    rootAndDiff // the parent's: what a child's header carries, StateLag being 2
	height   uint64
	meta     *Meta
	metaHash tx.Hash
	head     []byte // encoded; see diff.go and appendHead
	root     tx.Hash
	diff     tx.Hash
	balances uint64         // sum
	sections []section      // ascending by slot
	nodes    [][]chunkNode  // for each section: the chunks it changed, as of this block
	outbox   [][]tx.Receipt // by channel: what this block appended
	returns  [][]tx.Receipt // by channel: what the next block appends first
	keys     []keyEntry     // what this block appended to the directory
	done     *Executed      // nil for blocks read from the store
}

// descends reports whether b is a or above it.
func (b *block) descends(a *block) bool {
	for b != nil && b.height > a.height {
		b = b.parent
	}
	return b == a
}

// find looks up the parent of a block to build or execute, at the height below.
func (l *Ledger) find(parent tx.Hash, height uint64) (*block, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return nil, ErrClosed
	}
	p := l.blocks[parent]
	if p == nil || p.height < l.last.height {
		return nil, fmt.Errorf("ledger: %w: %v at height %d, final height %d", ErrUnknownParent, parent, height-1, l.last.height)
	}
	if height != p.height+1 {
		return nil, fmt.Errorf("ledger: %w: %d on %d", ErrHeight, height, p.height)
	}
	if p.height-l.last.height >= maxDepth || len(l.blocks) >= maxBlocks {
		return nil, fmt.Errorf("ledger: %w: height %d on final height %d, %d blocks", ErrTooDeep, height, l.last.height, len(l.blocks))
	}
	return p, nil
}

// enter locks exec with the table at parent, which was found before. The caller unlocks unless there is an error.
func (l *Ledger) enter(parent *block) error {
	if err := l.alive(); err != nil {
		return err
	}
	l.exec.Lock()
	l.mu.RLock()
	closed, known := l.closed, l.blocks[parent.hash] == parent && parent.height >= l.last.height
	l.mu.RUnlock()
	if closed || !known {
		l.exec.Unlock()
		if closed {
			return ErrClosed
		}
		return fmt.Errorf("ledger: %w: %v was abandoned meanwhile", ErrUnknownParent, parent.hash)
	}
	if l.tip != parent {
		l.mu.Lock()
		l.move(parent)
		l.mu.Unlock()
	}
	return nil
}

// move brings the table to a block by undoing and redoing differences. The tree follows with the next hash. exec and
// mu are held.
func (l *Ledger) move(to *block) {
	var up []*block
	for a, b := l.tip, to; a != b; {
		if b.height > a.height {
			up = append(up, b)
			b = b.parent
			continue
		}
		l.parallel(len(a.sections), func(_, i int) { l.table.undo(&a.sections[i]) })
		a = a.parent
	}
	for i := len(up) - 1; i >= 0; i-- {
		b := up[i]
		l.parallel(len(b.sections), func(_, i int) { l.table.redo(&b.sections[i], b.height) })
	}
	l.tip = to
}

// cellsAt copies the cells of a slot from index from on, all in one chunk, as of a block at or below the tip. mu is
// held for reading at least; cells is zero.
func (l *Ledger) cellsAt(at *block, slot int, from uint32, cells []cell) {
	if k := l.table.parts[slot].chunks; int(from>>chunkLog) < len(k) {
		copy(cells, k[from>>chunkLog].cells[from%chunkAccounts:])
	}
	for b := l.tip; b != at; b = b.parent {
		if s := sectionOf(b.sections, slot); s != nil {
			s.rewind(cells, from)
		}
	}
}

// Abandon drops an unfinalised block and its descendants. Unknown and final blocks are left alone. If the table is at
// one of them it stays there until it is needed elsewhere. A block being executed on one of them is waited for.
func (l *Ledger) Abandon(name tx.Hash) {
	l.exec.Lock()
	defer l.exec.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.blocks[name]
	if b == nil || l.closed || b.height <= l.last.height {
		return
	}
	l.drop(func(x *block) bool { return x.descends(b) })
}

// drop forgets the blocks of which is true. exec and mu are held.
func (l *Ledger) drop(which func(*block) bool) {
	for hash, b := range l.blocks {
		if which(b) {
			delete(l.blocks, hash)
		}
	}
}
