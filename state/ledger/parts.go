package ledger

import (
	"errors"
	"fmt"

	"tutti/state/receipt"
	"tutti/state/tx"
)

// Parts of a ledger, as validators send them to one that fills an empty folder (Restore). Every part is checked by
// itself against final headers, so a peer that lies is known by the part it sent. A header at height h+StateLag
// carries the state root after block h and the diff hash of block h; that is what parts of height h are checked by.

// Bounds of parts.
const (
	ChunkAccounts      = chunkAccounts   // accounts in a chunk, at most
	SegmentKeys        = 1 << segmentLog // entries of the directory of BLS keys in a segment; the last one has fewer
	MaxTops            = 1 << 12         // in one encoding
	MaxOutlineBytes    = 40 + maxMetaBytes
	MaxChunkBytes      = chunkFixed + sumLevels*40 + chunkAccounts*RecordBytes
	MaxDifferenceBytes = 32 << 20
	MaxOutboxReceipts  = 3 * tx.MaxBundleCount
	MaxOutboxBytes     = 2 + maxRangeBytes + MaxOutboxReceipts*receiptBytes
	maxRangeBytes      = 8 + 62*32 // receipt.MaxLeaves
	maxMetaBytes       = 5*8 + 4 + 6<<16 + maxRangeBytes + 2 + (MaxShards-1)*(2+2*maxRangeBytes+6*8+32+4+32)
	segmentLog         = 12
	chunkFixed         = 8 + 2 + 4 + 2 + 4 + 32
	chunksPerPartition = AccountsPerPartition / chunkAccounts
	pagesPerChunk      = chunkAccounts / pageAccounts
)

// Errors about parts that are nobody's lie.
var (
	ErrNoHeader   = errors.New("no trusted header to check it by")             // yet, or any more
	ErrNoProof    = errors.New("receipts that can't be proven any more")       // sent before the folder was upgraded from version 1
	ErrSequence   = errors.New("the parts before are missing")                 // the caller has put parts in a wrong order
	ErrUnfinished = errors.New("parts of the ledger are missing")              // Finish: the text says which
	ErrPart       = errors.New("the part does not match the headers it is of") // wrapped in *BadPart
)

// BadPart says that a part is a lie: it is malformed or does not match what it is checked by.
type BadPart struct {
	Index int    // in the slice given; 0 where there is one part only
	Part  string // in words
	Err   error  // what is wrong; ErrMalformed or ErrPart
}

func (e *BadPart) Error() string { return fmt.Sprintf("ledger: bad part: %s: %v", e.Part, e.Err) }
func (e *BadPart) Unwrap() error { return e.Err }

// BadParts lists the bad parts that an error joins.
func BadParts(err error) (out []*BadPart) {
	switch e := err.(type) {
	case *BadPart:
		return []*BadPart{e}
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			out = append(out, BadParts(err)...)
		}
	case interface{ Unwrap() error }:
		return BadParts(e.Unwrap())
	}
	return out
}

// Outline is what is beside the accounts under the state root at a height: enough to know what a ledger consists of.
//
// Encoding: hash and sum of the tree over accounts 32 + 8, Meta (see there).
type Outline struct {
	Height   uint64
	accounts node
	meta     []byte // encoded
}

// ChunkID names a chunk of ChunkAccounts consecutive accounts of a partition.
type ChunkID struct {
	Partition uint16
	Index     uint32 // the first account is Index * ChunkAccounts
}

// Chunk is the records of a chunk as of a height, with the path of its node to the state root.
//
// Encoding: height 8, partition 2, index 4, records 2, bitmap 4 (bit i, counted from the lowest, is set where sibling i
// differs from the node over no accounts), the siblings whose bits are set, from the chunk up, hash 32 and sum 8 each,
// hash of the Meta 32, the records, 64 each, as far as accounts exist.
type Chunk struct {
	Height uint64
	ChunkID
	path    [sumLevels]node
	meta    tx.Hash
	records []byte
}

// Difference is what a final block changed: head and sections, as stored (see diff.go and head.go).
//
// Encoding: height 8, head length 4, head, sections.
type Difference struct {
	Height uint64
	bytes  []byte // from head length on
}

// DirectoryKey is an entry of the directory of BLS keys.
//
// Encoding: id 6, key 48. Several are written one after another.
type DirectoryKey struct {
	ID  tx.ID
	Key [48]byte
}

// Outbox is consecutive receipts to another shard and the range of all those before them.
//
// Encoding: shard 2, Before (receipt.Range), then the receipts.
type Outbox struct {
	Shard    uint16
	Before   receipt.Range
	Receipts []tx.Receipt
}

// Trusted is what the caller of a Restore knows of a final header.
type Trusted struct {
	Hash, Parent tx.Hash
	State, Diff  tx.Hash // of the block StateLag below
}
