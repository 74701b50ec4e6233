package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"tutti/appliance/epochs"
	"tutti/appliance/genesis"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/engine"
)

// A node goes through the epochs of its shard without a restart: an engine is one epoch's, and when that is over the hand-over is
// stored and the next engine starts on the same log, state, transport and API. A validator of the pool that has no seat in an epoch
// follows as an observer, so that it is in step when it has one again.
//
// What is durable, and in which order: the middle block of an epoch is in the store before it is final in the ledger; the epoch's
// last block is final in log and ledger before its hand-over is stored, and that is stored before the next engine starts. After a
// crash in between the hand-over is made again from the log (fill).

// term is an epoch, and this node's part in it. Immutable.
type term struct {
	epochs.Term
	keys  consensus.Keys
	index int // own seat, -1 for none
}

// running is the engine of a term.
type running struct {
	*term
	engine *engine.Engine
}

// seats decides where epochs of the own shard end and who has the seats of the next. Safe for concurrent use.
type seats struct {
	genesis *genesis.Genesis
	store   *epochs.Store
	log     blockSource
	current atomic.Pointer[term] // of the engine that runs or is about to

	mu   sync.Mutex // guards next
	next *consensus.Committee
}

// member is the committee of the epoch that runs.
func (s *seats) member() member {
	t := s.current.Load()
	return member{t.Committee, t.keys}
}

// middle is the block that the committee after a term's is drawn from, ok once it is final here.
func (s *seats) middle(t epochs.Term) (hash consensus.Hash, ok bool) {
	if hash, ok := s.store.Middle(t.Committee.Epoch); ok {
		return hash, true
	}
	at, ends := s.genesis.EpochMiddle(t.Start)
	if !ends {
		return hash, false
	}
	return s.log.FinalAt(at)
}

// middleBelow is the same of a block's chain, part of which need not be final. open finds headers of blocks that are not.
func (s *seats) middleBelow(t epochs.Term, h *consensus.Header, open func(consensus.Hash) *consensus.Header) (consensus.Hash, error) {
	at, _ := s.genesis.EpochMiddle(t.Start)
	for h.Height > at {
		parent := open(h.Parent)
		if parent == nil { // the chain below is final
			hash, ok := s.middle(t)
			if !ok {
				return hash, fmt.Errorf("block %d, from which the committee after epoch %d is drawn, is not held here", at, t.Committee.Epoch)
			}
			return hash, nil
		}
		h = parent
	}
	return h.Hash(), nil
}

// after is the committee of the epoch after a term's.
func (s *seats) after(t epochs.Term, middle consensus.Hash) (*consensus.Committee, error) {
	next, err := s.genesis.NextCommittee(t.Committee, middle)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil && s.next.Hash() == next.Hash() {
		return s.next, nil
	}
	s.next = next
	return next, nil
}

// committeeAfter is the hash that the header h has to name as its next committee: its own, but for the last block of its epoch.
func (s *seats) committeeAfter(h *consensus.Header, open func(consensus.Hash) *consensus.Header) (consensus.Hash, error) {
	t := s.current.Load()
	if !s.genesis.EpochEnds(t.Start, h.Height) {
		return t.Committee.Hash(), nil
	}
	if known, err := s.store.Term(t.Committee.Epoch + 1); err == nil { // an epoch that is over is played again
		return known.Committee.Hash(), nil
	} else if !errors.Is(err, epochs.ErrUnknown) {
		return consensus.Hash{}, err
	}
	middle, err := s.middleBelow(t.Term, h, open)
	if err != nil {
		return consensus.Hash{}, err
	}
	next, err := s.after(t.Term, middle)
	if err != nil {
		return consensus.Hash{}, err
	}
	return next.Hash(), nil
}

// final takes a block that is about to be final in the ledger: the epoch's middle one is kept.
func (s *seats) final(h *consensus.Header) error {
	t := s.current.Load()
	if at, ends := s.genesis.EpochMiddle(t.Start); !ends || h.Height != at {
		return nil
	}
	return s.store.SetMiddle(h.Epoch, h.Hash())
}

// handOver stores what ended the newest epoch, with the next committee.
func (s *seats) handOver(end *consensus.EpochEnd) error {
	t := s.store.Newest()
	if end.Last.Epoch < t.Committee.Epoch { // stored before
		return nil
	}
	middle, ok := s.middle(t)
	if !ok {
		return fmt.Errorf("the block in the middle of epoch %d is not held here: %w", t.Committee.Epoch, errNoHandovers)
	}
	next, err := s.after(t, middle)
	if err != nil {
		return err
	}
	return s.store.Add(&proof.Handover{End: end, Next: next})
}

