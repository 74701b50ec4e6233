package ledger

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"

	"tutti/accel/merkle"
	"tutti/state/receipt"
	"tutti/state/tx"
)

func malformed(what string, format string, args ...any) error {
	return fmt.Errorf("ledger: %s: %w: %s", what, ErrMalformed, fmt.Sprintf(format, args...))
}

// Append appends the encoding.
func (o *Outline) Append(b []byte) []byte {
	b = append(b, o.accounts.hash[:]...)
	b = binary.BigEndian.AppendUint64(b, o.accounts.sum)
	return append(b, o.meta...)
}

// DecodeOutline decodes exactly one outline, but for the counters, which Verify decodes. It aliases b.
func DecodeOutline(b []byte) (*Outline, error) {
	if len(b) < 40+8 || len(b) > MaxOutlineBytes {
		return nil, malformed("outline", "%d bytes", len(b))
	}
	o := &Outline{accounts: node{[32]byte(b[:32]), binary.BigEndian.Uint64(b[32:])}, meta: b[40:]}
	o.Height = binary.BigEndian.Uint64(o.meta)
	return o, nil
}

// Verify checks the outline against the state root at its height and returns the counters. *BadPart.
func (o *Outline) Verify(root tx.Hash, p *Params) (*Meta, error) {
	bad := func(err error) (*Meta, error) {
		return nil, &BadPart{Part: fmt.Sprintf("the outline at height %d", o.Height), Err: err}
	}
	if stateRoot(o.accounts, metaHash(o.meta)) != root {
		return bad(fmt.Errorf("%w: it does not have the state root %v", ErrPart, root))
	}
	parts := make([]partition, 0, 256)
	for _, n := range p.Table.Partitions(p.Shard) {
		parts = append(parts, partition{number: n})
	}
	m, rest, err := readMeta(o.meta, genesisMeta(p), parts)
	if err == nil && len(rest) > 0 {
		err = malformed("outline", "%d bytes too many", len(rest))
	}
	if err == nil && m.Height != o.Height {
		err = fmt.Errorf("%w: its counters are of height %d", ErrPart, m.Height)
	}
	if err != nil {
		return bad(err)
	}
	return m, nil
}

// Append appends the encoding.
func (c *Chunk) Append(b []byte) []byte {
	be := binary.BigEndian
	b = be.AppendUint64(b, c.Height)
	b = be.AppendUint16(b, c.Partition)
	b = be.AppendUint32(b, c.Index)
	b = be.AppendUint16(b, uint16(len(c.records)/RecordBytes))
	at, bitmap := len(b), uint32(0)
	b = append(b, 0, 0, 0, 0)
	for i, n := range c.path {
		if n != zeros().sums[i] {
			bitmap |= 1 << i
			b = append(b, n.hash[:]...)
			b = be.AppendUint64(b, n.sum)
		}
	}
	be.PutUint32(b[at:], bitmap)
	b = append(b, c.meta[:]...)
	return append(b, c.records...)
}

// DecodeChunk decodes exactly one chunk. It aliases b.
func DecodeChunk(b []byte) (*Chunk, error) {
	r := reader{b: b}
	c := &Chunk{Height: r.u64(), ChunkID: ChunkID{r.u16(), r.u32()}}
	records, bitmap := int(r.u16()), r.u32()
	r.ok(c.Index < chunksPerPartition && records > 0 && records <= chunkAccounts && bits.Len32(bitmap) <= sumLevels)
	for i := range c.path {
		c.path[i] = zeros().sums[i]
		if bitmap>>i&1 == 1 {
			c.path[i] = node{r.hash(), r.u64()}
			r.ok(c.path[i] != zeros().sums[i])
		}
	}
	c.meta = r.hash()
	if !r.ok(len(r.b) == records*RecordBytes) {
		return nil, malformed("chunk", "%d bytes", len(b))
	}
	c.records = r.b
	// Without records of no accounts at the end there is one encoding only. Kinds of accounts are not 0.
	if cellsOf(c.records)[records-1] == (cell{}) {
		return nil, malformed("chunk", "an empty record at the end")
	}
	return c, nil
}

// Verify checks the chunk against the state root at its height. It costs 8,191 hashes. *BadPart.
func (c *Chunk) Verify(root tx.Hash) error {
	bad := func(format string, args ...any) error {
		return &BadPart{
			Part: fmt.Sprintf("chunk %d of partition %d at height %d", c.Index, c.Partition, c.Height),
			Err:  fmt.Errorf("%w: %s", ErrPart, fmt.Sprintf(format, args...)),
		}
	}
	if c.Index >= chunksPerPartition || len(c.records) == 0 || len(c.records) > chunkAccounts*RecordBytes || len(c.records)%RecordBytes != 0 {
		return bad("there is no such chunk")
	}
	cells := make([]cell, chunkAccounts)
	copy(cells, cellsOf(c.records))
	n, fits := node{}, true
	for i := range cells {
		var carry uint64
		n.sum, carry = bits.Add64(n.sum, cells[i].balance(), 0)
		fits = fits && carry == 0
	}
	n.hash = merkle.Top(leavesOfCells(cells), chunkLog)
	at := uint64(c.Partition)<<partitionLevels | uint64(c.Index)
	for i := range c.path {
		pair := [2]node{c.path[i], c.path[i]}
		pair[at&1] = n
		var ok bool
		n, ok = parent(&pair[0], &pair[1])
		fits = fits && ok
		at >>= 1
	}
	if !fits {
		return bad("its sums overflow")
	}
	if stateRoot(n, c.meta) != root {
		return bad("it does not have the state root %v", root)
	}
	return nil
}

// cellsOf shows encoded records as cells, in place.
func cellsOf(b []byte) []cell {
	return unsafe.Slice((*cell)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/RecordBytes)
}

