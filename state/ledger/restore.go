package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/receipt"
	"tutti/state/store"
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
// differences of the blocks above the lowest of those heights bring all of them to the same one. The order is
//
//	Begin, with a proven outline; it says which chunks and which BLS keys there are
//	PutChunks until Missing is empty, PutTops and PutKeys until MissingTops and MissingKeys are
//	PutDifferences from above Lowest up to some height s, not below Highest, that of block s in any case
//	PutOutbox for every channel that MissingOutbox(s) lists
//	Finish(s), with the header above s
//
// and any of these may be done again or in between. Every part is checked before it is kept, and what is kept is
// durable when the call returns: after a crash OpenRestore continues. Methods may be called from any goroutine; parts
// are checked without a lock.
//
// The BLS keys are blamed on who sent them like this: the tops of their segments are few and come from one peer,
// whoever is asked; they are checked at once, all together, against the directory's range in the outline. Each segment
// is then checked by its own top, wherever it comes from. The directory moves on while it is copied, but the outline
// does not, and what was added later is in the differences.
//
// A wrong part is a *BadPart; which peer sent it the caller knows. A failed write is a *store.FatalError.
type Restore struct {
	o      RestoreOptions
	folder store.Options
	table  *table // without accounts
	like   *Meta

	// mu guards what follows, and writes to the store.
	mu       sync.Mutex
	store    *store.Store
	closed   bool
	outline  *Meta              // nil: none
	chunks   map[ChunkID]uint64 // height of each chunk held
	tops     []tx.Hash          // of the first segments of the directory
	segments map[uint64]uint32  // entries held of each segment
	diffs    held               // heights
	outbox   map[uint16]held    // sequence numbers, by shard
}

// held is what is there from first on and below end; nothing if they are equal.
type held struct{ first, end uint64 }

// Notes in the store, by their first byte, each written in the batch that makes it true.
const (
	noteOutline = 'o' // : root 32, outline
	noteChunk   = 'c' // partition 2, index 4 : height 8
	noteTops    = 't' // : tops
	noteSegment = 's' // segment 8 : entries 4
	noteDiffs   = 'd' // : first 8, end 8
	noteOutbox  = 'r' // shard 2 : first 8, end 8
)

