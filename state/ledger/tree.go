package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"sync"

	"tutti/accel/merkle"
	"tutti/accel/prefetch"
	"tutti/state/tx"
)

// The accounts tree, fixed in depth: a leaf is the SHA-256 of a record; 12 levels of SHA-256(left || right) make a
// chunk of 4,096 accounts; from there up every node also has the sum of the balances below it and
//
//	parent.hash = SHA-256(left.hash || left.sum as u64 || right.hash || right.sum as u64), parent.sum = left.sum + right.sum
//
// for 12 levels of chunks within a partition and 16 levels of partitions. Since the depth is fixed, a node can't be
// taken for one of another level. Where there are no accounts the records are zero and the nodes known beforehand.
const (
	partitionLevels = 12
	topLevels       = 16
	sumLevels       = partitionLevels + topLevels
)

// node is a node at chunk level or above.
type node struct {
	hash [32]byte
	sum  uint64
}

// parent joins two nodes; false: the sum does not fit 64 bits.
func parent(l, r *node) (node, bool) {
	var b [80]byte
	copy(b[:], l.hash[:])
	binary.BigEndian.PutUint64(b[32:], l.sum)
	copy(b[40:], r.hash[:])
	binary.BigEndian.PutUint64(b[72:], r.sum)
	sum, carry := bits.Add64(l.sum, r.sum, 0)
	return node{sha256.Sum256(b[:]), sum}, carry == 0
}

type zeroNodes struct {
	inner [chunkLog + 1][32]byte // 0: leaf of no account
	sums  [sumLevels + 1]node    // 0: empty chunk
}

// zeros are the nodes over no accounts at all.
var zeros = sync.OnceValue(func() *zeroNodes {
	z := new(zeroNodes)
	z.inner[0] = sha256.Sum256(make([]byte, RecordBytes))
	for i := range chunkLog {
		z.inner[i+1] = sha256.Sum256(append(z.inner[i][:], z.inner[i][:]...))
	}
	z.sums[0].hash = z.inner[chunkLog]
	for i := range sumLevels {
		z.sums[i+1], _ = parent(&z.sums[i], &z.sums[i])
	}
	return z
})

// scratch is what one worker needs to hash. Its size is fixed.
type scratch struct {
	in   [8 * hashBatch][32]byte
	a, b [4 * hashBatch][32]byte
	at   [hashChunks * chunkGroups]uint32
}

const (
	hashBatch  = 72 // groups, or pairs of nodes, hashed at a time: a multiple of the 24 that the widest kernel takes at once
	hashChunks = 16 // chunks hashed together: alone, a chunk's upper levels would be too short for the wide kernels
)

// rehash brings the trees of chunks up to date, hashChunks at most. A node of chunk i is at i<<chunkLog plus its place
// in the chunk's heap.
func rehash(chunks []*chunk, s *scratch) {
	at := s.at[:0]
	for i, c := range chunks {
		for w, v := range c.stale {
			for ; v != 0; v &= v - 1 {
				at = append(at, uint32(i<<chunkLog|chunkGroups|w<<6|bits.TrailingZeros64(v)))
			}
			c.stale[w] = 0
		}
	}
	hashGroups(chunks, at, s)
	for level := groupLog; level < chunkLog; level++ {
		n := 0
		for _, x := range at {
			x = x&^(chunkAccounts-1) | x%chunkAccounts>>1
			if n == 0 || at[n-1] != x {
				at[n] = x
				n++
			}
		}
		at = at[:n]
		for g := range slices.Chunk(at, 2*hashBatch) {
			for j, x := range g {
				below := chunks[x>>chunkLog].nodes[2*(x%chunkAccounts):]
				s.in[2*j], s.in[2*j+1] = below[0], below[1]
			}
			merkle.HashPairs(s.a[:len(g)], s.in[:2*len(g)])
			for j, x := range g {
				chunks[x>>chunkLog].nodes[x%chunkAccounts] = s.a[j]
			}
		}
	}
}

// hashGroups hashes the records of groups up to the groups' nodes, which are at the given places.
func hashGroups(chunks []*chunk, at []uint32, s *scratch) {
	const per = 1 << groupLog
	cells := func(x uint32) []cell { return chunks[x>>chunkLog].cells[per*(x%chunkGroups):][:per] }
	for done := 0; done < len(at); done += hashBatch {
		g := at[done:min(done+hashBatch, len(at))]
		for j, x := range g {
			copy(s.in[2*per*j:], halves(cells(x)))
		}
		for _, x := range at[done+len(g) : min(done+2*hashBatch, len(at))] { // for the next turn, while this one is hashed
			k := cells(x)
			for j := range k {
				prefetch.Line(&k[j])
			}
		}
		n := len(g)
		merkle.HashPairs(s.a[:per*n], s.in[:2*per*n])
		merkle.HashPairs(s.b[:per/2*n], s.a[:per*n])
		merkle.HashPairs(s.a[:n], s.b[:2*n])
		for j, x := range g {
			chunks[x>>chunkLog].nodes[x%chunkAccounts] = s.a[j]
		}
	}
}

