package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"tutti/state/store"
	"tutti/state/tx"
)

// A stored block is hash 32, parent's hash 32, state root 32, diff hash 32, head length 4, head, sections.
const storedFixed = 4*32 + 4

func (b *block) appendStored(out []byte) []byte {
	parent := tx.Hash{}
	if b.parent != nil {
		parent = b.parent.hash
	}
	for _, h := range [...]tx.Hash{b.hash, parent, b.root, b.diff} {
		out = append(out, h[:]...)
	}
	out = binary.BigEndian.AppendUint32(out, uint32(len(b.head)))
	out = append(out, b.head...)
	for i := range b.sections {
		out = append(out, b.sections[i].bytes...)
	}
	return out
}

// stored is a decoded stored block. It aliases what it was decoded from.
type stored struct {
	hash, parent, root, diff tx.Hash
	head                     []byte
	sections                 []section // with slot, without leaf and before
}

func (t *table) readStored(v []byte) (*stored, error) {
	if len(v) < storedFixed {
		return nil, fmt.Errorf("ledger: stored block: %w: %d bytes", ErrMalformed, len(v))
	}
	s := &stored{hash: tx.Hash(v[:32]), parent: tx.Hash(v[32:64]), root: tx.Hash(v[64:96]), diff: tx.Hash(v[96:128])}
	n := binary.BigEndian.Uint32(v[128:])
	v = v[storedFixed:]
	if uint64(n) > uint64(len(v)) {
		return nil, fmt.Errorf("ledger: stored block: %w: head of %d bytes", ErrMalformed, n)
	}
	s.head, v = v[:n], v[n:]
	var err error
	s.sections, err = t.readSections(v)
	return s, err
}

// readSections decodes all of b as sections ascending by partition, each of a partition of this shard.
func (t *table) readSections(b []byte) ([]section, error) {
	var out []section
	for last := -1; len(b) > 0; {
		var k section
		var err error
		if k, b, err = readSection(b); err != nil {
			return nil, err
		}
		k.slot = int(t.route[binary.BigEndian.Uint16(k.bytes)])
		if k.slot <= last {
			return nil, fmt.Errorf("ledger: difference: %w: partition %d is out of place", ErrMalformed, binary.BigEndian.Uint16(k.bytes))
		}
		last = k.slot
		out = append(out, k)
	}
	return out, nil
}

