package simplex

import (
	"sort"
	"time"

	"tutti/consensus"
	"tutti/consensus/shred"
)

// Machine is one validator's or observer's part in the protocol. It is not safe for concurrent use: one goroutine
// owns it and calls New, Step and the accessors.
type Machine struct {
	c Config
	n int // size of the committee

	view    consensus.View // the current view
	timed   consensus.View // the view that the timer was last armed for
	age     int            // ticks since the current view was entered
	expired int            // timers that ran out since the last finality
	halted  bool
	syncing bool // a SyncNeeded is out
	over    bool // root is the last block of the epoch (R22)

	root   *block                // the last final block
	agreed consensus.View        // the highest view that a finalization is held of, at least root's
	silent consensus.View        // the floor: no own vote leaves in views up to it (R17); 0: none
	final  consensus.Certificate // finalizes root; zero if it is not at hand
	high   *block                // the highest certified block
	rounds []*round              // ascending, all above root's view
	blocks map[consensus.Hash]*block
	wants  []want

	distrusted []bool // validators that sent something provably wrong
	unheard    []int  // finalities handed over since anything came from a validator
	helped     []bool // validators that were sent certificates since the last Tick
	rotor      int    // which old nullifications are repeated next

	unlogged []consensus.Certificate // verified, to be logged with the next vote or block
	out      Ready
}

// Indexes of kinds in a round's arrays.
const (
	notarize = int(consensus.Notarize) - 1
	nullify  = int(consensus.Nullify) - 1
	finalize = int(consensus.Finalize) - 1
)

// round is what is known about one view.
type round struct {
	view     consensus.View
	certs    [3]*consensus.Certificate // by kind
	sent     [3]bool                   // that certificate was sent to all by this machine
	ballots  [3]*ballot                // nil until the first vote, and again below the window
	accused  []bool                    // validators whose contradicting votes were looked into
	own      [3]*consensus.Vote
	proposal *block         // the first one, from the view's leader
	block    consensus.Hash // the view's notarized block, by its own certificate or as the ancestor of one
	building bool           // a Build is out
	settled  bool           // the verdict on block was acted on
}

type verdict uint8

const (
	unknown verdict = iota
	asked           // a Certify is out
	valid
	invalid
)

// block is a block above root, or root itself.
type block struct {
	consensus.Block // no Body before here
	hash            consensus.Hash
	view            consensus.View
	notarized       bool
	here            bool // the body is, and it is the one that the header commits to
	checked         bool // check found nothing wrong
	logged          bool // persisted in the block log
	final           bool
	verdict         verdict

	// Of a body that travels in shards.
	vote       consensus.Vote  // the leader's, checked; zero unless the block is a round's proposal
	parts      *shred.Assembly // nil before the first part, and once there are enough
	rebuilding bool            // a Rebuild is out
	own        *shred.Part     // this validator's part, to be passed on; nil once the view is left
	cut        *shred.Set      // an own proposal, all parts; nil once the view is left
}

// Step takes one event in and says what is to be done. See Ready for the caller's duties.
func (m *Machine) Step(e Event) Ready {
	if m.halted {
		return Ready{}
	}
	if m.over {
		m.afterwards(e)
		return m.finish()
	}
	switch e := e.(type) {
	case ProposalReceived:
		m.hear(e.From)
		m.onProposal(e)
	case PartReceived:
		m.hear(e.From)
		m.onPart(e)
	case Rebuilt:
		m.onRebuilt(e)
	case VoteReceived:
		m.hear(e.From)
		m.onVote(e)
	case CertificateReceived:
		m.hear(e.From)
		m.onCertificate(e.From, &e.Cert)
	case BlockFetched:
		m.hear(e.From)
		m.onFetched(e)
	case Built:
		m.onBuilt(e)
	case Judged:
		m.onJudged(e)
	case TimerFired:
		if e.View == m.view && m.cast(consensus.Nullify, e.View, consensus.Hash{}) {
			m.expired++
		}
	case Tick:
		m.onTick()
	case Synced:
		m.onSynced(e)
	}
	m.settle()
	if _, tick := e.(Tick); tick {
		m.repeatFetches()
	}
	return m.finish()
}

// settle draws every consequence of what is known, until nothing changes.
func (m *Machine) settle() {
	for changed := true; changed && !m.halted && !m.over; {
		changed = m.connect()
		changed = m.judge() || changed
		changed = m.finalise() || changed
		changed = m.advance() || changed
		changed = m.vote() || changed
		changed = m.echo() || changed
	}
}