// errNoHandovers: the store lacks what the log does not hold any more.
var errNoHandovers = errors.New("this node lacks hand-overs from one epoch's committee to the next: run once 'tutti run --resync', which copies them from the other validators")

// fill brings the store up to an epoch out of the log, and has the middle block of the newest if it is final.
func (s *seats) fill(epoch consensus.Epoch, final consensus.Height) error {
	for {
		t := s.store.Newest()
		if t.Committee.Epoch >= epoch {
			break
		}
		end, err := s.log.EpochEnd(t.Committee.Epoch)
		if errors.Is(err, blocklog.ErrNotFound) {
			err = fmt.Errorf("the block log does not hold what ended epoch %d: %w", t.Committee.Epoch, errNoHandovers)
		}
		if err != nil {
			return err
		}
		if err := s.handOver(end); err != nil {
			return err
		}
	}
	t := s.store.Newest()
	at, ends := s.genesis.EpochMiddle(t.Start)
	if !ends || at > final || t.Committee.Epoch != epoch {
		return nil
	}
	hash, ok := s.middle(t)
	if !ok {
		return fmt.Errorf("the block in the middle of epoch %d is not held here: %w", epoch, errNoHandovers)
	}
	return s.store.SetMiddle(epoch, hash)
}

// openEpochs opens the store of hand-overs.
func (n *Node) openEpochs() error {
	store, err := epochs.Open(disk(), n.home.Epochs(), consensus.Hash(n.chain), n.committees[n.shard])
	if err != nil {
		return err
	}
	n.epochs = store
	n.closers = append(n.closers, store)
	return nil
}

// seat is this node's place in a committee, -1 if it has none.
func (n *Node) seat(c *consensus.Committee) int {
	own := n.genesis.Shards[n.shard].Validators[n.index].Key
	return slices.IndexFunc(c.Validators, func(v consensus.Validator) bool { return v.Key == own })
}

// now is the engine that runs, or ran last.
func (n *Node) now() *running { return n.running.Load() }

// enter starts the engine of the epoch that follows from the log and the state.
func (n *Node) enter(ctx context.Context) error {
	height, hash := n.app.Final()
	_, epoch, err := engine.EpochOf(n.blocks, n.root, height, hash)
	if err != nil {
		return err
	}
	if err := n.seats.fill(epoch, height); err != nil {
		return err
	}
	t, err := n.epochs.Term(epoch)
	if err != nil {
		return err
	}
	var keys consensus.Keys
	if before := n.seats.current.Load(); before != nil {
		keys, err = consensus.NewKeysFrom(before.keys, t.Committee)
	} else {
		keys, err = consensus.NewKeys(t.Committee)
	}
	if err != nil {
		return fmt.Errorf("keys of epoch %d: %w", epoch, err)
	}
	own := &term{Term: t, keys: keys, index: n.seat(t.Committee)}
	if barred(n.blocks, epoch) {
		own.index = -1
	}
	n.seats.current.Store(own)
	c := engine.Config{
		Chain: consensus.Hash(n.chain), Genesis: n.root, Committee: t.Committee, Keys: keys, Index: own.index,
		Log: n.blocks, App: n.app, Ends: n.endOf, Network: gated(n, n.router.enter(t.Committee)), Observer: observer{n},
	}
	if own.index >= 0 {
		c.Signer = n.signer
	}
	e, err := engine.Start(ctx, c)
	if err != nil {
		return err
	}
	n.running.Store(&running{own, e})
	if n.genesis.Parameters.EpochBlocks != 0 {
		n.log.Info("an epoch begins", "epoch", epoch, "after_height", t.Start, "seat", own.index, "seats", len(t.Committee.Validators))
	}
	return nil
}

// endOf is what ended an epoch, nil while it is not over.
func (n *Node) endOf(epoch consensus.Epoch) (*consensus.EpochEnd, error) {
	list, err := n.epochs.Handovers(epoch, 1, 1)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0].End, nil
}

// walk goes from epoch to epoch until ctx ends or an engine fails.
func (n *Node) walk(ctx context.Context) error {
	for {
		r := n.now()
		select {
		case <-r.engine.Done():
		case <-ctx.Done():
			return nil
		}
		end := r.engine.Ended()
		if end == nil {
			return r.engine.Err()
		}
		if err := n.seats.handOver(end); err != nil {
			return err
		}
		if err := n.enter(ctx); err != nil {
			return err
		}
	}
}

// engineCloser closes the engine that runs when the node ends.
type engineCloser struct{ n *Node }

// Close implements io.Closer.
func (c engineCloser) Close() error { return c.n.now().engine.Close() }
