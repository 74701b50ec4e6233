package simplex

import (
	"slices"

	"tutti/consensus"
)

// Bounds of what is sent again.
const (
	repeatTicks = 2 // ticks in a view before messages are repeated, and between repetitions
	repeatMost  = 8 // rounds whose votes, nullifications or certificates go out at a time
	fetchTicks  = 8 // at most, from one Fetch of a block to the next
)

// onTick repeats what may have been lost if the view has lasted (R14).
func (m *Machine) onTick() {
	m.age++
	for i := range m.helped {
		m.helped[i] = false
	}
	if m.age%repeatTicks == 0 {
		m.repeat(m.age > repeatTicks && m.age&(m.age-1) == 0)
	}
}

// repeat sends to all what a peer needs to get here, and to the rest of the committee the own votes that still count;
// with proposal also the own proposal, or the own part of another's.
func (m *Machine) repeat(proposal bool) {
	if m.c.Index < 0 {
		return
	}
	if m.final.Kind != 0 {
		final := m.final
		m.send(Outbound{To: ToAll, Cert: &final})
	}
	if r := m.find(m.high.view); r != nil && r.certs[notarize] != nil {
		m.send(Outbound{To: ToAll, Cert: r.certs[notarize]})
	}
	m.repeatNullifications()
	left := repeatMost
	for i := len(m.rounds) - 1; i >= 0 && left > 0; i-- {
		r := m.rounds[i]
		for k, v := range r.own {
			if v != nil && r.certs[k] == nil && (r.view >= m.high.view || k == finalize) {
				m.send(Outbound{To: ToAll, Vote: v})
				left--
			}
		}
	}
	if r := m.find(m.view); proposal && r != nil && r.proposal != nil && r.votedFor(r.proposal) {
		m.repeatProposal(r)
	}
}

// repeatProposal sends the current view's proposal, if it is an own one, to those who did not vote for it; else the own
// part of it, to those who did not vote it final: they may lack the body.
func (m *Machine) repeatProposal(r *round) {
	lacks := func(kind int) func(int) bool {
		return func(i int) bool {
			b := r.ballots[kind]
			return b == nil || b.state[i] == absent || b.votes[i].Block != r.proposal.hash
		}
	}
	if !m.leads(m.view) {
		m.relay(r.proposal, lacks(finalize))
		return
	}
	for i := range m.n {
		if i != m.c.Index && lacks(notarize)(i) {
			m.sendProposalTo(i, r.proposal)
		}
	}
}

// repeatNullifications sends some nullifications of views between the highest certified one and the current, in turn.
func (m *Machine) repeatNullifications() {
	first := m.search(m.high.view + 1)
	span := m.search(m.view) - first
	for range min(span, repeatMost) {
		m.rotor++
		if r := m.rounds[first+m.rotor%span]; r.certs[nullify] != nil {
			m.send(Outbound{To: ToAll, Cert: r.certs[nullify]})
		}
	}
}

// help sends a validator that is seen in an earlier view, at most once between two Ticks, what leads out of it.
func (m *Machine) help(to int, from consensus.View) {
	if m.helped[to] || m.c.Index < 0 {
		return
	}
	m.helped[to] = true
	if m.ownFinal() && m.final.View >= from {
		final := m.final
		m.send(Outbound{To: to, Cert: &final})
	}
	first := m.search(from)
	for _, r := range m.rounds[first:min(first+repeatMost, m.search(m.view))] {
		for _, c := range r.certs {
			if c != nil {
				m.send(Outbound{To: to, Cert: c})
			}
		}
	}
}

// want is a block to be fetched. Every want has a verified certificate behind it: for the block or for a descendant.
type want struct {
	hash  consensus.Hash
	view  consensus.View // 0: not known
	ticks int            // since it was noticed
}

func (m *Machine) wanted(h consensus.Hash) *want {
	for i := range m.wants {
		if m.wants[i].hash == h {
			return &m.wants[i]
		}
	}
	return nil
}

// updateWants brings the wants up to date: notarized blocks that are not here, and missing parents of those that are
// (R13). A block of the current view or a later one may be on its way as a proposal, and parts of one whose header is here, so the
// first Fetch waits.
func (m *Machine) updateWants() {
	old := m.wants
	m.wants = nil
	note := func(h consensus.Hash, v consensus.View, coming bool) {
		if m.wanted(h) != nil {
			return
		}
		w := want{hash: h, view: v}
		if i := slices.IndexFunc(old, func(o want) bool { return o.hash == h }); i >= 0 {
			w.ticks = old[i].ticks
		} else if (v < m.view && !coming) || m.c.Index < 0 {
			m.apply(Fetch{Block: h, View: v})
		}
		m.wants = append(m.wants, w)
	}
	for _, r := range m.rounds {
		if r.block.IsZero() || m.syncing {
			continue
		}
		b := m.blocks[r.block]
		if b == nil {
			note(r.block, r.view, false)
			continue
		}
		if !b.here && !b.rebuilding && b.verdict == unknown {
			note(r.block, r.view, true)
		}
		over := b.Header.Height - m.root.Header.Height
		if m.get(b.Header.Parent) == nil && b.verdict != invalid && over > 1 && over <= m.c.Limits.TailDepth {
			note(b.Header.Parent, 0, false)
		}
	}
	for _, w := range old {
		if m.wanted(w.hash) == nil {
			m.apply(CancelFetch{Block: w.hash})
		}
	}
}

