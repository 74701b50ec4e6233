package replay

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tutti/appliance/proof"
	"tutti/consensus"
)

// Recorder collects the evidence of one phase. Its caller holds one lock for all calls but Finish's and those of what Block
// returns, and calls nothing after Finish. A nil Recorder records nothing.
type Recorder struct {
	phase  Phase
	slots  uint32
	start  time.Duration // by the clock of the durations that it is given
	trust  *proof.Trust
	shards []recording
	missed [Reasons]tray

	open sync.WaitGroup // openings under way
	mu   sync.Mutex     // guards failed
	// failed is why there will be no evidence; the first reason stays.
	failed error
}

// recording is one shard's.
type recording struct {
	base       *proof.Final
	last       *consensus.Header
	committees []*consensus.Committee
	blocks     []*Block
	settled    tray // with the last block
}

// tray counts by slot. What it has counted lies between low and high, so that emptying it costs no more than that.
type tray struct {
	counts    []uint32
	low, high uint32
}

func (t *tray) add(slot, slots uint32) {
	if t.counts == nil {
		t.counts, t.low, t.high = make([]uint32, slots), slots, 0
	}
	t.counts[slot]++
	t.low, t.high = min(t.low, slot), max(t.high, slot+1)
}

func (t *tray) empty() (s Slots) {
	for i := t.low; i < t.high; i++ {
		if n := t.counts[i]; n > 0 {
			s = append(s, Count{i, n})
			t.counts[i] = 0
		}
	}
	t.low, t.high = uint32(len(t.counts)), 0
	return s
}

// NewRecorder begins the record of a phase, whose Start it sets itself, and Finish its Marks. start is when the first transaction is
// due by the caller's clock, wall the same moment by that of the day; bases are the last block of each shard that was verified
// before. The error says why this phase leaves no evidence.
func NewRecorder(p Phase, start time.Duration, wall time.Time, trust *proof.Trust, bases []*proof.Final) (*Recorder, error) {
	p.Start, p.Stretches = wall.UnixNano(), slices.Clone(p.Stretches)
	for k := range p.Stretches {
		p.Stretches[k].Marks = Marks{0, 1}
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	r := &Recorder{phase: p, slots: p.slots(), start: start, trust: trust, shards: make([]recording, len(bases))}
	for i, b := range bases {
		if b == nil {
			return nil, fmt.Errorf("replay: no block of shard %d was verified before the phase", i)
		}
		r.shards[i] = recording{base: b, last: b.Header()}
	}
	return r, nil
}

// Block enters a verified block; the calls of Settled up to the next one are of what settled with it. What it returns is to be
// called afterwards without the lock: it makes the block's Opening.
func (r *Recorder) Block(c *proof.Contents, at time.Duration) (open func()) {
	if r == nil || int(c.Header.Shard) >= len(r.shards) {
		return func() {}
	}
	h, s := c.Header, &r.shards[c.Header.Shard]
	switch {
	case h.Parent != s.last.Hash():
		r.fail(fmt.Errorf("replay: block %d of shard %d does not follow the last one that was seen", h.Height, h.Shard))
	case len(s.blocks) == MaxBlocks:
		r.fail(fmt.Errorf("replay: more than %d blocks in shard %d", MaxBlocks, h.Shard))
	case h.Epoch != s.last.Epoch && len(s.committees) == maxCommittee:
		r.fail(errors.New("replay: too many epochs end within the phase"))
	}
	of, _, err := r.trust.Committee(h.Shard, h.Epoch)
	if err != nil {
		r.fail(err)
	} else if h.Epoch != s.last.Epoch {
		s.committees = append(s.committees, of)
	}
	if r.reason() != nil {
		return func() {}
	}
	s.flush()
	x := &Block{Final: c.Block.Final, At: at - r.start}
	s.blocks, s.last = append(s.blocks, x), h
	r.open.Add(1)
	return func() {
		defer r.open.Done()
		var err error
		if x.Opening, err = Open(c, of); err != nil {
			r.fail(err)
		}
	}
}

func (s *recording) flush() {
	if n := len(s.blocks); n > 0 {
		s.blocks[n-1].Settled = s.settled.empty()
	}
}

func (r *Recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = err
	}
}

func (r *Recorder) reason() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// Settled enters that a transaction settled with the shard's last block. credit says that it did by a receipt which that block
// consumed.
func (r *Recorder) Settled(shard consensus.ShardID, due time.Duration, credit bool) {
	if r == nil || int(shard) >= len(r.shards) || len(r.shards[shard].blocks) == 0 {
		return
	}
	s := &r.shards[shard]
	s.settled.add(r.slot(due), r.slots)
	if credit {
		s.blocks[len(s.blocks)-1].Credits++
	}
}

// Missed enters that a transaction will not settle.
func (r *Recorder) Missed(why Reason, due time.Duration) {
	if r != nil {
		r.missed[why].add(r.slot(due), r.slots)
	}
}

func (r *Recorder) slot(due time.Duration) uint32 { return r.phase.slot(due - r.start) }

// Finish ends the record. It is given the marks of each stretch, by the caller's clock. What of the schedule is in no count was still
// waiting to be sent, and is Rejected. The caller fills in the Genesis.
func (r *Recorder) Finish(marks ...Marks) (*Evidence, error) {
	r.open.Wait()
	if err := r.reason(); err != nil {
		return nil, err
	}
	e := &Evidence{Phase: r.phase}
	if len(marks) != len(e.Phase.Stretches) {
		return nil, fmt.Errorf("replay: %d marks of %d stretches", len(marks), len(e.Phase.Stretches))
	}
	for k, m := range marks {
		e.Phase.Stretches[k].Marks = Marks{m.Begin - r.start, m.End - r.start}
	}
	if err := e.Phase.check(); err != nil {
		return nil, err
	}
	rest := e.Phase.scheduled()
	take := func(s Slots) error {
		for _, c := range s {
			if rest[c.Slot] < c.N {
				return fmt.Errorf("replay: more transactions in slot %d than were due", c.Slot)
			}
			rest[c.Slot] -= c.N
		}
		return nil
	}
	var err error
	for i := range r.shards {
		s := &r.shards[i]
		s.flush()
		out := Shard{Base: *s.base, Committees: s.committees}
		for _, x := range s.blocks {
			out.Blocks = append(out.Blocks, *x)
			err = errors.Join(err, take(x.Settled))
		}
		e.Shards = append(e.Shards, out)
	}
	for why := range r.missed {
		e.Missed[why] = r.missed[why].empty()
		err = errors.Join(err, take(e.Missed[why]))
	}
	if err != nil {
		return nil, err
	}
	for slot, n := range rest {
		for range n {
			r.missed[Rejected].add(uint32(slot), r.slots)
		}
	}
	for _, c := range e.Missed[Rejected] {
		for range c.N {
			r.missed[Rejected].add(c.Slot, r.slots)
		}
	}
	e.Missed[Rejected] = r.missed[Rejected].empty()
	return e, nil
}
