package ledger

import (
	"errors"

	"tutti/state/tx"
)

var errNotYet = errors.New("not made yet")

// Outline is the outline of the ledger as of the block whose root the final header carries: StateLag below the final
// one, or genesis. Its cost is a copy of the counters.
func (l *Ledger) Outline() (*Outline, error) { return nil, errNotYet }

// Chunk is a chunk as of the block whose root the final header carries. ErrNotHere: the partition is none of this
// shard, or no account of the chunk existed at that block.
//
// It costs a copy of the chunk (256 KiB) and its path under a read lock, and no hashing: whoever gets it hashes it.
// The caller limits the rate.
func (l *Ledger) Chunk(partition uint16, index uint32) (*Chunk, error) { return nil, errNotYet }

// Differences are the differences of final blocks from a height on, consecutive, as many as fit into maxBytes but at
// least one; none above the final block. ErrNotStored: that of the first height is not kept any more (or the height is
// 0: the genesis block has none); Oldest tells which are.
//
// It costs reading them from the store, without any lock that a block needs.
func (l *Ledger) Differences(from uint64, maxBytes int) ([]Difference, error) { return nil, errNotYet }

// Oldest is the lowest height whose difference is kept.
func (l *Ledger) Oldest() (uint64, error) { return 0, errNotYet }

// DirectoryTops are the tops of whole segments of the directory of BLS keys as of the final block: for each segment of
// SegmentKeys entries, beginning with segment from, the top of the tree over their leaves; at most max and MaxTops.
// Segments never change once they are whole.
//
// A top asked for the first time since the ledger was opened costs reading and hashing its segment: 1 ms. The caller
// limits the rate.
func (l *Ledger) DirectoryTops(from uint64, max int) ([]tx.Hash, error) { return nil, errNotYet }

// DirectoryKeys are entries of the directory of BLS keys, as of the final block, from a place on; at most max and
// SegmentKeys. It costs reading them.
func (l *Ledger) DirectoryKeys(from uint64, max int) ([]DirectoryKey, error) { return nil, errNotYet }

// Outbox is the receipts to another shard with sequence numbers from <= seq < to, as of the final block, and what is
// needed to prove them: Before, and the stored ones between Before and from. Receipts are kept for keepAcked blocks
// after the other shard has acknowledged them. ErrNotStored: some were not sent, or dropped; ErrNoProof.
//
// It costs reading them; to - from is at most MaxOutboxReceipts less one block's.
func (l *Ledger) Outbox(shard uint16, from, to uint64) (*Outbox, error) { return nil, errNotYet }
