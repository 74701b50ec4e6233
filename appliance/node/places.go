package node

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"slices"

	"tutti/accel/prefetch"
	"tutti/consensus"
	"tutti/state/tx"
)

// place is where a transaction or a consumed receipt stands in the final chain.
type place struct {
	opened  tx.ID // the account that an opening made; zero if none
	height  uint32
	index   uint32            // in the body; of consumed receipts, in bundle order
	dest    consensus.ShardID // where the money went: our own shard, unless a receipt was made
	success bool
}

// placeIndex finds places by id and forgets the oldest beyond its limit. Every transaction of every block comes by here, so
// an entry costs two writes and nothing that the garbage collector looks at: entries are numbered, and lie in a ring; heads
// has for each bucket the number of its newest entry, each entry that of the one before. What has left the ring is known by
// its number. It belongs to whoever holds the lock around it.
type placeIndex struct {
	limit   uint32 // a power of two
	seed    uint64 // odd, so that nobody can choose ids that share a bucket
	newest  uint32 // number of the newest entry; numbers wrap around
	entries []placed
	heads   []uint32 // a power of two
	shift   int      // of an id's product with seed, so that a bucket is left
}

type placed struct {
	id tx.Hash
	place
	before uint32
}

const minPlaces = 1 << 10

// newPlaceIndex makes an empty one; limit is a power of two.
func newPlaceIndex(limit int) placeIndex {
	p := placeIndex{seed: rand.Uint64() | 1, limit: uint32(limit)}
	p.newest = p.limit - 1 // so that entry limit comes first, and the zeros of heads are of no entry
	p.resize(min(limit, minPlaces))
	return p
}

// resize makes as many buckets, a power of two, and links all entries again.
func (p *placeIndex) resize(buckets int) {
	p.heads, p.shift = make([]uint32, buckets), 64-bits.TrailingZeros(uint(buckets))
	for age := uint32(len(p.entries)); age > 0; age-- {
		p.link(p.newest - age + 1)
	}
}

// link puts the entry of a number in front of its bucket.
func (p *placeIndex) link(number uint32) {
	e := &p.entries[number&(p.limit-1)]
	head := p.head(&e.id)
	e.before, *head = *head, number
}

func (p *placeIndex) head(id *tx.Hash) *uint32 {
	return &p.heads[binary.LittleEndian.Uint64(id[:])*p.seed>>p.shift]
}

// expect has brought to the CPU what put looks at first.
func (p *placeIndex) expect(id *tx.Hash) { prefetch.Line(p.head(id)) }

// put enters a place. A transaction that took effect may be tried again in vain, by a batch that has it, too: the place
// where it took effect stays the one that counts.
func (p *placeIndex) put(id *tx.Hash, at place) {
	if !at.success {
		if old := p.find(id); old != nil && old.success {
			return
		}
	}
	if n := len(p.entries); n == len(p.heads) && n < int(p.limit) {
		p.entries = slices.Grow(p.entries, n) // append alone would copy all of it more often
		p.resize(2 * n)
	}
	p.newest++
	if slot := p.newest & (p.limit - 1); int(slot) < len(p.entries) {
		p.entries[slot] = placed{id: *id, place: at}
	} else {
		p.entries = append(p.entries, placed{id: *id, place: at})
	}
	p.link(p.newest)
}

// find is the newest place of an id, nil if there is none.
func (p *placeIndex) find(id *tx.Hash) *place {
	number := *p.head(id)
	for age := p.newest - number; int64(age) < int64(len(p.entries)); {
		e := &p.entries[number&(p.limit-1)]
		if e.id == *id {
			return &e.place
		}
		number = e.before
		if older := p.newest - number; older > age {
			age = older
		} else {
			break // it was overwritten
		}
	}
	return nil
}
