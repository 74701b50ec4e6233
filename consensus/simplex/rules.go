package simplex

import (
	"tutti/consensus"
)

// connect marks as notarized what a certificate names and, downwards, its ancestors: honest validators notarize only
// on a parent they certified, so a notarized block vouches for the notarization of its parent (R4).
func (m *Machine) connect() (changed bool) {
	for i := len(m.rounds) - 1; i >= 0; i-- {
		b := m.blocks[m.rounds[i].block]
		if b == nil {
			continue
		}
		if b.view != m.rounds[i].view {
			m.halt(m.evidence(m.rounds[i]), nil, "a certificate of one view names a block of another")
			return false
		}
		changed = changed || !b.notarized
		b.notarized = true
		p := m.get(b.Header.Parent)
		if p == nil || p.notarized || p.view >= b.view {
			continue
		}
		r := m.at(p.view)
		if !r.block.IsZero() && r.block != p.hash {
			m.halt(m.evidence(r), nil, "two blocks notarized in one view")
			return false
		}
		r.block, p.notarized, changed = p.hash, true, true
		i = m.search(b.view) // at may have moved the rounds
	}
	return changed
}

// evidence is the certificate of a round that named its block, or the best there is.
func (m *Machine) evidence(r *round) *consensus.Certificate {
	for _, k := range []int{finalize, notarize} {
		if c := r.certs[k]; c != nil {
			return c
		}
	}
	return &m.final
}

// judge asks for the verdict on every block that is notarized, or that this validator voted to notarize, once its
// parent is valid (R5).
func (m *Machine) judge() (changed bool) {
	for _, r := range m.rounds {
		for _, b := range []*block{m.blocks[r.block], r.proposal} {
			if b == nil || b.verdict != unknown || !(b.notarized || r.votedFor(b)) {
				continue
			}
			p := m.get(b.Header.Parent)
			switch {
			case p == nil && b.Header.Height > m.root.Header.Height+1, p != nil && (p.verdict == unknown || p.verdict == asked):
				// wait for the parent
			case p == nil || p.verdict == invalid || m.check(b) != "" || m.checkChild(b, p) != "":
				b.verdict, changed = invalid, true
			case b.Header.IsEcho():
				b.verdict, changed = valid, true
			case !b.here:
				// wait for the body
			case !m.syncing && b.Header.Height <= m.root.Header.Height+m.c.Limits.TailDepth:
				b.verdict, changed = asked, true
				m.apply(Certify{Block: b.Block})
			}
		}
	}
	return changed
}

func (r *round) votedFor(b *block) bool {
	return r.own[notarize] != nil && r.own[notarize].Block == b.hash
}

// check is what a header must be whatever its parent; it returns what is wrong or "".
func (m *Machine) check(b *block) string {
	h, c := b.Header, m.c.Committee
	switch {
	case b.checked:
	case h.Version != consensus.HeaderVersion:
		return "header of an unknown version"
	case h.Chain != m.c.Chain || h.Shard != c.Shard || h.Epoch != c.Epoch:
		return "header of another chain, shard or epoch"
	case h.Committee != c.Hash():
		return "header with a wrong committee"
	case h.IsEcho() && !h.Ends():
		return "echo in an epoch that goes on"
	default:
		if wrong := c.CheckBodyRef(h.Body); wrong != "" {
			return wrong
		}
	}
	b.checked = true
	return ""
}

// checkChild is what a header must be on its parent; it returns what is wrong or "".
func (m *Machine) checkChild(b, p *block) string {
	switch h := b.Header; {
	case h.Parent != p.hash:
		return "header on another parent"
	case h.Height != p.Header.Height+1:
		return "header with a wrong height"
	case h.TimeMs <= p.Header.TimeMs:
		return "header no later than its parent"
	case b.view <= p.view:
		return "header of a view not above its parent's"
	case m.ends(p) && consensus.Echo(p.Header, h.View).Hash() != b.hash:
		return "no echo on a block that ends its epoch"
	case !m.ends(p) && h.IsEcho():
		return "echo on a block that does not end its epoch"
	}
	return ""
}