// recover makes the ledger from its store: pages and differences up to the base, which are hashed and compared with
// the base's root, then the blocks above it as if they were executed again. The base is StateLag below the final block, or where
// a ledger begins that was made of others' parts: final headers have shown what lies below that.
func (l *Ledger) recover() error {
	progress, err := l.store.Progress()
	if err != nil {
		return err
	}
	l.final.progress = progress
	if l.effects, err = l.store.EffectsFrom(); err != nil {
		return err
	}
	base := progress.Final - min(progress.Final, StateLag)
	begins, root, diff, err := l.store.Beginning()
	if err != nil {
		return err
	}
	if begins > progress.Final {
		return l.corrupt("it begins at block %d, and block %d is the final one", begins, progress.Final)
	}
	base = max(base, begins)
	var recent []*stored // base to final
	if err := l.store.Blocks(base, func(height uint64, v []byte) error {
		if height != base+uint64(len(recent)) || height > progress.Final {
			return l.corrupt("block %d is stored, expected %d", height, base+uint64(len(recent)))
		}
		s, err := l.table.readStored(append([]byte{}, v...))
		if err != nil {
			return l.corrupt("block %d: %v", height, err)
		}
		recent = append(recent, s)
		return nil
	}); err != nil {
		return err
	}
	if uint64(len(recent)) != progress.Final-base+1 {
		return l.corrupt("block %d is not stored", base+uint64(len(recent)))
	}
	b, err := l.blockOf(recent[0], base)
	if err != nil {
		return err
	}
	if err := l.load(b); err != nil {
		return err
	}
	if err := l.begin(b); err != nil {
		return l.corrupt("at block %d: %v", base, err)
	}
	if base > 0 && base == begins {
		b.below = rootAndDiff{root, diff}
	}
	if b.root != recent[0].root {
		return l.corrupt("its pages and differences give state root %v at block %d, the stored one is %v", b.root, base, recent[0].root)
	}
	for i, s := range recent[1:] {
		if err := l.replay(s, base+1+uint64(i)); err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) corrupt(format string, args ...any) error {
	return store.Corrupt(l.o.Dir, format, args...)
}

// blockOf is a stored block as one in memory, without sections.
func (l *Ledger) blockOf(s *stored, height uint64) (*block, error) {
	m, returns, keys, err := readHead(s.head, genesisMeta(&l.o.Params), l.table.parts)
	if err == nil && m.Height != height {
		err = fmt.Errorf("its height is %d", m.Height)
	}
	if err != nil {
		return nil, l.corrupt("block %d: %v", height, err)
	}
	return &block{hash: s.hash, diff: s.diff, height: height, meta: m, head: s.head, returns: returns, keys: keys}, nil
}

// load fills the table with the state of b: pages, then differences, oldest first. A difference is made again over
// pages that have it already; since all later ones follow, the last value wins and is the right one.
func (l *Ledger) load(b *block) error {
	for slot, next := range b.meta.Next {
		if err := l.table.reserve(slot, next); err != nil {
			return err
		}
	}
	if err := l.loadPages(b); err != nil {
		return err
	}
	if err := l.loadBlocks(b); err != nil {
		return err
	}
	for slot, next := range b.meta.Next {
		l.table.parts[slot].next = next
	}
	return nil
}

// loadPages reads the pages, each partition by one worker.
func (l *Ledger) loadPages(b *block) error {
	if err := l.store.PagedPartitions(func(number uint16) error {
		if l.table.route[number] < 0 {
			return l.corrupt("it has pages of partition %d, which is not of this shard", number)
		}
		return nil
	}); err != nil {
		return err
	}
	var done atomic.Uint64
	errs := make([]error, len(l.table.parts))
	l.parallel(len(errs), func(_, slot int) {
		number := l.table.parts[slot].number
		errs[slot] = l.store.Pages(number, func(page uint32, v []byte) error { return l.loadPage(b, slot, page, v) })
		l.tell("reading accounts", done.Add(uint64(b.meta.Next[slot])), b.meta.Accounts)
	})
	return errors.Join(errs...)
}

// loadBytes is how much of differences is read before the workers make them.
const loadBytes = 16 << 20

// loadBlocks makes the differences up to b, those of each partition by one worker.
func (l *Ledger) loadBlocks(b *block) error {
	var read []*stored
	size := 0
	first, next := uint64(0), uint64(0) // heights: of the first one stored, and after the last one read
	apply := func() {
		l.parallel(len(l.table.parts), func(_, slot int) {
			for i, d := range read {
				if s := sectionOf(d.sections, slot); s != nil {
					l.table.apply(s, next-uint64(len(read)-i))
				}
			}
		})
		read, size = read[:0], 0
		l.tell("repeating blocks", next-first, b.height+1-first)
	}
	err := l.store.Blocks(0, func(height uint64, v []byte) error {
		if height > b.height {
			return nil
		}
		if next == 0 {
			first, next = height, height
		}
		if height != next {
			return l.corrupt("block %d is stored, expected %d", height, next)
		}
		d, err := l.table.readStored(append([]byte{}, v...))
		if err != nil {
			return l.corrupt("block %d: %v", height, err)
		}
		for i := range d.sections {
			if s := &d.sections[i]; s.next() > b.meta.Next[s.slot] {
				return l.corrupt("block %d opens account %d of partition %d, %d were opened", height, s.next()-1,
					l.table.parts[s.slot].number, b.meta.Next[s.slot])
			}
		}
		read, next = append(read, d), height+1
		if size += len(v); size >= loadBytes {
			apply()
		}
		return nil
	})
	if err == nil {
		apply()
	}
	return err
}

// tell says how far the opening is.
func (l *Ledger) tell(stage string, done, total uint64) {
	if l.o.Progress != nil {
		l.o.Progress(stage, done, total)
	}
}

func (l *Ledger) loadPage(b *block, slot int, page uint32, v []byte) error {
	number := l.table.parts[slot].number
	if len(v) < 8 || (len(v)-8)%RecordBytes != 0 || len(v) > 8+pageAccounts*RecordBytes {
		return l.corrupt("page %d of partition %d is out of place or has %d bytes", page, number, len(v))
	}
	if height := binary.BigEndian.Uint64(v); height > b.height {
		return l.corrupt("page %d of partition %d is of height %d, above %d", page, number, height, b.height)
	}
	records := (len(v) - 8) / RecordBytes
	if uint64(page)<<pageLog+uint64(records) > uint64(b.meta.Next[slot]) {
		return l.corrupt("page %d of partition %d has more accounts than were opened", page, number)
	}
	for i := range records {
		l.table.parts[slot].open(page<<pageLog+uint32(i), (*cell)(v[8+i*RecordBytes:]))
	}
	return nil
}

// replay makes a stored block on top of the final one.
func (l *Ledger) replay(s *stored, height uint64) error {
	b, err := l.blockOf(s, height)
	if err != nil {
		return err
	}
	parent := l.last
	if s.parent != parent.hash {
		return l.corrupt("block %d is not a child of block %d", height, height-1)
	}
	for i := range s.sections {
		k := &s.sections[i]
		if k.first() != parent.meta.Next[k.slot] || k.next() != b.meta.Next[k.slot] {
			return l.corrupt("block %d opens accounts [%d, %d) of partition %d, the counters say [%d, %d)", height,
				k.first(), k.next(), l.table.parts[k.slot].number, parent.meta.Next[k.slot], b.meta.Next[k.slot])
		}
		if err := l.table.reserve(k.slot, k.next()); err != nil {
			return err
		}
		k.leaf = diffLeaf(1, k.bytes)
	}
	if diff := diffHash(s.head, s.sections); diff != s.diff {
		return l.corrupt("the difference of block %d has hash %v, the stored one is %v", height, diff, s.diff)
	}
	b.parent, b.below, b.sections = parent, rootAndDiff{parent.root, parent.diff}, s.sections
	l.blocks[b.hash] = b
	l.move(b)
	if err := l.hash(b); err != nil {
		return l.corrupt("at block %d: %v", height, err)
	}
	if b.root != s.root {
		return l.corrupt("its difference gives state root %v at block %d, the stored one is %v", b.root, height, s.root)
	}
	l.last = b
	return nil
}
