// Package shredtest makes what only a lying leader makes: parts under a root that is no body's. For tests and simulated
// adversaries only.
package shredtest

import (
	"crypto/sha256"
	"encoding/binary"

	"tutti/accel/merkle"
	"tutti/consensus"
	"tutti/consensus/shred"
)

// Spoilt is a body's shards with one changed, under a root that commits to them all the same: every shard has a good path.
type Spoilt struct {
	Ref    consensus.BodyRef
	c      *consensus.Committee
	shards [][]byte
	tree   *merkle.Tree
}

// Spoil cuts a body of at least 1 byte and changes shard i, below the code's n.
func Spoil(c *consensus.Committee, body []byte, i int) *Spoilt {
	code := c.Code()
	set, err := code.Encode(body)
	if err != nil {
		panic(err)
	}
	s := &Spoilt{c: c, Ref: c.RefOf(set)}
	leaves := make([][32]byte, code.N())
	for k := range leaves {
		shard := append([]byte(nil), set.Shard(k)...)
		if k == i {
			shard[len(shard)-1]++
		}
		s.shards = append(s.shards, shard)
		m := append([]byte("tutti/shard/1"), 0, 0, 0)
		m = binary.BigEndian.AppendUint16(m, uint16(code.K()))
		m = binary.BigEndian.AppendUint16(m, uint16(code.N()))
		m = binary.BigEndian.AppendUint32(m, uint32(len(body)))
		digest := sha256.Sum256(shard)
		leaves[k] = sha256.Sum256(append(m, digest[:]...))
	}
	s.Ref.Root = merkle.ListRoot(leaves)
	s.tree = merkle.NewTree(leaves, merkle.Depth(code.N()))
	return s
}

// Part is validator i's, as shred.Set.Part makes it.
func (s *Spoilt) Part(i int, h *consensus.Header, leader consensus.Vote) *shred.Part {
	p := &shred.Part{Header: h, Vote: leader, Validator: uint16(i)}
	first, end := s.c.Code().Shards(i)
	for k := first; k < min(end, first+s.c.Code().K()); k++ {
		p.Shards, p.Paths = append(p.Shards, s.shards[k]), append(p.Paths, s.tree.Path(k))
	}
	return p
}
