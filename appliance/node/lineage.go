package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// The committees of the other shards change with their epochs, and every node follows them all: a header of an epoch that is not
// known makes it ask the validators of that shard for the hand-overs from the newest epoch it knows on (handovers.go). What they send is
// verified; one that sends nothing, or something wrong, is passed over. The trust knows then who may sign now. After a start it goes
// from the genesis, or begins with the committee that the channel of our state knows where that is far from there.
//
// To build blocks a node keeps hand-overs as well: those from the committee that the channel of its final state knows on. With them
// it leads the channel to the newest epoch (linkProof): with the next receipts or, where there are none, at once and alone, so that
// gaps stay small. After a long gap, as when this shard stood still, block after block brings maxSteps of them.

// Bounds of the hand-overs that are kept of each shard. The channels of blocks that are not final yet are ahead of the final one.
const (
	keptSteps     = 4 * maxSteps
	keptStepBytes = 4 << 20
)

// judges verify final headers of every shard as they come, by who may sign in their epoch.
type judges struct {
	self    consensus.ShardID
	headers *finalHeaders
	trust   *proof.Trust  // follows the other shards
	current func() member // of the own shard's epoch
}

// check decodes and verifies an encoded final header. If its epoch is not known the error wraps proof.ErrEpoch, and the header is
// returned, of which nothing is verified but the chain.
func (j *judges) check(b []byte) (*consensus.FinalHeader, error) {
	fh, err := consensus.DecodeFinalHeader(b)
	if err != nil {
		return nil, err
	}
	h := fh.Header
	if h.Chain != j.headers.genesis {
		return nil, fmt.Errorf("final header is of chain %s, this is %s", h.Chain.Short(), j.headers.genesis.Short())
	}
	m, err := j.member(h.Shard, h.Epoch)
	if err != nil {
		return fh, err
	}
	if err := j.headers.final(m, fh); err != nil {
		return nil, err
	}
	return fh, nil
}

// member is the committee of an epoch.
func (j *judges) member(shard consensus.ShardID, epoch consensus.Epoch) (member, error) {
	if shard == j.self {
		if m := j.current(); m.Epoch == epoch {
			return m, nil
		}
		return member{}, &proof.EpochError{Shard: shard, Epoch: epoch, From: epoch}
	}
	c, keys, err := j.trust.Committee(shard, epoch)
	return member{c, keys}, err
}

// lineage is what is kept of another shard's committees, guarded like the source that it is part of.
type lineage struct {
	known ledger.Known         // by the channel of our final state
	base  *consensus.Committee // that one; nil while it has to be asked for
	steps []step               // hand-overs out of its epoch and the following ones, verified
	bytes int                  // of steps

	claimed consensus.Epoch // highest epoch that a header is of that could not be judged
	deaf    time.Time       // until then such headers change nothing: nobody could show their epoch
	wanted  consensus.Epoch // an epoch before the newest whose committee somebody waits for; 0 for none
}

// step is a hand-over.
type step struct {
	*proof.Handover
	bytes int // encoded
}

// top is the epoch that the steps lead to. base is held.
func (l *lineage) top() consensus.Epoch { return l.base.Epoch + consensus.Epoch(len(l.steps)) }

// last is the committee of that epoch.
func (l *lineage) last() *consensus.Committee {
	if n := len(l.steps); n > 0 {
		return l.steps[n-1].Next
	}
	return l.base
}

// find is how many steps lead from base to the committee that a channel knows.
func (l *lineage) find(known ledger.Known) (at int, ok bool) {
	if l.base == nil {
		return 0, false
	}
	if known.Committee == (tx.Hash{}) || known.Committee == l.known.Committee {
		return 0, known.Committee == l.known.Committee
	}
	for i := range l.steps {
		if l.steps[i].Next.Hash() == consensus.Hash(known.Committee) {
			return i + 1, true
		}
	}
	return 0, false
}

// leadTo takes what the channel of our final state knows now: what is before is dropped. mu is held.
func (c *crossLinks) leadTo(s *source, known ledger.Known) {
	if known == s.known {
		return
	}
	at, ok := s.find(known)
	switch {
	case !ok:
		s.base, s.steps, s.lineage.bytes = nil, nil, 0
		s.claimed = max(s.claimed, consensus.Epoch(known.Epoch)) // our own state says that there is such an epoch
		poke(s.kick)
	case at > 0:
		s.base = s.steps[at-1].Next
		for i := range s.steps[:at] {
			s.lineage.bytes -= s.steps[i].bytes
		}
		s.steps = append([]step(nil), s.steps[at:]...)
		poke(s.kick) // there may be room for more
	}
	s.known = known
}

// claim notes that a header is of an epoch that is not known here. Nothing of it is verified.
func (c *crossLinks) claim(shard consensus.ShardID, epoch consensus.Epoch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sources[shard]
	if s == nil || epoch <= c.trust.Newest(shard) || time.Now().Before(s.deaf) {
		return
	}
	s.claimed = max(s.claimed, epoch)
	poke(s.kick)
}

// want asks for the committee of an epoch, known or not, that the trust does not hold.
func (c *crossLinks) want(shard consensus.ShardID, epoch consensus.Epoch) {
	c.claim(shard, epoch)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sources[shard]; s != nil && epoch <= c.trust.Newest(shard) {
		s.wanted = epoch
		poke(s.kick)
	}
}

// disbelieve forgets what nobody could show, for a while.
func (c *crossLinks) disbelieve(s *source) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.wanted = 0
	if s.claimed > c.trust.Newest(s.shard) {
		s.claimed, s.deaf = 0, time.Now().Add(headPoll)
	}
	if s.base == nil {
		s.claimed = consensus.Epoch(s.known.Epoch)
	}
}

