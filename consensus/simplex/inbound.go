package simplex

import (
	"tutti/consensus"
)

// blame reports a validator and takes its place away: its votes are checked one by one from now on, and its
// proposals and certificates dropped (R11). A sender outside the committee has no place here.
func (m *Machine) blame(i int, reason string) {
	if i >= 0 && i < m.n {
		m.distrusted[i] = i != m.c.Index
		m.apply(Misbehaved{Validator: i, Reason: reason})
	}
}

func (m *Machine) trusts(from int) bool { return from < 0 || from >= m.n || !m.distrusted[from] }

// maxView leaves room for sums of views: no epoch gets there.
const maxView = consensus.View(1) << 62

// ours reports whether a statement is of this shard and epoch.
func (m *Machine) ours(st consensus.Statement) bool {
	return st.Shard == m.c.Committee.Shard && st.Epoch == m.c.Committee.Epoch && st.View <= maxView
}

// onProposal takes in a proposal whose body travels whole.
func (m *Machine) onProposal(e ProposalReceived) {
	h, v := e.Proposal.Block.Header, e.Proposal.Vote
	if !m.trusts(e.From) || !m.ours(v.Statement) {
		return
	}
	if h.Body.Codec == consensus.CodecShards {
		m.blame(e.From, "whole body that travels in shards")
		return
	}
	b := &block{Block: e.Proposal.Block, hash: h.Hash(), view: h.View}
	if m.wanted(b.hash) != nil {
		m.onFetched(BlockFetched{From: e.From, Block: b.Block})
	}
	m.propose(e.From, b, v)
}

// propose takes in the proposal of block b, with its leader's vote, if it is the first of its view (R3).
func (m *Machine) propose(from int, b *block, v consensus.Vote) {
	if v.View < m.view || v.View > m.view+m.c.Limits.Window {
		return
	}
	h, i, r := b.Header, m.c.Committee.Leader(v.View), m.at(v.View)
	if p := r.proposal; p != nil && (p.hash == b.hash || (r.accused != nil && r.accused[i])) {
		return
	}
	if i == m.c.Index {
		m.onOwn(from, &v) // own proposals come from the application or the log
		return
	}
	want := consensus.Statement{Kind: consensus.Notarize, Shard: h.Shard, Epoch: h.Epoch, View: h.View, Block: b.hash}
	if int(v.Validator) != i || v.Statement != want {
		m.blame(from, "proposal that is not the leader's")
		return
	}
	if !m.c.Keys.Verify(i, consensus.VoteMessage(m.c.Chain, v.Statement), v.Signature) {
		m.blame(from, "proposal with a bad signature")
		return
	}
	m.add(r, v, true)
	if r.proposal != nil {
		return // not the first
	}
	if old := m.blocks[b.hash]; old != nil {
		b = old // it was fetched before
	}
	if wrong := m.checkProposal(b); wrong != "" {
		b.verdict = invalid
		m.blame(i, wrong)
	}
	b.vote = v
	m.blocks[b.hash], r.proposal = b, b
}

// checkProposal is check, and the body if it travels whole.
func (m *Machine) checkProposal(b *block) string {
	wrong := m.check(b)
	if wrong == "" && !b.here && b.Header.Body.Codec != consensus.CodecShards {
		if b.here = b.Header.Body.Matches(b.Body); !b.here {
			wrong = "body that its header does not commit to"
		}
	}
	return wrong
}

// onVote counts a vote that its own validator sent, if it is near enough (R10), and helps a validator that is behind.
func (m *Machine) onVote(e VoteReceived) {
	v, i := e.Vote, int(e.Vote.Validator)
	if i >= m.n || !m.ours(v.Statement) {
		return
	}
	if i == m.c.Index {
		m.onOwn(e.From, &v)
		return
	}
	if e.From != i {
		m.blame(e.From, "vote of another validator")
		return
	}
	r := m.find(v.View)
	if v.View < m.view && (m.view-v.View > 1 || (r != nil && r.holds(&v))) {
		m.help(i, v.View)
	}
	old := v.View < m.view && m.view-v.View > m.c.Limits.Window
	if v.View <= m.floor() || old || v.View > m.view+m.c.Limits.Window {
		return
	}
	m.add(m.at(v.View), v, false)
}

// holds reports whether this very statement of this validator is held.
func (r *round) holds(v *consensus.Vote) bool {
	b := r.ballots[v.Kind-1]
	return b != nil && b.state[v.Validator] != absent && b.votes[v.Validator].Statement == v.Statement
}

