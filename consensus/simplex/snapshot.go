package simplex

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"

	"tutti/consensus"
)

// What is in this file serves consensus/explore, which steps one machine into many directions and has to know when two
// of them have come to the same place. It reads the machine only. TestSnapshotFields fails when a field is added to the
// machine's types that it does not know of.

// Clone is an independent copy of the machine: no Step of one is seen by the other. What is never written after it was
// made (headers, bodies, parts, votes, certificates, committee, keys) is shared.
func (m *Machine) Clone() *Machine {
	c := *m
	copies := make(map[*block]*block, len(m.blocks)+2)
	clone := func(b *block) *block {
		if b == nil {
			return nil
		}
		if copies[b] == nil {
			nb := *b
			if b.parts != nil {
				nb.parts = b.parts.Clone()
			}
			copies[b] = &nb
		}
		return copies[b]
	}
	c.root, c.high = clone(m.root), clone(m.high)
	c.blocks = make(map[consensus.Hash]*block, len(m.blocks))
	for h, b := range m.blocks {
		c.blocks[h] = clone(b)
	}
	c.rounds = make([]*round, len(m.rounds))
	for i, r := range m.rounds {
		nr := *r
		nr.proposal, nr.accused = clone(r.proposal), slices.Clone(r.accused)
		for k, b := range r.ballots {
			if b != nil {
				nr.ballots[k] = &ballot{votes: slices.Clone(b.votes), state: slices.Clone(b.state), power: b.power}
			}
		}
		c.rounds[i] = &nr
	}
	c.wants, c.unlogged = slices.Clone(m.wants), slices.Clone(m.unlogged)
	c.distrusted, c.unheard, c.helped = slices.Clone(m.distrusted), slices.Clone(m.unheard), slices.Clone(m.helped)
	return &c
}

// AppendState appends a canonical encoding of what decides which votes the machine will cast, which views it will enter
// and which blocks it will hand over, given the events to come: machines of one committee and of the same power with
// equal encodings, which lead none of the views in question or are the same one, behave alike.
//
// Left out is what decides only when something is said again or logged (age, expired, rotor, helped, sent, unlogged,
// logged, the ticks of wants), what follows from the rest (timed, checked, wants, vote, cut), who signed a certificate, and
// Config. Of how long validators have been silent it says only who is passed over by now (R7): for callers that explore fewer
// than passOver finalities.
// Left out with ballots false are also other validators' votes that are not a certificate yet and the contradictions
// looked into: right for a caller that passes certificates in and no votes.
func (m *Machine) AppendState(b []byte, ballots bool) []byte {
	b = append(b, flags(m.halted, m.syncing, m.ownFinal(), m.over))
	for _, v := range []consensus.View{m.view, m.agreed, m.silent} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	b = append(append(b, m.root.hash[:]...), m.high.hash[:]...)
	for i, d := range m.distrusted {
		b = append(b, flags(d, m.unheard[i] >= passOver))
	}
	for _, r := range m.rounds {
		b = r.append(b, m.c.Index, ballots)
	}
	for _, h := range slices.SortedFunc(maps.Keys(m.blocks), func(x, y consensus.Hash) int { return bytes.Compare(x[:], y[:]) }) {
		held := m.blocks[h]
		b = append(append(b, h[:]...), flags(held.notarized, held.final, held.here, held.rebuilding, held.own != nil), byte(held.verdict))
		if held.parts != nil {
			for i := range m.n {
				b = append(b, flags(held.parts.Of(i)))
			}
		}
	}
	return b
}

// append leaves out a round that nothing is known of: it is there or not for no reason that matters.
func (r *round) append(b []byte, own int, ballots bool) []byte {
	known := r.building || r.settled || r.proposal != nil || !r.block.IsZero()
	for k := range r.certs {
		known = known || r.certs[k] != nil || r.own[k] != nil || (ballots && r.ballots[k] != nil)
	}
	if !known {
		return b
	}
	b = binary.BigEndian.AppendUint64(b, uint64(r.view))
	b = append(b, flags(r.building, r.settled, r.proposal != nil))
	if r.proposal != nil {
		b = append(b, r.proposal.hash[:]...)
	}
	b = append(b, r.block[:]...)
	for k := range r.certs {
		b = append(b, flags(r.certs[k] != nil, r.own[k] != nil))
		if c := r.certs[k]; c != nil {
			b = append(b, c.Block[:]...)
		}
		if v := r.own[k]; v != nil {
			b = append(b, v.Block[:]...)
		}
	}
	if !ballots {
		return b
	}
	for _, a := range r.accused {
		b = append(b, flags(a))
	}
	for k, votes := range r.ballots {
		if votes == nil {
			continue
		}
		for i, s := range votes.state {
			if s != absent && i != own {
				b = append(b, byte(k), byte(s))
				b = binary.BigEndian.AppendUint16(b, uint16(i))
				b = append(b, votes.votes[i].Block[:]...)
			}
		}
	}
	return b
}

func flags(set ...bool) (f byte) {
	for i, s := range set {
		if s {
			f |= 1 << i
		}
	}
	return f
}

// Wanted names the blocks that are being fetched, or will be if they do not come as proposals.
func (m *Machine) Wanted() []consensus.Hash {
	hashes := make([]consensus.Hash, len(m.wants))
	for i, w := range m.wants {
		hashes[i] = w.hash
	}
	return hashes
}