// finish asks for what the current view needs and hands the Ready over.
func (m *Machine) finish() Ready {
	if !m.halted {
		if !m.over && m.c.Index >= 0 && m.timed != m.view {
			m.timed = m.view
			m.apply(SetTimer{View: m.view, After: m.timeout()})
		}
		if !m.over {
			m.build()
		}
		m.updateWants()
	}
	out := m.out
	m.out = Ready{}
	return out
}

func (m *Machine) apply(a Action)  { m.out.Apply = append(m.out.Apply, a) }
func (m *Machine) send(o Outbound) { m.out.Send = append(m.out.Send, o) }

// halt says that cert can't be: against is a certificate that can't be beside it, nil if none is held.
func (m *Machine) halt(cert, against *consensus.Certificate, reason string) {
	m.halted = true
	m.apply(Halted{Cert: *cert, Against: against, Reason: reason})
}

// hear notes that something came from a validator.
func (m *Machine) hear(from int) {
	if from >= 0 && from < m.n {
		m.unheard[from] = 0
	}
}

// passedOver reports whether nothing is to be expected of a leader: it has been silent for long, or what it proposes would
// be dropped (R7).
func (m *Machine) passedOver(leader int) bool {
	return leader != m.c.Index && (m.distrusted[leader] || m.unheard[leader] >= passOver)
}

// timeout is how long the timer of a view entered now runs.
func (m *Machine) timeout() time.Duration {
	t := m.c.Timing.View
	for range m.expired {
		if t = t * time.Duration(m.c.Timing.GrowthPercent) / 100; t >= m.c.Timing.Cap {
			return m.c.Timing.Cap
		}
	}
	return t
}

func (m *Machine) leads(v consensus.View) bool { return m.c.Committee.Leader(v) == m.c.Index }

// find is the round of view v if there is one.
func (m *Machine) find(v consensus.View) *round {
	if i := m.search(v); i < len(m.rounds) && m.rounds[i].view == v {
		return m.rounds[i]
	}
	return nil
}

func (m *Machine) search(v consensus.View) int {
	return sort.Search(len(m.rounds), func(i int) bool { return m.rounds[i].view >= v })
}

// at is the round of view v, above root's view; it is made if need be.
func (m *Machine) at(v consensus.View) *round {
	i := m.search(v)
	if i == len(m.rounds) || m.rounds[i].view != v {
		m.rounds = append(m.rounds, nil)
		copy(m.rounds[i+1:], m.rounds[i:])
		m.rounds[i] = &round{view: v}
	}
	return m.rounds[i]
}

// get is the block of that hash: root, or one above it.
func (m *Machine) get(h consensus.Hash) *block {
	if h == m.root.hash {
		return m.root
	}
	return m.blocks[h]
}

// nullifiedBetween reports whether a nullification is held for every view strictly between lo and hi.
func (m *Machine) nullifiedBetween(lo, hi consensus.View) bool {
	i := m.search(hi)
	for v := hi - 1; v > lo; v-- {
		if i--; i < 0 || m.rounds[i].view != v || m.rounds[i].certs[nullify] == nil {
			return false
		}
	}
	return true
}

// enter moves up to view v.
func (m *Machine) enter(v consensus.View) {
	if v <= m.view {
		return
	}
	if r := m.find(m.view); r != nil && r.proposal != nil {
		r.proposal.own, r.proposal.cut = nil, nil
	}
	m.view, m.age = v, 0
	if m.syncing {
		m.skip()
		return
	}
	for _, r := range m.rounds {
		if r.view+m.c.Limits.Window >= v {
			break
		}
		r.ballots, r.accused = [3]*ballot{}, nil
		if p := r.proposal; p != nil && !p.notarized {
			r.proposal = nil
			m.forget(p)
		}
	}
}

// skip drops all rounds below the highest finalization while block sync runs: their blocks will come by sync, or be
// fetched as ancestors, and no vote leaves for them any more (R13).
func (m *Machine) skip() {
	m.drop(m.search(m.agreed))
	if m.high.view < m.agreed {
		m.high = m.root
	}
}

// floor is the view up to which nothing is taken in any more.
func (m *Machine) floor() consensus.View {
	if m.syncing {
		return m.agreed - 1
	}
	return m.root.view
}

// drop forgets the lowest rounds and their blocks.
func (m *Machine) drop(n int) {
	for _, r := range m.rounds[:n] {
		for _, b := range []*block{m.blocks[r.block], r.proposal} {
			if b != nil && m.blocks[b.hash] == b {
				m.forget(b)
			}
		}
	}
	m.rounds = append([]*round(nil), m.rounds[n:]...)
}

// forget drops a block that will not be final, or not soon: it can be fetched again should it be notarized after all.
func (m *Machine) forget(b *block) {
	delete(m.blocks, b.hash)
	if b.verdict == valid && !b.final && !b.Header.IsEcho() {
		m.apply(Abandoned{Block: b.hash})
	}
}
