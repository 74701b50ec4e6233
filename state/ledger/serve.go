package ledger

import (
	"fmt"

	"tutti/state/receipt"
	"tutti/state/store"
	"tutti/state/tx"
)

// Outline is the outline of the ledger as of the block whose root the final header carries: StateLag below the final
// one, or genesis. Its cost is a copy of nothing: what it refers to does not change.
func (l *Ledger) Outline() (*Outline, error) {
	l.mu.RLock()
	if l.closed {
		l.mu.RUnlock()
		return nil, ErrClosed
	}
	base, accounts := l.base, l.view.top[topLevels][0]
	l.mu.RUnlock()
	if stateRoot(accounts, base.metaHash) != base.root {
		return nil, l.fail(fmt.Errorf("ledger: the tree of block %d does not have the root it had: memory is corrupt", base.height))
	}
	return &Outline{base.height, accounts, metaOf(base.head)}, nil
}

// Chunk is a chunk as of the block whose root the final header carries. ErrNotHere: the partition is none of this
// shard, or no account of the chunk existed at that block.
//
// It costs a copy of the chunk (256 KiB) and of its path under a read lock, and no hashing: whoever gets it hashes it.
// The table is not moved. The caller limits the rate.
func (l *Ledger) Chunk(partition uint16, index uint32) (*Chunk, error) {
	cells := make([]cell, chunkAccounts)
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return nil, ErrClosed
	}
	slot, base := l.table.route[partition], l.base
	if slot < 0 || index >= chunksPerPartition || index<<chunkLog >= base.meta.Next[slot] {
		return nil, fmt.Errorf("ledger: %w: chunk %d of partition %d at height %d", ErrNotHere, index, partition, base.height)
	}
	l.cellsAt(base, int(slot), index<<chunkLog, cells)
	records := bytesOf(cells[:min(chunkAccounts, base.meta.Next[slot]-index<<chunkLog)])
	return &Chunk{base.height, ChunkID{partition, index}, l.view.path(int(slot), index), base.metaHash, records}, nil
}

// Differences are the differences of final blocks from a height on, consecutive, as many as fit into maxBytes but at
// least one; none above the final block. ErrNotStored: that of the first height is not kept any more (or the height is
// 0: the genesis block has none); Oldest tells which are.
//
// It costs reading them from the store, without a lock that a block waits for.
func (l *Ledger) Differences(from uint64, maxBytes int) ([]Difference, error) {
	l.reads.RLock()
	defer l.reads.RUnlock()
	if l.closed {
		return nil, ErrClosed
	}
	var out []Difference
	err := l.store.BlocksWhile(from, func(height uint64, v []byte) (bool, error) {
		if len(v) < storedFixed {
			return false, l.corrupt("block %d has %d bytes", height, len(v))
		}
		d := Difference{height, v[storedFixed-4:]}
		if maxBytes -= d.Bytes(); height != from+uint64(len(out)) || maxBytes < 0 && len(out) > 0 {
			return false, nil
		}
		d.bytes = append([]byte{}, d.bytes...)
		out = append(out, d)
		return true, nil
	})
	if err == nil && (from == 0 || len(out) == 0 && from <= l.finalHeight()) {
		return nil, fmt.Errorf("ledger: %w: the difference of block %d", ErrNotStored, from)
	}
	return out, err
}

func (l *Ledger) finalHeight() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last.height
}

// Oldest is the lowest height whose difference is kept, or will be: 1 in a new ledger.
func (l *Ledger) Oldest() (uint64, error) {
	l.reads.RLock()
	defer l.reads.RUnlock()
	if l.closed {
		return 0, ErrClosed
	}
	oldest := uint64(0)
	err := l.store.BlocksWhile(0, func(height uint64, _ []byte) (bool, error) {
		oldest = height
		return false, nil
	})
	return max(oldest, 1), err
}

// DirectoryTops are the tops of whole segments of the directory of BLS keys as of the final block: for each segment of
// SegmentKeys entries, beginning with segment from, the top of the tree over their leaves; at most max and MaxTops.
// Segments never change once they are whole.
//
// A top asked for the first time since the ledger was opened costs reading and hashing its segment: 1 ms. The caller
// limits the rate and max.
func (l *Ledger) DirectoryTops(from uint64, max int) ([]tx.Hash, error) {
	l.mu.RLock()
	whole := l.last.meta.Directory.Count() / SegmentKeys
	l.mu.RUnlock()
	var out []tx.Hash
	for segment := from; segment < whole && len(out) < min(max, MaxTops); segment++ {
		l.tops.Lock()
		top, ok := l.tops.known[segment]
		l.tops.Unlock()
		if !ok {
			entries, err := l.readKeys(segment*SegmentKeys, SegmentKeys)
			if err != nil {
				return nil, err
			}
			top = segmentTop(keyLeaves(segment*SegmentKeys, entries))
			l.tops.Lock()
			l.tops.known[segment] = top
			l.tops.Unlock()
		}
		out = append(out, top)
	}
	return out, nil
}

