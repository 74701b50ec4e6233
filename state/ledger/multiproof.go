package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"tutti/accel/merkle"
	"tutti/state/tx"
)

// MaxProofAccounts is the most accounts in one AccountsProof.
const MaxProofAccounts = 4096

// AccountsProof shows the records at many positions under one state root, or that there is none there. Siblings that
// can be computed from other records of the proof are left out, so neighbours cost little more than their records.
//
// The positions are not part of it: both sides know them, ascending, and they say how many records, chunks and siblings
// there are. A level is that of the siblings: 0 to 11 are within chunks, from the leaf up, 12 to 39 from the chunk up.
// Siblings are in the order of their level, then of their position. Encoding:
//
//	height 8, meta 32, for each chunk, ascending: sum of its balances 8,
//	bitmap: a bit for each record, then for each sibling (bit i of byte i/8, LSB first; the last byte is filled up with
//	zeros), set where it differs from the node over no accounts,
//	those records, 64 bytes each, and those siblings: digests of 32 bytes up to level 11, then hash 32 and sum 8
//
// So there is one encoding for a state and a list of positions.
type AccountsProof struct {
	Height  uint64 // of the block whose state it is; the header StateLag above carries the root. A hint: not proven
	meta    tx.Hash
	sums    []uint64
	records []cell
	inner   [chunkLog][][32]byte // siblings by level
	upper   [sumLevels][]node
}

// ErrIDs says that a list of accounts can not be proven together.
var ErrIDs = errors.New("need 1 to 4,096 accounts, ascending, each once, with indices that a partition has")

// proofShape is how many values of each kind a proof for given positions has.
type proofShape struct {
	records, chunks int
	siblings        [chunkLog + sumLevels]int // by level
	slots           int                       // records and siblings, together
}

// positions are the leaves' places in the whole tree.
func positions(ids []tx.ID) ([]uint64, error) {
	if len(ids) == 0 || len(ids) > MaxProofAccounts {
		return nil, fmt.Errorf("ledger: %w: %d accounts", ErrIDs, len(ids))
	}
	at := make([]uint64, len(ids))
	for i, id := range ids {
		if id.Index() >= AccountsPerPartition || id >= 1<<48 || i > 0 && id <= ids[i-1] {
			return nil, fmt.Errorf("ledger: %w: number %d, %s", ErrIDs, i, id)
		}
		at[i] = uint64(id.Partition())<<(chunkLog+partitionLevels) | uint64(id.Index())
	}
	return at, nil
}

// lift replaces positions, ascending, by their parents', each once, and calls alone, if not nil, for each position
// whose sibling is not among them.
func lift(at []uint64, alone func(x uint64)) []uint64 {
	n := 0
	for i := 0; i < len(at); i++ {
		x := at[i]
		if i+1 < len(at) && at[i+1] == x^1 {
			i++
		} else if alone != nil {
			alone(x)
		}
		at[n] = x >> 1
		n++
	}
	return at[:n]
}

func shapeOf(ids []tx.ID) (s proofShape, err error) {
	at, err := positions(ids)
	if err != nil {
		return s, err
	}
	s.records, s.slots = len(at), len(at)
	for level := range s.siblings {
		if level == chunkLog {
			s.chunks = len(at)
		}
		at = lift(at, func(uint64) { s.siblings[level]++ })
		s.slots += s.siblings[level]
	}
	return s, nil
}

// ProofChunks is how many chunks an AccountsProof for ids, ascending, is about: what making it costs.
func ProofChunks(ids []tx.ID) int {
	n := 0
	for i, id := range ids {
		if i == 0 || id>>chunkLog != ids[i-1]>>chunkLog {
			n++
		}
	}
	return n
}

// Append appends the encoding.
func (p *AccountsProof) Append(b []byte) []byte {
	z := zeros()
	b = binary.BigEndian.AppendUint64(b, p.Height)
	b = append(b, p.meta[:]...)
	for _, s := range p.sums {
		b = binary.BigEndian.AppendUint64(b, s)
	}
	at, slot := len(b), 0
	b = append(b, make([]byte, (p.slots()+7)/8)...)
	mark := func(there bool) bool {
		if there {
			b[at+slot/8] |= 1 << (slot % 8)
		}
		slot++
		return there
	}
	for i := range p.records {
		if mark(p.records[i] != cell{}) {
			b = append(b, p.records[i][:]...)
		}
	}
	for level, siblings := range p.inner {
		for i := range siblings {
			if mark(siblings[i] != z.inner[level]) {
				b = append(b, siblings[i][:]...)
			}
		}
	}
	for level, siblings := range p.upper {
		for i := range siblings {
			if mark(siblings[i] != z.sums[level]) {
				b = append(b, siblings[i].hash[:]...)
				b = binary.BigEndian.AppendUint64(b, siblings[i].sum)
			}
		}
	}
	return b
}