// onCertificate verifies a certificate unless it is held or of no more use.
func (m *Machine) onCertificate(from int, c *consensus.Certificate) {
	if !m.trusts(from) || !m.ours(c.Statement) || c.View < m.root.view {
		return
	}
	if c.View == m.root.view && (c.Kind != consensus.Finalize || m.final.Kind != 0 && m.final.Statement == c.Statement || m.root.Header.Epoch != c.Epoch) {
		return
	}
	if c.View <= m.floor() && c.View > m.root.view {
		return
	}
	if r := m.find(c.View); r != nil && r.certs[c.Kind-1] != nil && r.certs[c.Kind-1].Statement == c.Statement {
		return
	}
	if err := m.c.Committee.VerifyCertificate(m.c.Chain, m.c.Keys, c); err != nil {
		m.blame(from, err.Error())
		return
	}
	if m.c.Index >= 0 && c.Signers.Has(m.c.Index) && m.foreign(c.Statement) {
		m.apply(KeyElsewhere{Statement: c.Statement})
	}
	m.accept(c, false)
}

// onOwn looks into a vote of this machine's own validator that somebody sent. Only one that this machine did not cast
// costs a check (R18).
func (m *Machine) onOwn(from int, v *consensus.Vote) {
	if int(v.Validator) != m.c.Index || !m.trusts(from) || !m.foreign(v.Statement) {
		return
	}
	if !m.c.Keys.Verify(m.c.Index, consensus.VoteMessage(m.c.Chain, v.Statement), v.Signature) {
		if from != m.c.Index { // who has this node's own key for the network is no validator to blame
			m.blame(from, "vote of another validator with a bad signature")
		}
		return
	}
	m.apply(KeyElsewhere{Statement: v.Statement})
}

// foreign reports whether a statement is one that this machine did not sign, though it would hold its vote if it had: in
// views up to the highest finalization held, and up to the floor, the log need not have it any more, or never had (R18).
func (m *Machine) foreign(st consensus.Statement) bool {
	if st.View <= max(m.agreed, m.root.view, m.silent) {
		return false
	}
	r := m.find(st.View)
	return r == nil || r.own[st.Kind-1] == nil || r.own[st.Kind-1].Statement != st
}

// accept takes in a verified certificate, which made says this machine put together itself, and follows it into the
// next view (R1).
func (m *Machine) accept(c *consensus.Certificate, made bool) {
	if c.View <= m.root.view {
		if c.View == m.root.view && c.Kind == consensus.Finalize {
			if c.Block != m.root.hash {
				var against *consensus.Certificate
				if m.final.Kind == consensus.Finalize && m.final.Block == m.root.hash {
					final := m.final
					against = &final
				}
				m.halt(c, against, "two blocks final in one view")
				return
			}
			m.final = *c
		}
		return
	}
	k, r := c.Kind-1, m.at(c.View)
	switch {
	case c.Kind == consensus.Nullify && r.certs[finalize] != nil:
		m.halt(c, r.certs[finalize], "a view both final and nullified")
		return
	case c.Kind == consensus.Finalize && r.certs[nullify] != nil:
		m.halt(c, r.certs[nullify], "a view both final and nullified")
		return
	case c.Kind != consensus.Nullify && !r.block.IsZero() && r.block != c.Block:
		m.halt(c, r.certs[k], "two blocks notarized in one view") // the block may be known by a descendant, or another kind
		return
	case r.certs[k] != nil:
		return
	}
	r.certs[k] = c
	m.unlogged = append(m.unlogged, *c)
	if made && (m.leads(c.View) || m.leads(c.View+1)) {
		r.sent[k] = true
		m.send(Outbound{To: ToAll, Cert: c})
	}
	if c.Kind != consensus.Nullify {
		r.block = c.Block
	}
	if c.Kind == consensus.Finalize {
		m.agreed = max(m.agreed, c.View)
	}
	if c.Kind != consensus.Notarize {
		m.enter(c.View + 1)
	}
}

// onJudged takes a verdict in; settle acts on it.
func (m *Machine) onJudged(e Judged) {
	b := m.blocks[e.Block]
	switch {
	case b != nil && b.verdict == asked && e.Valid:
		b.verdict = valid
	case b != nil && b.verdict == asked:
		b.verdict = invalid
	case b == nil && e.Valid && e.Block != m.root.hash:
		m.apply(Abandoned{Block: e.Block}) // dropped while it was judged
	}
}

// onSynced moves to where block sync has brought the application (R13).
func (m *Machine) onSynced(e Synced) {
	m.syncing = false
	if e.Header.Height <= m.root.Header.Height || !m.ours(e.Cert.Statement) {
		return
	}
	b := &block{Block: consensus.Block{Header: e.Header}, hash: e.Header.Hash(), view: e.Header.View}
	m.agreed = max(m.agreed, e.Cert.View)
	b.notarized, b.here, b.logged, b.final, b.verdict = true, true, true, true, valid
	m.reroot(b, e.Cert) // what is left above has no verdict: else its chain would have been whole, and no sync needed
}
