package load

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tutti/appliance/client"
	"tutti/appliance/proof"
	"tutti/bench/openloop"
	"tutti/bench/replay"
	"tutti/consensus"
	"tutti/state/tx"
)

// books are what every kind of session has: its connection, the blocks that it saw, and its counts. For the evidence of a phase
// (bench/replay) a session calls record when it begins, enter for each block, settled or rec.Missed once for every transaction that
// was due, whatever became of it, and recorded when the last has its count.
type books struct {
	epoch  time.Time // all times are durations since it
	client *client.Client
	ctx    context.Context
	cancel context.CancelCauseFunc
	group  sync.WaitGroup
	begun  []chan struct{} // by shard: closed at its first block
	probes chan probe      // holds one

	mu      sync.Mutex // guards what follows
	live    int        // transactions launched and not settled
	totals  Totals
	recent  *hdrhistogram.Histogram // of all phases, since the last Snapshot
	delta   []int64                 // by account: units received less units paid, fees included
	seen    [][]Seen                // by shard: a sample of final blocks
	random  *rand.Rand              // chooses the sample
	probed  time.Duration           // last probe
	proofs  *hdrhistogram.Histogram // account proofs of this phase, microseconds
	drained chan struct{}           // poked when live falls to 0
	finals  []*proof.Final          // by shard: of the last block that was verified
	rec     *replay.Recorder        // of the phase that runs; nil: it leaves no evidence
}

// newBooks makes empty ones, without a client.
func newBooks(ctx context.Context, shards, accounts int, seed uint64) *books {
	b := &books{
		epoch: time.Now(), probes: make(chan probe, 1), totals: Totals{Shards: make([]ShardTotals, shards)}, recent: newHistogram(),
		delta: make([]int64, accounts), seen: make([][]Seen, shards), random: rand.New(rand.NewPCG(seed, 1)), proofs: newHistogram(),
		drained: make(chan struct{}, 1), finals: make([]*proof.Final, shards),
	}
	for range shards {
		b.begun = append(b.begun, make(chan struct{}))
	}
	b.ctx, b.cancel = context.WithCancelCause(ctx)
	return b
}

// connect makes the client of all nodes.
func (b *books) connect(t Target) (err error) {
	b.client, err = client.New(client.Options{URLs: slices.Concat(t.APIs...), Trust: t.Trust})
	return err
}

// awaitBlocks waits until each shard has shown a verified block.
func (b *books) awaitBlocks() error {
	for _, begun := range b.begun {
		select {
		case <-begun:
		case <-b.ctx.Done():
			return b.err()
		}
	}
	return nil
}

// err says why the session ended; nil while it goes on.
func (b *books) err() error { return context.Cause(b.ctx) }

func (b *books) now() time.Duration { return time.Since(b.epoch) }

// enter counts a verified block, has use enter what it says of the session's own transactions, with mu held, and makes what
// shows its outcomes to others when all that is done.
func (b *books) enter(e client.Event, use func(now time.Duration) error) error {
	b.mu.Lock()
	now := b.now()
	b.count(e.Header, e.Contents.Body.Outcomes)
	open := b.rec.Block(e.Contents, now)
	b.finals[e.Header.Shard] = &e.Contents.Block.Final
	err := use(now)
	b.mu.Unlock()
	open()
	return err
}

// record begins the evidence of a phase, whose first transaction is due at start. A phase that can not leave any goes on
// without.
func (b *books) record(p replay.Phase, start time.Duration) (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	wall := time.Now().Add(start - b.now()) // by the clock of the day as it is now, which may have been set since epoch
	b.rec, err = replay.NewRecorder(p, start, wall, b.client.Trust(), b.finals)
	return err
}

// recorded ends the evidence of a phase, once all of its transactions are in one of its counts.
func (b *books) recorded(out *Outcome) {
	b.mu.Lock()
	rec := b.rec
	b.rec = nil
	b.mu.Unlock()
	if rec == nil {
		return
	}
	var marks []replay.Marks
	for _, o := range append([]*Outcome{out}, out.Then...) {
		marks = append(marks, replay.Marks{Begin: o.Begin.At, End: o.End.At})
	}
	out.Evidence, out.NoEvidence = rec.Finish(marks...)
}

