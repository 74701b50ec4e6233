package verify

import (
	"hash/maphash"
	"math/bits"
	"sync"
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

// set holds up to ways verdicts. The lock of its number guards it.
type set struct {
	digests [ways]digest
	state   [ways]state
	next    uint8 // where the next one goes
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

// find locks and returns the digest's set. The caller unlocks.
func (c *cache) find(d *digest) (*set, *sync.Mutex) {
	// The digest is uniform, so its first eight bytes are enough to spread; the seed makes the place secret.
	n, _ := bits.Mul64(maphash.Bytes(c.seed, d[:8]), uint64(len(c.sets)))
	mu := &c.mu[n%locks]
	mu.Lock()
	return &c.sets[n], mu
}

func (c *cache) get(d *digest) (verdict, known bool) {
	s, mu := c.find(d)
	defer mu.Unlock()
	for i := range s.digests {
		if s.state[i] != empty && s.digests[i] == *d {
			return s.state[i] == good, true
		}
	}
	return false, false
}

func (c *cache) put(d *digest, verdict bool) {
	s, mu := c.find(d)
	defer mu.Unlock()
	for i := range s.digests {
		if s.state[i] != empty && s.digests[i] == *d { // another call was first
			return
		}
	}
	i := s.next
	s.next = (i + 1) % ways
	s.digests[i], s.state[i] = *d, bad
	if verdict {
		s.state[i] = good
	}
}