func (p *AccountsProof) slots() int {
	n := len(p.records)
	for i := range p.inner {
		n += len(p.inner[i])
	}
	for i := range p.upper {
		n += len(p.upper[i])
	}
	return n
}

// DecodeAccountsProof decodes exactly one proof for ids, which are ascending, each once, at most MaxProofAccounts.
func DecodeAccountsProof(b []byte, ids []tx.ID) (*AccountsProof, error) {
	s, err := shapeOf(ids)
	if err != nil {
		return nil, err
	}
	bad := func() (*AccountsProof, error) {
		return nil, fmt.Errorf("ledger: proof of %d accounts: %w: %d bytes", len(ids), ErrMalformed, len(b))
	}
	if len(b) < 8+32+8*s.chunks+(s.slots+7)/8 {
		return bad()
	}
	r := reader{b: b}
	p := &AccountsProof{Height: r.u64(), meta: r.hash(), sums: make([]uint64, s.chunks), records: make([]cell, s.records)}
	for i := range p.sums {
		p.sums[i] = r.u64()
	}
	bitmap := r.take((s.slots + 7) / 8)
	if s.slots%8 != 0 && bitmap[len(bitmap)-1]>>(s.slots%8) != 0 || len(r.b) != s.bytes(bitmap) {
		return bad()
	}
	p.fill(&r, &s, bitmap)
	if r.bad || len(r.b) > 0 {
		return bad()
	}
	return p, nil
}

// bytes is how much follows a bitmap.
func (s *proofShape) bytes(bitmap []byte) int {
	count := func(from, n int) (set int) {
		for i := from; i < from+n; i++ {
			set += int(bitmap[i/8] >> (i % 8) & 1)
		}
		return set
	}
	size, at := RecordBytes*count(0, s.records), s.records
	for level, n := range s.siblings {
		width := 32
		if level >= chunkLog {
			width = 40
		}
		size += width * count(at, n)
		at += n
	}
	return size
}

// fill reads records and siblings. A node over no accounts that is spelt out is refused.
func (p *AccountsProof) fill(r *reader, s *proofShape, bitmap []byte) {
	z, slot := zeros(), 0
	there := func() bool {
		slot++
		return bitmap[(slot-1)/8]>>((slot-1)%8)&1 == 1
	}
	for i := range p.records {
		if there() {
			p.records[i] = cell(r.take(RecordBytes))
			r.ok(p.records[i] != cell{})
		}
	}
	for level := range p.inner {
		p.inner[level] = make([][32]byte, s.siblings[level])
		for i := range p.inner[level] {
			p.inner[level][i] = z.inner[level]
			if there() {
				p.inner[level][i] = r.hash()
				r.ok(p.inner[level][i] != z.inner[level])
			}
		}
	}
	for level := range p.upper {
		p.upper[level] = make([]node, s.siblings[chunkLog+level])
		for i := range p.upper[level] {
			p.upper[level][i] = z.sums[level]
			if there() {
				p.upper[level][i] = node{r.hash(), r.u64()}
				r.ok(p.upper[level][i] != z.sums[level])
			}
		}
	}
}

// VerifyAccountsProof returns the records that p shows for ids under a state root, in the same order; one of
// KindNone says that there was no such account. ids are ascending, each once, at most MaxProofAccounts (ErrIDs). It needs
// no state. An error means that p shows nothing.
func VerifyAccountsProof(root tx.Hash, ids []tx.ID, p *AccountsProof) ([]Record, error) {
	at, err := positions(ids)
	if err != nil {
		return nil, err
	}
	records, err := p.check(ids)
	if err != nil {
		return nil, err
	}
	digests := make([][32]byte, len(at))
	merkle.HashPairs(digests, halves(p.records))
	for _, siblings := range p.inner {
		var pairs [][32]byte
		var ok bool
		if pairs, at, ok = pair(at, digests, siblings); !ok {
			return nil, ErrProof
		}
		digests = digests[:len(at)]
		merkle.HashPairs(digests, pairs)
	}
	nodes := make([]node, len(at)) // as many as sums: check
	for i := range nodes {
		nodes[i] = node{digests[i], p.sums[i]}
	}
	for _, siblings := range p.upper {
		var pairs []node
		var ok bool
		if pairs, at, ok = pair(at, nodes, siblings); !ok {
			return nil, ErrProof
		}
		nodes = nodes[:len(at)]
		for i := range nodes {
			if nodes[i], ok = parent(&pairs[2*i], &pairs[2*i+1]); !ok {
				return nil, ErrProof
			}
		}
	}
	if stateRoot(nodes[0], p.meta) != root {
		return nil, ErrProof
	}
	return records, nil
}