// parents replaces positions, ascending, by their parents', each once.
func parents(at []uint32) []uint32 {
	n := 0
	for _, x := range at {
		if n == 0 || at[n-1] != x>>1 {
			at[n] = x >> 1
			n++
		}
	}
	return at[:n]
}

// errSum says that balances add up to more than 64 bits: memory or disk is corrupt.
var errSum = errors.New("ledger: the sum of balances overflows")

// chunkNode is a new node of a chunk.
type chunkNode struct {
	chunk uint32
	node  node
}

// upper is the tree from chunk level up, as of one block. Parts may be updated in parallel, one worker to a slot.
type upper struct {
	parts []upperPart             // by slot
	keys  [topLevels + 1][]uint32 // positions with accounts below, ascending, by level above partitions; fixed
	top   [topLevels + 1][]node   // the nodes at these positions; level 0 is filled by set
}

// upperPart is the levels of one partition: level k has a node for every 2^k chunks begun.
type upperPart [partitionLevels + 1][]node

func newUpper(parts []partition) *upper {
	u := &upper{parts: make([]upperPart, len(parts))}
	for i := range parts {
		u.keys[0] = append(u.keys[0], uint32(parts[i].number))
	}
	for level := range u.keys {
		if level > 0 {
			u.keys[level] = parents(slices.Clone(u.keys[level-1]))
		}
		u.top[level] = make([]node, len(u.keys[level]))
		for i := range u.top[level] {
			u.top[level][i] = zeros().sums[partitionLevels+level]
		}
	}
	return u
}

func (u *upper) clone() *upper {
	c := &upper{parts: make([]upperPart, len(u.parts)), keys: u.keys}
	for i := range u.parts {
		for k := range u.parts[i] {
			c.parts[i][k] = slices.Clone(u.parts[i][k])
		}
	}
	for k := range u.top {
		c.top[k] = slices.Clone(u.top[k])
	}
	return c
}

// set puts nodes of chunks, ascending, into a partition and brings its tree up to date.
func (u *upper) set(slot int, nodes []chunkNode) error {
	if len(nodes) == 0 {
		return nil
	}
	p, z := &u.parts[slot], zeros()
	last := nodes[len(nodes)-1].chunk
	for k := range p {
		for uint32(len(p[k])) <= last>>k {
			p[k] = append(p[k], z.sums[k])
		}
	}
	at := make([]uint32, len(nodes))
	for i, n := range nodes {
		at[i] = n.chunk
		p[0][n.chunk] = n.node
	}
	fits := true
	for k := range partitionLevels {
		at = parents(at)
		for _, x := range at {
			right := &z.sums[k]
			if int(2*x+1) < len(p[k]) {
				right = &p[k][2*x+1]
			}
			n, ok := parent(&p[k][2*x], right)
			p[k+1][x], fits = n, fits && ok
		}
	}
	if !fits {
		return errSum
	}
	u.top[0][slot] = p[partitionLevels][0]
	return nil
}

// root hashes the levels of partitions, all of them: two hashes or less for each of the shard's partitions, and 16.
func (u *upper) root() (node, error) {
	fits := true
	for k := range topLevels {
		below, keys := u.top[k], u.keys[k]
		i := 0
		for j, x := range u.keys[k+1] {
			pair := [2]node{zeros().sums[partitionLevels+k], zeros().sums[partitionLevels+k]}
			for ; i < len(keys) && keys[i]>>1 == x; i++ {
				pair[keys[i]&1] = below[i]
			}
			n, ok := parent(&pair[0], &pair[1])
			u.top[k+1][j], fits = n, fits && ok
		}
	}
	if !fits {
		return node{}, errSum
	}
	return u.top[topLevels][0], nil
}

// path lists the siblings of a chunk's path to the root, from the chunk up. u is up to date.
func (u *upper) path(slot int, chunk uint32) (path [sumLevels]node) {
	z := zeros()
	copy(path[:], z.sums[:sumLevels])
	for k, x := 0, chunk; k < partitionLevels; k, x = k+1, x>>1 {
		if level := u.parts[slot][k]; int(x^1) < len(level) {
			path[k] = level[x^1]
		}
	}
	for k, x := 0, u.keys[0][slot]; k < topLevels; k, x = k+1, x>>1 {
		if i, ok := slices.BinarySearch(u.keys[k], x^1); ok {
			path[partitionLevels+k] = u.top[k][i]
		}
	}
	return path
}

// chunkNode is the node of a chunk, which exists in the tree only if it was ever set.
func (u *upper) chunkNode(slot int, chunk uint32) node {
	if level := u.parts[slot][0]; int(chunk) < len(level) {
		return level[chunk]
	}
	return zeros().sums[0]
}

// stateRoot joins accounts and counters.
func stateRoot(accounts node, meta tx.Hash) tx.Hash {
	b := make([]byte, 0, 16+32+8+32)
	b = append(b, "tutti/state/1\x00\x00\x00"...)
	b = append(b, accounts.hash[:]...)
	b = binary.BigEndian.AppendUint64(b, accounts.sum)
	return sha256.Sum256(append(b, meta[:]...))
}