// repeatFetches asks again, at growing distances up to fetchTicks.
func (m *Machine) repeatFetches() {
	for i := range m.wants {
		w := &m.wants[i]
		if w.ticks++; w.ticks > 1 && (w.ticks&(w.ticks-1) == 0 || w.ticks%fetchTicks == 0) {
			m.apply(Fetch{Block: w.hash, View: w.view})
		}
	}
}

// expected reports whether a block, which may lack its body, is wanted.
func (m *Machine) expected(b *block) bool {
	w := m.wanted(b.hash)
	return w != nil && b.view > m.root.view && b.view <= maxView && (w.view == 0 || w.view == b.view)
}

// named takes in an expected block: it is notarized. It reports whether that contradicts nothing.
func (m *Machine) named(b *block) bool {
	if m.blocks[b.hash] == nil { // else it came as a proposal
		m.blocks[b.hash] = b
	}
	r := m.at(b.view)
	if !r.block.IsZero() && r.block != b.hash {
		m.halt(m.evidence(r), nil, "two blocks notarized in one view")
		return false
	}
	r.block = b.hash
	return true
}

// onFetched takes in a block that was asked for (R13).
func (m *Machine) onFetched(e BlockFetched) {
	b := &block{Block: e.Block, hash: e.Block.Header.Hash(), view: e.Block.Header.View}
	if !m.trusts(e.From) || !m.expected(b) {
		return
	}
	if b.here = e.Block.Header.Body.Matches(e.Block.Body); !b.here {
		m.blame(e.From, "block with another body")
		return
	}
	if !m.named(b) {
		return
	}
	if held := m.blocks[b.hash]; !held.here { // only its header was
		held.Body, held.here, held.parts = b.Body, true, nil
	}
	if c := e.Notarization; c.Kind == consensus.Notarize && c.Block == b.hash {
		m.onCertificate(e.From, &c)
	}
}

// Status is a look at a machine for logs, metrics and checks of its bounds.
type Status struct {
	View    consensus.View
	Leader  int               // of View
	Final   *consensus.Header // the last final block
	Highest *consensus.Header // the highest certified block
	Rounds  int               // views with anything known above Final's
	Blocks  int               // blocks held above Final
	Fetches int               // blocks being fetched
	Syncing bool              // a SyncNeeded waits for its Synced
	Silent  bool              // the view is not above the floor yet: no own vote leaves (R17)
	Over    bool              // Final is the last block of the epoch (R22)
	Halted  bool
}

// Status describes the machine.
func (m *Machine) Status() Status {
	return Status{
		View: m.view, Leader: m.c.Committee.Leader(m.view), Final: m.root.Header, Highest: m.high.Header,
		Rounds: len(m.rounds), Blocks: len(m.blocks), Fetches: len(m.wants), Syncing: m.syncing,
		Silent: m.view <= m.silent, Over: m.over, Halted: m.halted,
	}
}

// Final is the last final block and the certificate that finalizes it, or an echo of it; zero if the machine started
// without one.
func (m *Machine) Final() (*consensus.Header, consensus.Certificate) { return m.root.Header, m.final }

// Leading is the certificate of the highest view that is held, zero if none is: what a validator tells another that has
// to make a floor. ok is false while the machine must not tell: it is not above its own floor, or the epoch may be over (R17).
func (m *Machine) Leading() (cert consensus.Certificate, ok bool) {
	if m.view <= m.silent {
		return cert, false
	}
	if m.mayBeOver() {
		return cert, false
	}
	for i := len(m.rounds) - 1; i >= 0; i-- {
		for _, c := range m.rounds[i].certs {
			if c != nil {
				return *c, true
			}
		}
	}
	if m.ownFinal() {
		return m.final, true
	}
	return cert, m.root.view == 0
}

// Header is the header of a block above the final one, be its body here or not; nil if it is not known.
func (m *Machine) Header(h consensus.Hash) *consensus.Header {
	if b := m.blocks[h]; b != nil {
		return b.Header
	}
	return nil
}

// Block is a block above the final one, for peers that fetch it, with its notarization, zero if there is none here.
func (m *Machine) Block(h consensus.Hash) (b consensus.Block, notarization consensus.Certificate, ok bool) {
	held := m.blocks[h]
	if held == nil || !held.here {
		return b, notarization, false
	}
	if r := m.find(held.view); r != nil && r.block == h && r.certs[notarize] != nil {
		notarization = *r.certs[notarize]
	}
	return held.Block, notarization, true
}
