// Package keycache remembers what was computed of keys that come again and again, in bounded memory.
//
// In: keys of 32 bytes with a valid signature, as they come. Out: which of them have come before and deserve the work
// of expansion, several at a time, and later the expanded ones. A key that was seen once leaves four bytes, so a stream
// of ever new keys neither fills the cache nor pays for it. The caller reports only keys whose signature was valid, so
// that nobody fills it with keys that are not his.
//
// Keys are spread over sets by a hash with a random seed; a full set forgets what it has not used for longest. Nothing
// here is fatal, and what the cache holds never changes a verdict.
package keycache

import (
	"hash/maphash"
	"sync"
)

const (
	ways  = 4 // entries of a set
	doors = 8 // keys that a set remembers to have seen
)

// Cache maps keys to immutable values. It is safe for concurrent use.
type Cache[V any] struct {
	seed  maphash.Seed
	sets  []set[V]
	batch int

	mu  sync.Mutex
	due [][32]byte // seen twice, not expanded yet; at most batch
}

// set is owned by its lock.
type set[V any] struct {
	mu      sync.Mutex
	used    int // of entries
	entries [ways]entry[V]
	clock   uint32
	seen    [doors]uint32 // fingerprints, 0 when empty
	oldest  int           // of seen
}

type entry[V any] struct {
	key   [32]byte
	value V
	last  uint32 // the set's clock at the last use
}

// New makes a cache of at least entries keys, which hands out keys to expand batch at a time.
func New[V any](entries, batch int) *Cache[V] {
	n := max(1, (entries+ways-1)/ways)
	return &Cache[V]{seed: maphash.MakeSeed(), sets: make([]set[V], n), batch: batch}
}

// Entries is how many keys there is room for.
func (c *Cache[V]) Entries() int { return ways * len(c.sets) }

func (c *Cache[V]) set(key *[32]byte) (s *set[V], fingerprint uint32) {
	h := maphash.Bytes(c.seed, key[:])
	return &c.sets[h%uint64(len(c.sets))], uint32(h>>32) | 1
}

// Get is the value of a key, if it is known.
func (c *Cache[V]) Get(key *[32]byte) (value V, known bool) {
	s, _ := c.set(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.find(key); e != nil {
		s.clock++
		e.last = s.clock
		return e.value, true
	}
	return value, false
}

func (s *set[V]) find(key *[32]byte) *entry[V] {
	for i := range s.entries[:s.used] {
		if s.entries[i].key == *key {
			return &s.entries[i]
		}
	}
	return nil
}

// Seen reports a key that Get did not know and whose signature is valid. When enough keys have come twice, they are
// handed over to be expanded and Put, by this caller only.
func (c *Cache[V]) Seen(key *[32]byte) (due [][32]byte) {
	s, f := c.set(key)
	if !s.again(f) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.due {
		if c.due[i] == *key {
			return nil
		}
	}
	c.due = append(c.due, *key)
	if len(c.due) < c.batch {
		return nil
	}
	due, c.due = c.due, nil
	return due
}

// again reports whether the fingerprint was seen before, and remembers it.
func (s *set[V]) again(f uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.seen {
		if f == g {
			return true
		}
	}
	s.seen[s.oldest] = f
	s.oldest = (s.oldest + 1) % doors
	return false
}

// Put remembers a key's value, instead of that of the key of its set that has not been used for longest.
func (c *Cache[V]) Put(key *[32]byte, value V) {
	s, _ := c.set(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.find(key)
	switch {
	case e != nil:
	case s.used < ways:
		e = &s.entries[s.used]
		s.used++
	default:
		e = &s.entries[0]
		for i := range s.entries {
			if age := s.clock - s.entries[i].last; age > s.clock-e.last {
				e = &s.entries[i]
			}
		}
	}
	s.clock++
	*e = entry[V]{*key, value, s.clock}
}
