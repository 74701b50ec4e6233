package ledger

import (
	"errors"
	"math/bits"
	"unsafe"
)

// Geometry of a partition. The layout of a chunk in memory is 4,096 cells, then the inner nodes of its tree as a heap
// of 2,048 digests: node 1 is the chunk's root, nodes 1,024 and up are those over groups of 4 accounts. The levels
// below groups are not stored but hashed again: 16 bytes of hashes an account.
const (
	chunkLog      = 12
	chunkAccounts = 1 << chunkLog
	groupLog      = 2
	chunkGroups   = chunkAccounts >> groupLog
	chunkBytes    = chunkAccounts*RecordBytes + 2*chunkGroups*32
	slabChunks    = 64
)

// arena cuts chunks out of large slabs outside the Go heap. A chunk, once taken, stays where it is until release.
type arena struct {
	huge  bool // for memory that will be full: ask for huge pages
	slabs [][]byte
	free  []byte
}

func (a *arena) chunk() (*chunk, error) {
	if len(a.free) == 0 {
		slab, err := mapMemory(slabChunks*chunkBytes, a.huge)
		if err != nil {
			return nil, err
		}
		a.slabs, a.free = append(a.slabs, slab), slab
	}
	b := a.free[:chunkBytes]
	a.free = a.free[chunkBytes:]
	c := &chunk{
		cells: unsafe.Slice((*cell)(unsafe.Pointer(&b[0])), chunkAccounts),
		nodes: unsafe.Slice((*[32]byte)(unsafe.Pointer(&b[chunkAccounts*RecordBytes])), 2*chunkGroups),
	}
	z := zeros()
	for level := groupLog; level <= chunkLog; level++ {
		n := c.nodes[chunkAccounts>>level : 2*chunkAccounts>>level]
		for i := range n {
			n[i] = z.inner[level]
		}
	}
	return c, nil
}

func (a *arena) release() error {
	var errs []error
	for _, s := range a.slabs {
		errs = append(errs, unmapMemory(s))
	}
	*a = arena{}
	return errors.Join(errs...)
}

// chunk is 4,096 consecutive accounts of a partition.
type chunk struct {
	cells   []cell
	nodes   [][32]byte
	sum     uint64                     // of balances, modulo 2^64; always up to date
	touched [chunkAccounts / 64]uint64 // accounts changed by the block being executed
	stale   [chunkGroups / 64]uint64   // groups whose node is out of date
	rank    [chunkAccounts / 64]uint32 // touched accounts of the partition before each word of touched; see seal
	hit     bool                       // some account is touched
	dirty   bool                       // the node above (hash or sum) is out of date
}

// before is what a block's first change to an account replaced.
type before struct {
	balance                 uint64
	index, nonce, lastTouch uint32
}

// partition is the accounts of one partition, owned in parallel phases by one worker.
type partition struct {
	number uint16
	next   uint32 // accounts ever opened; those are the ones that exist
	chunks []*chunk
	log    []before // by the block being executed, in order of first change
	dirty  bool     // some chunk is dirty
}

func (p *partition) cell(index uint32) *cell {
	return &p.chunks[index>>chunkLog].cells[index%chunkAccounts]
}

// touch notes that the block being executed changes an existing account.
func (p *partition) touch(index uint32, c *cell) {
	k := p.chunks[index>>chunkLog]
	word, bit := index%chunkAccounts/64, uint64(1)<<(index%64)
	if k.touched[word]&bit == 0 {
		k.touched[word] |= bit
		k.hit = true
		p.log = append(p.log, before{c.balance(), index, c.nonce(), c.touched()})
	}
}

// put sets the fields of an existing account that transfers change, from outside the block being executed.
func (p *partition) put(index uint32, balance uint64, nonce, lastTouch uint32) {
	c := p.cell(index)
	k := p.chunks[index>>chunkLog]
	k.sum += balance - c.balance()
	c.setBalance(balance)
	c.setNonce(nonce)
	c.setTouched(lastTouch)
	p.outdate(index)
}