// missing says which hand-overs to ask for, if any: out of which epoch on, and how many.
func (c *crossLinks) missing(s *source) (from consensus.Epoch, limit int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	newest := c.trust.Newest(s.shard)
	switch {
	case s.skips(newest):
		return consensus.Epoch(s.known.Epoch) - 1, 1 + keptSteps, true
	case s.claimed > newest:
		return newest, handoversAsked, true
	case s.base == nil:
		return consensus.Epoch(s.known.Epoch) - 1, 1 + keptSteps, true
	case s.top() < newest && s.room():
		return s.top(), keptSteps - len(s.steps), true
	case s.wanted != 0:
		if _, _, err := c.trust.Committee(s.shard, s.wanted); err != nil {
			return s.wanted - 1, 1, true
		}
		s.wanted = 0
	}
	return 0, 0, false
}

// skips reports whether the trust is so far behind our own state, as after a start, that it begins anew with what that knows.
func (l *lineage) skips(newest consensus.Epoch) bool {
	return l.base == nil && consensus.Epoch(l.known.Epoch) > newest+keptSteps
}

func (l *lineage) room() bool {
	return len(l.steps) == 0 || len(l.steps) < keptSteps && l.bytes < keptStepBytes
}

// fetchSteps asks one validator of s for hand-overs. It reports whether one came that is right.
func (c *crossLinks) fetchSteps(ctx context.Context, s *source, from consensus.Epoch, limit int) bool {
	c.mu.Lock()
	peers := c.peers[s.shard]
	peer := peers[s.nextPeer%len(peers)]
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	answer, err := c.transport.Request(ctx, peer, handoverProtocol, handoverRequest(from, limit))
	taken := 0
	if err == nil {
		taken, err = c.takeSteps(s, from, limit, answer)
	}
	if err != nil || taken == 0 {
		c.mu.Lock()
		s.nextPeer++
		c.mu.Unlock()
	}
	return taken > 0
}

// takeSteps checks an answer to a request for hand-overs, and says how many were right.
func (c *crossLinks) takeSteps(s *source, from consensus.Epoch, limit int, answer []byte) (int, error) {
	list, err := decodeHandovers(answer)
	if err != nil {
		return 0, err
	}
	if len(list) > limit {
		return 0, errors.New("more hand-overs than were asked for")
	}
	for i, h := range list {
		if h.End.Last.Shard != s.shard || h.Epoch() != from+consensus.Epoch(i) {
			return i, fmt.Errorf("a hand-over out of epoch %d of shard %d, asked for others", h.Epoch(), h.End.Last.Shard)
		}
		if c.begins(s, h) {
			if err := c.trust.Begin(h.Next); err != nil {
				return i, err
			}
		} else if err := c.trust.Advance(h); err != nil {
			return i, err
		}
		if err := c.extend(s, h); err != nil {
			return i, err
		}
	}
	return len(list), nil
}

// begins reports whether the trust begins anew with the committee that a hand-over leads to, which our own state vouches for by its
// hash; the rest of the hand-over does not matter then.
func (c *crossLinks) begins(s *source, h *proof.Handover) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.skips(c.trust.Newest(s.shard)) && h.Next.Hash() == consensus.Hash(s.known.Committee)
}

// extend keeps a hand-over that the trust has followed, if it is the next one for the channel. What ends the epoch is verified
// again: of an epoch that is over the trust compares no certificate.
func (c *crossLinks) extend(s *source, h *proof.Handover) error {
	c.mu.Lock()
	if s.base == nil && h.Next.Hash() == consensus.Hash(s.known.Committee) {
		s.base = h.Next
	}
	if s.base == nil || h.Epoch() != s.top() || !s.room() {
		c.mu.Unlock()
		return nil
	}
	from := s.last()
	c.mu.Unlock()
	m, err := c.headers.member(from, nil)
	if err != nil {
		return err
	}
	if _, err := c.headers.step(m, h); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.base != nil && s.last().Hash() == from.Hash() { // else the final state has moved on meanwhile
		n := len(h.Append(nil))
		s.steps, s.lineage.bytes = append(s.steps, step{h, n}), s.lineage.bytes+n
	}
	return nil
}

// leading is a proof for a channel that knows a committee: of the header fh, if the hand-overs to its epoch are held and few enough; else
// of as many hand-overs as there are; nil if there is none. More than one hand-over takes at most room bytes. mu is held.
func (c *crossLinks) leading(s *source, known ledger.Known, fh *consensus.FinalHeader, room int) *linkProof {
	at, ok := s.find(known)
	if !ok {
		return nil
	}
	p := &linkProof{}
	if known.Committee != (tx.Hash{}) {
		p.known = s.base
		if at > 0 {
			p.known = s.steps[at-1].Next
		}
	}
	steps := s.steps[at:]
	fits := func(n, final int) bool {
		bytes := linkProofBytes(p.known, steps[:n], final)
		return bytes <= room || n <= 1 && bytes <= tx.MaxProofBytes
	}
	n := min(maxSteps, len(steps))
	if fh != nil {
		from := s.base.Epoch + consensus.Epoch(at)
		if e := fh.Header.Epoch; e >= from && e-from <= consensus.Epoch(n) && fits(int(e-from), len(fh.Append(nil))) {
			n, p.final = int(e-from), fh
		}
	}
	for p.final == nil && n > 1 && !fits(n, 0) {
		n--
	}
	if p.final == nil && n == 0 {
		return nil
	}
	for _, h := range steps[:n] {
		p.steps = append(p.steps, h.Handover)
	}
	return p
}
