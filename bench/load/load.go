// Package load sends transfers to a network at a given rate and measures how long each takes to be final.
//
// # Open loop
//
// Transaction n of a phase is due n/rate seconds after the phase began, whatever the network does. A delay of the
// generator itself, of signing, of a full node or of a dead one counts: latency runs from the due time to the moment
// when this client has verified that the transaction is final. What cannot be sent, because no payer is free or because
// Options.Outstanding transactions are waiting already, is counted as Unsent and never forgotten.
//
// # Finality
//
// Each shard is followed over client.Follow with whole blocks, so the certificate, the body's digest and the outcomes
// root are verified once for a block, and with them the inclusion of each of its transactions. A transfer inside a shard
// is settled when its block is. One between shards is settled when its receipt, the same payer, receiver and amount,
// is credited in a verified block of the receiver's shard and its debit is verified too.
//
// # Sending
//
// Transactions are drawn when due, signed on the goroutines that send them, and posted in binary, in batches of what has
// come together, to the nodes of the payer's shard in turn (transactions of an account of which some are under way go
// where the last one went, so that they arrive in nonce order). A refusal that may pass, and a node that does not
// answer, send the same bytes to the next node; so does a transaction that is not final after Options.ResendAfter, or a
// second after it was given to a node that has gone since.
//
// In a Stretch with GiveUp a transaction ends with such a refusal. Whoever was refused comes back with the same bytes, after the
// time that the node gave, for a transaction that is due then; only where nobody comes back is a new one drawn. So the rate stays
// what it is, as if there were ever more payers, but the generator, which may share its cores with the network, does not spend them
// on signatures of what is refused. What it could not send within a second is not sent any more.
//
// # Counts
//
// Every transaction that was due in a phase ends in exactly one count of its Tally; Tally.Missing says how many do not,
// and is zero after Run. Memory is bounded by Options.Outstanding, about 700 bytes for each.
//
// A Session is safe for concurrent use, but runs one phase at a time. Nothing here is fatal to the process; a Session
// that can no longer verify a shard ends every call with the reason.
package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tutti/appliance/client"
	"tutti/appliance/proof"
	"tutti/bench/replay"
	"tutti/bench/workload"
	"tutti/consensus"
	"tutti/state/tx"
)

// Target is the network to send to.
type Target struct {
	Trust *proof.Trust
	APIs  [][]string      // addresses of the nodes' APIs, by shard
	Crowd *workload.Crowd // who pays; Options.Workload.Accounts is at most its length
	Fee   uint64          // price of fee class 0
}

// Options of a Session. Zero values mean the default in brackets.
type Options struct {
	Target
	Workload     workload.Options
	Fresh        bool          // no account has paid yet: nonces are 0, and are not read
	Tick         time.Duration // between batches [10 ms]
	Outstanding  int           // transactions not settled, at most [200,000]
	ExpiryBlocks uint32        // blocks that a transaction is good for from its signing [100]
	ResendAfter  time.Duration // without finality, before the same bytes are sent to another node; doubles each time; 1 s where a node is gone [5 s]
	Patience     time.Duration // without a verified block of a shard before the session fails [30 s]; negative: it never does
	ReadRate     float64       // nonces read from each node a second [25]
}

func (o Options) filled() Options {
	if o.Tick == 0 {
		o.Tick = 10 * time.Millisecond
	}
	if o.Outstanding == 0 {
		o.Outstanding = 200_000
	}
	if o.ExpiryBlocks == 0 {
		o.ExpiryBlocks = 100
	}
	if o.ResendAfter == 0 {
		o.ResendAfter = 5 * time.Second
	}
	if o.Patience == 0 {
		o.Patience = 30 * time.Second
	}
	if o.ReadRate == 0 {
		o.ReadRate = 25
	}
	return o
}

const (
	laneCalls    = 4               // calls to one node at once, and
	laneWorkers  = 16              // with full batches
	laneBatch    = 512             // transactions in one call, at most
	sendWithin   = time.Second     // what is given up when it is sent later
	callTimeout  = 5 * time.Second // of one call
	sweepEvery   = 100 * time.Millisecond
	scanEvery    = 10 // sweeps between looks at everything under way
	stuckAfter   = 500 * time.Millisecond
	downFor      = time.Second
	firstBackoff = 50 * time.Millisecond
	maxBackoff   = time.Second
)

// Session is a connection to a network under load. Make it with Open.
type Session struct {
	*books // its mu guards what follows lanes, too, and every lane's and every flight's fields
	opt    Options
	lanes  [][]*lane // by shard

	gen      *workload.Generator
	flights  map[tx.Hash]*flight // signed and not settled
	retries  []*flight           // wait for flight.again
	back     []comeback          // given up in a Stretch with GiveUp, the longest waiting first; at most Options.Outstanding
	unread   []uint32            // accounts whose nonce has to be read
	reading  int                 // accounts whose nonce is being read
	last     []uint8             // lane of the newest transfer of each account
	turn     []uint64            // by shard: rotates over the lanes
	caughtUp chan struct{}       // poked when unread and reading fall to 0
}