// open sets the whole record of an account that did not exist, or clears it again.
func (p *partition) open(index uint32, r *cell) {
	c := p.cell(index)
	p.chunks[index>>chunkLog].sum += r.balance() - c.balance()
	*c = *r
	p.outdate(index)
}

func (p *partition) outdate(index uint32) {
	k := p.chunks[index>>chunkLog]
	group := index % chunkAccounts >> groupLog
	k.stale[group/64] |= 1 << (group % 64)
	k.dirty, p.dirty = true, true
}

// rollback takes back what the block being executed has changed so far.
func (p *partition) rollback() {
	for _, b := range p.log {
		k := p.chunks[b.index>>chunkLog]
		c := &k.cells[b.index%chunkAccounts]
		k.sum += b.balance - c.balance()
		c.setBalance(b.balance)
		c.setNonce(b.nonce)
		c.setTouched(b.lastTouch)
		k.touched[b.index%chunkAccounts/64] = 0
		k.hit = false
	}
	p.log = p.log[:0]
}

// seal ends a block's changes to the partition: it opens the given accounts, which become the next ones, and returns
// the section of the block's difference (see diff.go). What was changed is then out of date in the tree.
func (p *partition) seal(slot int, opened []cell) section {
	n := uint32(0)
	for _, c := range p.chunks {
		if c.hit {
			for w, v := range c.touched {
				c.rank[w] = n
				n += uint32(bits.OnesCount64(v))
			}
		}
	}
	s := newSection(slot, p.number, p.next, len(p.log), opened)
	for i := range p.log {
		b := &p.log[i]
		k, at := p.chunks[b.index>>chunkLog], b.index%chunkAccounts
		c := &k.cells[at]
		rank := k.rank[at/64] + uint32(bits.OnesCount64(k.touched[at/64]&(1<<(at%64)-1)))
		s.before[rank] = *b
		s.setTouch(int(rank), b.index, c.nonce(), c.balance())
		p.outdate(b.index)
	}
	for _, c := range p.chunks {
		if c.hit {
			c.touched, c.hit = [chunkAccounts / 64]uint64{}, false
		}
	}
	p.log = p.log[:0]
	for i := range opened {
		p.open(p.next+uint32(i), &opened[i])
	}
	p.next += uint32(len(opened))
	return s
}

// table is all accounts of the shard, as of one block.
type table struct {
	parts  []partition // ascending by number; called slots elsewhere
	route  []int32     // by partition number: slot; or -1-shard; or routeNowhere
	sparse arena       // first chunks of partitions, which may stay nearly empty
	dense  arena       // all others
}

const routeNowhere = -1 << 31

func newTable(p *Params) *table {
	t := &table{route: make([]int32, 1<<16), dense: arena{huge: true}}
	for i := range t.route {
		t.route[i] = routeNowhere
	}
	for _, r := range p.Table {
		for n := uint32(r.First); n < r.end(); n++ {
			t.route[n] = -1 - int32(r.Shard)
		}
	}
	for slot, n := range p.Table.Partitions(p.Shard) {
		t.parts = append(t.parts, partition{number: n})
		t.route[n] = int32(slot)
	}
	return t
}

// reserve makes room for accounts below next in a partition.
func (t *table) reserve(slot int, next uint32) error {
	p := &t.parts[slot]
	for uint32(len(p.chunks))<<chunkLog < next {
		a := &t.dense
		if len(p.chunks) == 0 {
			a = &t.sparse
		}
		c, err := a.chunk()
		if err != nil {
			return err
		}
		p.chunks = append(p.chunks, c)
	}
	return nil
}

// bytes is the memory taken, written or not.
func (t *table) bytes() uint64 {
	return uint64(len(t.sparse.slabs)+len(t.dense.slabs)) * slabChunks * chunkBytes
}

func (t *table) release() error { return errors.Join(t.sparse.release(), t.dense.release()) }
