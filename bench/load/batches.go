package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tutti/appliance/api"
	"tutti/appliance/client"
	"tutti/bench/openloop"
	"tutti/bench/replay"
	"tutti/bench/workload"
	"tutti/consensus"
)

// # Distilled batches
//
// Batches is the load of a broker: the transfers that come due within a window are sent as one batch for each shard when it ends.
// Latency runs from the due time of each transfer, so the window is part of it. What is not part of it is the distillation: batches
// are made before the phase begins, all of them, with the signature of their senders. A transfer is final when the batch that it
// is in is in a verified block, with the bytes that were sent, and its outcome bit says that it took effect.

// BatchOptions of Batches. Zero values mean the default in brackets.
type BatchOptions struct {
	Target
	Makers       []*workload.Batcher // by shard
	Window       time.Duration       // between two batches of a shard [100 ms]
	Most         int                 // transfers of a batch; a window with more has several
	Seed         uint64              // of the sample of blocks
	ExpiryBlocks uint32              // above the height at which a phase begins, for what is needed beyond its length [100]
	Patience     time.Duration       // as in Options [30 s]
}

// Batches is a connection to a network under a load of distilled batches. Make it with OpenBatches. It is safe for concurrent use,
// but runs one phase at a time.
type Batches struct {
	*books // its mu guards what follows nodes, too, and the fields of each batch
	opt    BatchOptions
	nodes  [][]*client.Client // by shard

	flights map[[32]byte]*batch // by root
	unsure  map[uint32]struct{} // accounts with a transfer that a phase left unsettled: their nonces are not known
}

// batch is one under way.
type batch struct {
	*workload.Batch
	shard    int
	first    uint64 // number of the transfer that was drawn first; the others follow in steps of the number of shards
	start    time.Duration
	accepted bool
	code     string // last refusal
	settled  []bool // by place
	left     int
	counted  bool // among its Tally's Batches
	phase    *batchPhase
}

// batchPhase is where a phase counts.
type batchPhase struct {
	warm, measured *Tally
	sched          openloop.Schedule
}

// of is where a transfer counts, and when it was due.
func (p *batchPhase) of(n uint64) (*Tally, time.Duration) {
	if p.sched.Stretch(n) == 0 {
		return p.warm, p.sched.Due(n)
	}
	return p.measured, p.sched.Due(n)
}