// flight is one transaction under way. The signed transaction and its id belong to the worker that signs it, and do not
// change once it is in Session.flights.
type flight struct {
	t        workload.Transfer
	signed   tx.Signed
	id       tx.Hash // zero: not signed yet
	tally    *Tally
	due      time.Duration
	sent     time.Duration // last
	again    time.Duration // next, while in Session.retries
	code     string        // last refusal
	attempts int
	shard    consensus.ShardID // of the payer
	dest     consensus.ShardID // of the receiver
	lane     uint8
	accepted bool
	debited  bool
	credited bool
	gone     bool // settled in one way or another

	takenBack bool // no node has it, and the generator draws its nonce again
}

// comeback is a transfer that was given up and that its payer offers again, with the same bytes, not before a time.
type comeback struct {
	t      workload.Transfer
	signed tx.Signed
	id     tx.Hash
	after  time.Duration
}

// Totals counts since Open.
type Totals struct {
	At        time.Duration // since Open
	Submitted uint64        // transactions of this session that were due and not held back
	Settled   uint64        // of these, succeeded
	Rejected  uint64        // of these, refused for good
	Refused   uint64        // refusals by nodes, for good or for now; a transaction may have had several
	Lost      uint64        // of these, accepted but not settled when their phase ended
	Foreign   uint64        // accounts that turned out to have another key and are not drawn
	Shards    []ShardTotals
}

// ShardTotals counts the verified blocks of a shard, whoever's transactions are in them.
type ShardTotals struct {
	Height       consensus.Height
	Blocks       uint64
	Transactions uint64 // with success
}

func (t Totals) clone() Totals {
	t.Shards = append([]ShardTotals(nil), t.Shards...)
	return t
}

// Seen is a final block that this client has verified.
type Seen struct {
	Height consensus.Height
	Hash   consensus.Hash
}

// maxSeen bounds the sample of each shard.
const maxSeen = 32

// Open connects and waits until each shard has shown a verified block.
func Open(ctx context.Context, opt Options) (*Session, error) {
	opt = opt.filled()
	gen, err := workload.New(opt.Workload)
	if err != nil {
		return nil, err
	}
	if opt.Workload.Shards != len(opt.APIs) || opt.Workload.Shards != opt.Trust.Shards() || opt.Workload.Accounts > opt.Crowd.Len() {
		return nil, fmt.Errorf("load: workload of %d shards and %d accounts, network of %d shards, addresses of %d, keys of %d accounts",
			opt.Workload.Shards, opt.Workload.Accounts, opt.Trust.Shards(), len(opt.APIs), opt.Crowd.Len())
	}
	b := newBooks(ctx, len(opt.APIs), opt.Workload.Accounts, opt.Workload.Seed)
	if err := b.connect(opt.Target); err != nil {
		return nil, err
	}
	s := &Session{
		books: b, opt: opt, gen: gen, flights: map[tx.Hash]*flight{}, last: make([]uint8, opt.Workload.Accounts), turn: make([]uint64, len(opt.APIs)),
		caughtUp: make(chan struct{}, 1),
	}
	if err := s.begin(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// begin starts everything.
func (s *Session) begin() error {
	for i := range uint32(s.gen.Accounts()) {
		if s.opt.Fresh {
			s.gen.Ready(i, 0)
		} else {
			s.unread = append(s.unread, i)
		}
	}
	nodes := 0
	for shard, urls := range s.opt.APIs {
		if len(urls) == 0 || len(urls) > 256 {
			return fmt.Errorf("load: shard %d has %d API addresses: need 1 to 256", shard, len(urls))
		}
		var lanes []*lane
		for i, u := range urls {
			c, err := client.New(client.Options{URLs: []string{u}, Trust: s.opt.Trust, CallTimeout: callTimeout, Rounds: 1})
			if err != nil {
				return err
			}
			lanes = append(lanes, &lane{s: s, index: uint8(i), client: c, wake: make(chan struct{}, 1)})
		}
		s.lanes = append(s.lanes, lanes)
		nodes += len(urls)
	}
	for shard, lanes := range s.lanes {
		for _, l := range lanes {
			for range laneWorkers {
				s.group.Go(l.run)
			}
		}
		s.group.Go(func() { s.follow(consensus.ShardID(shard)) })
	}
	s.group.Go(s.sweep)
	s.group.Go(s.prove)
	s.group.Go(func() { s.readNonces(nodes) })
	return s.awaitBlocks()
}

// Close ends the session and waits for its goroutines.
func (s *Session) Close() error {
	s.cancel(context.Canceled)
	s.group.Wait()
	for _, lanes := range s.lanes {
		for _, l := range lanes {
			l.client.Close()
		}
	}
	s.client.Close()
	return nil
}

// poke leaves a token in a channel that holds one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Known waits until all nonces have been read, or the session or ctx ends.
func (s *Session) Known(ctx context.Context) error {
	for {
		s.mu.Lock()
		done := len(s.unread) == 0 && s.reading == 0
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-s.caughtUp:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return s.err()
		}
	}
}

// Snapshot is where a session stands.
type Snapshot struct {
	Totals
	Live    int                     // transactions not settled
	Unread  int                     // accounts whose nonce is not known yet
	Latency *hdrhistogram.Histogram // of what settled since the last Snapshot, microseconds
}

// Snapshot says where the session stands and begins a new interval of Latency.
func (s *Session) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.snapshot()
	out.Unread = len(s.unread) + s.reading
	return out
}

func newHistogram() *hdrhistogram.Histogram { return replay.NewHistogram() }

func record(h *hdrhistogram.Histogram, d time.Duration) { replay.Record(h, d, 1) }
