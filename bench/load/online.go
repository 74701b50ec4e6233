package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"tutti/accel/distill"
	"tutti/appliance/api"
	"tutti/appliance/broker"
	"tutti/appliance/client"
	"tutti/bench/openloop"
	"tutti/bench/replay"
	"tutti/bench/workload"
	"tutti/consensus"
	"tutti/state/tx"
)

// # A broker in the run
//
// Online is the load of many wallets of one broker: each transfer is drawn and signed with Ed25519 when it is due, given to the
// broker over a connection that all share, and its offer is checked and signed with BLS here. Latency runs from the due time to the
// verified block, so all of the distillation is part of it, and so is signing for everybody, which in life is spread over as many
// machines. What the broker refuses, or does not bring into a block within FallBack, is sent to nodes with its own signature, as
// package client does it; Retried tells how many that were.

// OnlineOptions of Online. Zero values mean the default in brackets.
type OnlineOptions struct {
	Target
	Broker       string // address
	Workload     workload.Options
	Tick         time.Duration // between draws [5 ms]
	Outstanding  int           // transactions not settled, at most [50,000]
	ExpiryBlocks uint32        // blocks that a transaction is good for from its signing [100]
	FallBack     time.Duration // from the broker's verdict, before a transfer is sent on its own [3 s]
	Patience     time.Duration // as in Options [30 s]
}

// Online is a connection to a network and a broker under load. Make it with OpenOnline. It is safe for concurrent use, but runs
// one phase at a time.
type Online struct {
	*books  // its mu guards what follows the generator, too, and the fields of each online flight
	opt     OnlineOptions
	broker  *broker.Conn
	callers sync.WaitGroup

	gen     *workload.Generator
	flights map[tx.Hash]*onlineFlight
}

// onlineFlight is one transfer under way.
type onlineFlight struct {
	t        workload.Transfer
	signed   tx.Signed
	id       tx.Hash
	tally    *Tally
	due      time.Duration
	accepted bool
	code     string        // last refusal
	settled  chan struct{} // closed when it is final, or given up
}

// Codes of our own for what a broker refused.
const (
	brokerRefused = "broker: " // and its code
	brokerGone    = "broker: gone"
	brokerLate    = "broker: not final"
)

