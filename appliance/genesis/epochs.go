package genesis

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"

	"tutti/consensus"
)

// An epoch ends with the block Parameters.EpochBlocks above the last block of the epoch before, or above genesis. Who has the
// seats of the next one is drawn from a block in its middle, so that it is known half an epoch ahead: the seed of epoch e+1 is
//
//	SHA-256(tag "tutti/draw/1" 16, seed of e 32, hash of the block in the middle of e 32)
//
// If there is a seat for everybody in the pool, all keep theirs, and the new seed makes a new leader schedule. Else about an
// eighth of the members, at least one, leave by lot, and as many of the others come in by lot, weighted by power. All have the
// power that genesis gives them. Members are in the order of the pool.
//
// What can be biased: whoever leads the view of the middle block can try as many blocks as it can hash in a view timer, or
// give the view up, and so chooses the best of many draws for itself. It can move no more than those seats, an eighth of
// them, and only in epochs whose middle it happens to lead. An adversary with a share p of the power leads a share p of them. A draw
// that nobody can bias takes randomness that a quorum makes together, which is not here yet.

// EpochEnds reports whether the block at a height is the last of its epoch. start is the height of the last block of the epoch
// before, 0 in the first.
func (g *Genesis) EpochEnds(start, height consensus.Height) bool {
	n := consensus.Height(g.Parameters.EpochBlocks)
	return n != 0 && height == start+n
}

// EpochMiddle is the height of the block that the next committee is drawn from; ok is false if the epoch does not end.
func (g *Genesis) EpochMiddle(start consensus.Height) (at consensus.Height, ok bool) {
	n := consensus.Height(g.Parameters.EpochBlocks)
	return start + n/2, n != 0
}

// NextCommittee is the committee of the epoch after c's, middle the hash of the block in the middle of c's. c is of this genesis.
func (g *Genesis) NextCommittee(c *consensus.Committee, middle consensus.Hash) (*consensus.Committee, error) {
	if int(c.Shard) >= len(g.Shards) {
		return nil, fmt.Errorf("genesis: shard %d: this network has %d", c.Shard, len(g.Shards))
	}
	members, err := g.members(c)
	if err != nil {
		return nil, err
	}
	b := append(append(tagDraw[:], c.Seed[:]...), middle[:]...)
	seed := sha256.Sum256(b)
	l := lots{seed: seed}
	size := g.seats(c.Shard)
	if change := min(max(1, size/8), len(members)-size); change > 0 {
		before := append([]bool(nil), members...)
		for range change {
			g.leave(members, &l)
		}
		// Who has just left does not come back in the same draw.
		for i, was := range before {
			before[i] = was || members[i]
		}
		all := g.fill(c.Shard, before, l, size+change)
		for _, i := range all {
			members[i] = true
		}
	}
	return g.committee(c.Shard, c.Epoch+1, seed, members)
}

// seats is how many seats a committee of the shard has.
func (g *Genesis) seats(shard consensus.ShardID) int {
	n := len(g.Shards[shard].Validators)
	if size := g.Parameters.CommitteeSize; size != 0 {
		return int(min(size, uint64(n)))
	}
	return n
}

// members tells who of the pool has a seat in a committee.
func (g *Genesis) members(c *consensus.Committee) ([]bool, error) {
	pool := g.Shards[c.Shard].Validators
	at := make(map[consensus.PublicKey]int, len(pool))
	for i := range pool {
		at[pool[i].Key] = i
	}
	members := make([]bool, len(pool))
	for _, v := range c.Validators {
		i, ok := at[v.Key]
		if !ok {
			return nil, fmt.Errorf("genesis: the committee of epoch %d of shard %d has a member that is not in the shard's pool", c.Epoch, c.Shard)
		}
		members[i] = true
	}
	return members, nil
}

// committee makes a committee of those of the pool that are members.
func (g *Genesis) committee(shard consensus.ShardID, epoch consensus.Epoch, seed consensus.Hash, members []bool) (*consensus.Committee, error) {
	var validators []consensus.Validator
	for i, v := range g.Shards[shard].Validators {
		if members[i] {
			validators = append(validators, consensus.Validator{Key: v.Key, Node: v.Node, Power: v.Power})
		}
	}
	return consensus.NewCommittee(shard, epoch, seed, validators)
}

// leave takes one member out, each as likely as the others.
func (g *Genesis) leave(members []bool, l *lots) {
	n := uint64(0)
	for _, in := range members {
		if in {
			n++
		}
	}
	k := l.draw(n)
	for i, in := range members {
		if !in {
			continue
		}
		if k == 0 {
			members[i] = false
			return
		}
		k--
	}
}

// fill draws validators of the pool that are not taken, weighted by power, until size are. It returns whom it drew.
func (g *Genesis) fill(shard consensus.ShardID, taken []bool, l lots, size int) (drawn []int) {
	pool := g.Shards[shard].Validators
	have, left := 0, uint64(0)
	for i := range pool {
		if taken[i] {
			have++
		} else {
			left += uint64(pool[i].Power)
		}
	}
	for ; have < size; have++ {
		k := l.draw(left)
		for i := range pool {
			if taken[i] {
				continue
			}
			if p := uint64(pool[i].Power); k >= p {
				k -= p
				continue
			}
			taken[i] = true
			drawn = append(drawn, i)
			left -= uint64(pool[i].Power)
			break
		}
	}
	return drawn
}

// lots are numbers that a seed decides.
type lots struct {
	seed  consensus.Hash
	drawn uint64
}

// draw is the next number below n, which is not 0: 128 bits of SHA-256(tag 16, seed 32, how many were drawn before 8), modulo n.
// Powers have 60 bits together, so no number is likelier than another by more than 2^-68.
func (l *lots) draw(n uint64) uint64 {
	b := binary.BigEndian.AppendUint64(append(append([]byte{}, tagDraw[:]...), l.seed[:]...), l.drawn)
	l.drawn++
	h := sha256.Sum256(b)
	return bits.Rem64(binary.BigEndian.Uint64(h[:]), binary.BigEndian.Uint64(h[8:]), n)
}
