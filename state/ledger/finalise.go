package ledger

import (
	"context"
	"encoding/binary"
	"fmt"

	"tutti/state/store"
	"tutti/state/tx"
)

// Pages are 256 records, 16 KiB. A stored page is its height 8, then its records as far as accounts were opened.
const (
	pageLog      = 8
	pageAccounts = 1 << pageLog
	maxPages     = 512 // in one batch: 8 MiB
)

func pagesOf(next uint32) uint32 { return (next + pageAccounts - 1) >> pageLog }

// Finalise makes an executed child of the final block final and durable, and drops the blocks that contradict it.
// Finalising the final block again does nothing. Errors: ErrOrder, ErrUnknownParent (the block is not known), the
// context's before anything was written; anything else is fatal (ErrFatal).
func (l *Ledger) Finalise(ctx context.Context, name tx.Hash) error {
	l.final.Lock()
	defer l.final.Unlock()
	if err := l.alive(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.RLock()
	b, last, closed := l.blocks[name], l.last, l.closed
	l.mu.RUnlock()
	switch {
	case closed:
		return ErrClosed
	case b == last:
		return nil
	case b == nil:
		return fmt.Errorf("ledger: %w: block %v is not executed", ErrUnknownParent, name)
	case b.height != last.height+1 || !l.childOf(b, last):
		return fmt.Errorf("ledger: %w: block %v at height %d, final height %d", ErrOrder, name, b.height, last.height)
	}
	batch, progress, err := l.batch(b, last)
	if err == nil {
		err = l.store.Commit(batch)
	}
	if err != nil {
		return l.fail(fmt.Errorf("block %d: %w", b.height, err))
	}
	l.final.progress = progress
	if len(b.keys) > 0 {
		if err := l.signers.bring(l.branchKeys(b), b.meta.Directory.Count()); err != nil {
			return l.fail(err)
		}
	}
	return l.advance(b)
}

func (l *Ledger) childOf(b, parent *block) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return b.parent == parent
}

// batch collects what makes b durable on top of last.
func (l *Ledger) batch(b, last *block) (*store.Batch, store.Progress, error) {
	s := l.store.NewBatch()
	s.Block(b.height, b.appendStored(nil))
	for i := range b.meta.Channels {
		c, before := &b.meta.Channels[i], &last.meta.Channels[i]
		if len(b.outbox[i]) > 0 {
			s.Receipts(c.Shard, before.Sent.Count(), before.Sent.AppendBytes(nil), appendReceipts(nil, b.outbox[i]))
		}
	}
	if err := l.dropReceipts(s, b); err != nil {
		return nil, store.Progress{}, err
	}
	if len(b.done.Credits) > 0 {
		s.Credits(b.height, appendCredits(nil, b.done.Credits))
	}
	if len(b.done.Opened) > 0 {
		s.Opened(b.height, appendOpened(nil, b.done.Opened))
	}
	if b.height%effectsSweep == 0 && b.height > l.o.History {
		s.DropEffects(b.height - l.o.History)
	}
	for i := range b.keys {
		s.Key(last.meta.Directory.Count()+uint64(i), b.keys[i].append(nil))
	}
	progress := l.slice(s, b)
	progress.Final = b.height
	s.Progress(progress)
	return s, progress, nil
}

// Receipts are kept for keepAcked blocks after the other shard has acknowledged them, for validators that copy the
// ledger as of a block a little below the final one (Outbox). Then they are dropped many at a time, dropAtOnce of them or,
// where they are few, those of receiptsSweep blocks: each range that is dropped stays in the store's memory until it is
// written out, hundreds of bytes for each.
const (
	keepAcked     = 64
	dropAtOnce    = 1 << 14
	receiptsSweep = 1 << 8
)

