package sim

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"tutti/consensus"
	"tutti/consensus/shred"
	"tutti/consensus/simplex"
)

// checker watches every step of every honest host. It fails on:
//
//   - agreement: two blocks final at one height;
//   - validity: a final block whose body is invalid, or that does not extend the final one below it, or that was
//     handed over out of order;
//   - a vote or an own proposal sent that the disk does not hold synced;
//   - own votes that contradict each other over a validator's whole life, restarts and lost disks included;
//   - a vote to notarize on a parent that was not executed, or without the nullifications between, or for a body in shards
//     that is not here while the own part does not go to all with the vote;
//   - a final body that its header does not commit to;
//   - a vote of an epoch before the last block of the one before is durable at the voter, with what proves it final;
//   - a vote for something else than an echo where the epoch only waits for its end;
//   - an echo handed over, or a last block that what comes with it does not prove final, or at another height than is due;
//   - committed loss: a block final somewhere that is not on the disks of a quorum less the adversaries;
//   - an honest validator accused or blamed, or an honest machine that halts;
//   - a contradiction of a faulty validator that a machine was told, both votes in its window, and that it kept to itself;
//   - a machine that holds more than its limits allow.
type checker struct {
	s     *simulation
	err   error
	chain []consensus.Block       // final anywhere, by height
	certs []consensus.Certificate // each finalizes the block of that height or a descendant; the first is zero
	views map[int]consensus.View  // highest anywhere, by epoch
	votes []map[slot]*[4]consensus.Hash
	null  []map[slot]bool
}

func newChecker(s *simulation) *checker {
	c := &checker{s: s, chain: []consensus.Block{{Header: s.o.Genesis}}, certs: make([]consensus.Certificate, 1), views: map[int]consensus.View{}}
	for range s.hosts {
		c.votes = append(c.votes, make(map[slot]*[4]consensus.Hash))
		c.null = append(c.null, make(map[slot]bool))
	}
	return c
}

func (c *checker) fail(format string, args ...any) {
	err := fmt.Errorf("at %v: "+format, append([]any{c.s.now}, args...)...)
	if c.err == nil && (c.s.o.Skip == "" || !strings.Contains(err.Error(), c.s.o.Skip)) {
		c.err = err
		c.s.trace("FAILED: %v", err)
	}
}

func (c *checker) top() consensus.Height { return consensus.Height(len(c.chain) - 1) }

// bounds checks a machine's size after a step.
func (c *checker) bounds(h *host) {
	if h.adversary {
		return
	}
	st := h.node.Status()
	limits := c.limits()
	c.views[h.era] = max(c.views[h.era], st.View) // certificates of later views do not exist yet
	span := int(c.views[h.era]-finalView(h, st.Final)) + int(limits.Window) + 1
	if st.Rounds > span || st.Blocks > 2*span || st.Fetches > 2*span {
		c.fail("host %d holds %d rounds, %d blocks and %d fetches with %d views open", h.i, st.Rounds, st.Blocks, st.Fetches, span)
	}
}

// sent checks an outgoing message: own votes and proposals are on the disk and contradict nothing ever sent.
func (c *checker) sent(h *host, o simplex.Outbound) {
	if p := o.Part; p != nil && !h.adversary && int(p.Vote.Validator) != h.index {
		if err := shred.Check(h.now().Committee, p); err != nil || int(p.Validator) != h.index {
			c.fail("host %d passes on a part of %d: %v", h.i, p.Validator, err)
		}
		return
	}
	if h.adversary || (o.Vote == nil && o.Proposal == nil && o.Part == nil) {
		return
	}
	v := o.Vote
	if o.Proposal != nil || o.Part != nil {
		if o.Part != nil {
			v = &o.Part.Vote
		} else {
			v = &o.Proposal.Vote
		}
		if h.disk.block(v.Block) == nil {
			c.fail("host %d proposes in view %d what is not in its synced block log", h.i, v.View)
		}
	}
	if !h.disk.vote(v) {
		c.fail("host %d sends %s of view %d that is not in its synced vote log", h.i, v.Kind, v.View)
	}
	if v.Kind == consensus.Finalize && h.disk.block(v.Block) == nil {
		c.fail("host %d votes final in view %d what is not in its synced block log", h.i, v.View)
	}
	if h.mute && v.View > h.floor {
		h.mute = false
		c.s.report.Joined++
	}
	c.begun(h, v.Epoch)
	at := slot{v.Epoch, v.View}
	mine := c.votes[h.i][at]
	if mine == nil {
		mine = new([4]consensus.Hash)
		c.votes[h.i][at] = mine
	}
	if old := mine[v.Kind]; !old.IsZero() && old != v.Block {
		c.fail("host %d sends two %s votes in view %d", h.i, v.Kind, v.View)
	}
	if v.Kind == consensus.Notarize && mine[v.Kind].IsZero() {
		c.extends(h, v)
	}
	mine[v.Kind] = v.Block
	if v.Kind == consensus.Nullify {
		c.null[h.i][at] = true
		c.s.report.Nullify++
	}
	if c.null[h.i][at] && !mine[consensus.Finalize].IsZero() {
		c.fail("host %d both nullifies and finalizes view %d", h.i, v.View)
	}
}

