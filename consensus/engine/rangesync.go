package engine

import (
	"context"
	"fmt"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// syncer is the state of catching up by runs. The owner's. One SyncNeeded is answered by one Synced: after the first
// finalization reached, or, when no peer can help, after a rest, with nothing new.
type syncer struct {
	active bool
	blocks []consensus.Block       // executed and logged, proven final, waiting for the block that has a finalization of its own
	hashes map[consensus.Hash]bool // of blocks, and of the run that is being executed
	rest   int                     // ticks until the attempt is given up; 0: not resting
	cancel context.CancelFunc      // of the request that is out
}

// executed reports whether block sync has the block executed, or is about to, and not yet finalised.
func (s *syncer) executed(hash consensus.Hash) bool { return s.hashes[hash] }

// catchUp starts an attempt.
func (e *Engine) catchUp() error {
	if e.sync.active {
		return nil
	}
	e.sync.active = true
	e.status.count(func(c *Counters) { c.Syncs++ })
	return e.nextRun()
}

// tip is the block that the next run must continue.
func (e *Engine) tip() *consensus.Header {
	// What the machine finalised by itself in the meantime is done.
	for len(e.sync.blocks) > 0 && e.sync.blocks[0].Header.Height <= e.final.Height {
		delete(e.sync.hashes, e.sync.blocks[0].Header.Hash())
		e.sync.blocks = e.sync.blocks[1:]
	}
	if n := len(e.sync.blocks); n > 0 {
		return e.sync.blocks[n-1].Header
	}
	return e.final
}

// nextRun asks peers in turn for the run above the tip.
func (e *Engine) nextRun() error {
	tip := e.tip()
	peers := e.peers()
	ctx, cancel := context.WithCancel(e.ctx)
	e.sync.cancel = cancel
	e.spawn(func() {
		defer cancel()
		r, ok, pruned := e.runFrom(ctx, peers, tip.Height+1)
		e.post(func() error {
			if e.third(pruned) {
				return fatal(fmt.Sprintf("block %d", tip.Height+1), ErrBehind)
			}
			if !ok {
				e.sync.rest = restTicks
				return nil
			}
			return e.execute(r, tip)
		})
	})
	return nil
}

// runFrom fetches and verifies a run, from the first peer that has one. If none has, pruned is the power of those that
// prove that the shard has come to where it begins, and say that they do not hold it.
func (e *Engine) runFrom(ctx context.Context, peers []int, from consensus.Height) (r run, ok bool, pruned consensus.Power) {
	for _, to := range peers {
		ask := func() ([]byte, error) { return e.ask(ctx, to, request{typ: typeGetRun, from: from}, runTimeout) }
		b, err := ask()
		if err == nil && b == nil && e.reached(ctx, to, from) {
			if b, err = ask(); err == nil && b == nil { // it did not just come there
				pruned += e.c.Committee.Validators[to].Power
			}
		}
		if ctx.Err() != nil {
			break
		}
		if err != nil || b == nil {
			continue
		}
		r, err := decodeRun(b)
		if err == nil {
			err = e.c.verifier().run(r, from)
		}
		if err != nil {
			e.blame(to, err.Error())
			continue
		}
		return r, true, 0
	}
	return run{}, false, pruned
}

// reached reports whether a peer proves that a block at or above a height is final, of this epoch: of one that is over, that is
// the last.
func (e *Engine) reached(ctx context.Context, to int, height consensus.Height) bool {
	b, err := e.ask(ctx, to, request{typ: typeGetLatest, epoch: e.c.Committee.Epoch}, fetchTimeout)
	if err != nil || b == nil {
		return false
	}
	final, err := decodeLatest(b)
	if err == nil {
		if final.Header.Height < height {
			return false
		}
		err = e.c.verifier().certificate(&final.Cert)
	}
	if err != nil {
		e.blame(to, err.Error())
		return false
	}
	return final.Header.Chain == e.c.Chain
}

// execute has the worker certify a run, which its certificate proves to be final.
func (e *Engine) execute(r run, tip *consensus.Header) error {
	if e.tip() != tip { // the machine was faster: ask again from where it is
		return e.nextRun()
	}
	if first := r.blocks[0].Header; first.Parent != tip.Hash() {
		return fatal(fmt.Sprintf("block %d that peers prove final is not on ours", first.Height), ErrContradiction)
	}
	if e.sync.hashes == nil {
		e.sync.hashes = map[consensus.Hash]bool{}
	}
	for _, bl := range r.blocks {
		e.sync.hashes[bl.Header.Hash()] = true
	}
	e.enqueue(func() outcome {
		for _, bl := range r.blocks {
			valid, known, err := e.worker.certify(e.ctx, bl)
			if err != nil || !valid || !known {
				return func() error { return refusedFinal(bl, err) }
			}
		}
		return func() error { return e.executed(r) }
	})
	return nil
}

// refusedFinal is why a block that is proven final could not be executed.
func refusedFinal(bl consensus.Block, err error) error {
	what := fmt.Sprintf("block %d that peers prove final", bl.Header.Height)
	if err == nil {
		err = ErrContradiction
	}
	return fatal(what, err)
}

// executed logs a run that the application accepted and, if its end has a finalization of its own, finalises it and tells
// the machine.
func (e *Engine) executed(r run) error {
	for _, bl := range r.blocks {
		if err := e.c.Log.AppendBlock(bl); err != nil {
			return fatal("block log", err)
		}
	}
	e.status.count(func(c *Counters) { c.SyncedBlocks += uint64(len(r.blocks)) })
	e.sync.blocks = append(e.sync.blocks, r.blocks...)
	if !r.complete() {
		return e.nextRun()
	}
	e.tip()
	if _, err := e.finalise(e.sync.blocks, r.echoes, r.cert); err != nil {
		return err
	}
	e.sync.blocks, e.sync.hashes = nil, nil
	last := r.blocks[len(r.blocks)-1].Header
	// Behind the Finalise in the worker's queue, so that the machine hears of it when it is done.
	e.enqueue(func() outcome { return func() error { return e.synced(last, r.cert) } })
	return nil
}

// synced ends the attempt.
func (e *Engine) synced(h *consensus.Header, cert consensus.Certificate) error {
	e.sync.active, e.sync.rest = false, 0
	return e.step(simplex.Synced{Header: h, Cert: cert})
}

// rested gives an attempt up when its rest is over; the machine asks again if it must. Called on each tick.
func (e *Engine) rested() error {
	if e.sync.rest == 0 {
		return nil
	}
	if e.sync.rest--; e.sync.rest > 0 {
		return nil
	}
	h, cert := e.machine.Final()
	return e.synced(h, cert)
}