// advance acts on verdicts: a certified block ends its view and is voted final, an invalid one is nullified (R6, R7).
func (m *Machine) advance() (changed bool) {
	for _, r := range m.rounds {
		b := m.blocks[r.block]
		if r.settled || b == nil {
			continue
		}
		switch b.verdict {
		case valid:
			m.cast(consensus.Finalize, r.view, b.hash)
			if b.view > m.high.view {
				m.high = b
			}
			m.enter(r.view + 1)
		case invalid:
			m.cast(consensus.Nullify, r.view, consensus.Hash{})
		default:
			continue
		}
		r.settled, changed = true, true
	}
	return changed
}

// finalise hands over the highest finalised block whose whole ancestry is here and certified (R9).
func (m *Machine) finalise() bool {
	for i := len(m.rounds) - 1; i >= 0 && !m.syncing && !m.halted; i-- {
		cert := m.rounds[i].certs[finalize]
		if cert == nil {
			continue
		}
		b := m.blocks[cert.Block]
		if b == nil {
			if uint64(cert.View-m.root.view) > uint64(m.c.Limits.Reach) {
				m.needSync(cert)
			}
			continue
		}
		chain, whole, verdict := m.ancestry(b)
		switch {
		case verdict == invalid:
			m.halted = true
			m.apply(Halted{Cert: *cert, Own: true, Reason: "a finalised block is invalid here"})
		case !whole && b.Header.Height > m.root.Header.Height+m.c.Limits.Reach:
			m.needSync(cert)
		case whole && verdict == valid:
			m.handOver(chain, cert)
			return true
		}
	}
	return false
}

// ancestry is the chain from above root up to b, as far down as it is known; whole says that it reaches root. The
// verdict is invalid if one block's is, valid if all are, else unknown.
func (m *Machine) ancestry(b *block) (chain []*block, whole bool, v verdict) {
	v = valid
	for ; b != nil && b != m.root; b = m.get(b.Header.Parent) {
		chain = append(chain, b)
		if b.verdict == invalid {
			v = invalid
		} else if b.verdict != valid && v == valid {
			v = unknown
		}
	}
	for i, j := 0, len(chain)-1; i < j; i, j = i+1, j-1 {
		chain[i], chain[j] = chain[j], chain[i]
	}
	return chain, b == m.root, v
}

func (m *Machine) needSync(cert *consensus.Certificate) {
	m.syncing = true
	m.skip()
	m.apply(SyncNeeded{Cert: *cert})
}

// handOver makes a certified chain above root final. Echoes on the end of it only help to prove that (R20).
func (m *Machine) handOver(chain []*block, cert *consensus.Certificate) {
	var blocks []consensus.Block
	var echoes []*consensus.Header
	for _, b := range chain {
		b.final = true
		if b.Header.IsEcho() {
			echoes = append(echoes, b.Header)
		} else {
			blocks = append(blocks, b.Block)
		}
	}
	m.persist(chain)
	chain = chain[:len(blocks)]
	m.apply(Finalised{Blocks: blocks, Echoes: echoes, Cert: *cert})
	if m.view <= chain[len(chain)-1].view+livelyViews { // else this machine catches up, and hears little meanwhile
		for i := range m.unheard {
			m.unheard[i]++
		}
	}
	m.expired = 0
	m.reroot(chain[len(chain)-1], *cert)
}

// reroot moves root up to b and drops everything that is not above it.
func (m *Machine) reroot(b *block, cert consensus.Certificate) {
	keep := m.search(b.view + 1)
	r := m.find(cert.View)
	told := r != nil && r.sent[finalize]
	if old := m.blocks[b.hash]; old != nil {
		old.final = true
	}
	m.drop(keep)
	m.root, m.final, m.agreed = b, cert, max(m.agreed, b.view)
	if m.high.view <= b.view {
		m.high = b
	}
	kept := m.unlogged[:0]
	for _, c := range m.unlogged {
		if c.View > b.view || (c.View == b.view && c.Kind == consensus.Finalize) {
			kept = append(kept, c)
		}
	}
	m.unlogged = kept
	m.enter(b.view + 1)
	if m.ends(b) {
		m.end(told)
	}
}

