package simplex

import (
	"tutti/consensus"
)

// ballot holds the votes of one kind in one view, at most one a validator.
type ballot struct {
	votes []consensus.Vote // by validator
	state []voteState
	power consensus.Power // of all who ever voted: no quorum here, no quorum for a statement
}

type voteState uint8

const (
	absent   voteState = iota
	pooled             // signature not checked by itself
	verified           // signature checked by itself
	bad                // the validator's place in this ballot is lost
)

// add counts a vote of validator v.Validator (R10). The caller has checked its signature if known says so.
func (m *Machine) add(r *round, v consensus.Vote, known bool) {
	k, i := v.Kind-1, int(v.Validator)
	if r.ballots[k] == nil {
		r.ballots[k] = &ballot{votes: make([]consensus.Vote, m.n), state: make([]voteState, m.n)}
	}
	b := r.ballots[k]
	switch {
	case b.state[i] == absent:
		b.votes[i], b.state[i] = v, pooled
		b.power += m.c.Committee.Validators[i].Power
		if known {
			b.state[i] = verified
		} else if m.distrusted[i] && !m.proven(b, i) {
			return
		}
	case b.votes[i].Statement == v.Statement:
		if known {
			b.votes[i], b.state[i] = v, verified
		}
		return
	default:
		m.contradicts(r, b, v, known)
	}
	m.crossCheck(r, i)
	m.tally(r, k, b.votes[i].Block)
}

// contradicts looks, once, into a second vote of a kind in a view. A slot that a bad signature held is given to a
// vote with a good one.
func (m *Machine) contradicts(r *round, b *ballot, v consensus.Vote, known bool) {
	i := int(v.Validator)
	if !m.accuse(r, i) {
		return
	}
	if !known && !m.c.Keys.Verify(i, consensus.VoteMessage(m.c.Chain, v.Statement), v.Signature) {
		m.blame(i, "vote with a bad signature")
		return
	}
	if first := b.votes[i]; m.proven(b, i) {
		m.apply(Evidence{First: first, Second: v})
	} else {
		b.votes[i], b.state[i] = v, verified
	}
}

// crossCheck looks, once, into a validator's nullify beside its finalize.
func (m *Machine) crossCheck(r *round, i int) {
	n, f := r.ballots[nullify], r.ballots[finalize]
	if n == nil || f == nil || n.state[i] == absent || f.state[i] == absent || n.state[i] == bad || f.state[i] == bad || !m.accuse(r, i) {
		return
	}
	if m.proven(n, i) && m.proven(f, i) {
		m.apply(Evidence{First: n.votes[i], Second: f.votes[i]})
	}
}

// accuse marks validator i's contradiction in a view as looked into; false if it was.
func (m *Machine) accuse(r *round, i int) bool {
	if r.accused == nil {
		r.accused = make([]bool, m.n)
	}
	first := !r.accused[i]
	r.accused[i] = true
	return first
}

// proven checks validator i's vote by itself. A bad one costs it its place.
func (m *Machine) proven(b *ballot, i int) bool {
	if b.state[i] == pooled {
		b.state[i] = verified
		if !m.c.Keys.Verify(i, consensus.VoteMessage(m.c.Chain, b.votes[i].Statement), b.votes[i].Signature) {
			b.state[i] = bad
			m.blame(i, "vote with a bad signature")
		}
	}
	return b.state[i] == verified
}

// tally makes a certificate when the votes for one statement are a quorum: one check of the aggregate, and only if
// that fails a search for the bad ones (R10).
func (m *Machine) tally(r *round, k consensus.Kind, h consensus.Hash) {
	b := r.ballots[k]
	for r.certs[k] == nil && m.c.Committee.IsQuorum(b.power) {
		var power consensus.Power
		var ids []int
		for i := range b.votes {
			if b.state[i] != absent && b.state[i] != bad && b.votes[i].Block == h {
				ids = append(ids, i)
				power += m.c.Committee.Validators[i].Power
			}
		}
		if !m.c.Committee.IsQuorum(power) {
			return
		}
		st := b.votes[ids[0]].Statement
		if sig, ok := m.aggregate(b, ids); ok {
			cert := &consensus.Certificate{Statement: st, Signers: m.signers(ids), Signature: sig}
			m.accept(cert, true)
			return
		}
		if !m.weed(b, ids) {
			return // each is good and all together are not: the keys' implementation is broken, and no vote is to blame
		}
	}
}

func (m *Machine) signers(ids []int) consensus.Signers {
	s := consensus.NewSigners(m.n)
	for _, i := range ids {
		s.Add(i)
	}
	return s
}

// aggregate adds the votes of ids up and checks the sum.
func (m *Machine) aggregate(b *ballot, ids []int) (consensus.Signature, bool) {
	sigs := make([]consensus.Signature, len(ids))
	for j, i := range ids {
		sigs[j] = b.votes[i].Signature
	}
	sig, err := m.c.Keys.Aggregate(sigs)
	return sig, err == nil && m.c.Keys.VerifyAggregate(m.signers(ids), consensus.VoteMessage(m.c.Chain, b.votes[ids[0]].Statement), sig)
}

// weed finds bad votes among ids, which are bad together, by halving. It reports whether it found one.
func (m *Machine) weed(b *ballot, ids []int) (found bool) {
	if len(ids) == 1 {
		return !m.proven(b, ids[0])
	}
	for _, half := range [][]int{ids[:len(ids)/2], ids[len(ids)/2:]} {
		if _, ok := m.aggregate(b, half); !ok {
			found = m.weed(b, half) || found
		}
	}
	return found
}