// OpenOnline connects and waits until each shard has shown a verified block.
func OpenOnline(ctx context.Context, opt OnlineOptions) (*Online, error) {
	opt.Tick = cmp.Or(opt.Tick, 5*time.Millisecond)
	opt.Outstanding = cmp.Or(opt.Outstanding, 50_000)
	opt.ExpiryBlocks = cmp.Or(opt.ExpiryBlocks, 100)
	opt.FallBack = cmp.Or(opt.FallBack, 3*time.Second)
	opt.Patience = cmp.Or(opt.Patience, 30*time.Second)
	gen, err := workload.New(opt.Workload)
	if err != nil {
		return nil, err
	}
	if opt.Workload.Shards != len(opt.APIs) || opt.Workload.Shards != opt.Trust.Shards() || opt.Workload.Accounts > opt.Crowd.Len() || opt.Workload.CrossShard > 0 {
		return nil, errors.New("load: a load through a broker is of transfers within the shards of the network")
	}
	b := newBooks(ctx, len(opt.APIs), opt.Workload.Accounts, opt.Workload.Seed)
	if err := b.connect(opt.Target); err != nil {
		return nil, err
	}
	s := &Online{books: b, opt: opt, gen: gen, flights: map[tx.Hash]*onlineFlight{}}
	if err := s.begin(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// dialFor is how long a broker may take to come up.
const dialFor = 20 * time.Second

func (s *Online) begin() (err error) {
	for i := range uint32(s.gen.Accounts()) {
		s.gen.Ready(i, 0)
	}
	ctx, cancel := context.WithTimeout(s.ctx, dialFor)
	defer cancel()
	for {
		if s.broker, err = broker.Dial(ctx, s.opt.Broker, distill.Chain(s.opt.Trust.Genesis())); err == nil {
			break
		}
		if !openloop.Wait(ctx, probeAgain) {
			return fmt.Errorf("load: %w", err)
		}
	}
	for shard := range s.opt.APIs {
		s.group.Go(func() { s.follow(consensus.ShardID(shard)) })
	}
	s.group.Go(s.prove)
	return s.awaitBlocks()
}

// Close ends the session and waits for its goroutines.
func (s *Online) Close() error {
	s.cancel(context.Canceled)
	var err error
	if s.broker != nil {
		err = s.broker.Close()
	}
	s.callers.Wait()
	s.group.Wait()
	s.client.Close()
	return err
}

// Known is there for who uses any kind of session: the nonces are known from the start.
func (s *Online) Known(context.Context) error { return nil }

// follow verifies a shard's blocks until the session ends.
func (s *Online) follow(shard consensus.ShardID) {
	err := s.client.Follow(s.ctx, client.FollowOptions{Shard: shard, Body: true, Patience: s.opt.Patience}, s.block)
	if s.ctx.Err() == nil {
		s.cancel(fmt.Errorf("follow shard %d: %w", shard, err))
	}
}

// block enters a verified block.
func (s *Online) block(e client.Event) error {
	return s.enter(e, func(now time.Duration) error {
		s.own(e, now)
		return nil
	})
}

// own enters what a verified block says of the session's transfers. mu is held.
func (s *Online) own(e client.Event, now time.Duration) {
	c := e.Contents
	for i := range c.Body.Txs {
		s.settle(c.IDs[i], c.Body.Outcomes[i], e.Header, now, false)
	}
	at := len(c.Body.Txs)
	for _, b := range c.Body.Batches {
		var first *Tally
		for i := range b.Count() {
			t := s.settle(c.IDs[at+i], c.Body.Outcomes[at+i], e.Header, now, !b.Straggler(i))
			if t == nil {
				continue
			}
			t.Batched++
			if first == nil {
				first = t
			}
		}
		if first != nil {
			first.Batches++
		}
		at += b.Count()
	}
}

// settle enters what became of a transfer in a block, and returns where it counts if it settled. mu is held.
func (s *Online) settle(id tx.Hash, took bool, h *consensus.Header, now time.Duration, distilled bool) *Tally {
	f := s.flights[id]
	if f == nil {
		return nil
	}
	if !took {
		f.tally.Skipped++
		return nil
	}
	s.gen.Done(f.t.From, true)
	s.settled(f.tally, h.Shard, f.due, now, false, false)
	if distilled {
		f.tally.Distilled++
	}
	s.delta[f.t.From] -= int64(f.t.Amount + s.opt.Fee)
	s.delta[f.t.To] += int64(f.t.Amount)
	if f.tally.measured {
		s.probe(probe{s.opt.Crowd.ID(f.t.From), h.Height, f.due}, now)
	}
	s.finish(f)
	return f.tally
}

// finish takes a transfer off the books. mu is held.
func (s *Online) finish(f *onlineFlight) {
	delete(s.flights, f.id)
	close(f.settled)
	if s.live--; s.live == 0 {
		poke(s.drained)
	}
}

// launch draws the transfers first to next-1 of a phase and gives each to a goroutine of its own.
func (s *Online) launch(ctx context.Context, first, next uint64, place func(uint64) (*Tally, time.Duration)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := first; n < next; n++ {
		tally, due := place(n)
		tally.Due++
		tally.second(due).Due++
		ok := s.live < s.opt.Outstanding
		var t workload.Transfer
		if ok {
			t, ok = s.gen.Next()
		}
		if !ok {
			tally.Unsent++
			s.rec.Missed(replay.Unsent, due)
			continue
		}
		f := &onlineFlight{t: t, tally: tally, due: due, settled: make(chan struct{})}
		shard := t.From % uint32(len(s.opt.APIs))
		expiry := uint32(s.totals.Shards[shard].Height) + s.opt.ExpiryBlocks
		s.live++
		s.totals.Submitted++
		s.callers.Go(func() { s.send(ctx, f, expiry) })
	}
}

// send signs a transfer, gives it to the broker, and to nodes if that does not help.
func (s *Online) send(ctx context.Context, f *onlineFlight, expiry uint32) {
	signed, id := s.opt.Crowd.Sign(f.t, expiry)
	s.mu.Lock()
	f.signed, f.id = signed, id
	s.flights[id] = f
	s.mu.Unlock()
	sub := distill.Submission{Signature: signed.Signature}
	copy(sub.Body[:], signed.AppendBody(nil)[1:])
	v, err := s.broker.Submit(ctx, sub, s.opt.Crowd.BLSKey(f.t.From))
	if ctx.Err() != nil {
		return
	}
	why := brokerLate
	switch {
	case err != nil:
		why = brokerGone
	case !v.Taken():
		why = brokerRefused + v.Code.String()
	default:
		s.accepted(f)
		late := time.NewTimer(s.opt.FallBack)
		defer late.Stop()
		select {
		case <-f.settled:
			return
		case <-late.C:
		case <-ctx.Done():
			return
		}
	}
	s.mu.Lock()
	f.tally.Retried[why]++
	f.code = why
	s.mu.Unlock()
	err = s.client.Submit(ctx, []tx.Signed{signed})[0]
	var e *api.Error
	switch {
	case err == nil:
		s.accepted(f)
	case errors.As(err, &e):
		s.mu.Lock()
		f.code = string(e.Code)
		s.mu.Unlock()
	}
}

func (s *Online) accepted(f *onlineFlight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.accepted = true
}

// Run runs one phase, which must have a duration, as Session.Run does.
func (s *Online) Run(ctx context.Context, p Phase) (*Outcome, error) {
	if p.Duration <= 0 || len(p.Then) > 0 {
		return nil, errors.New("load: a phase through a broker has a duration and one stretch")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	warm, measured := newTally(), newTally()
	measured.measured = true
	out := &Outcome{}
	s.mu.Lock()
	s.proofs = newHistogram()
	s.mu.Unlock()
	start, length := s.now(), p.WarmUp+p.Duration
	warm.begin, measured.begin = start, start+p.WarmUp
	scheduled := p.scheduled()
	out.NoEvidence = s.record(scheduled, start)
	var marks sync.WaitGroup
	s.mark(ctx, &marks, start+p.WarmUp, &out.Begin, p.Begin)
	s.mark(ctx, &marks, start+length, &out.End, p.End)
	sched := scheduled.Schedule()
	err := sched.Run(ctx, s.epoch.Add(start), length, s.opt.Tick, func(first, next uint64) {
		s.launch(ctx, first, next, func(n uint64) (*Tally, time.Duration) {
			if sched.Stretch(n) == 0 {
				return warm, start + sched.Due(n)
			}
			return measured, start + sched.Due(n)
		})
	})
	marks.Wait()
	ended := s.now()
	if err == nil && p.Drain > 0 {
		s.drain(ctx, p.Drain)
	}
	out.Drain = s.now() - ended
	cancel()
	s.callers.Wait()
	s.close(warm, measured)
	s.mu.Lock()
	out.Tally = *measured
	out.Rejected, out.Retried, out.Seconds = maps.Clone(measured.Rejected), maps.Clone(measured.Retried), slices.Clone(measured.Seconds)
	s.mu.Unlock()
	s.recorded(out)
	if err := s.err(); err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	return out, err
}

// close counts what has not settled as it stands, and forgets it. Its payers don't pay again: their nonce is unknown.
func (s *Online) close(tallies ...*Tally) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.flights {
		if f.accepted {
			f.tally.Lost++
			s.totals.Lost++
			s.rec.Missed(replay.Lost, f.due)
		} else {
			f.tally.Rejected[cmp.Or(f.code, noAnswer)]++
			s.totals.Rejected++
			s.rec.Missed(replay.Rejected, f.due)
		}
		s.gen.Done(f.t.From, false)
		s.finish(f)
	}
	for _, t := range tallies {
		t.closed = true
	}
}

// Snapshot says where the session stands and begins a new interval of Latency.
func (s *Online) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot()
}
