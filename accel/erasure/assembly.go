package erasure

import (
	"fmt"
)

// Assembly collects shards of one body until there are enough. It holds at most the n shards of one set, and nothing
// before the first shard has passed. Not safe for concurrent use.
type Assembly struct {
	code       *Code
	commitment [32]byte
	length     int
	size       int
	buf        []byte // room for all shards, in their places; nil before the first
	have       []bool // which of them are there
	count      int
	done       bool // Rebuild has come to a verdict: rebuilt or malformed
	rebuilt    *Set
}

// NewAssembly expects the shards of a body of the given length under the commitment.
func (c *Code) NewAssembly(commitment [32]byte, length int) (*Assembly, error) {
	size, err := c.ShardBytes(length)
	if err != nil {
		return nil, err
	}
	return &Assembly{code: c, commitment: commitment, length: length, size: size, have: make([]bool, c.n)}, nil
}

// Add takes shard i if its path shows that it is under the commitment. It refuses one that is there already before it
// hashes anything.
func (a *Assembly) Add(i int, shard []byte, path [][32]byte) error {
	if i >= 0 && i < a.code.n && (a.done || a.have[i]) {
		return fmt.Errorf("erasure: %w: %d", ErrDuplicate, i)
	}
	if err := a.code.Verify(a.commitment, a.length, i, shard, path); err != nil {
		return err
	}
	if a.buf == nil {
		a.buf = make([]byte, a.code.n*a.size)
	}
	copy(a.buf[i*a.size:], shard)
	a.have[i] = true
	a.count++
	return nil
}

// Has reports whether shard i is there.
func (a *Assembly) Has(i int) bool { return i >= 0 && i < a.code.n && a.have[i] }

// Ready reports whether there are enough shards for a verdict.
func (a *Assembly) Ready() bool { return a.count >= a.code.k }

// Rebuild decodes the body from k shards, encodes it again and compares the commitment. The error is ErrTooFew if
// shards are missing still, and ErrMalformed if the commitment is not to one body's shards, with zeros for padding:
// then nobody can rebuild a body from any shards under it. Either verdict is final; asking again costs nothing.
func (a *Assembly) Rebuild() (*Set, error) {
	if !a.Ready() {
		return nil, fmt.Errorf("erasure: %w: %d, need %d", ErrTooFew, a.count, a.code.k)
	}
	if !a.done {
		set, err := a.rebuild()
		if err != nil {
			return nil, err
		}
		a.done, a.rebuilt, a.buf = true, set, nil
	}
	if a.rebuilt == nil {
		return nil, fmt.Errorf("erasure: %w", ErrMalformed)
	}
	return a.rebuilt, nil
}

// rebuild is nil if the commitment is malformed. It works in the assembly's buffer, which the set then owns. An error
// would be a fault of the library's or the caller's, never of the shards.
func (a *Assembly) rebuild() (*Set, error) {
	c := a.code
	shards := c.cut(a.buf, a.size)
	// Exactly k shards go in, the first that are there: k shards always lie on one codeword, more might not, and then
	// the result would depend on the decoder.
	known := make([][]byte, c.n)
	left := c.k
	for i := range known {
		if a.have[i] && left > 0 {
			known[i] = shards[i]
			left--
		} else {
			known[i] = shards[i][:0] // decoded in place
		}
	}
	if err := c.Recover(known); err != nil {
		return nil, err
	}
	for _, b := range a.buf[a.length : c.k*a.size] {
		if b != 0 {
			return nil, nil
		}
	}
	if err := c.Parity(shards); err != nil {
		return nil, err
	}
	set := c.commit(a.buf, shards, a.length)
	if set.root != a.commitment {
		return nil, nil
	}
	return set, nil
}
