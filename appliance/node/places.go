package node

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"

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
	seed   uint64     // odd, so that nobody can choose ids that share a bucket
	newest uint32     // number of the newest entry; numbers wrap around
	ring   [][]placed // in pieces, nil until it is their turn: a ring that grew in one piece would be copied each time
	heads  []uint32   // as many as entries in the ring, a power of two
	shift  int        // of an id's product with seed, so that a bucket is left
}

type placed struct {
	id tx.Hash
	place
	before uint32
}

// pieceBits is how many bits of an entry's number are its place in a piece of the ring.
const pieceBits = 10

// newPlaceIndex makes an empty one; limit is a power of two, a piece at least.
func newPlaceIndex(limit int) placeIndex {
	return placeIndex{
		seed:   rand.Uint64() | 1,
		newest: uint32(limit), // so that the zeros of heads are of an entry that has left
		ring:   make([][]placed, limit>>pieceBits),
		heads:  make([]uint32, limit),
		shift:  64 - bits.TrailingZeros(uint(limit)),
	}
}

// piece is where the entry of a number lies in the ring, and place where in that piece.
func (p *placeIndex) piece(number uint32) (piece *[]placed, place uint32) {
	at := number & uint32(len(p.heads)-1)
	return &p.ring[at>>pieceBits], at & (1<<pieceBits - 1)
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
	p.newest++
	piece, k := p.piece(p.newest)
	if *piece == nil {
		*piece = make([]placed, 1<<pieceBits)
	}
	head := p.head(id)
	(*piece)[k] = placed{*id, at, *head}
	*head = p.newest
}

// find is the newest place of an id, nil if there is none.
func (p *placeIndex) find(id *tx.Hash) *place {
	number := *p.head(id)
	for age := p.newest - number; int64(age) < int64(len(p.heads)); {
		piece, k := p.piece(number)
		e := &(*piece)[k]
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