// OpenRestore makes Dir, which is missing or empty, or continues what is there. Errors: ErrParams, ErrTable;
// *store.RefusedError when the folder is something else, of another ledger, format or process, or a finished ledger
// (store.ErrExists: Open it).
func OpenRestore(o RestoreOptions) (*Restore, error) {
	if o.Dir == "" || o.Params.GenesisBlock == (tx.Hash{}) {
		return nil, fmt.Errorf("ledger: %w: an option that is required is not set", ErrParams)
	}
	if err := o.Params.Validate(); err != nil {
		return nil, err
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	r := &Restore{
		o: o, folder: store.Options{FS: o.FS, Dir: o.Dir, Binding: o.Params.hash(), CacheBytes: o.CacheBytes},
		table: newTable(&o.Params), like: genesisMeta(&o.Params),
		chunks: map[ChunkID]uint64{}, segments: map[uint64]uint32{}, outbox: map[uint16]held{},
	}
	var err error
	if r.store, err = store.Restore(r.folder); err != nil {
		return nil, err
	}
	if err := r.load(); err != nil {
		return nil, errors.Join(err, r.store.Close())
	}
	return r, nil
}

// load reads the notes.
func (r *Restore) load() error {
	for _, prefix := range []byte{noteOutline, noteChunk, noteTops, noteSegment, noteDiffs, noteOutbox} {
		if err := r.store.Notes(prefix, func(name, v []byte) error {
			if err := r.loadNote(prefix, reader{b: name[1:]}, reader{b: v}); err != nil {
				return &store.RefusedError{
					Dir: r.o.Dir, Reason: store.ErrCorrupt, Detail: fmt.Sprintf("note %q: %v", name, err),
					Remedy: "delete the folder and copy again; if it happens again, check the disk (dmesg, smartctl)",
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func (r *Restore) loadNote(prefix byte, name, v reader) (err error) {
	switch prefix {
	case noteOutline:
		var o *Outline
		root := v.hash()
		if o, err = DecodeOutline(append([]byte{}, v.b...)); err == nil {
			r.outline, err = o.Verify(root, &r.o.Params)
		}
		v.b = nil
	case noteChunk:
		r.chunks[ChunkID{name.u16(), name.u32()}] = v.u64()
	case noteTops:
		for len(v.b) > 0 {
			r.tops = append(r.tops, v.hash())
		}
	case noteSegment:
		r.segments[name.u64()] = v.u32()
	case noteDiffs:
		r.diffs = held{v.u64(), v.u64()}
	case noteOutbox:
		r.outbox[name.u16()] = held{v.u64(), v.u64()}
	}
	if err == nil && (name.bad || v.bad || len(name.b) > 0 || len(v.b) > 0) {
		err = ErrMalformed
	}
	return err
}

func (h held) append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, h.first), h.end)
}

func (id ChunkID) note() []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16([]byte{noteChunk}, id.Partition), id.Index)
}

// commit writes a batch and, once it is durable, does what it means in memory. mu is held.
func (r *Restore) commit(b *store.Batch, then func()) error {
	if r.closed {
		return ErrClosed
	}
	if err := r.store.Commit(b); err != nil {
		return err
	}
	then()
	return nil
}

// Begin takes an outline, proven under the state root at its height. Another one that is not older may be taken later:
// what is there stays, and Missing and MissingKeys follow it.
func (r *Restore) Begin(o *Outline, root tx.Hash) error {
	m, err := o.Verify(root, &r.o.Params)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	if r.outline != nil && m.Height < r.outline.Height {
		return fmt.Errorf("ledger: %w: an outline at height %d after one at height %d", ErrSequence, m.Height, r.outline.Height)
	}
	b := r.store.NewBatch()
	b.Note([]byte{noteOutline}, o.Append(root[:]))
	return r.commit(b, func() { r.outline = m })
}

// Outline is the counters in the outline; nil: none was taken, or it was dropped (DropBelow). It is shared.
func (r *Restore) Outline() *Meta {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.outline
}

// Missing lists the chunks of the outline that are not held, ascending.
func (r *Restore) Missing() []ChunkID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.missing()
}

func (r *Restore) missing() (out []ChunkID) {
	if r.outline == nil {
		return nil
	}
	for slot, next := range r.outline.Next {
		for at := uint32(0); at < next; at += chunkAccounts {
			id := ChunkID{r.table.parts[slot].number, at >> chunkLog}
			if _, ok := r.chunks[id]; !ok {
				out = append(out, id)
			}
		}
	}
	return out
}

// Lowest is the lowest height of the outline and the chunks held; false: there is nothing. Differences above it are
// needed.
func (r *Restore) Lowest() (height uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lowest, _, ok := r.heights()
	return lowest, ok
}

// Highest is the highest of these heights. The ledger can be finished there, or above.
func (r *Restore) Highest() (height uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, highest, ok := r.heights()
	return highest, ok
}

func (r *Restore) heights() (lowest, highest uint64, ok bool) {
	all := slices.Collect(maps.Values(r.chunks))
	if r.outline != nil {
		all = append(all, r.outline.Height)
	}
	if len(all) == 0 {
		return 0, 0, false
	}
	return slices.Min(all), slices.Max(all), true
}

// PutChunks keeps chunks, in one durable batch. root is the state root after a block, if the caller has the header that
// carries it; it is called from several goroutines. Good ones are kept even where others are not; the error joins a
// *BadPart for each bad one (BadParts), ErrNoHeader where root has none, and ErrNotHere for chunks that the outline
// does not have. A chunk that is held already at the same height or above is left alone.
//
// Checking costs 8,191 hashes for each, 0.3 ms, without a lock.
func (r *Restore) PutChunks(cs []*Chunk, root func(height uint64) (tx.Hash, bool)) error {
	errs := make([]error, len(cs))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(r.o.Workers, len(cs)) {
		wg.Go(func() {
			for i := int(next.Add(1) - 1); i < len(cs); i = int(next.Add(1) - 1) {
				errs[i] = checkChunk(cs[i], i, root)
			}
		})
	}
	wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return ErrClosed
	case r.outline == nil:
		return fmt.Errorf("ledger: %w: chunks without an outline", ErrSequence)
	}
	b, kept := r.store.NewBatch(), map[ChunkID]uint64{}
	for i, c := range cs {
		slot := r.table.route[c.Partition]
		if errs[i] == nil && (slot < 0 || c.Index<<chunkLog >= r.outline.Next[slot]) {
			errs[i] = fmt.Errorf("ledger: %w: chunk %d of partition %d", ErrNotHere, c.Index, c.Partition)
		}
		if h, ok := r.chunks[c.ChunkID]; errs[i] != nil || ok && h >= c.Height || kept[c.ChunkID] > c.Height {
			continue
		}
		cells := cellsOf(c.records)
		for page := range pagesOf(uint32(len(cells))) {
			at := page << pageLog
			b.Page(c.Partition, c.Index*pagesPerChunk+page, appendPage(nil, c.Height, cells[at:min(at+pageAccounts, uint32(len(cells)))]))
		}
		b.Note(c.note(), binary.BigEndian.AppendUint64(nil, c.Height))
		kept[c.ChunkID] = c.Height
	}
	if len(kept) > 0 {
		if err := r.commit(b, func() { maps.Copy(r.chunks, kept) }); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

func checkChunk(c *Chunk, i int, root func(uint64) (tx.Hash, bool)) error {
	want, ok := root(c.Height)
	if !ok {
		return fmt.Errorf("ledger: %w: chunk %d of partition %d at height %d", ErrNoHeader, c.Index, c.Partition, c.Height)
	}
	err := c.Verify(want)
	var bad *BadPart
	if errors.As(err, &bad) {
		bad.Index = i
	}
	return err
}

// DropBelow forgets outline, chunks and differences below a height, because the differences that would bring them up
// to date can't be had any more. After it Begin may be needed again.
func (r *Restore) DropBelow(height uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	b, outline := r.store.NewBatch(), r.outline
	if outline != nil && outline.Height < height {
		b.DropNote([]byte{noteOutline})
		outline = nil
	}
	old := func(_ ChunkID, h uint64) bool { return h < height }
	for id, h := range r.chunks {
		if old(id, h) {
			b.DropNote(id.note())
		}
	}
	diffs := held{max(r.diffs.first, height), r.diffs.end}
	if diffs.first >= diffs.end {
		diffs = held{}
	}
	b.DropBlocks(height)
	b.Note([]byte{noteDiffs}, diffs.append(nil))
	return r.commit(b, func() {
		r.outline, r.diffs = outline, diffs
		maps.DeleteFunc(r.chunks, old)
	})
}

// Differences tells which differences are held: those from first to last.
func (r *Restore) Differences() (first, last uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.diffs.first == r.diffs.end {
		return 0, 0, false
	}
	return r.diffs.first, r.diffs.end - 1, true
}

// PutDifferences keeps differences of consecutive heights that overlap or touch those held (ErrSequence if they do
// not), in one durable batch. header is a header that the caller trusts; for a difference at height h those at h and
// h+StateLag are asked for. Those before the first bad one (*BadPart), or the first without a header (ErrNoHeader), are
// kept.
func (r *Restore) PutDifferences(ds []Difference, header func(height uint64) (Trusted, bool)) error {
	type checked struct {
		stored []byte
		first  uint64 // place of the first of keys in the directory
		keys   []keyEntry
	}
	var good []checked
	var fault error
	for i := range ds {
		d := &ds[i]
		self, ok := header(d.Height)
		above, both := header(d.Height + StateLag)
		if !ok || !both {
			fault = fmt.Errorf("ledger: %w: the difference of block %d", ErrNoHeader, d.Height)
			break
		}
		m, keys, err := r.checkDifference(d, ds[0].Height+uint64(i), above.Diff)
		if err != nil {
			fault = &BadPart{i, fmt.Sprintf("the difference of block %d", d.Height), err}
			break
		}
		v := make([]byte, 0, storedFixed+len(d.bytes))
		for _, h := range [...]tx.Hash{self.Hash, self.Parent, above.State, above.Diff} {
			v = append(v, h[:]...)
		}
		good = append(good, checked{append(v, d.bytes...), m.Directory.Count() - uint64(len(keys)), keys})
	}
	if len(good) == 0 {
		return fault
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	diffs := held{ds[0].Height, ds[0].Height + uint64(len(good))}
	if r.diffs.first != r.diffs.end {
		if diffs.first > r.diffs.end || diffs.end < r.diffs.first {
			return errors.Join(fault, fmt.Errorf("ledger: %w: differences from %d to %d beside those from %d to %d",
				ErrSequence, diffs.first, diffs.end-1, r.diffs.first, r.diffs.end-1))
		}
		diffs = held{min(diffs.first, r.diffs.first), max(diffs.end, r.diffs.end)}
	}
	b := r.store.NewBatch()
	for i := range good {
		b.Block(ds[i].Height, good[i].stored)
		for j := range good[i].keys {
			b.Key(good[i].first+uint64(j), good[i].keys[j].append(nil))
		}
	}
	b.Note([]byte{noteDiffs}, diffs.append(nil))
	return errors.Join(fault, r.commit(b, func() { r.diffs = diffs }))
}

// checkDifference decodes a difference and compares it with the hash in a header.
func (r *Restore) checkDifference(d *Difference, height uint64, want tx.Hash) (*Meta, []keyEntry, error) {
	if d.Height != height || height == 0 {
		return nil, nil, fmt.Errorf("%w: it is in the place of block %d", ErrPart, height)
	}
	have, err := d.Hash()
	if err != nil {
		return nil, nil, err
	}
	if have != want {
		return nil, nil, fmt.Errorf("%w: it has diff hash %v, the header %v", ErrPart, have, want)
	}
	s, err := r.table.readStored(append(make([]byte, storedFixed-4, storedFixed-4+len(d.bytes)), d.bytes...))
	if err != nil {
		return nil, nil, err
	}
	m, _, keys, err := readHead(s.head, r.like, r.table.parts)
	if err == nil && (m.Height != height || uint64(len(keys)) > m.Directory.Count()) {
		err = fmt.Errorf("%w: its counters are of height %d, with %d of %d keys", ErrPart, m.Height, len(keys), m.Directory.Count())
	}
	return m, keys, err
}

// Meta is the counters after the block at a height whose difference is held; ErrNotStored if it is not.
func (r *Restore) Meta(height uint64) (*Meta, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.meta(height)
}

func (r *Restore) meta(height uint64) (*Meta, error) {
	if r.closed {
		return nil, ErrClosed
	}
	if height < r.diffs.first || height >= r.diffs.end {
		return nil, fmt.Errorf("ledger: %w: the difference of block %d", ErrNotStored, height)
	}
	v, err := r.store.Block(height)
	if err != nil {
		return nil, err
	}
	m, err := storedMeta(v, r.like, r.table.parts)
	if err != nil {
		return nil, store.Corrupt(r.o.Dir, "block %d: %v", height, err)
	}
	return m, nil
}

// directory splits the directory in the outline into the range over the tops of whole segments and that over the rest.
func (r *Restore) directory() (tops, rest receipt.Range) {
	if r.outline == nil {
		return tops, rest
	}
	return r.outline.Directory.Split(segmentLog)
}

// MissingTops is the number of tops of segments that PutTops needs; 0: none.
func (r *Restore) MissingTops() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if tops, _ := r.directory(); tops.Count() > uint64(len(r.tops)) {
		return tops.Count()
	}
	return 0
}

// PutTops takes the tops of all whole segments of the directory in the outline (Ledger.DirectoryTops, from 0 to
// MissingTops). They are checked as a whole, so they must come from one peer.
func (r *Restore) PutTops(tops []tx.Hash) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch want, _ := r.directory(); {
	case r.closed:
		return ErrClosed
	case r.outline == nil:
		return fmt.Errorf("ledger: %w: tops of segments without an outline", ErrSequence)
	case uint64(len(tops)) != want.Count() || (receipt.Range{}).Append(hashes(tops)).Root() != want.Root():
		return &BadPart{0, fmt.Sprintf("%d tops of segments of the key directory", len(tops)), ErrPart}
	}
	b := r.store.NewBatch()
	b.Note([]byte{noteTops}, AppendTops(nil, tops))
	return r.commit(b, func() { r.tops = slices.Clone(tops) })
}

func hashes(of []tx.Hash) [][32]byte {
	out := make([][32]byte, len(of))
	for i := range of {
		out[i] = of[i]
	}
	return out
}

// KeySpan is a segment of the directory of BLS keys.
type KeySpan struct {
	From  uint64 // a multiple of SegmentKeys
	Count int    // SegmentKeys, but for the last one
}

// MissingKeys lists the segments of the directory in the outline that are not held, ascending.
func (r *Restore) MissingKeys() []KeySpan {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.missingKeys()
}

func (r *Restore) missingKeys() (out []KeySpan) {
	if r.outline == nil {
		return nil
	}
	n := r.outline.Directory.Count()
	for from := uint64(0); from < n; from += SegmentKeys {
		if count := min(SegmentKeys, n-from); uint64(r.segments[from/SegmentKeys]) < count {
			out = append(out, KeySpan{from, int(count)})
		}
	}
	return out
}

// PutKeys keeps one of the segments that MissingKeys lists. A whole segment is checked by its top, which must be there
// (ErrSequence), the last one by the outline.
func (r *Restore) PutKeys(from uint64, keys []DirectoryKey) error {
	entries := AppendKeys(nil, keys)
	leaves := keyLeaves(from, entries)
	r.mu.Lock()
	defer r.mu.Unlock()
	segment := from / SegmentKeys
	whole, rest := r.directory()
	good := false
	switch {
	case r.closed:
		return ErrClosed
	case r.outline == nil || from%SegmentKeys != 0 || segment > whole.Count() || segment < whole.Count() && segment >= uint64(len(r.tops)):
		return fmt.Errorf("ledger: %w: keys from %d on, with tops of %d segments", ErrSequence, from, len(r.tops))
	case segment < whole.Count():
		good = len(keys) == SegmentKeys && segmentTop(leaves) == r.tops[segment]
	default:
		good = uint64(len(keys)) == rest.Count() && receipt.Range{}.Append(leaves).Root() == rest.Root()
	}
	if !good {
		return &BadPart{0, fmt.Sprintf("%d keys of the directory from %d on", len(keys), from), ErrPart}
	}
	b := r.store.NewBatch()
	for i := range keys {
		b.Key(from+uint64(i), entries[i*keyEntryBytes:][:keyEntryBytes])
	}
	b.Note(binary.BigEndian.AppendUint64([]byte{noteSegment}, segment), binary.BigEndian.AppendUint32(nil, uint32(len(keys))))
	return r.commit(b, func() { r.segments[segment] = uint32(len(keys)) })
}

// OutboxSpan is what of the receipts to a shard must be held: those from <= seq < to.
type OutboxSpan struct {
	Shard    uint16
	From, To uint64
}

// MissingOutbox lists the receipts that a ledger final at height s needs and that are not held, ascending by shard:
// what is to be asked of Ledger.Outbox. ErrNotStored: the difference of that block is not held.
func (r *Restore) MissingOutbox(s uint64) ([]OutboxSpan, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, err := r.meta(s)
	if err != nil {
		return nil, err
	}
	return r.missingOutbox(m), nil
}

func (r *Restore) missingOutbox(m *Meta) (out []OutboxSpan) {
	for i := range m.Channels {
		c := &m.Channels[i]
		h := r.outbox[c.Shard]
		if c.Acked < c.Sent.Count() && (h.end != c.Sent.Count() || h.first > c.Acked) {
			out = append(out, OutboxSpan{c.Shard, c.Acked, c.Sent.Count()})
		}
	}
	return out
}

// PutOutbox keeps the receipts of a channel up to those sent by the block at height s, whose difference is held
// (ErrNotStored if not), as MissingOutbox(s) lists them. It replaces what was kept of the channel.
func (r *Restore) PutOutbox(s uint64, o *Outbox) error {
	m, err := r.Meta(s)
	if err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return &BadPart{0, fmt.Sprintf("the outbox to shard %d at height %d", o.Shard, s), fmt.Errorf("%w: %s", ErrPart, fmt.Sprintf(format, args...))}
	}
	at := m.channel(o.Shard)
	if at < 0 {
		return bad("there is no such other shard")
	}
	c := &m.Channels[at]
	first, end := o.Before.Count(), c.Sent.Count()
	if first > c.Acked || first > end || end-first != uint64(len(o.Receipts)) {
		return bad("it has %d receipts from %d on, need [%d, %d)", len(o.Receipts), first, c.Acked, end)
	}
	// Pieces, so that reading a few of them does not mean reading all.
	const piece = 1 << 12
	before := o.Before
	type stored struct{ before, receipts []byte }
	var pieces []stored
	for receipts := range slices.Chunk(o.Receipts, piece) {
		pieces = append(pieces, stored{before.AppendBytes(nil), appendReceipts(nil, receipts)})
		part := Outbox{o.Shard, before, receipts}
		before = part.rangeWith(r.o.Params.Shard)
	}
	if before.Root() != c.Sent.Root() {
		return bad("its receipts do not have the root that the block commits to")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	b, h := r.store.NewBatch(), held{first, end}
	b.DropAllReceipts(o.Shard)
	for i := range pieces {
		b.Receipts(o.Shard, first+uint64(i)*piece, pieces[i].before, pieces[i].receipts)
	}
	b.Note(binary.BigEndian.AppendUint16([]byte{noteOutbox}, o.Shard), h.append(nil))
	return r.commit(b, func() { r.outbox[o.Shard] = h })
}

// Finish makes a ledger of the folder that is final at height s, and closes it. above is the final header one above s. ErrUnfinished
// says what is missing, and nothing has changed. Open checks the whole: pages and differences must give the root of the block at s.
// Nothing above the header that carries that root is needed, so a chain that stands still can be copied: it may be
// waiting for this very validator.
//
// A restored ledger knows nothing of what blocks up to s did beside their differences: Credits and Opened are empty
// for them, and EffectsFrom is above them.
func (r *Restore) Finish(s uint64, above Trusted) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	m, from, err := r.complete(s)
	if err != nil {
		return err
	}
	b := r.store.NewBatch()
	diffs := held{from, s + 1}
	b.DropBlocks(diffs.first)
	b.DropBlocksAbove(s)
	b.Note([]byte{noteDiffs}, diffs.append(nil))
	b.DropKeys(m.Directory.Count())
	for i := range m.Channels {
		if c := &m.Channels[i]; r.outbox[c.Shard].end != c.Sent.Count() {
			b.DropAllReceipts(c.Shard)
			b.DropNote(binary.BigEndian.AppendUint16([]byte{noteOutbox}, c.Shard))
		}
	}
	b.EffectsFrom(s + 1)
	b.Beginning(s, above.State, above.Diff)
	b.Progress(store.Progress{Final: s, Cycle: s, Partition: r.table.parts[0].number})
	if err := r.commit(b, func() {
		r.diffs = diffs
		r.closed = true
	}); err != nil {
		return err
	}
	return r.store.Promote(r.folder)
}