// settled enters a transaction that succeeded in a verified block of a shard, or by a receipt that the block consumed. due is
// on the session's clock; cross says that it is between shards. mu is held.
func (b *books) settled(t *Tally, shard consensus.ShardID, due, now time.Duration, credit, cross bool) {
	b.totals.Settled++
	t.settled(due, now, cross)
	record(b.recent, now-due)
	b.rec.Settled(shard, due, credit)
}

// count enters a verified block. mu is held.
func (b *books) count(h *consensus.Header, outcomes []bool) {
	shard := &b.totals.Shards[h.Shard]
	if shard.Blocks == 0 {
		close(b.begun[h.Shard])
	}
	shard.Height = h.Height
	shard.Blocks++
	for _, took := range outcomes {
		if took {
			shard.Transactions++
		}
	}
	// Every block is kept with the same chance (Vitter's algorithm R).
	at, sample := b.random.Uint64N(shard.Blocks), &b.seen[h.Shard]
	if len(*sample) < maxSeen {
		*sample = append(*sample, Seen{h.Height, h.Hash()})
	} else if at < maxSeen {
		(*sample)[at] = Seen{h.Height, h.Hash()}
	}
}

// mark has group take the counts at a time, and then call call if it is not nil.
func (b *books) mark(ctx context.Context, group *sync.WaitGroup, at time.Duration, into *Totals, call func()) {
	group.Go(func() {
		if openloop.Wait(ctx, at-b.now()) {
			*into = b.Totals()
			if call != nil {
				call()
			}
		}
	})
}

// Totals is the counts now. It does not touch the interval of Snapshot.
func (b *books) Totals() Totals {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.totals.clone()
	t.At = b.now()
	return t
}

// snapshot is Snapshot for who holds mu.
func (b *books) snapshot() Snapshot {
	out := Snapshot{Totals: b.totals.clone(), Live: b.live, Latency: b.recent}
	out.At = b.now()
	b.recent = newHistogram()
	return out
}

// drain waits until nothing is under way, at most so long.
func (b *books) drain(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		b.mu.Lock()
		live := b.live
		b.mu.Unlock()
		if live == 0 {
			return
		}
		select {
		case <-b.drained:
		case <-ctx.Done():
			return
		}
	}
}

// Sample is a sample of the final blocks that were verified, by shard, ascending by height.
func (b *books) Sample() [][]Seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([][]Seen, len(b.seen))
	for i := range out {
		out[i] = slices.Clone(b.seen[i])
		slices.SortFunc(out[i], func(x, y Seen) int { return cmp.Compare(x.Height, y.Height) })
	}
	return out
}

// Delta is by how many units this session's settled transfers have changed an account's balance.
func (b *books) Delta(account uint32) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.delta[account]
}

// AccountProofs is how long it took from the due time of some transactions of the last phase to a verified proof of
// their payer's state after them, in microseconds.
func (b *books) AccountProofs() *hdrhistogram.Histogram {
	b.mu.Lock()
	defer b.mu.Unlock()
	return hdrhistogram.Import(b.proofs.Export())
}

// probe is a transaction of which an account proof is wanted.
type probe struct {
	account tx.ID
	height  consensus.Height // of its block
	due     time.Duration
}

const (
	probeEvery   = time.Second
	probeAgain   = 100 * time.Millisecond
	probeTimeout = 10 * time.Second
)

// probe asks for an account proof, if it is time for one and the last is done. mu is held.
func (b *books) probe(p probe, now time.Duration) {
	if now-b.probed <= probeEvery {
		return
	}
	select {
	case b.probes <- p:
		b.probed = now
	default:
	}
}

// prove measures account proofs until the session ends.
func (b *books) prove() {
	for {
		select {
		case p := <-b.probes:
			b.proveOne(p)
		case <-b.ctx.Done():
			return
		}
	}
}

func (b *books) proveOne(p probe) {
	ctx, cancel := context.WithTimeout(b.ctx, probeTimeout)
	defer cancel()
	for openloop.Wait(ctx, probeAgain) {
		st, _, err := b.client.ProvenAccount(ctx, p.account)
		if err == nil && st.StateHeight >= p.height {
			b.mu.Lock()
			record(b.proofs, b.now()-p.due)
			b.mu.Unlock()
			return
		}
	}
}