// check decodes the records, and refuses those over which no root can be certified.
func (p *AccountsProof) check(ids []tx.ID) ([]Record, error) {
	if len(p.records) != len(ids) || len(p.sums) != ProofChunks(ids) {
		return nil, ErrProof
	}
	records := make([]Record, len(ids))
	chunk, sum := -1, uint64(0)
	for i, id := range ids {
		if i == 0 || id>>chunkLog != ids[i-1]>>chunkLog {
			chunk, sum = chunk+1, 0
		}
		r, err := DecodeRecord(p.records[i][:])
		var carry uint64
		if sum, carry = bits.Add64(sum, r.Balance, 0); err != nil || carry != 0 || sum > p.sums[chunk] {
			return nil, ErrProof
		}
		records[i] = r
	}
	return records, nil
}

// pair puts each node beside its sibling, which is another of the nodes or the next of siblings, and returns the pairs
// and their parents' positions; false: there are too many or too few siblings.
func pair[N any](at []uint64, nodes, siblings []N) (pairs []N, parents []uint64, ok bool) {
	pairs = make([]N, 0, len(nodes)+len(siblings))
	for i := 0; i < len(at); i++ {
		switch x := at[i]; {
		case i+1 < len(at) && at[i+1] == x^1:
			pairs = append(pairs, nodes[i], nodes[i+1])
			i++
			continue
		case len(siblings) == 0:
			return nil, nil, false
		case x&1 == 0:
			pairs = append(pairs, nodes[i], siblings[0])
		default:
			pairs = append(pairs, siblings[0], nodes[i])
		}
		siblings = siblings[1:]
	}
	return pairs, lift(at, nil), len(siblings) == 0
}

// past is a base that the ledger may have left behind, for reads that take longer than one block. Its owner holds it;
// the differences in it stay in memory as long.
type past struct {
	base  *block
	above []passed // the final blocks above base, ascending, as far as they were seen
}

type passed struct {
	block    *block
	sections []section // of the block, which drops them when it becomes the base itself
}

const maxSteps = 256 // blocks that a past may be behind

// follow notes the blocks that became final since the last call; false: some of them are gone already. mu is held for
// reading.
func (p *past) follow(l *Ledger) bool {
	known := p.base
	if n := len(p.above); n > 0 {
		known = p.above[n-1].block
	}
	var fresh []passed
	for b := l.last; b != known; b = b.parent {
		if b == l.base || len(p.above)+len(fresh) == maxSteps {
			return false
		}
		fresh = append(fresh, passed{b, b.sections})
	}
	slices.Reverse(fresh)
	p.above = append(p.above, fresh...)
	return true
}

// cellsAt copies the cells of a slot from index from on, all in one chunk, as of p; false: it is too far behind. mu is
// held for reading; cells is zero.
func (p *past) cellsAt(l *Ledger, slot int, from uint32, cells []cell) bool {
	if !p.follow(l) {
		return false
	}
	l.cellsAt(l.base, slot, from, cells)
	for i := int(l.base.height - p.base.height); i > 0; i-- {
		if s := sectionOf(p.above[i-1].sections, slot); s != nil {
			s.rewind(cells, from)
		}
	}
	return true
}

// ErrBehind says that blocks became final faster than a proof could be made.
var ErrBehind = errors.New("blocks become final faster than the proof can be made: ask for fewer accounts, or later")

// AccountsProof proves the records of several accounts, or their absence, under the root that the final header carries,
// like AccountProof. ids are ascending, each once, at most MaxProofAccounts (ErrIDs), and in partitions of this shard
// (ErrNotHere). ErrBehind is for this call only.
//
// It costs for each chunk (ProofChunks) a copy under a read lock, and 8,191 hashes without any: 0.3 ms, on the caller's
// goroutine. All are as of one block, though others become final meanwhile: the differences of those are held
// until it returns. The caller limits the rate, in chunks.
func (l *Ledger) AccountsProof(ids []tx.ID) (*AccountsProof, error) {
	at, err := positions(ids)
	if err != nil {
		return nil, err
	}
	for range 3 {
		p, err := l.accountsProof(ids, slices.Clone(at))
		if !errors.Is(err, ErrBehind) {
			return p, err
		}
	}
	return nil, fmt.Errorf("ledger: %w", ErrBehind)
}

