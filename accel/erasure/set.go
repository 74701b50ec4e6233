package erasure

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"tutti/accel/merkle"
)

// Set is a body as shards, with what shows that they are its.
type Set struct {
	code   *Code
	length int
	buf    []byte   // all shards, one after the other: the body, its padding, parity
	shards [][]byte // parts of buf
	leaves [][32]byte
	root   [32]byte
	tree   func() *merkle.Tree // built when the first path is asked for
}

// Encode cuts a body of 1 to MaxLength bytes into shards.
func (c *Code) Encode(body []byte) (*Set, error) {
	size, err := c.ShardBytes(len(body))
	if err != nil {
		return nil, err
	}
	buf := make([]byte, c.n*size)
	copy(buf, body)
	shards := c.cut(buf, size)
	if err := c.Parity(shards); err != nil {
		return nil, err
	}
	return c.commit(buf, shards, len(body)), nil
}

// commit makes the set of the n shards in buf.
func (c *Code) commit(buf []byte, shards [][]byte, length int) *Set {
	s := &Set{code: c, length: length, buf: buf, shards: shards, leaves: make([][32]byte, c.n)}
	merkle.HashMany(s.leaves, buf, len(shards[0]))
	c.tag(s.leaves, length)
	s.root = merkle.ListRoot(s.leaves)
	s.tree = sync.OnceValue(func() *merkle.Tree { return merkle.NewTree(s.leaves, merkle.Depth(c.n)) })
	return s
}

// tagShard is the domain of leaves.
var tagShard = [16]byte{'t', 'u', 't', 't', 'i', '/', 's', 'h', 'a', 'r', 'd', '/', '1'}

const leafBytes = 16 + 2 + 2 + 4 + 32

// tag turns digests of shards into leaves.
func (c *Code) tag(digests [][32]byte, length int) {
	msgs := make([]byte, len(digests)*leafBytes)
	for i := range digests {
		m := msgs[i*leafBytes:][:leafBytes]
		copy(m, tagShard[:])
		binary.BigEndian.PutUint16(m[16:], uint16(c.k))
		binary.BigEndian.PutUint16(m[18:], uint16(c.n))
		binary.BigEndian.PutUint32(m[20:], uint32(length))
		copy(m[24:], digests[i][:])
	}
	merkle.HashMany(digests, msgs, leafBytes)
}

// Commitment is what the header of the body carries, with its length.
func (s *Set) Commitment() [32]byte { return s.root }

// Length is that of the body in bytes.
func (s *Set) Length() int { return s.length }

// Body is the body. It is the set's own: do not change it.
func (s *Set) Body() []byte { return s.buf[:s.length:s.length] }

// Shard is shard i, which is the set's own: do not change it. It panics if there is no shard i.
func (s *Set) Shard(i int) []byte { return s.shards[i] }

// Path shows that shard i is under the commitment. The first call hashes the tree once more, the others cost nothing.
// It panics if there is no shard i.
func (s *Set) Path(i int) [][32]byte { return s.tree().Path(i) }

// Verify is nil if shard is number i of the shards under the commitment to a body of the given length.
func (c *Code) Verify(commitment [32]byte, length, i int, shard []byte, path [][32]byte) error {
	size, err := c.ShardBytes(length)
	switch {
	case err != nil:
		return err
	case i < 0 || i >= c.n:
		return fmt.Errorf("erasure: %w: %d of %d", ErrIndex, i, c.n)
	case len(shard) != size:
		return fmt.Errorf("erasure: %w: shard %d has %d bytes, need %d", ErrSize, i, len(shard), size)
	}
	leaf := [][32]byte{sha256.Sum256(shard)}
	c.tag(leaf, length)
	if !merkle.VerifyList(commitment, uint64(c.n), uint64(i), leaf[0], path) {
		return fmt.Errorf("erasure: %w: shard %d", ErrPath, i)
	}
	return nil
}