// bytesOf shows cells as encoded records, in place.
func bytesOf(cells []cell) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(cells))), len(cells)*RecordBytes)
}

func leavesOfCells(cells []cell) [][32]byte {
	leaves := make([][32]byte, len(cells))
	merkle.HashPairs(leaves, halves(cells))
	return leaves
}

// Records are the accounts in the chunk, from the first one on.
func (c *Chunk) Records() []Record {
	out := make([]Record, len(c.records)/RecordBytes)
	for i, k := range cellsOf(c.records) {
		out[i] = k.record()
	}
	return out
}

// Append appends the encoding.
func (d *Difference) Append(b []byte) []byte {
	return append(binary.BigEndian.AppendUint64(b, d.Height), d.bytes...)
}

// DecodeDifference decodes exactly one difference, but for head and sections, which Hash decodes. It aliases b.
func DecodeDifference(b []byte) (Difference, error) {
	if len(b) < 8 || len(b) > MaxDifferenceBytes {
		return Difference{}, malformed("difference", "%d bytes", len(b))
	}
	return Difference{binary.BigEndian.Uint64(b), b[8:]}, nil
}

// Bytes is the size of the encoding.
func (d *Difference) Bytes() int { return 8 + len(d.bytes) }

// Hash is the diff hash. It costs hashing all bytes.
func (d *Difference) Hash() (tx.Hash, error) {
	r := reader{b: d.bytes}
	n := r.u32()
	if !r.ok(uint64(n) <= uint64(len(r.b))) {
		return tx.Hash{}, malformed("difference", "%d bytes", len(d.bytes))
	}
	head := r.take(int(n))
	var sections []section
	for len(r.b) > 0 {
		s, rest, err := readSection(r.b)
		if err != nil {
			return tx.Hash{}, err
		}
		s.leaf = diffLeaf(1, s.bytes)
		sections, r.b = append(sections, s), rest
	}
	return diffHash(head, sections), nil
}

// AppendKeys appends the encodings of entries of the directory.
func AppendKeys(b []byte, keys []DirectoryKey) []byte {
	for i := range keys {
		b = (&keyEntry{keys[i].ID, keys[i].Key}).append(b)
	}
	return b
}

// DecodeKeys decodes at most SegmentKeys entries.
func DecodeKeys(b []byte) ([]DirectoryKey, error) {
	if len(b)%keyEntryBytes != 0 || len(b) > SegmentKeys*keyEntryBytes {
		return nil, malformed("keys", "%d bytes", len(b))
	}
	out := make([]DirectoryKey, len(b)/keyEntryBytes)
	r := reader{b: b}
	for i := range out {
		out[i] = DirectoryKey{tx.MakeID(r.u16(), r.u32()), [48]byte(r.take(48))}
	}
	return out, nil
}

// AppendTops appends the encodings of tops of segments: 32 bytes each.
func AppendTops(b []byte, tops []tx.Hash) []byte {
	for i := range tops {
		b = append(b, tops[i][:]...)
	}
	return b
}

// DecodeTops decodes at most MaxTops tops.
func DecodeTops(b []byte) ([]tx.Hash, error) {
	if len(b)%32 != 0 || len(b) > MaxTops*32 {
		return nil, malformed("tops", "%d bytes", len(b))
	}
	out := make([]tx.Hash, len(b)/32)
	for i := range out {
		out[i] = tx.Hash(b[32*i:])
	}
	return out, nil
}

// segmentTop is the top of the tree over the leaves of a whole segment of the directory.
func segmentTop(leaves [][32]byte) tx.Hash { return merkle.Top(leaves, segmentLog) }

// keyLeaves are the leaves of entries of the directory from a place on.
func keyLeaves(from uint64, entries []byte) [][32]byte {
	const size = 16 + 8 + keyEntryBytes
	n := len(entries) / keyEntryBytes
	src := make([]byte, 0, n*size)
	for i := range n {
		src = append(src, tagKey...)
		src = binary.BigEndian.AppendUint64(src, from+uint64(i))
		src = append(src, entries[i*keyEntryBytes:][:keyEntryBytes]...)
	}
	leaves := make([][32]byte, n)
	merkle.HashMany(leaves, src, size)
	return leaves
}

// Append appends the encoding.
func (o *Outbox) Append(b []byte) []byte {
	b = o.Before.AppendBytes(binary.BigEndian.AppendUint16(b, o.Shard))
	return appendReceipts(b, o.Receipts)
}

// DecodeOutbox decodes exactly one outbox.
func DecodeOutbox(b []byte) (*Outbox, error) {
	if len(b) < 2 || len(b) > MaxOutboxBytes {
		return nil, malformed("outbox", "%d bytes", len(b))
	}
	before, rest, err := receipt.Read(b[2:])
	if err != nil {
		return nil, fmt.Errorf("ledger: outbox: %w: %w", ErrMalformed, err)
	}
	if len(rest) > MaxOutboxReceipts*receiptBytes {
		return nil, malformed("outbox", "%d bytes", len(b))
	}
	receipts, err := readReceipts(rest)
	if err != nil {
		return nil, fmt.Errorf("ledger: outbox: %w: %w", ErrMalformed, err)
	}
	return &Outbox{binary.BigEndian.Uint16(b), before, receipts}, nil
}

// rangeWith is the range over all receipts up to the last one of the outbox, from a shard.
func (o *Outbox) rangeWith(source uint16) receipt.Range {
	leaves := make([][32]byte, len(o.Receipts))
	for i := range leaves {
		leaves[i] = o.Receipts[i].Leaf(source, o.Shard, o.Before.Count()+uint64(i))
	}
	return o.Before.Append(leaves)
}