// begun checks that a host may vote in an epoch: it has the end of the one before.
func (c *checker) begun(h *host, epoch consensus.Epoch) {
	if epoch == 0 {
		return
	}
	e := epoch - 1
	if int(epoch) != h.era || int(e) >= len(h.app.ends) {
		c.fail("host %d votes in epoch %d, and is in %d", h.i, epoch, h.era)
		return
	}
	f := h.app.ends[e]
	last := f.Blocks[len(f.Blocks)-1].Header
	end := consensus.EpochEnd{Last: last, Echoes: f.Echoes, Cert: f.Cert}
	if err := c.s.eras[e].Committee.VerifyEnd(c.s.o.Chain, c.s.eras[e].Keys, &end); err != nil {
		c.fail("host %d votes in epoch %d: %v", h.i, epoch, err)
	}
	if int(last.Height) >= len(h.app.chain) || h.app.chain[last.Height].Header.Hash() != last.Hash() {
		c.fail("host %d votes in epoch %d without the last block before it", h.i, epoch)
	}
}

// passedOn checks votes to notarize, as they leave first, for another's body in shards: who does not have the body sends
// its own part to all but the leader. That is how everybody gets what a quorum has voted for.
func (c *checker) passedOn(h *host, sent []simplex.Outbound) {
	for _, o := range sent {
		if h.adversary || o.Vote == nil || o.Vote.Kind != consensus.Notarize {
			continue
		}
		if mine := c.votes[h.i][slot{o.Vote.Epoch, o.Vote.View}]; mine != nil && !mine[consensus.Notarize].IsZero() {
			continue // repeated
		}
		hd := h.node.Header(o.Vote.Block)
		if _, _, here := h.node.Block(o.Vote.Block); here || hd == nil || hd.Body.Codec != consensus.CodecShards {
			continue
		}
		to := 0
		for _, p := range sent {
			if p.Part != nil && int(p.Part.Validator) == h.index && p.Part.Vote.Block == o.Vote.Block {
				to++
			}
		}
		if to != len(h.now().Committee.Validators)-2 {
			c.fail("host %d votes in view %d without the body and passes its part on to %d", h.i, o.Vote.View, to)
		}
	}
}

// matches reports whether a body is its header's.
func (c *checker) matches(b consensus.Block) bool {
	if b.Header.Body.Codec != consensus.CodecShards {
		return b.Header.Body.Matches(b.Body)
	}
	return len(b.Body) > 0 && c.s.cut(int(b.Header.Epoch), b.Body).Ref() == b.Header.Body
}

// extends checks that a vote to notarize is for a child of an executed block, with the views between nullified.
func (c *checker) extends(h *host, v *consensus.Vote) {
	hd := h.node.Header(v.Block)
	if hd == nil {
		return // repeated, and decided since
	}
	if p := h.node.Header(hd.Parent); p != nil && p.Ends() && consensus.Echo(p, hd.View).Hash() != v.Block {
		c.fail("host %d votes in view %d for something else than the echo of the end of epoch %d", h.i, v.View, v.Epoch)
	}
	parent := hd.Parent
	for p := h.node.Header(parent); p != nil && p.IsEcho(); p = h.node.Header(parent) {
		parent = p.Parent // nobody executes an echo
	}
	if !h.app.ever[parent] {
		c.fail("host %d votes in view %d on a parent that was not executed", h.i, v.View)
		return
	}
	var from consensus.View
	if p := h.node.Header(hd.Parent); p != nil {
		from = p.View
	} else if f := h.node.Status().Final; f.Hash() == hd.Parent {
		from = finalView(h, f)
	} else {
		return
	}
	for u := from + 1; u < v.View; u++ {
		if !h.disk.nullified[slot{hd.Epoch, u}] {
			c.fail("host %d votes in view %d on a block of view %d without a nullification of view %d", h.i, v.View, from, u)
		}
	}
}

