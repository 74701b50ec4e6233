package load

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tutti/bench/replay"
	"tutti/consensus"
	"tutti/state/tx"
)

// Phase is a stretch of load at one rate.
type Phase struct {
	Rate     float64         // transactions due a second
	WarmUp   time.Duration   // load before the measurement begins
	Duration time.Duration   // of the measurement; 0: until the context ends
	Burst    time.Duration   // each second's transactions are due within so long from its beginning; 0: evenly
	Then     []Stretch       // right after the measurement, each with an Outcome of its own; of a Session only
	Drain    time.Duration   // to wait at the end for what has not settled; 0: not at all
	Stop     <-chan struct{} // closed: the load of a phase without a Duration ends, and the drain begins; nil: never
	Begin    func()          // called when the measurement begins and
	End      func()          // when it ends, both beside the load; nil: not called
}

// Stretch is a part of a phase at one rate.
type Stretch struct {
	Rate     float64 // transactions due a second
	Duration time.Duration
	Invalid  float64 // share with a wrong signature, 0 to 1
	GiveUp   bool    // what a node refuses for now ends as Rejected, and what is not sent within a second as Unsent; see the package comment
}

// scheduled is the phase as bench/replay knows it, whose schedule every kind of session follows.
func (p *Phase) scheduled() replay.Phase {
	out := replay.Phase{WarmUp: p.WarmUp, Burst: p.Burst, Stretches: []replay.Stretch{{Rate: p.Rate, Duration: p.Duration}}}
	for _, t := range p.Then {
		out.Stretches = append(out.Stretches, replay.Stretch{Rate: t.Rate, Duration: t.Duration})
	}
	return out
}

// Tally counts the transactions that were due in a phase's measurement. Each is in exactly one of the counts from
// Finalised to Unsent.
type Tally struct {
	Due             uint64            // all of them
	Finalised       uint64            // succeeded, and the client has verified it
	Returned        uint64            // debited, but the receiver did not exist and the money goes back
	Expired         uint64            // can no longer execute
	Rejected        map[string]uint64 // refused for good, by code; what no node accepted until the end, by its last refusal
	InvalidAccepted uint64            // wrongly signed, and a node took it all the same
	Lost            uint64            // accepted, but neither final nor expired at the end of the drain
	Unsent          uint64            // could not be sent: no free payer, or too many waiting

	Distilled uint64            // of Finalised, signed by the signature of their batch
	Batched   uint64            // of Finalised, in a batch, with whichever signature
	Batches   uint64            // of which some transfer is in Finalised; one at the edge of the warm-up counts here
	Skipped   uint64            // were in a block with the outcome false; they may have succeeded later
	Retried   map[string]uint64 // sent again, by reason
	Latency   *hdrhistogram.Histogram
	Cross     *hdrhistogram.Histogram // of Latency, the transfers between shards
	Seconds   []Second                // by the second of the stretch that transactions were due in

	begin    time.Duration // of the stretch, since Open
	giveUp   bool          // as in Stretch
	measured bool          // else it is the warm-up's
	closed   bool          // later events are not counted any more
}

// Second counts the transactions with a right signature that were due in a second.
type Second struct {
	Due    uint64
	InTime uint64 // final within a second of their due time
}

// inTime is how soon a transaction has to be final for Second.InTime.
const inTime = time.Second

func newTally() *Tally {
	return &Tally{Rejected: map[string]uint64{}, Retried: map[string]uint64{}, Latency: newHistogram(), Cross: newHistogram()}
}

// second is the one that a transaction was due in.
func (t *Tally) second(due time.Duration) *Second {
	k := max(0, int((due-t.begin)/time.Second))
	for len(t.Seconds) <= k {
		t.Seconds = append(t.Seconds, Second{})
	}
	return &t.Seconds[k]
}

// settled enters that a transaction is final.
func (t *Tally) settled(due, now time.Duration, cross bool) {
	t.Finalised++
	record(t.Latency, now-due)
	if cross {
		record(t.Cross, now-due)
	}
	if now-due <= inTime {
		t.second(due).InTime++
	}
}

func sum(m map[string]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}