// dropReceipts adds to a batch the removal of receipts that were acknowledged keepAcked blocks before b. What the
// ledger was opened with it takes to be acknowledged at that time.
func (l *Ledger) dropReceipts(s *store.Batch, b *block) error {
	if l.final.acked = append(l.final.acked, b.meta); len(l.final.acked) <= keepAcked {
		return nil
	}
	old := l.final.acked[0]
	l.final.acked = append(l.final.acked[:0], l.final.acked[1:]...)
	if l.final.dropped == nil {
		l.final.dropped = make([]uint64, len(old.Channels))
	}
	for i := range old.Channels {
		c, sweep := &old.Channels[i], b.height%receiptsSweep == 0
		if n := c.Acked - l.final.dropped[i]; n >= dropAtOnce || n > 0 && sweep {
			if err := s.DropReceipts(c.Shard, c.Acked); err != nil {
				return err
			}
			l.final.dropped[i] = c.Acked
		}
	}
	return nil
}

// The outcomes of received receipts and the accounts opened are kept for Options.History blocks, for proofs of credits
// and for clients that ask again, and swept now and then.
const (
	defaultHistory = 1 << 20
	effectsSweep   = 1 << 10
)

// EffectsFrom is the lowest height whose Credits and Opened are known: below it they are empty because they were dropped, or
// because this ledger is a copy that was final above it from the start.
func (l *Ledger) EffectsFrom() uint64 {
	if swept := l.finalHeight() / effectsSweep * effectsSweep; swept > l.o.History {
		return max(l.effects, swept-l.o.History)
	}
	return l.effects
}

func appendCredits(v []byte, outcomes []tx.CreditOutcome) []byte {
	for _, o := range outcomes {
		v = append(v, byte(o))
	}
	return v
}

// Credits is what became of the receipts that a final block consumed, in bundle order; none if it consumed none. They
// are kept for Options.History blocks.
func (l *Ledger) Credits(height uint64) ([]tx.CreditOutcome, error) {
	l.reads.RLock()
	defer l.reads.RUnlock()
	if l.closed {
		return nil, ErrClosed
	}
	v, err := l.store.Credits(height)
	if err != nil {
		return nil, err
	}
	out := make([]tx.CreditOutcome, len(v))
	for i, o := range v {
		if o < byte(tx.Credited) || o > byte(tx.Treasury) {
			return nil, l.corrupt("a credit of block %d has outcome %d", height, o)
		}
		out[i] = tx.CreditOutcome(o)
	}
	return out, nil
}

// Opened are the accounts that a final block opened, in body order. They are kept for Options.History blocks.
func (l *Ledger) Opened(height uint64) ([]Opened, error) {
	l.reads.RLock()
	defer l.reads.RUnlock()
	if l.closed {
		return nil, ErrClosed
	}
	v, err := l.store.Opened(height)
	if err != nil {
		return nil, err
	}
	out, err := readOpened(v)
	if err != nil {
		return nil, l.corrupt("the openings of block %d: %v", height, err)
	}
	return out, nil
}

// An account opened is stored as place in the body 4, id 6.
const openedBytes = 4 + 6

func appendOpened(b []byte, opened []Opened) []byte {
	for _, o := range opened {
		b = append48(binary.BigEndian.AppendUint32(b, uint32(o.Tx)), o.ID)
	}
	return b
}

func readOpened(b []byte) ([]Opened, error) {
	if len(b)%openedBytes != 0 || len(b) > tx.MaxBodyTx*openedBytes {
		return nil, fmt.Errorf("ledger: openings: %w: %d bytes", ErrMalformed, len(b))
	}
	out := make([]Opened, 0, len(b)/openedBytes)
	r := reader{b: b}
	for len(r.b) > 0 {
		o := Opened{Tx: int(r.u32()), ID: tx.MakeID(r.u16(), r.u32())}
		if o.Tx >= tx.MaxBodyTx || len(out) > 0 && o.Tx <= out[len(out)-1].Tx {
			return nil, fmt.Errorf("ledger: openings: %w: place %d", ErrMalformed, o.Tx)
		}
		out = append(out, o)
	}
	return out, nil
}

