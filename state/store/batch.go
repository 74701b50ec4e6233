package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"
)

// Progress is how far the store is.
type Progress struct {
	Final     uint64 // height of the last final block
	Cycle     uint64 // height of the pages when the running page cycle began: all pages are at least so high once it ends
	Partition uint16 // the next page that the cycle rewrites
	Page      uint32
}

const progressBytes = 8 + 8 + 2 + 4

func key(prefix byte, numbers ...any) []byte {
	k := make([]byte, 1, 16)
	k[0] = prefix
	for _, n := range numbers {
		switch n := n.(type) {
		case uint16:
			k = binary.BigEndian.AppendUint16(k, n)
		case uint32:
			k = binary.BigEndian.AppendUint32(k, n)
		case uint64:
			k = binary.BigEndian.AppendUint64(k, n)
		}
	}
	return k
}

// Batch is what one Commit makes durable. Values are copied. It belongs to one goroutine and is not used again after
// Commit.
type Batch struct {
	s   *Store
	b   *pebble.Batch
	err error // the first one met; Commit returns it
}

// NewBatch begins a batch.
func (s *Store) NewBatch() *Batch { return &Batch{s: s, b: s.db.NewBatch()} }

func (b *Batch) set(k, v []byte) {
	if b.err == nil {
		b.err = b.b.Set(k, v, nil)
	}
}

func (b *Batch) drop(from, to []byte) {
	if b.err == nil && bytes.Compare(from, to) < 0 {
		b.err = b.b.DeleteRange(from, to, nil)
	}
}

// Bytes is the size of the batch so far.
func (b *Batch) Bytes() int { return b.b.Len() }

// Progress sets how far the store is once the batch is committed.
func (b *Batch) Progress(p Progress) {
	v := binary.BigEndian.AppendUint64(make([]byte, 0, progressBytes), p.Final)
	v = binary.BigEndian.AppendUint64(v, p.Cycle)
	v = binary.BigEndian.AppendUint16(v, p.Partition)
	b.set(key('s'), binary.BigEndian.AppendUint32(v, p.Page))
}

// Block sets a final block.
func (b *Batch) Block(height uint64, v []byte) { b.set(key('b', height), v) }

// Page sets a page of records.
func (b *Batch) Page(partition uint16, page uint32, v []byte) { b.set(key('p', partition, page), v) }

// Receipts sets receipts to a shard that begin with sequence number first, and the range of all those before them.
func (b *Batch) Receipts(shard uint16, first uint64, before, v []byte) {
	b.Before(shard, first, before)
	b.set(key('r', shard, first), v)
}

// Before sets the range of all receipts to a shard before sequence number first, where stored receipts begin.
func (b *Batch) Before(shard uint16, first uint64, v []byte) { b.set(key('q', shard, first), v) }

// Key sets an entry of the directory of BLS keys.
func (b *Batch) Key(place uint64, v []byte) { b.set(key('k', place), v) }

// Point sets what decodes the entry at a place of the directory.
func (b *Batch) Point(place uint64, v []byte) { b.set(key('y', place), v) }

// DropKeys removes the entries of the directory at and above a place, and what decodes them.
func (b *Batch) DropKeys(from uint64) {
	b.drop(key('k', from), []byte{'k' + 1})
	b.drop(key('y', from), []byte{'y' + 1})
}

// Credits sets what became of the receipts that the block at a height consumed, one byte for each.
func (b *Batch) Credits(height uint64, v []byte) { b.set(key('c', height), v) }

// Opened sets the accounts that the block at a height opened.
func (b *Batch) Opened(height uint64, v []byte) { b.set(key('o', height), v) }

// Beginning says at which height a ledger begins that was not made from genesis, with the state root after the block below and
// the hash of that block's difference.
func (b *Batch) Beginning(height uint64, root, diff [32]byte) {
	b.set(key('f'), append(append(binary.BigEndian.AppendUint64(nil, height), root[:]...), diff[:]...))
}

// EffectsFrom says that nothing is known of the receipts and openings of blocks below height, and all of those above.
func (b *Batch) EffectsFrom(height uint64) {
	b.set(key('e'), binary.BigEndian.AppendUint64(nil, height))
}

// DropEffects removes what is stored about the receipts that blocks below height consumed and the accounts that they
// opened.
func (b *Batch) DropEffects(height uint64) {
	b.drop(key('c', uint64(0)), key('c', height))
	b.drop(key('o', uint64(0)), key('o', height))
}

// DropBlocks removes the blocks below height.
func (b *Batch) DropBlocks(height uint64) { b.drop(key('b', uint64(0)), key('b', height)) }

// DropBlocksAbove removes the blocks above height.
func (b *Batch) DropBlocksAbove(height uint64) {
	if height < math.MaxUint64 {
		b.drop(key('b', height+1), []byte{'b' + 1})
	}
}

// DropReceipts removes the stored receipts to a shard that come in one with receipts below acked only.
func (b *Batch) DropReceipts(shard uint16, acked uint64) error {
	holder, err := b.s.rangeOf(shard, acked)
	if err == nil {
		b.drop(key('r', shard, uint64(0)), holder)
		holder[0] = 'q'
		b.drop(key('q', shard, uint64(0)), holder)
	}
	return err
}

// DropAllReceipts removes all stored receipts to a shard.
func (b *Batch) DropAllReceipts(shard uint16) {
	for _, prefix := range []byte{'r', 'q'} {
		o := shardBounds(prefix, shard)
		b.drop(o.LowerBound, o.UpperBound)
	}
}

// Note sets a note of a restore.
func (b *Batch) Note(name, v []byte) { b.set(append([]byte{'x'}, name...), v) }

// DropNote removes a note of a restore.
func (b *Batch) DropNote(name []byte) {
	if b.err == nil {
		b.err = b.b.Delete(append([]byte{'x'}, name...), nil)
	}
}

// Commit makes the batch durable, whole or not at all.
func (s *Store) Commit(b *Batch) error {
	if err := s.Err(); err != nil {
		return err
	}
	if b.err != nil {
		return fmt.Errorf("store: %w", b.err)
	}
	if err := s.guard(func() error { return s.db.Apply(b.b, pebble.Sync) }); err != nil {
		s.fail("write", err)
	}
	return s.Err()
}