// Submitted is how many were given to a node.
func (t *Tally) Submitted() uint64 { return t.Due - t.Unsent }

// RejectedSum is how many were refused.
func (t *Tally) RejectedSum() uint64 { return sum(t.Rejected) }

// Missing is how many are in no count yet. The Tally of an Outcome misses none.
func (t *Tally) Missing() uint64 {
	return t.Due - t.Finalised - t.Returned - t.Expired - sum(t.Rejected) - t.InvalidAccepted - t.Lost - t.Unsent
}

// Outcome is what a phase measured.
type Outcome struct {
	Tally
	Begin, End Totals // at the ends of the measurement
	Drain      time.Duration
	Then       []*Outcome       // of Phase.Then, without Drain and Then
	Evidence   *replay.Evidence // without the Genesis; nil: none
	NoEvidence error            // why
}

// TPS is how many transactions of the session settled with success in the measurement, a second.
func (o *Outcome) TPS() float64 {
	return float64(o.End.Settled-o.Begin.Settled) / (o.End.At - o.Begin.At).Seconds()
}

// Run runs one phase, and what follows it, and waits for its transactions to settle. Without a Duration it goes on until Stop, or returns when
// ctx ends, without error; otherwise the end of ctx is an error.
func (s *Session) Run(ctx context.Context, p Phase) (*Outcome, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	out := &Outcome{}
	s.mu.Lock()
	s.proofs = newHistogram()
	s.mu.Unlock()
	start := s.now()
	stretches := append([]Stretch{{Rate: p.Rate, Duration: p.WarmUp, Invalid: s.opt.Workload.Invalid}, {Rate: p.Rate, Duration: p.Duration, Invalid: s.opt.Workload.Invalid}}, p.Then...)
	tallies := make([]*Tally, len(stretches))
	outcomes := []*Outcome{nil, out}
	for range p.Then {
		outcomes = append(outcomes, &Outcome{})
	}
	out.Then = outcomes[2:]
	var marks sync.WaitGroup
	length := time.Duration(0)
	for i, t := range stretches {
		tallies[i] = newTally()
		tallies[i].begin, tallies[i].giveUp, tallies[i].measured = start+length, t.GiveUp, i == 1
		length += t.Duration
	}
	scheduled := p.scheduled()
	if p.Duration > 0 {
		out.NoEvidence = s.record(scheduled, start)
		for i, o := range outcomes[1:] {
			begin, end := tallies[i+1].begin, tallies[i+1].begin+stretches[i+1].Duration
			var atBegin, atEnd func()
			if i == 0 {
				atBegin, atEnd = p.Begin, p.End
			}
			s.mark(ctx, &marks, begin, &o.Begin, atBegin)
			s.mark(ctx, &marks, end, &o.End, atEnd)
		}
	} else {
		length = 0
	}
	sched := scheduled.Schedule()
	loading, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		select {
		case <-p.Stop:
			end(errStopped)
		case <-loading.Done():
		}
	}()
	err := sched.Run(loading, s.epoch.Add(start), length, s.opt.Tick, func(first, next uint64) {
		s.launch(first, next, func(n uint64) (*Tally, time.Duration, float64) {
			k := sched.Stretch(n)
			return tallies[k], start + sched.Due(n), stretches[k].Invalid
		})
	})
	if errors.Is(context.Cause(loading), errStopped) {
		err = nil
	}
	marks.Wait()
	ended := s.now()
	if err == nil && p.Drain > 0 {
		s.drain(ctx, p.Drain)
	}
	out.Drain = s.now() - ended
	s.mu.Lock()
	for i, t := range tallies {
		s.close(t)
		if o := outcomes[i]; o != nil {
			o.Tally = *t
			o.Rejected, o.Retried, o.Seconds = maps.Clone(t.Rejected), maps.Clone(t.Retried), slices.Clone(t.Seconds)
		}
	}
	s.mu.Unlock()
	s.recorded(out)
	switch {
	case s.err() != nil && !errors.Is(s.err(), context.Canceled):
		return nil, s.err()
	case p.Duration == 0:
		return out, nil
	}
	return out, err
}