// slice adds the pages that are due to a batch, as of the block that becomes the base when b is final, and drops the
// differences that no page needs any more. A cycle visits all pages in order and rewrites those that have changed since
// they were stored; after it no page lacks a change up to the height that the base had when the cycle began.
func (l *Ledger) slice(s *store.Batch, b *block) store.Progress {
	l.mu.RLock()
	defer l.mu.RUnlock()
	base := l.baseOf(b)
	l.final.stored.outdate(base.sections)
	total := uint32(0)
	for _, n := range base.meta.Next {
		total += pagesOf(n)
	}
	now := l.o.Now()
	// A clock that jumps makes pages late or a batch full, nothing else. A shard without pages has cycles all the same.
	l.final.pages += max(0, float64(now.Sub(l.final.pagedAt))) / float64(l.pageCycle(total)) * float64(max(total, 1))
	l.final.pages = min(l.final.pages, maxPages, float64(max(total, 1)))
	l.final.pagedAt = now
	p := l.final.progress
	page := make([]cell, pageAccounts)
	slot, more := l.nextPage(&p, base)
	for ; l.final.pages >= 1; l.final.pages-- {
		if more {
			if !l.final.stored.has(slot, p.Page) {
				clear(page)
				l.cellsAt(base, slot, p.Page<<pageLog, page)
				cells := page[:min(pageAccounts, base.meta.Next[slot]-p.Page<<pageLog)]
				s.Page(p.Partition, p.Page, appendPage(nil, base.height, cells))
				l.final.stored.add(slot, p.Page)
			}
			p.Page++
			slot, more = l.nextPage(&p, base)
		}
		if !more {
			s.DropBlocks(p.Cycle)
			l.final.pages--
			return store.Progress{Cycle: base.height, Partition: l.table.parts[0].number}
		}
	}
	return p
}

// nextPage moves a cursor on to the next page there is, at its place or behind; false: the cycle has seen them all.
func (l *Ledger) nextPage(p *store.Progress, base *block) (slot int, more bool) {
	for slot := range l.table.parts {
		number := l.table.parts[slot].number
		if number > p.Partition {
			p.Partition, p.Page = number, 0
		}
		if number == p.Partition && p.Page < pagesOf(base.meta.Next[slot]) {
			return slot, true
		}
	}
	return 0, false
}

func appendPage(b []byte, height uint64, cells []cell) []byte {
	b = binary.BigEndian.AppendUint64(b, height)
	for i := range cells {
		b = append(b, cells[i][:]...)
	}
	return b
}

// baseOf is the block whose root the header of b carries. mu is held; b is the final block or its child.
func (l *Ledger) baseOf(b *block) *block {
	for range StateLag {
		if b != l.base {
			b = b.parent
		}
	}
	return b
}

// advance makes b, which is durable, the final block.
func (l *Ledger) advance(b *block) error {
	l.exec.Lock()
	defer l.exec.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	base := l.baseOf(b)
	if !l.tip.descends(b) {
		l.move(b)
	}
	l.last = b
	l.drop(func(x *block) bool {
		return x.height < base.height || x.height > b.height && !x.descends(b) || x.height == b.height && x != b
	})
	if base == l.base {
		return nil
	}
	for i := range base.sections {
		if err := l.view.set(base.sections[i].slot, base.nodes[i]); err != nil {
			return l.fail(err)
		}
	}
	accounts, err := l.view.root()
	if err == nil && stateRoot(accounts, base.metaHash) != base.root {
		err = fmt.Errorf("ledger: block %d has another root than when it was executed: memory is corrupt", base.height)
	}
	if err != nil {
		return l.fail(err)
	}
	l.base, base.parent, base.sections, base.nodes, base.outbox, base.done = base, nil, nil, nil, nil, nil
	return nil
}
