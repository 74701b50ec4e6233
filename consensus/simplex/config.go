package simplex

import (
	"fmt"
	"time"

	"tutti/consensus"
)

// Config is what a machine starts from. It lives for one epoch of one shard.
type Config struct {
	Chain     consensus.Hash        // genesis hash, under every signature
	Root      *consensus.Header     // the last block that is final and durable in the application: of this epoch, or the last of the one before; genesis at first
	RootCert  consensus.Certificate // finalizes Root, or an echo of it; zero if it is not at hand
	Committee *consensus.Committee
	Keys      consensus.Keys
	Signer    consensus.Signer // nil for an observer
	Index     int              // own place in the committee, -1 for an observer
	Timing    Timing           // zero: DefaultTiming
	Limits    Limits           // zero: DefaultLimits
	Blocks    []consensus.Block
	Log       []Record
	// Blocks is the block log above Root in any order, Log the vote log in the order it was written; other epochs and
	// what is not above Root's view are skipped, so both may be pruned up to there. Both are this node's own, so their
	// signatures are not checked again.
}

// Timing is the view timer: View for a first attempt, multiplied by GrowthPercent/100 for each timer that ran out
// since the last finality, at most Cap.
type Timing struct {
	View, Cap     time.Duration
	GrowthPercent int
}

// DefaultTiming is 2 s, times 1.5, up to 10 s.
func DefaultTiming() Timing {
	return Timing{View: 2 * time.Second, Cap: 10 * time.Second, GrowthPercent: 150}
}

// Limits bound what a machine holds. They apply to votes, proposals and blocks, never to certificates.
type Limits struct {
	Window    consensus.View   // votes and proposals are kept from Window views below the current one to Window above
	Depth     int              // with this many certified blocks above the final one, only small bodies are voted for
	TailDepth consensus.Height // a block further above the final one is not voted for at all
	TailBody  int              // bytes of a small body
	Reach     consensus.Height // a finalization further above the final block is left to block sync
}

// passOver is how many finalities a leader has to be silent through to be passed over (R7): about two seconds of a busy
// chain, and no time at all of one that stands still.
const passOver = 8

// livelyViews is how far the view of a block that is handed over may be below the current one for the finality to count.
const livelyViews = 4

// DefaultLimits suit a committee of MaxCommittee: 12 MB of votes at most, and Depth bodies.
func DefaultLimits() Limits {
	return Limits{Window: 16, Depth: 64, TailDepth: 4096, TailBody: 1 << 10, Reach: 32}
}

// New makes a machine. Its Ready carries what the restored logs call for: finality not yet handed to the
// application, verdicts to ask for again, an own proposal and own votes to repeat. The error says which part of the
// configuration or the logs cannot be: own votes that contradict each other or the floor, another validator's votes, or
// certificates that contradict each other. Such a node must not vote.
func New(c Config) (*Machine, Ready, error) {
	if c.Timing == (Timing{}) {
		c.Timing = DefaultTiming()
	}
	if c.Limits == (Limits{}) {
		c.Limits = DefaultLimits()
	}
	n := len(c.Committee.Validators)
	if r := c.Root; r != nil && r.Epoch != c.Committee.Epoch && (r.Epoch+1 != c.Committee.Epoch || r.NextCommittee != c.Committee.Hash() || r.IsEcho()) {
		return nil, Ready{}, fmt.Errorf("simplex: the root, of epoch %d and height %d, is not what epoch %d with this committee starts from", r.Epoch, r.Height, c.Committee.Epoch)
	}
	if c.Root == nil || c.Index < -1 || c.Index >= n || (c.Index >= 0 && c.Signer == nil) {
		return nil, Ready{}, fmt.Errorf("simplex: no root block, or index %d of %d without a signer", c.Index, n)
	}
	m := &Machine{
		c: c, n: n,
		root:       &block{Block: consensus.Block{Header: c.Root}, hash: c.Root.Hash(), notarized: true, here: true, verdict: valid, logged: true},
		blocks:     make(map[consensus.Hash]*block),
		distrusted: make([]bool, n),
		unheard:    make([]int, n),
		helped:     make([]bool, n),
	}
	if c.Root.Epoch == c.Committee.Epoch {
		m.root.view = c.Root.View // else Root ends an earlier epoch: views start again above 0
	}
	m.high, m.view, m.final = m.root, m.root.view+1, c.RootCert
	for i := range c.Log {
		if err := m.restore(&c.Log[i]); err != nil {
			return nil, Ready{}, fmt.Errorf("simplex: vote log, record %d: %w", i, err)
		}
	}
	m.restoreBlocks()
	if m.ends(m.root) {
		m.end(false)
		return m, m.finish(), nil
	}
	if c.Index >= 0 {
		for _, r := range m.rounds {
			for _, v := range r.own {
				if v != nil && r.view+c.Limits.Window >= m.view {
					m.add(r, *v, true)
				}
			}
		}
	}
	m.settle()
	if len(c.Log) > 0 {
		m.repeat(true)
	}
	return m, m.finish(), nil
}