// complete returns the counters at height s and the first difference needed, if everything is there.
func (r *Restore) complete(s uint64) (m *Meta, from uint64, err error) {
	missing := func(format string, args ...any) (*Meta, uint64, error) {
		return nil, 0, fmt.Errorf("ledger: %w: %s", ErrUnfinished, fmt.Sprintf(format, args...))
	}
	if r.outline == nil {
		return missing("the outline")
	}
	if chunks := r.missing(); len(chunks) > 0 {
		return missing("%d chunks, the first of them %d of partition %d", len(chunks), chunks[0].Index, chunks[0].Partition)
	}
	if keys := r.missingKeys(); len(keys) > 0 {
		return missing("%d segments of the key directory, the first of them from %d on", len(keys), keys[0].From)
	}
	lowest, highest, _ := r.heights()
	if s == 0 || s < highest {
		return missing("blocks: a ledger with a part of height %d can be finished at height %d, not %d", highest, max(highest, 1), s)
	}
	if from = min(lowest+1, s); r.diffs.first > from || r.diffs.end <= s {
		return missing("differences: need %d to %d, have %d to %d", from, s, r.diffs.first, r.diffs.end-min(r.diffs.end, 1))
	}
	if m, err = r.meta(s); err != nil {
		return nil, 0, err
	}
	if spans := r.missingOutbox(m); len(spans) > 0 {
		return missing("receipts [%d, %d) to shard %d", spans[0].From, spans[0].To, spans[0].Shard)
	}
	return m, from, nil
}

// Close leaves the folder to be continued, if it is not finished.
func (r *Restore) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return r.store.Close()
}
