package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/receipt"
	"tutti/state/store"
	"tutti/state/tx"
)

// A ledger made of the parts of one of a single height (`tutti state export`), unlike a Restore, which brings parts of
// many heights together while the chain moves. Final headers do not say yet what the last StateLag blocks did to the
// state, and the parts of a node that is stopped are as old. So the ledger is rebuilt at the base, whose root a final
// header carries, and the blocks above it are executed as ever, which checks them in full.

// Base is the block that a ledger is rebuilt at, as final headers tell of it.
type Base struct {
	Height        uint64
	Block, Parent tx.Hash
	State, Diff   tx.Hash // of this block: what the header StateLag above carries
	// What the header one above carries: of the parent.
	ParentState, ParentDiff tx.Hash
}

// Rebuild makes a ledger that is final at base from parts, which feed gives in this order: Outline, Difference of that
// block, Chunk for all chunks, ascending, Keys for the whole directory of BLS keys, Outbox for each channel with receipts
// that are not acknowledged, ascending. Everything is checked against base as it comes (*BadPart), and the whole at the
// end; nothing that feed gives has to be trusted.
//
// With o.Dir the ledger is in a new folder there, as one that Create makes; o.Create and o.Genesis are not looked at.
// A caller that is interrupted before Rebuild has returned removes the folder.
// Without o.Dir it is in memory and executes, but finalises nothing. The memory is that of an open ledger.
func Rebuild(o Options, base Base, feed func(*Rebuilder) error) (*Ledger, error) {
	if o.Verifier == nil || o.Headers == nil || o.Possession == nil || o.Params.GenesisBlock == (tx.Hash{}) || base.Height == 0 {
		return nil, fmt.Errorf("ledger: rebuild: %w: an option that is required is not set", ErrParams)
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	l, err := newLedger(o)
	if err != nil {
		return nil, err
	}
	r := &Rebuilder{l: l, base: base}
	if o.Dir == "" {
		err = r.run(feed)
	} else {
		folder := store.Options{FS: o.FS, Dir: o.Dir, Binding: o.Params.hash(), CacheBytes: o.CacheBytes, Upgrade: l.upgrade}
		l.store, err = store.Create(folder, func(s *store.Store) error {
			r.store, r.batch = s, s.NewBatch()
			return r.run(feed)
		})
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.final.pagedAt = o.Now()
	return l, nil
}

// Rebuilder takes the parts of a ledger that is rebuilt. It belongs to the goroutine that feeds it, until Rebuild
// returns.
type Rebuilder struct {
	l         *Ledger
	base      Base
	store     *store.Store // nil: in memory
	batch     *store.Batch
	meta      *Meta // nil until the outline is there
	encoded   []byte
	block     *block // nil until the difference is there
	slot      int    // of the next chunk
	index     uint32
	directory receipt.Range
	channel   int // all below are done
}

// ErrUnfed says that a part is missing or came out of order: the caller's mistake, or the file's.
var ErrUnfed = errors.New("a part of the ledger is missing or out of order")

func (r *Rebuilder) bad(part string, err error) error {
	return &BadPart{Part: fmt.Sprintf("%s at height %d", part, r.base.Height), Err: err}
}

// Outline takes the counters.
func (r *Rebuilder) Outline(o *Outline) error {
	if r.meta != nil || o.Height != r.base.Height {
		return r.bad("the outline", ErrUnfed)
	}
	m, err := o.Verify(r.base.State, &r.l.o.Params)
	if err != nil {
		return err
	}
	for slot, next := range m.Next {
		if err := r.l.table.reserve(slot, next); err != nil {
			return err
		}
	}
	r.meta, r.encoded = m, slices.Clone(o.meta)
	r.skip()
	return nil
}

// Difference takes what the block itself changed: later blocks append its returns, and others may ask for it.
func (r *Rebuilder) Difference(d *Difference) error {
	if r.meta == nil || r.block != nil || d.Height != r.base.Height {
		return r.bad("the difference", ErrUnfed)
	}
	hash, err := d.Hash()
	if err == nil && hash != r.base.Diff {
		err = fmt.Errorf("%w: it does not have the hash %v", ErrPart, r.base.Diff)
	}
	if err != nil {
		return r.bad("the difference", err)
	}
	stored := make([]byte, 0, storedFixed+len(d.bytes))
	for _, h := range [...]tx.Hash{r.base.Block, r.base.Parent, r.base.State, r.base.Diff} {
		stored = append(stored, h[:]...)
	}
	stored = append(stored, d.bytes...)
	s, err := r.l.table.readStored(stored)
	if err == nil && !bytes.Equal(metaOf(s.head), r.encoded) {
		err = fmt.Errorf("%w: its counters are not those of the outline", ErrPart)
	}
	if err == nil {
		r.block, err = r.l.blockOf(s, r.base.Height)
	}
	if err != nil {
		return r.bad("the difference", err)
	}
	if r.store != nil {
		r.batch.Block(r.base.Height, stored)
	}
	return nil
}

// skip moves the cursor over partitions that have no further chunk.
func (r *Rebuilder) skip() {
	for r.slot < len(r.meta.Next) && r.index<<chunkLog >= r.meta.Next[r.slot] {
		r.slot, r.index = r.slot+1, 0
	}
}

// NextChunk is the chunk that is to come; false: there is no further one.
func (r *Rebuilder) NextChunk() (ChunkID, bool) {
	if r.meta == nil || r.slot == len(r.meta.Next) {
		return ChunkID{}, false
	}
	return ChunkID{r.l.table.parts[r.slot].number, r.index}, true
}

// Chunk takes the next chunk.
func (r *Rebuilder) Chunk(c *Chunk) error {
	part := fmt.Sprintf("chunk %d of partition %d", c.Index, c.Partition)
	if want, more := r.NextChunk(); r.block == nil || !more || c.ChunkID != want || c.Height != r.base.Height {
		return r.bad(part, ErrUnfed)
	}
	if err := c.Verify(r.base.State); err != nil {
		return err
	}
	first := r.index << chunkLog
	cells := cellsOf(c.records)
	if uint32(len(cells)) != min(chunkAccounts, r.meta.Next[r.slot]-first) {
		return r.bad(part, fmt.Errorf("%w: it has %d accounts", ErrPart, len(cells)))
	}
	p := &r.l.table.parts[r.slot]
	for i := range cells {
		p.open(first+uint32(i), &cells[i])
	}
	if r.store != nil {
		page := first >> pageLog
		for records := range slices.Chunk(cells, pageAccounts) {
			r.batch.Page(p.number, page, appendPage(nil, r.base.Height, records))
			page++
		}
	}
	r.index++
	r.skip()
	return r.spill()
}

// Keys takes the next entries of the directory of BLS keys.
func (r *Rebuilder) Keys(keys []DirectoryKey) error {
	const part = "the directory of keys"
	from := r.directory.Count()
	if r.meta == nil || len(keys) == 0 || from+uint64(len(keys)) > r.meta.Directory.Count() {
		return r.bad(part, ErrUnfed)
	}
	entries := AppendKeys(nil, keys)
	r.directory = r.directory.Append(keyLeaves(from, entries))
	if r.directory.Count() == r.meta.Directory.Count() && r.directory.Root() != r.meta.Directory.Root() {
		return r.bad(part, fmt.Errorf("%w: it does not have the root in the counters", ErrPart))
	}
	if r.store != nil {
		for i := range keys {
			r.batch.Key(from+uint64(i), entries[i*keyEntryBytes:][:keyEntryBytes])
		}
	}
	return r.spill()
}

// Outbox takes the receipts of a channel: all that are not acknowledged at the base.
func (r *Rebuilder) Outbox(o *Outbox) error {
	part := fmt.Sprintf("the outbox to shard %d", o.Shard)
	at := -1
	if r.meta != nil {
		at = r.meta.channel(o.Shard)
	}
	if at < r.channel || r.needed(at) < at {
		return r.bad(part, ErrUnfed)
	}
	c := &r.meta.Channels[at]
	first, end := o.Before.Count(), c.Sent.Count()
	if c.Acked == end || first > c.Acked || end-first != uint64(len(o.Receipts)) {
		return r.bad(part, fmt.Errorf("%w: it has %d receipts from %d on, need [%d, %d)", ErrPart, len(o.Receipts), first, c.Acked, end))
	}
	const piece = 1 << 12 // so that reading a few receipts does not mean reading all
	before := o.Before
	for receipts := range slices.Chunk(o.Receipts, piece) {
		if r.store != nil {
			r.batch.Receipts(o.Shard, before.Count(), before.AppendBytes(nil), appendReceipts(nil, receipts))
		}
		before = (&Outbox{o.Shard, before, receipts}).rangeWith(r.l.o.Params.Shard)
	}
	if before.Root() != c.Sent.Root() {
		return r.bad(part, fmt.Errorf("%w: its receipts do not have the root in the counters", ErrPart))
	}
	r.channel = at + 1
	return r.spill()
}

// needed is the first channel not done yet and below end that has receipts that are not acknowledged; end if none has.
func (r *Rebuilder) needed(end int) int {
	for i := r.channel; i < end; i++ {
		if c := &r.meta.Channels[i]; c.Acked < c.Sent.Count() {
			return i
		}
	}
	return end
}

const rebuildBytes = 4 << 20 // in one batch

// spill makes what was taken durable when it is much.
func (r *Rebuilder) spill() error {
	if r.store == nil || r.batch.Bytes() < rebuildBytes {
		return nil
	}
	full := r.batch
	r.batch = r.store.NewBatch()
	return r.store.Commit(full)
}

// run takes the parts and makes the base of the ledger of them.
func (r *Rebuilder) run(feed func(*Rebuilder) error) error {
	if err := feed(r); err != nil {
		return err
	}
	if err := r.complete(); err != nil {
		return err
	}
	l, b := r.l, r.block
	for slot, next := range r.meta.Next {
		l.table.parts[slot].next = next
	}
	if err := l.begin(b); err != nil {
		return r.bad("the whole", err)
	}
	if b.root != r.base.State || b.metaHash != metaHash(r.encoded) {
		return r.bad("the whole", fmt.Errorf("%w: it has the state root %v", ErrPart, b.root))
	}
	b.below = rootAndDiff{r.base.ParentState, r.base.ParentDiff}
	l.final.progress = store.Progress{Final: b.height, Cycle: b.height, Partition: l.table.parts[0].number}
	if r.store == nil {
		return nil
	}
	r.batch.Progress(l.final.progress)
	r.batch.Beginning(b.height, b.below.root, b.below.diff)
	return r.store.Commit(r.batch)
}

func (r *Rebuilder) complete() error {
	missing := func(format string, args ...any) error {
		return fmt.Errorf("ledger: rebuild: %w: %s", ErrUnfed, fmt.Sprintf(format, args...))
	}
	if r.meta == nil || r.block == nil {
		return missing("outline or difference")
	}
	if id, more := r.NextChunk(); more {
		return missing("chunk %d of partition %d", id.Index, id.Partition)
	}
	if have, need := r.directory.Count(), r.meta.Directory.Count(); have != need {
		return missing("entry %d of the directory of keys", have)
	}
	if i := r.needed(len(r.meta.Channels)); i < len(r.meta.Channels) {
		return missing("the outbox to shard %d", r.meta.Channels[i].Shard)
	}
	return nil
}

// Meta is the counters at the base; nil before the outline is there. It is shared: do not modify.
func (r *Rebuilder) Meta() *Meta { return r.meta }