// DirectoryKeys are entries of the directory of BLS keys, as of the final block, from a place on; at most max and
// SegmentKeys. It costs reading them.
func (l *Ledger) DirectoryKeys(from uint64, max int) ([]DirectoryKey, error) {
	l.mu.RLock()
	count := l.last.meta.Directory.Count()
	l.mu.RUnlock()
	if from >= count || max <= 0 {
		return nil, nil
	}
	entries, err := l.readKeys(from, int(min(count-from, uint64(max), SegmentKeys)))
	if err != nil {
		return nil, err
	}
	return DecodeKeys(entries)
}

// readKeys reads the encodings of n entries of the directory, all of which are final.
func (l *Ledger) readKeys(from uint64, n int) ([]byte, error) {
	l.reads.RLock()
	defer l.reads.RUnlock()
	if l.closed {
		return nil, ErrClosed
	}
	out := make([]byte, 0, n*keyEntryBytes)
	err := l.store.Keys(from, func(place uint64, v []byte) (bool, error) {
		if place != from+uint64(len(out)/keyEntryBytes) || len(v) != keyEntryBytes {
			return false, nil
		}
		out = append(out, v...)
		return len(out) < n*keyEntryBytes, nil
	})
	if err == nil && len(out) < n*keyEntryBytes {
		err = l.corrupt("entry %d of the key directory is missing or malformed", from+uint64(len(out)/keyEntryBytes))
	}
	return out, err
}

// Outbox is the receipts to another shard with sequence numbers from <= seq < to, as of the final block, and what is
// needed to prove them: Before, and the stored ones between Before and from. Receipts are kept for keepAcked blocks
// after the other shard has acknowledged them. ErrNotStored: some were not sent, or dropped; ErrNoProof.
//
// It costs reading them; to - from is at most MaxOutboxReceipts less tx.MaxBundleCount, which is more than can wait to
// be acknowledged.
func (l *Ledger) Outbox(shard uint16, from, to uint64) (*Outbox, error) {
	none := fmt.Errorf("ledger: %w: [%d, %d) to shard %d", ErrNotStored, from, to, shard)
	if from >= to || to-from > MaxOutboxReceipts-tx.MaxBundleCount {
		return nil, none
	}
	l.reads.RLock()
	defer l.reads.RUnlock()
	if l.closed {
		return nil, ErrClosed
	}
	o := &Outbox{Shard: shard}
	begin := from // where the stored receipts that hold from begin
	if err := l.store.Receipts(shard, from, func(first uint64, v []byte) (bool, error) {
		receipts, err := readReceipts(v)
		if err != nil {
			return false, store.Corrupt(l.o.Dir, "receipts %d to shard %d: %v", first, shard, err)
		}
		if len(o.Receipts) == 0 {
			begin = min(begin, first)
		}
		if at := begin + uint64(len(o.Receipts)); first != at || at >= to {
			return false, nil
		}
		o.Receipts = append(o.Receipts, receipts...)
		return true, nil
	}); err != nil {
		return nil, err
	}
	if begin+uint64(len(o.Receipts)) < to || uint64(len(o.Receipts)) > to-begin+tx.MaxBundleCount {
		return nil, none
	}
	o.Receipts = o.Receipts[:to-begin]
	before, err := l.rangeBefore(shard, begin)
	if err != nil {
		return nil, err
	}
	o.Before = before
	return o, nil
}

// rangeBefore is the range of all receipts to a shard before those stored from begin on.
func (l *Ledger) rangeBefore(shard uint16, begin uint64) (receipt.Range, error) {
	v, err := l.store.Before(shard, begin)
	if err == nil && v == nil {
		err = fmt.Errorf("ledger: %w: to shard %d, from %d on", ErrNotStored, shard, begin) // dropped meanwhile
		if again := l.store.Receipts(shard, begin, func(first uint64, _ []byte) (bool, error) {
			if first == begin {
				err = fmt.Errorf("ledger: %w: to shard %d, from %d on", ErrNoProof, shard, begin)
			}
			return false, nil
		}); again != nil {
			err = again
		}
	}
	if err != nil {
		return receipt.Range{}, err
	}
	out, err := receipt.Decode(v)
	if err != nil || out.Count() != begin {
		return receipt.Range{}, l.corrupt("the range before receipt %d to shard %d has %d, %v", begin, shard, out.Count(), err)
	}
	return out, nil
}
