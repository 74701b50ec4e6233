// Package simtest holds voting keys without cryptography and the committees made of them: for tests only, never to be
// imported by a product package. A signature is a SHA-256 tag under a secret in its first half, an aggregate is the
// exclusive or of tags, so a tampered or missing signature is noticed like a real one, at a thousandth of the cost.
package simtest

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"tutti/consensus"
)

// Keys are the keys of a committee's members, and the secrets to them. It implements consensus.Keys.
type Keys struct{ members []int }

// NewKeys are the keys of a committee of the members 0 to n-1.
func NewKeys(n int) Keys {
	members := make([]int, n)
	for i := range members {
		members[i] = i
	}
	return Keys{members}
}

// KeysOf are the keys of a committee of these members.
func KeysOf(members []int) Keys { return Keys{members} }

func tag(i int, msg []byte) (s consensus.Signature) {
	b := binary.BigEndian.AppendUint64([]byte("simtest"), uint64(i))
	h := sha256.Sum256(append(b, msg...))
	copy(s[:], h[:])
	return s
}

// Verify checks one signature.
func (k Keys) Verify(i int, msg []byte, sig consensus.Signature) bool {
	return i < len(k.members) && tag(k.members[i], msg) == sig
}

// VerifyAggregate checks an aggregate.
func (k Keys) VerifyAggregate(signers consensus.Signers, msg []byte, sig consensus.Signature) bool {
	var want consensus.Signature
	for i, member := range k.members {
		if signers.Has(i) {
			t := tag(member, msg)
			xor(&want, &t)
		}
	}
	return want == sig
}

// Aggregate adds signatures up. Like points that are not in the group, signatures with a non-zero last byte are refused.
func (k Keys) Aggregate(sigs []consensus.Signature) (sum consensus.Signature, err error) {
	for i := range sigs {
		if sigs[i][95] != 0 {
			return sum, errors.New("simtest: not a signature")
		}
		xor(&sum, &sigs[i])
	}
	return sum, nil
}

func xor(a, b *consensus.Signature) {
	for i := range 32 {
		a[i] ^= b[i]
	}
}

type signer int

func (s signer) Sign(msg []byte) consensus.Signature { return tag(int(s), msg) }

// Signer signs as validator i.
func (k Keys) Signer(i int) consensus.Signer { return signer(k.members[i]) }

// Chain is the genesis hash of test chains.
var Chain = consensus.Hash(sha256.Sum256([]byte("simtest chain")))

// Committee is a committee of shard 3, epoch 0, with these powers. The seed makes the leader schedule.
func Committee(seed uint64, powers ...consensus.Power) *consensus.Committee {
	return Members(0, seed, NewKeys(len(powers)).members, powers)
}

// Members is a committee of shard 3 of these members, ascending, with these powers.
func Members(epoch consensus.Epoch, seed uint64, members []int, powers []consensus.Power) *consensus.Committee {
	vs := make([]consensus.Validator, len(powers))
	for i, p := range powers {
		vs[i].Power = p
		binary.BigEndian.PutUint64(vs[i].Key[:], uint64(members[i])+1)
	}
	var s consensus.Hash
	binary.BigEndian.PutUint64(s[:], seed)
	c, err := consensus.NewCommittee(3, epoch, s, vs)
	if err != nil {
		panic(err)
	}
	return c
}

// Genesis is the first block of a test chain with committee c.
func Genesis(c *consensus.Committee) *consensus.Header {
	return &consensus.Header{
		Version: consensus.HeaderVersion, Chain: Chain, Shard: c.Shard, Epoch: c.Epoch, TimeMs: 1,
		Body: consensus.NewBodyRef(nil), Committee: c.Hash(), NextCommittee: c.Hash(),
	}
}

// Child is a block with this body on a parent, one millisecond later.
func Child(c *consensus.Committee, parent *consensus.Header, view consensus.View, body []byte) consensus.Block {
	return consensus.Block{Body: body, Header: &consensus.Header{
		Version: consensus.HeaderVersion, Chain: Chain, Shard: c.Shard, Epoch: c.Epoch, View: view,
		Height: parent.Height + 1, TimeMs: parent.TimeMs + 1, Parent: parent.Hash(), Body: consensus.NewBodyRef(body),
		Committee: c.Hash(), NextCommittee: c.Hash(),
	}}
}