var errStopped = errors.New("load: stopped")

// launch draws the transactions first to next-1 of a phase and hands them to lanes.
func (s *Session) launch(first, next uint64, place func(uint64) (*Tally, time.Duration, float64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lanes := make([]*lane, len(s.lanes)) // of this batch, by shard
	for n := first; n < next; n++ {
		tally, due, invalid := place(n)
		tally.Due++
		s.gen.SetInvalid(invalid)
		ok := s.live < s.opt.Outstanding
		var again comeback // or new, without an id
		if ok {
			again, ok = s.draw(tally.giveUp && s.random.Float64() >= invalid, due)
		}
		t := again.t
		if !t.Invalid {
			tally.second(due).Due++
		}
		if !ok {
			tally.Unsent++
			s.rec.Missed(replay.Unsent, due)
			continue
		}
		shards := uint32(len(s.lanes))
		f := &flight{t: t, signed: again.signed, id: again.id, tally: tally, due: due, shard: consensus.ShardID(t.From % shards), dest: consensus.ShardID(t.To % shards)}
		if lanes[f.shard] == nil {
			lanes[f.shard] = s.pick(f.shard)
		}
		l := lanes[f.shard]
		if old := s.lanes[f.shard][s.last[t.From]]; !t.Invalid && s.gen.Active(t.From) > 1 && old.down <= due {
			l = old
		}
		if !t.Invalid {
			s.last[t.From] = l.index
		}
		s.live++
		s.totals.Submitted++
		l.push(f)
	}
}

// draw draws a transfer that is due now, of those who come back if there is one. mu is held.
func (s *Session) draw(back bool, due time.Duration) (comeback, bool) {
	for back && len(s.back) > 0 && s.back[0].after <= due {
		b := s.back[0]
		s.back = s.back[1:]
		left := int64(b.signed.Expiry) - int64(s.totals.Shards[int(b.t.From)%len(s.lanes)].Height)
		if left >= int64(s.opt.ExpiryBlocks)/2 && s.gen.Again(b.t) {
			return b, true
		}
	}
	t, ok := s.gen.Next()
	return comeback{t: t}, ok
}

// close ends a tally: what has not settled is counted as it stands, and forgotten. mu is held.
func (s *Session) close(t *Tally) {
	for _, f := range s.flights {
		if f.tally != t {
			continue
		}
		switch {
		case f.accepted:
			t.Lost++
			s.totals.Lost++
			s.rec.Missed(replay.Lost, f.due)
		case f.code != "":
			t.Rejected[f.code]++
			s.rec.Missed(replay.Rejected, f.due)
		default:
			t.Rejected[noAnswer]++
			s.rec.Missed(replay.Rejected, f.due)
		}
		s.finish(f, false)
	}
	t.Rejected[noAnswer] += t.Missing() // wait for a worker still, which will drop them; the recorder finds them missing too
	if t.Rejected[noAnswer] == 0 {
		delete(t.Rejected, noAnswer)
	}
	t.closed = true
}

// finishUntaken takes a transaction off the books that no node has. Its nonce can be used by the next. mu is held.
func (s *Session) finishUntaken(f *flight) {
	f.takenBack = f.attempts <= 1 && s.gen.TakeBack(f.t)
	s.finish(f, false)
}

// comeback takes a transaction that no node has off the books, and keeps its bytes for who comes back, not before a time. mu is held.
func (s *Session) comeback(f *flight, after time.Duration) {
	if s.finishUntaken(f); f.takenBack && f.id != (tx.Hash{}) && len(s.back) < s.opt.Outstanding {
		s.back = append(s.back, comeback{f.t, f.signed, f.id, after})
	}
}

// finish takes a transaction off the books. spent says that its nonce is used up. mu is held.
func (s *Session) finish(f *flight, spent bool) {
	f.gone = true
	delete(s.flights, f.id) // no-op while it is not signed
	if !f.t.Invalid && !f.debited && !f.takenBack && s.gen.Done(f.t.From, spent) {
		s.unread = append(s.unread, f.t.From)
	}
	if s.live--; s.live == 0 {
		poke(s.drained)
	}
}