func (l *Ledger) accountsProof(ids []tx.ID, at []uint64) (*AccountsProof, error) {
	for _, id := range ids {
		if l.table.route[id.Partition()] < 0 { // routes never change
			return nil, fmt.Errorf("ledger: %w: partition %d", ErrNotHere, id.Partition())
		}
	}
	p := new(AccountsProof)
	chunks := slices.Clone(at)
	for range chunkLog {
		chunks = lift(chunks, nil)
	}
	l.mu.RLock()
	if l.closed {
		l.mu.RUnlock()
		return nil, ErrClosed
	}
	then := &past{base: l.base}
	p.Height, p.meta = l.base.height, l.base.metaHash
	want := make([]node, len(chunks))
	for i, x := range chunks {
		want[i] = l.viewed(0, x)
	}
	for level, x := 0, slices.Clone(chunks); level < sumLevels; level++ {
		x = lift(x, func(x uint64) { p.upper[level] = append(p.upper[level], l.viewed(level, x^1)) })
	}
	l.mu.RUnlock()

	m := newChunkProver(p)
	for i, chunk := range chunks {
		n, _ := slices.BinarySearch(at, (chunk+1)<<chunkLog)
		if err := m.add(l, then, chunk, at[:n], &want[i]); err != nil {
			return nil, err
		}
		at = at[n:]
	}
	return p, nil
}

// viewed is the node at a position of a level above chunks, as of base. mu is held for reading. Below the levels of
// partitions the position is in a partition of this shard.
func (l *Ledger) viewed(level int, x uint64) node {
	if k := level - partitionLevels; k >= 0 {
		if i, ok := slices.BinarySearch(l.view.keys[k], uint32(x)); ok {
			return l.view.top[k][i]
		}
		return zeros().sums[level]
	}
	in := partitionLevels - level // bits of x within the partition
	nodes := l.view.parts[l.table.route[x>>in]][level]
	if i := x & (1<<in - 1); i < uint64(len(nodes)) {
		return nodes[i]
	}
	return zeros().sums[level]
}

// chunkProver takes records and siblings out of chunks, one after another.
type chunkProver struct {
	p     *AccountsProof
	cells []cell
	tree  [chunkLog + 1][][32]byte // of the chunk in hand, from the leaves up
}

func newChunkProver(p *AccountsProof) *chunkProver {
	m := &chunkProver{p: p, cells: make([]cell, chunkAccounts)}
	for i := range m.tree {
		m.tree[i] = make([][32]byte, chunkAccounts>>i)
	}
	return m
}

// add takes from a chunk the records at given positions, not none, and the siblings that they need. It uses up at.
func (m *chunkProver) add(l *Ledger, then *past, chunk uint64, at []uint64, want *node) error {
	clear(m.cells)
	slot := int(l.table.route[chunk>>partitionLevels])
	first := uint32(chunk%(1<<partitionLevels)) << chunkLog
	l.mu.RLock()
	closed := l.closed // the table's memory is gone then
	ok := !closed && then.cellsAt(l, slot, first, m.cells)
	l.mu.RUnlock()
	switch {
	case closed:
		return ErrClosed
	case !ok:
		return ErrBehind
	}
	merkle.HashPairs(m.tree[0], halves(m.cells))
	for i := range chunkLog {
		merkle.HashPairs(m.tree[i+1], m.tree[i])
	}
	if m.tree[chunkLog][0] != want.hash {
		return l.fail(fmt.Errorf("ledger: chunk %d of partition %d does not have the hash it had: memory is corrupt",
			first>>chunkLog, chunk>>partitionLevels))
	}
	m.p.sums = append(m.p.sums, want.sum)
	for _, x := range at {
		m.p.records = append(m.p.records, m.cells[x%chunkAccounts])
	}
	for level := range chunkLog {
		tree := m.tree[level]
		at = lift(at, func(x uint64) { m.p.inner[level] = append(m.p.inner[level], tree[(x^1)%uint64(len(tree))]) })
	}
	return nil
}