// finalised checks blocks that a host hands to its application.
func (c *checker) finalised(h *host, f simplex.Finalised) {
	if h.adversary {
		return
	}
	at := h.app.final().Height
	if n := len(h.app.pending); n > 0 {
		last := h.app.pending[n-1].Blocks
		at = max(at, last[len(last)-1].Header.Height)
	}
	last := f.Blocks[len(f.Blocks)-1].Header
	if last.Ends() {
		end := consensus.EpochEnd{Last: last, Echoes: f.Echoes, Cert: f.Cert}
		if err := h.now().Committee.VerifyEnd(c.s.o.Chain, h.now().Keys, &end); err != nil {
			c.fail("host %d: an epoch ends by what does not prove that: %v", h.i, err)
		}
	} else if err := h.now().Committee.VerifyCertificate(c.s.o.Chain, h.now().Keys, &f.Cert); err != nil || f.Cert.Kind != consensus.Finalize ||
		f.Cert.Block != last.Hash() || len(f.Echoes) > 0 {
		c.fail("host %d: blocks final by a certificate that is not theirs: %v", h.i, err)
	}
	for _, b := range f.Blocks {
		name := b.Header.Hash()
		if b.Header.Height != at+1 {
			c.fail("host %d: height %d final after %d", h.i, b.Header.Height, at)
			return
		}
		at++
		if b.Header.IsEcho() {
			c.fail("host %d: an echo handed over as height %d", h.i, at)
		}
		if !c.s.rightly(b.Header) {
			c.fail("host %d: height %d of epoch %d names another committee than is due", h.i, at, b.Header.Epoch)
		}
		if !h.app.executed[name] || !bodyValid(b.Body) {
			c.fail("host %d: block at height %d final without a good verdict", h.i, at)
		}
		if h.disk.block(name) == nil {
			c.fail("host %d: block at height %d final and not in its synced block log", h.i, at)
		}
		switch {
		case at <= c.top() && c.chain[at].Header.Hash() != name:
			if c.s.o.Above {
				c.s.conflict(at, f)
				return
			}
			c.fail("agreement: host %d finalises %s of view %d at height %d, others %s of view %d", h.i,
				name.Short(), b.Header.View, at, c.chain[at].Header.Hash().Short(), c.chain[at].Header.View)
			return
		case at <= c.top() && !bytes.Equal(c.chain[at].Body, b.Body), at > c.top() && !c.matches(b):
			c.fail("host %d: the body at height %d is not the one that its header commits to", h.i, at)
			return
		case at == c.top()+1:
			if b.Header.Parent != c.chain[at-1].Header.Hash() {
				c.fail("agreement: host %d finalises %s at height %d on another parent", h.i, name.Short(), at)
				return
			}
			c.chain, c.certs = append(c.chain, b), append(c.certs, f.Cert)
			c.kept(h.now(), name, at, b.Header.View)
		}
	}
}

// kept checks that a block that has just become final survives every honest crash. Who lost a disk may have held it.
func (c *checker) kept(e *Era, name consensus.Hash, at consensus.Height, view consensus.View) {
	var p consensus.Power
	for i, v := range e.Committee.Validators {
		if h := c.s.hosts[e.Members[i]]; h.faulty() || h.joining != nil || view <= h.floor || h.disk.block(name) != nil {
			p += v.Power
		}
	}
	if !e.Committee.IsQuorum(p) {
		c.fail("committed loss: height %d is final and on the disks of %d of %d power", at, p, e.Committee.Total())
	}
}

