package simplex

import (
	"tutti/consensus"
	"tutti/consensus/shred"
)

// onPart takes in a part, and by it the header of a proposal or of a notarized block that is not here (R3, R19).
func (m *Machine) onPart(e PartReceived) {
	p, v := e.Part, e.Part.Vote
	b := &block{Block: consensus.Block{Header: p.Header}, hash: p.Header.Hash(), view: p.Header.View}
	if !m.trusts(e.From) || !m.ours(v.Statement) {
		return
	}
	i, leader := int(p.Validator), m.c.Committee.Leader(v.View)
	switch {
	case p.Header.Body.Codec != consensus.CodecShards || v.View != b.view || v.Block != b.hash:
		m.blame(e.From, "part of something else than its header's body")
		return
	case i != e.From && (e.From != leader || i != m.c.Index):
		m.blame(e.From, "part of another validator")
		return
	}
	if m.blocks[b.hash] == nil && m.expected(b) && !m.named(b) {
		return
	}
	m.propose(e.From, b, v)
	if b = m.blocks[b.hash]; b != nil && b.verdict != invalid && m.check(b) == "" {
		m.collect(b, e.From, p)
	}
}

// collect keeps a part of a body that is not here, or the own one, if its shards are under the header's root. With enough
// of them the body is rebuilt (R19).
func (m *Machine) collect(b *block, from int, p *shred.Part) {
	own := int(p.Validator) == m.c.Index && m.lacksOwn(b)
	missing := !b.here && !b.rebuilding
	if missing && b.parts == nil {
		a, err := shred.NewAssembly(m.c.Committee, b.Header.Body)
		if err != nil {
			return // check has found nothing wrong: there is no such case
		}
		b.parts = a
	}
	var err error
	switch {
	case missing && b.parts.Wants(int(p.Validator)):
		err = b.parts.Add(p)
	case own:
		err = shred.Check(m.c.Committee, p)
	default:
		return
	}
	if err != nil {
		m.blame(from, "part with bad shards")
		return
	}
	if own {
		b.own = m.passed(b, p)
	}
	if missing && b.parts.Ready() {
		m.apply(Rebuild{Block: b.hash, Parts: b.parts})
		b.parts, b.rebuilding = nil, true
	}
}

// lacksOwn reports whether the own part of another's proposal is of use and not here.
func (m *Machine) lacksOwn(b *block) bool {
	return m.c.Index >= 0 && b.own == nil && b.view >= m.view && b.vote.Kind != 0
}

// passed is the own part as it is passed on: with the leader's vote that was checked.
func (m *Machine) passed(b *block, p *shred.Part) *shred.Part {
	c := *p
	c.Header, c.Vote = b.Header, b.vote
	return &c
}

// onRebuilt takes in a body that was rebuilt, or the verdict that there is none (R5, R19).
func (m *Machine) onRebuilt(e Rebuilt) {
	b := m.blocks[e.Block]
	if b == nil {
		return
	}
	b.rebuilding = false
	switch {
	case b.here: // fetched in the meantime
	case e.Shreds == nil:
		if b.verdict == unknown {
			b.verdict = invalid
			m.blame(m.c.Committee.Leader(b.view), "shards that are no body's")
		}
	case e.Shreds.Ref() == b.Header.Body:
		b.Body, b.here, b.parts = e.Shreds.Body(), true, nil
		if m.lacksOwn(b) {
			b.own = m.passed(b, e.Shreds.Part(m.c.Index, b.Header, b.vote).Clone())
		}
	}
}

// takeOwn checks the body of an own proposal against its header, and cuts it up if it is to travel in shards and the
// caller has not.
func (m *Machine) takeOwn(b *block) bool {
	if b.Header.Body.Codec != consensus.CodecShards {
		b.cut, b.here = nil, b.Header.Body.Matches(b.Body)
		return b.here
	}
	if b.cut != nil {
		b.Body = b.cut.Body()
	} else if !m.recut(b) {
		return false
	}
	b.here = b.cut.Ref() == b.Header.Body
	return b.here
}

// recut cuts up an own proposal.
func (m *Machine) recut(b *block) bool {
	set, err := shred.Cut(m.c.Committee, b.Body)
	b.cut = set
	return err == nil
}

// sendProposal sends an own proposal to all: whole, or to each validator its part of it. The own part goes to all where
// this validator has so much of the power that the others' parts might not be enough.
func (m *Machine) sendProposal(b *block) {
	if b.Header.Body.Codec != consensus.CodecShards {
		m.send(Outbound{To: ToAll, Proposal: &consensus.Proposal{Block: b.Block, Vote: b.vote}})
		return
	}
	for i := range m.n {
		if i != m.c.Index {
			m.sendProposalTo(i, b)
		}
	}
}

// sendProposalTo sends an own proposal to one validator.
func (m *Machine) sendProposalTo(i int, b *block) {
	if b.Header.Body.Codec != consensus.CodecShards {
		m.send(Outbound{To: i, Proposal: &consensus.Proposal{Block: b.Block, Vote: b.vote}})
		return
	}
	if b.cut == nil && !m.recut(b) { // it is from the log
		return
	}
	m.send(Outbound{To: i, Part: b.cut.Part(i, b.Header, b.vote)})
	if c := m.c.Committee; 3*c.Validators[m.c.Index].Power >= c.Total() {
		if b.own == nil {
			b.own = b.cut.Part(m.c.Index, b.Header, b.vote)
		}
		m.send(Outbound{To: i, Part: b.own})
	}
}

// relay passes the own part of another's proposal on, to those who lack it by the caller's judgement. The leader has the
// body.
func (m *Machine) relay(b *block, lacks func(int) bool) {
	if b.own == nil {
		return
	}
	leader := m.c.Committee.Leader(b.view)
	for i := range m.n {
		if i != m.c.Index && i != leader && lacks(i) {
			m.send(Outbound{To: i, Part: b.own})
		}
	}
}