// OpenBatches connects and waits until each shard has shown a verified block.
func OpenBatches(ctx context.Context, opt BatchOptions) (*Batches, error) {
	opt.Window = cmp.Or(opt.Window, 100*time.Millisecond)
	opt.ExpiryBlocks = cmp.Or(opt.ExpiryBlocks, 100)
	opt.Patience = cmp.Or(opt.Patience, 30*time.Second)
	shards := len(opt.APIs)
	if len(opt.Makers) != shards || shards != opt.Trust.Shards() || opt.Most < 1 {
		return nil, fmt.Errorf("load: makers of batches for %d shards, addresses of %d, network of %d, batches of at most %d", len(opt.Makers), shards, opt.Trust.Shards(), opt.Most)
	}
	b := newBooks(ctx, shards, opt.Crowd.Len(), opt.Seed)
	if err := b.connect(opt.Target); err != nil {
		return nil, err
	}
	s := &Batches{books: b, opt: opt, flights: map[[32]byte]*batch{}, unsure: map[uint32]struct{}{}}
	if err := s.begin(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Batches) begin() error {
	for shard, urls := range s.opt.APIs {
		var nodes []*client.Client
		for _, u := range urls {
			c, err := client.New(client.Options{URLs: []string{u}, Trust: s.opt.Trust, CallTimeout: callTimeout, Rounds: 1})
			if err != nil {
				return err
			}
			nodes = append(nodes, c)
		}
		s.nodes = append(s.nodes, nodes)
		s.group.Go(func() { s.follow(consensus.ShardID(shard)) })
	}
	s.group.Go(s.prove)
	return s.awaitBlocks()
}

// Close ends the session and waits for its goroutines.
func (s *Batches) Close() error {
	s.cancel(context.Canceled)
	s.group.Wait()
	for _, nodes := range s.nodes {
		for _, c := range nodes {
			c.Close()
		}
	}
	s.client.Close()
	return nil
}

// follow verifies a shard's blocks until the session ends.
func (s *Batches) follow(shard consensus.ShardID) {
	err := s.client.Follow(s.ctx, client.FollowOptions{Shard: shard, Body: true, Patience: s.opt.Patience}, s.block)
	if s.ctx.Err() == nil {
		s.cancel(fmt.Errorf("follow shard %d: %w", shard, err))
	}
}

// block enters a verified block.
func (s *Batches) block(e client.Event) error {
	return s.enter(e, func(now time.Duration) error { return s.own(e, now) })
}

// own enters what a verified block says of the session's batches. mu is held.
func (s *Batches) own(e client.Event, now time.Duration) error {
	h, body := e.Header, e.Contents.Body
	at := len(body.Txs)
	for _, b := range body.Batches {
		if f := s.flights[b.Root()]; f != nil && f.shard == int(h.Shard) {
			for i := range b.Count() {
				if b.Count() != f.Count() || *b.Body(i) != *f.Body(i) {
					return fmt.Errorf("%w: block %d of shard %d has other transfers under the root of a batch that was sent", errContradiction, h.Height, h.Shard)
				}
			}
			s.settle(f, body.Outcomes[at:at+b.Count()], h, now)
		}
		at += b.Count()
	}
	return nil
}

// settle enters what became of a batch in a block. mu is held.
func (s *Batches) settle(f *batch, outcomes []bool, h *consensus.Header, now time.Duration) {
	shards := uint64(len(s.nodes))
	for i, took := range outcomes {
		tally, due := f.phase.of(f.first + uint64(f.Drawn[i])*shards)
		if !took {
			tally.Skipped++
			continue
		}
		if f.settled[i] {
			continue
		}
		f.settled[i] = true
		f.left--
		s.live--
		s.settled(tally, h.Shard, f.start+due, now, false, false)
		tally.Batched++
		if !f.Straggler(i) {
			tally.Distilled++
		}
		if !f.counted {
			f.counted = true
			tally.Batches++
		}
		amount := f.Amount(i)
		s.delta[f.From[i]] -= int64(amount + s.opt.Fee)
		s.delta[f.To[i]] += int64(amount)
	}
	_, due := f.phase.of(f.first + uint64(f.Drawn[0])*shards)
	s.probe(probe{s.opt.Crowd.ID(f.From[0]), h.Height, f.start + due}, now)
	if f.left == 0 {
		delete(s.flights, f.Root())
	}
	if s.live == 0 {
		poke(s.drained)
	}
}

// readersAtOnce bounds the calls for nonces.
const readersAtOnce = 64

// Known reads the nonces of accounts of which a phase left something unsettled. The others are known from the start. It is for
// between phases.
func (s *Batches) Known(ctx context.Context) error {
	s.mu.Lock()
	unsure := s.unsure
	s.unsure = map[uint32]struct{}{}
	s.mu.Unlock()
	if len(unsure) == 0 {
		return nil
	}
	var mu sync.Mutex
	nonces := make(map[uint32]uint32, len(unsure))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readersAtOnce)
	for account := range unsure {
		group.Go(func() error {
			a, err := s.client.Account(ctx, s.opt.Crowd.ID(account))
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			nonces[account] = a.Nonce
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("load: nonces of %d accounts: %w", len(unsure), err)
	}
	for _, m := range s.opt.Makers {
		m.SetNonces(nonces)
	}
	return nil
}

// make makes all batches of a phase, by window.
func (s *Batches) make(ctx context.Context, p *batchPhase, length time.Duration) ([][]*batch, error) {
	shards := uint64(len(s.nodes))
	s.mu.Lock()
	heights := make([]uint32, shards)
	for i, t := range s.totals.Shards {
		heights[i] = uint32(t.Height)
	}
	s.mu.Unlock()
	var out [][]*batch
	total := p.sched.DueBy(length - 1)
	for first, at := uint64(0), s.opt.Window; first < total; at += s.opt.Window {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		next := min(p.sched.DueBy(at), total)
		var window []*batch
		for shard := range shards {
			from := first + (shard+shards-first%shards)%shards // the first number that is this shard's
			for n := from; n < next; {
				count := min((next-n+shards-1)/shards, uint64(s.opt.Most))
				m, err := s.opt.Makers[shard].Make(int(count), heights[shard]+s.opt.ExpiryBlocks)
				if err != nil {
					return nil, err
				}
				window = append(window, &batch{Batch: m, shard: int(shard), first: n, settled: make([]bool, count), left: int(count), phase: p})
				n += count * shards
			}
		}
		out, first = append(out, window), next
	}
	return out, nil
}

// sendersAtOnce bounds the batches that are on their way to a node.
const sendersAtOnce = 64

// Run runs one phase, which must have a duration, as Session.Run does.
func (s *Batches) Run(ctx context.Context, p Phase) (*Outcome, error) {
	if p.Duration <= 0 {
		return nil, errors.New("load: batches are made before a phase begins: give it a duration")
	}
	if len(p.Then) > 0 {
		return nil, errors.New("load: a phase of batches has one stretch")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	length := p.WarmUp + p.Duration
	scheduled := p.scheduled()
	phase := &batchPhase{warm: newTally(), measured: newTally(), sched: scheduled.Schedule()}
	windows, err := s.make(ctx, phase, length)
	if err != nil {
		return nil, err
	}
	out := &Outcome{}
	s.mu.Lock()
	s.proofs = newHistogram()
	s.mu.Unlock()
	start := s.now()
	phase.warm.begin, phase.measured.begin = start, start+p.WarmUp
	out.NoEvidence = s.record(scheduled, start)
	var marks, senders sync.WaitGroup
	mark := func(at time.Duration, into *Totals, call func()) { s.mark(ctx, &marks, start+at, into, call) }
	mark(p.WarmUp, &out.Begin, p.Begin)
	mark(length, &out.End, p.End)
	slots := make(chan struct{}, sendersAtOnce)
	sending, stop := context.WithCancel(ctx)
	defer stop()
	for k, window := range windows {
		if !openloop.Wait(ctx, start+time.Duration(k+1)*s.opt.Window-s.now()) {
			break
		}
		for _, b := range window {
			b.start = start
			s.launch(b)
			select {
			case slots <- struct{}{}:
				senders.Go(func() { defer func() { <-slots }(); s.send(sending, b) })
			default: // all senders wait for nodes
				s.unsent(b)
			}
		}
	}
	marks.Wait()
	ended := s.now()
	if ctx.Err() == nil && p.Drain > 0 {
		s.drain(ctx, p.Drain)
	}
	out.Drain = s.now() - ended
	stop()
	senders.Wait()
	s.close(phase)
	s.mu.Lock()
	out.Tally = *phase.measured
	s.mu.Unlock()
	s.recorded(out)
	if err := s.err(); err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	return out, ctx.Err()
}

// launch puts a batch on the books.
func (s *Batches) launch(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range b.Drawn {
		tally, _ := b.phase.of(b.first + uint64(b.Drawn[i])*uint64(len(s.nodes)))
		tally.Due++
	}
	s.totals.Submitted += uint64(len(b.Drawn))
	s.live += len(b.Drawn)
	s.flights[b.Root()] = b
}

// send gives a batch to the nodes of its shard in turn, until one has it.
func (s *Batches) send(ctx context.Context, b *batch) {
	nodes := s.nodes[b.shard]
	at := int(b.first/uint64(len(s.nodes))/uint64(max(b.Count(), 1))) % len(nodes)
	for backoff := firstBackoff; ; backoff = min(2*backoff, maxBackoff) {
		err := nodes[at].SubmitBatch(ctx, b.Batch.Batch)
		var e *api.Error
		code, again := Unreachable, true
		if errors.As(err, &e) {
			code, again = string(e.Code), e.RetryAfter > 0 || passing(e.Code)
		}
		s.mu.Lock()
		if b.accepted = b.accepted || err == nil; err != nil {
			b.code = code
			b.phase.measured.Retried[code] += uint64(b.Count())
			s.totals.Refused += uint64(b.Count())
		}
		s.mu.Unlock()
		if err == nil || !again || !openloop.Wait(ctx, backoff) {
			return
		}
		at = (at + 1) % len(nodes)
	}
}

// unsent takes a batch off the books that could not be sent.
func (s *Batches) unsent(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range b.Drawn {
		tally, due := b.phase.of(b.first + uint64(b.Drawn[i])*uint64(len(s.nodes)))
		tally.Unsent++
		s.unsure[b.From[i]] = struct{}{}
		s.rec.Missed(replay.Unsent, b.start+due)
	}
	s.totals.Submitted -= uint64(len(b.Drawn))
	s.live -= len(b.Drawn)
	delete(s.flights, b.Root())
}

// close counts what has not settled as it stands, and forgets it.
func (s *Batches) close(p *batchPhase) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for root, b := range s.flights {
		if b.phase != p {
			continue
		}
		for i, done := range b.settled {
			tally, due := p.of(b.first + uint64(b.Drawn[i])*uint64(len(s.nodes)))
			if !done {
				s.unsure[b.From[i]] = struct{}{}
			}
			switch {
			case done:
			case b.accepted:
				tally.Lost++
				s.totals.Lost++
				s.rec.Missed(replay.Lost, b.start+due)
			default:
				tally.Rejected[cmp.Or(b.code, noAnswer)]++
				s.totals.Rejected++
				s.rec.Missed(replay.Rejected, b.start+due)
			}
		}
		s.live -= b.left
		delete(s.flights, root)
	}
}

// Snapshot says where the session stands and begins a new interval of Latency.
func (s *Batches) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot()
}