func (c *checker) evidence(h *host, e simplex.Evidence) {
	if h.adversary {
		return
	}
	for _, v := range []consensus.Vote{e.First, e.Second} {
		if !h.now().Keys.Verify(int(v.Validator), consensus.VoteMessage(c.s.o.Chain, v.Statement), v.Signature) {
			c.fail("host %d: evidence with a bad signature", h.i)
		}
	}
	a, b := e.First, e.Second
	if i := int(a.Validator); a.Validator != b.Validator || !consensus.Contradict(a.Statement, b.Statement) || !h.member(i).faulty() {
		c.fail("host %d: no evidence against %d: %+v %+v", h.i, i, a.Statement, b.Statement)
	}
	c.s.report.Evidence[h.member(int(a.Validator)).i]++
}

// elsewhere: a host takes no vote for another's that its log holds, or that it cast before it lost its log. Tests with
// keys that take anything show it certificates that nobody signed.
func (c *checker) elsewhere(h *host, st consensus.Statement) {
	own := slices.ContainsFunc(h.disk.records, func(r simplex.Record) bool { return r.Vote != nil && r.Vote.Statement == st })
	if !h.adversary && (own || st.View <= h.floor) {
		c.fail("host %d takes a vote of its own for another's: %+v", h.i, st)
	}
}

func (c *checker) misbehaved(h *host, m simplex.Misbehaved) {
	if h.adversary {
		return
	}
	whom := h.member(m.Validator)
	if !whom.adversary {
		c.fail("host %d blames honest %d: %s", h.i, whom.i, m.Reason)
	}
	c.s.report.Blamed[whom.i] = append(c.s.report.Blamed[whom.i], m.Reason)
}

// votesHeard are the votes of faulty validators that a machine was told, where it has to notice contradictions.
type votesHeard struct {
	votes     map[consensus.View][]consensus.Vote
	convicted map[consensus.View]consensus.Signers // whom it has evidence against
	blamed    consensus.Signers                    // whose bad signatures may have cost it its one look
}

// heard follows what a machine is told, and checks that a step in which the second of two contradicting votes comes leaves
// the machine with evidence against their validator (simplex, R10).
func (c *checker) heard(h *host, before simplex.Status, e simplex.Event, r simplex.Ready) {
	if h.adversary {
		return
	}
	k := &h.heard
	if k.votes == nil || before.Syncing {
		k.votes = make(map[consensus.View][]consensus.Vote) // block sync drops views, and votes with them (simplex, R13)
	}
	if k.convicted == nil {
		k.convicted = make(map[consensus.View]consensus.Signers)
	}
	n := len(h.now().Committee.Validators)
	for _, a := range r.Apply {
		switch a := a.(type) {
		case simplex.Evidence:
			if k.convicted[a.First.View] == nil {
				k.convicted[a.First.View] = consensus.NewSigners(n)
			}
			k.convicted[a.First.View].Add(int(a.First.Validator))
		case simplex.Misbehaved:
			if k.blamed == nil {
				k.blamed = consensus.NewSigners(n)
			}
			k.blamed.Add(a.Validator)
		}
	}
	told, ok := e.(simplex.VoteReceived)
	v, i := told.Vote, int(told.Vote.Validator)
	if !ok || i >= n || told.From != i || i == h.index || !h.member(i).faulty() || before.Syncing || before.Halted || before.Over || k.blamed.Has(i) {
		return
	}
	window := c.limits().Window
	if v.View <= finalView(h, before.Final) || v.View+window < before.View || v.View > before.View+window ||
		v.Shard != h.now().Committee.Shard || v.Epoch != h.now().Committee.Epoch ||
		!h.now().Keys.Verify(i, consensus.VoteMessage(c.s.o.Chain, v.Statement), v.Signature) {
		return
	}
	if len(k.votes) > 4*int(window) {
		for view := range k.votes {
			if view <= finalView(h, before.Final) || view+window < before.View {
				delete(k.votes, view)
			}
		}
	}
	for _, old := range k.votes[v.View] {
		if int(old.Validator) == i && consensus.Contradict(old.Statement, v.Statement) && !k.convicted[v.View].Has(i) {
			c.fail("host %d was told %s and %s of %d in view %d and has no evidence", h.i, old.Kind, v.Kind, i, v.View)
		}
	}
	k.votes[v.View] = append(k.votes[v.View], v)
}

func (c *checker) limits() simplex.Limits {
	if c.s.o.Limits == (simplex.Limits{}) {
		return simplex.DefaultLimits()
	}
	return c.s.o.Limits
}