// restore takes in one record of the vote log (R15).
func (m *Machine) restore(rec *Record) error {
	if cert := rec.Cert; cert != nil {
		if cert.Shard != m.c.Committee.Shard || cert.Epoch != m.c.Committee.Epoch {
			return nil
		}
		if m.accept(cert, false); m.halted {
			return fmt.Errorf("a certificate, %s of view %d, that contradicts those before", cert.Kind, cert.View)
		}
		m.unlogged = nil
		return nil
	}
	if f := rec.Floor; f != nil {
		if f.Shard == m.c.Committee.Shard && f.Epoch == m.c.Committee.Epoch {
			m.silent = max(m.silent, f.View)
		}
		return nil
	}
	v := rec.Vote
	if v == nil || v.Shard != m.c.Committee.Shard || v.Epoch != m.c.Committee.Epoch || v.View <= m.root.view {
		return nil
	}
	if int(v.Validator) != m.c.Index {
		return fmt.Errorf("a vote of validator %d, and this is %d: the log belongs to another node", v.Validator, m.c.Index)
	}
	if v.View <= m.silent {
		return fmt.Errorf("a %s in view %d, not above the floor at view %d: the log was put together from two", v.Kind, v.View, m.silent)
	}
	r := m.at(v.View)
	if own := r.own[v.Kind-1]; own != nil && own.Statement != v.Statement {
		return fmt.Errorf("a second %s in view %d: the key was used twice", v.Kind, v.View)
	}
	r.own[v.Kind-1] = v
	if r.own[nullify] != nil && r.own[finalize] != nil {
		return fmt.Errorf("nullify and finalize in view %d: the key was used twice", v.View)
	}
	if v.Kind == consensus.Finalize && r.block.IsZero() {
		r.block = v.Block // it was notarized, or this vote would not be there
	}
	m.enter(v.View)
	return nil
}

// restoreBlocks takes in the block log: own proposals that a vote was logged for, and what is notarized.
func (m *Machine) restoreBlocks() {
	var restored []*block
	for _, b := range m.c.Blocks {
		h := b.Header
		if h.Epoch != m.c.Committee.Epoch || h.Shard != m.c.Committee.Shard || h.View <= m.root.view {
			continue
		}
		nb := &block{Block: b, hash: h.Hash(), view: h.View, here: true, logged: true}
		restored = append(restored, nb)
		m.blocks[nb.hash] = nb
		if r := m.find(h.View); r != nil && r.own[notarize] != nil && r.own[notarize].Block == nb.hash && m.leads(h.View) {
			r.proposal, nb.vote = nb, *r.own[notarize]
		}
	}
	m.c.Blocks, m.c.Log = nil, nil
	m.connect()
	for _, b := range restored { // what is left is of no use: no vote for it left this node, and it is not certified
		if r := m.find(b.view); !b.notarized && (r == nil || r.proposal != b) {
			delete(m.blocks, b.hash)
		}
	}
}