// vote notarizes the current view's first proposal if all that takes is here, and gives up on an invalid one (R3, R7).
func (m *Machine) vote() bool {
	r := m.find(m.view)
	if m.c.Index < 0 {
		return false
	}
	if r == nil || r.proposal == nil {
		return m.passedOver(m.c.Committee.Leader(m.view)) && m.cast(consensus.Nullify, m.view, consensus.Hash{})
	}
	b := r.proposal
	if b.verdict == invalid {
		return m.cast(consensus.Nullify, m.view, consensus.Hash{})
	}
	if r.own[notarize] != nil || r.own[nullify] != nil {
		return false
	}
	p := m.get(b.Header.Parent)
	if p == nil || !p.notarized || p.verdict != valid {
		return false
	}
	if wrong := m.checkChild(b, p); wrong != "" {
		b.verdict = invalid
		m.blame(m.c.Committee.Leader(m.view), wrong)
		return true
	}
	if !m.nullifiedBetween(p.view, m.view) || !m.room(b) || !(b.here || b.own != nil) {
		return false
	}
	return m.cast(consensus.Notarize, m.view, b.hash)
}

// room reports whether b is near enough to the final block, and small enough, to be voted for (R12).
func (m *Machine) room(b *block) bool {
	return b.Header.IsEcho() || b.Header.Height <= m.root.Header.Height+m.c.Limits.TailDepth && int(b.Header.Body.Length) <= m.maxBody()
}

// maxBody is the largest body to be voted for at this moment.
func (m *Machine) maxBody() int {
	held := 0
	for _, r := range m.rounds {
		if b := m.blocks[r.block]; b != nil && r.view < m.view {
			held++
		}
	}
	if held >= m.c.Limits.Depth {
		return m.c.Limits.TailBody
	}
	return consensus.MaxBodyBytes
}

// due is the round of the current view if this validator leads it, may propose and has not begun to (R2), else nil.
func (m *Machine) due() *round {
	if !m.leads(m.view) || m.syncing || m.c.Index < 0 || m.view <= m.silent {
		return nil
	}
	r := m.at(m.view)
	if r.building || r.own[notarize] != nil || r.own[nullify] != nil || !m.nullifiedBetween(m.high.view, m.view) {
		return nil
	}
	return r
}

// build asks for a block if one is due and the epoch goes on.
func (m *Machine) build() {
	r := m.due()
	if r == nil || m.ends(m.high) {
		return
	}
	r.building = true
	m.apply(Build{Epoch: m.c.Committee.Epoch, View: m.view, Parent: m.high.Header, MaxBody: m.maxBody()})
}

// echo proposes an echo if a block is due and the epoch is only waiting for its last block to be final (R21). It reports
// whether it did.
func (m *Machine) echo() bool {
	if m.over || !m.ends(m.high) {
		return false
	}
	r := m.due()
	if r == nil {
		return false
	}
	h := consensus.Echo(m.high.Header, m.view)
	b := &block{Block: consensus.Block{Header: h}, hash: h.Hash(), view: m.view, here: true}
	r.building = true
	m.blocks[b.hash], r.proposal = b, b
	m.sendLacking(m.high)
	return m.cast(consensus.Notarize, m.view, b.hash)
}

