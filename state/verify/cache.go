package verify

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"sync"

	"tutti/accel/prefetch"
)

// digest names a verdict; see the package comment.
type digest [32]byte

const (
	ways  = 8  // verdicts in a set
	locks = 64 // each guards every locks-th set
)

// cache maps digests to verdicts: a fixed array of sets, each of which forgets its oldest verdict when it needs room.
// First in, first out suits verdicts, which are wanted once or twice soon after they were made. The digest's place
// depends on a seed of this process's, so that nobody can aim at the set of another's transaction.
type cache struct {
	seed maphash.Seed
	mu   [locks]sync.Mutex
	sets []set
}

// set holds up to ways verdicts. The lock of its number guards it. Its first cache line tells where a digest could be.
type set struct {
	tags    [ways]uint32 // see digest.tag
	state   [ways]state
	next    uint8 // where the next one goes
	_       [64 - 4*ways - ways - 1]byte
	digests [ways]digest
}

type state uint8

const (
	empty state = iota
	bad
	good
)

func newCache(entries int) *cache {
	return &cache{seed: maphash.MakeSeed(), sets: make([]set, (entries+ways-1)/ways)}
}

// number is the digest's set. The digest is uniform, so eight of its bytes are enough to spread; the seed makes the place secret.
func (c *cache) number(d *digest) uint64 {
	n, _ := bits.Mul64(maphash.Bytes(c.seed, d[:8]), uint64(len(c.sets)))
	return n
}

// expect has the digest's set brought to the CPU.
func (c *cache) expect(d *digest) { prefetch.Line(&c.sets[c.number(d)]) }

// find locks and returns the digest's set. The caller unlocks.
func (c *cache) find(d *digest) (*set, *sync.Mutex) {
	n := c.number(d)
	mu := &c.mu[n%locks]
	mu.Lock()
	return &c.sets[n], mu
}

// place is where in the set the digest is, -1 if it is not there.
func (s *set) place(d *digest) int {
	tag := d.tag()
	for i := range s.tags {
		if s.tags[i] == tag && s.state[i] != empty && s.digests[i] == *d {
			return i
		}
	}
	return -1
}

func (d *digest) tag() uint32 { return binary.LittleEndian.Uint32(d[8:]) }

func (c *cache) get(d *digest) (verdict, known bool) {
	s, mu := c.find(d)
	defer mu.Unlock()
	i := s.place(d)
	return i >= 0 && s.state[i] == good, i >= 0
}

func (c *cache) put(d *digest, verdict bool) {
	s, mu := c.find(d)
	defer mu.Unlock()
	if s.place(d) >= 0 { // another call was first
		return
	}
	i := s.next
	s.next = (i + 1) % ways
	s.tags[i], s.digests[i], s.state[i] = d.tag(), *d, bad
	if verdict {
		s.state[i] = good
	}
}
