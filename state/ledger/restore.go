package ledger

import (
	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/tx"
)

// RestoreOptions say where a folder is filled and with which ledger. Dir and Params are required.
type RestoreOptions struct {
	FS         vfs.FS // nil: the operating system's
	Dir        string
	Params     Params
	Workers    int   // goroutines that check chunks; 0: one per CPU
	CacheBytes int64 // as in Options
}

// Restore fills a folder with the parts of a ledger and makes a ledger of it that Open opens.
//
// A chain moves while it is copied, and nobody has to hold still for it: chunks are taken at any heights, and the
// differences of the blocks from the lowest of those heights on bring all of them to the same one. The order is
//
//	Begin, with a proven outline; it says which chunks and which BLS keys there are
//	PutChunks until Missing is empty, PutTops and PutKeys until MissingTops and MissingKeys are
//	PutDifferences from Lowest up to some height s, not below Highest + StateLag
//	PutOutbox for every channel in Meta(s) with receipts that are not acknowledged
//	Finish(s)
//
// and any of these may be done again or in between. Every part is checked before it is kept, and what is kept is
// durable when the call returns: after a crash OpenRestore continues. Methods may be called from any goroutine; parts
// are checked in parallel.
//
// A wrong part is a *BadPart; which peer sent it the caller knows. A failed write is a *store.FatalError.
type Restore struct{ o RestoreOptions }

// OpenRestore makes Dir, which is missing or empty, or continues what is there. Errors: ErrParams, ErrTable;
// *store.RefusedError when the folder is something else, of another ledger, format or process, or a finished ledger.
func OpenRestore(o RestoreOptions) (*Restore, error) { return nil, errNotYet }

// Begin takes an outline, proven under the state root at its height. Another one that is not older may be taken later:
// what is there stays, and Missing and MissingKeys follow it.
func (r *Restore) Begin(o *Outline, root tx.Hash) error { return errNotYet }

// Outline is the counters in the outline; nil: none was taken, or it was dropped (DropBelow).
func (r *Restore) Outline() *Meta { return nil }

// Missing lists the chunks of the outline that are not held, ascending.
func (r *Restore) Missing() []ChunkID { return nil }

// Lowest is the lowest height of the outline and the chunks held; false: there is nothing. Differences from there on
// are needed.
func (r *Restore) Lowest() (height uint64, ok bool) { return 0, false }

// Highest is the highest of these heights. The ledger can be finished StateLag above it.
func (r *Restore) Highest() (height uint64, ok bool) { return 0, false }

// PutChunks keeps chunks, in one durable batch. root is the state root after a block, if the caller has the header that
// carries it. Good ones are kept even where others are not; the error joins a *BadPart for each bad one, ErrNoHeader
// where root has none, and ErrNotHere for chunks that the outline does not have.
//
// Checking costs 8,191 hashes for each, 0.3 ms, without a lock.
func (r *Restore) PutChunks(cs []*Chunk, root func(height uint64) (tx.Hash, bool)) error {
	return errNotYet
}

// DropBelow forgets outline, chunks and differences below a height, because the differences that would bring them up
// to date can't be had any more. After it Begin may be needed again.
func (r *Restore) DropBelow(height uint64) error { return errNotYet }

// Differences tells which differences are held: those from first to last.
func (r *Restore) Differences() (first, last uint64, ok bool) { return 0, 0, false }

// PutDifferences keeps differences of consecutive heights that overlap or touch those held, in one durable batch.
// header is a header that the caller trusts; for a difference at height h those at h and h+StateLag are asked for.
// Those before the first bad one (*BadPart), or the first without a header (ErrNoHeader), are kept.
func (r *Restore) PutDifferences(ds []Difference, header func(height uint64) (Trusted, bool)) error {
	return errNotYet
}

// Meta is the counters after the block at a height whose difference is held; ErrNotStored if it is not.
func (r *Restore) Meta(height uint64) (*Meta, error) { return nil, errNotYet }

// MissingTops is the number of tops of segments that PutTops needs; 0: none.
func (r *Restore) MissingTops() uint64 { return 0 }

// PutTops takes the tops of all whole segments of the directory in the outline (Ledger.DirectoryTops, from 0 to
// MissingTops). They are checked as a whole, so they must come from one peer.
func (r *Restore) PutTops(tops []tx.Hash) error { return errNotYet }

// KeySpan is a segment of the directory of BLS keys.
type KeySpan struct {
	From  uint64 // a multiple of SegmentKeys
	Count int    // SegmentKeys, but for the last one
}

// MissingKeys lists the segments of the directory in the outline that are not held, ascending.
func (r *Restore) MissingKeys() []KeySpan { return nil }

// PutKeys keeps one of the segments that MissingKeys lists. A whole segment is checked by its top, which must be there
// (ErrOrder), the last one by the outline.
func (r *Restore) PutKeys(from uint64, keys []DirectoryKey) error { return errNotYet }

// PutOutbox keeps the receipts of a channel up to those sent by the block at height s, whose difference is held
// (ErrNotStored if not): for a channel c of Meta(s), Ledger.Outbox(c.Shard, c.Acked, c.Sent.Count()). It replaces what
// was kept of the channel.
func (r *Restore) PutOutbox(s uint64, o *Outbox) error { return errNotYet }

// Finish makes a ledger of the folder that is final at height s, and closes it. ErrUnfinished says what is missing,
// and nothing has changed. Open checks the whole: pages and differences must give the root of the block at s.
func (r *Restore) Finish(s uint64) error { return errNotYet }

// Close leaves the folder to be continued, if it is not finished.
func (r *Restore) Close() error { return nil }