// onBuilt proposes (R2).
func (m *Machine) onBuilt(e Built) {
	r := m.find(e.View)
	if e.View != m.view || r == nil || !r.building || r.own[notarize] != nil || r.own[nullify] != nil {
		return // too late, or asked by an earlier life
	}
	if e.Block == nil {
		m.cast(consensus.Nullify, m.view, consensus.Hash{})
		return
	}
	h := e.Block.Header
	b := &block{Block: *e.Block, hash: h.Hash(), view: h.View, cut: e.Shreds}
	p := m.get(h.Parent)
	wrong := m.check(b)
	switch {
	case wrong != "":
	case h.IsEcho():
		wrong = "an echo, which the application never makes"
	case !m.takeOwn(b):
		wrong = "body that its header does not commit to"
	case h.View != m.view || p == nil || !p.notarized || p.verdict != valid || !m.nullifiedBetween(p.view, m.view):
		wrong = "header for another view or parent"
	default:
		wrong = m.checkChild(b, p)
	}
	if wrong != "" {
		m.blame(m.c.Index, "own application: "+wrong)
		m.cast(consensus.Nullify, m.view, consensus.Hash{})
		return
	}
	if !m.room(b) { // there was more when it was asked for
		m.cast(consensus.Nullify, m.view, consensus.Hash{})
		return
	}
	m.blocks[b.hash], r.proposal = b, b
	m.sendLacking(p)
	m.cast(consensus.Notarize, m.view, b.hash)
}

// sendLacking sends, once, the certificates that peers need to vote on a child of p in the current view (R2).
func (m *Machine) sendLacking(p *block) {
	for i := m.search(p.view); i < len(m.rounds) && m.rounds[i].view < m.view; i++ {
		r, k := m.rounds[i], nullify
		if r.view == p.view {
			k = notarize
		}
		if r.certs[k] != nil && !r.sent[k] {
			r.sent[k] = true
			m.send(Outbound{To: ToAll, Cert: r.certs[k]})
		}
	}
}

// cast makes, logs, sends and counts an own vote, unless an own vote, the floor or the epoch's end forbids it (R8, R17, R22).
// It reports whether it did.
func (m *Machine) cast(k consensus.Kind, view consensus.View, h consensus.Hash) bool {
	if m.c.Index < 0 || view <= m.agreed || view <= m.silent {
		return false
	}
	if m.over {
		return false
	}
	r := m.at(view)
	var barred *consensus.Vote
	switch k {
	case consensus.Notarize, consensus.Finalize:
		barred = r.own[nullify]
	case consensus.Nullify:
		barred = r.own[finalize]
	}
	if barred != nil || r.own[k-1] != nil {
		return false
	}
	st := consensus.Statement{Kind: k, Shard: m.c.Committee.Shard, Epoch: m.c.Committee.Epoch, View: view, Block: h}
	v := &consensus.Vote{Statement: st, Validator: uint16(m.c.Index), Signature: m.c.Signer.Sign(consensus.VoteMessage(m.c.Chain, st))}
	r.own[k-1] = v
	switch {
	case k == consensus.Notarize && m.leads(view):
		r.proposal.vote = *v
		m.persist([]*block{r.proposal})
		m.sendProposal(r.proposal)
	case k == consensus.Notarize:
		m.send(Outbound{To: ToAll, Vote: v})
		m.relay(r.proposal, func(int) bool { return true })
	case k == consensus.Finalize:
		chain, _, _ := m.ancestry(m.blocks[h])
		m.persist(chain)
		fallthrough
	default:
		m.send(Outbound{To: ToAll, Vote: v})
	}
	m.logCerts()
	m.out.Persist.Records = append(m.out.Persist.Records, Record{Vote: v})
	m.add(r, *v, true)
	return true
}

// persist puts blocks into the block log that are not in it yet.
func (m *Machine) persist(chain []*block) {
	for _, b := range chain {
		if !b.logged {
			b.logged = true
			m.out.Persist.Blocks = append(m.out.Persist.Blocks, b.Block)
			m.logCerts()
		}
	}
}

// logCerts puts the certificates that wait for it into the vote log. They wait because losing one costs time only,
// and a record of its own would cost a sync.
func (m *Machine) logCerts() {
	for i := range m.unlogged {
		c := m.unlogged[i]
		m.out.Persist.Records = append(m.out.Persist.Records, Record{Cert: &c})
	}
	m.unlogged = nil
}
