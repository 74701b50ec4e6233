package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/shred"
	"tutti/consensus/simplex"
)

// run is the owner. first is what the machine wanted when it was made. It returns nil when the engine was closed.
func (e *Engine) run(first simplex.Ready) error {
	defer e.timer.Stop()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	err := e.perform(first)
	if err == nil {
		err = e.poll()
	}
	for err == nil {
		votes, proposals := e.votes, e.proposals
		if len(e.queue) >= maxJobs {
			votes, proposals = nil, nil // they wait
		}
		var work chan func() outcome
		var next func() outcome
		if len(e.queue) > 0 {
			work, next = e.work, e.queue[0]
		}
		select {
		case <-e.ctx.Done():
			return nil
		case work <- next:
			e.queue[0] = nil
			e.queue = e.queue[1:]
		case f := <-e.results:
			err = f()
		case ev := <-votes:
			err = e.heard(ev)
		case ev := <-proposals:
			err = e.heard(ev)
		case <-e.timer.C:
			err = e.step(simplex.TimerFired{View: e.timerView})
		case <-tick.C:
			err = e.onTick()
		}
	}
	if errors.Is(err, errOver) {
		return nil
	}
	if e.ctx.Err() != nil {
		return nil // closed while something was under way; whatever failed, failed because of that
	}
	return err
}

// step feeds the machine and obeys it.
func (e *Engine) step(ev simplex.Event) error {
	r := e.machine.Step(ev)
	e.c.Trace.Step(ev, r)
	return e.perform(r)
}

// heard feeds a message of the network.
func (e *Engine) heard(ev simplex.Event) error {
	if v, ok := ev.(simplex.VoteReceived); ok && v.From == int(v.Vote.Validator) {
		e.noteVote(&v.Vote)
		e.keepFinal(&v.Vote)
		e.status.keepLast(&v.Vote)
	}
	if p, ok := ev.(simplex.ProposalReceived); ok && p.From == int(p.Proposal.Vote.Validator) {
		e.status.keepLast(&p.Proposal.Vote)
	}
	return e.step(ev)
}

// noteVote remembers for Status how far a validator is.
func (e *Engine) noteVote(v *consensus.Vote) {
	var height consensus.Height
	if h := e.machine.Header(v.Block); h != nil {
		height = h.Height
	}
	e.status.voted(int(v.Validator), v.View, height)
}

func (e *Engine) onTick() error {
	if err := e.step(simplex.Tick{}); err != nil {
		return err
	}
	if err := e.improveLate(); err != nil {
		return err
	}
	e.sinceFinal++
	if e.ahead.Swap(false) || e.sinceFinal%pollTicks == 0 {
		if err := e.poll(); err != nil {
			return err
		}
	}
	return e.rested()
}

// perform does the three duties of simplex.Ready, in their order.
func (e *Engine) perform(r simplex.Ready) error {
	for _, a := range r.Apply {
		if k, ok := a.(simplex.KeyElsewhere); ok { // before anything leaves
			return elsewhere(k.Statement)
		}
	}
	if err := e.persist(r.Persist); err != nil {
		return err
	}
	var payload []byte // of the message before
	for i := range r.Send {
		if i == 0 || r.Send[i].Part == nil || r.Send[i].Part != r.Send[i-1].Part { // a part that is passed on goes to all
			payload = nil
		}
		payload = e.sendOut(&r.Send[i], payload)
	}
	for _, a := range r.Apply {
		if err := e.apply(a); err != nil {
			return err
		}
	}
	e.follow()
	return nil
}

// persist is duty 1: append, then sync.
func (e *Engine) persist(p simplex.Persist) error {
	if len(p.Blocks) == 0 && len(p.Records) == 0 {
		return nil
	}
	began := time.Now()
	for _, bl := range p.Blocks {
		if err := e.c.Log.AppendBlock(bl); err != nil {
			return fatal("block log", err)
		}
	}
	for _, r := range p.Records {
		if err := e.c.Log.AppendRecord(r); err != nil {
			return fatal("vote log", err)
		}
		if r.Vote != nil {
			e.noteVote(r.Vote)
			e.keepFinal(r.Vote)
		}
	}
	return e.syncLog(began)
}

// syncLog makes durable what was appended since began.
func (e *Engine) syncLog(began time.Time) error {
	if err := e.c.Log.Sync(); err != nil {
		return fatal("log sync", err)
	}
	e.c.Observer.Persisted(time.Since(began))
	return nil
}

// sendOut is duty 2 for one message. It returns the payload, which is made here unless it is given.
func (e *Engine) sendOut(o *simplex.Outbound, payload []byte) []byte {
	class := ClassVote
	if o.Proposal != nil || o.Part != nil {
		class = ClassProposal
	}
	switch {
	case payload != nil:
	case o.Proposal != nil:
		payload = encodeProposal(o.Proposal)
	case o.Part != nil:
		payload = encodePart(o.Part)
	case o.Vote != nil:
		payload = encodeVote(o.Vote)
	default:
		payload = encodeCertificate(o.Cert)
	}
	if o.To != simplex.ToAll {
		e.c.Network.Send(o.To, class, payload)
		return payload
	}
	for i := range e.c.Committee.Validators {
		if i != e.c.Index {
			e.c.Network.Send(i, class, payload)
		}
	}
	return payload
}

// apply is duty 3 for one action.
func (e *Engine) apply(a simplex.Action) error {
	switch a := a.(type) {
	case simplex.SetTimer:
		e.timerView = a.View
		e.timer.Reset(a.After)
	case simplex.Build:
		e.build(a)
	case simplex.Certify:
		e.enqueue(e.certify(a.Block))
	case simplex.Rebuild:
		e.rebuild(a)
	case simplex.Fetch:
		e.fetch(a.Block)
	case simplex.CancelFetch:
		e.cancelFetch(a.Block)
	case simplex.SyncNeeded:
		return e.catchUp()
	case simplex.Finalised:
		_, err := e.finalise(a.Blocks, a.Echoes, a.Cert)
		return err
	case simplex.Abandoned:
		if !e.sync.executed(a.Block) { // what sync has executed is final; it only has not said so yet
			e.enqueue(func() outcome { e.worker.abandon(a.Block); return nil })
		}
	case simplex.Evidence:
		e.c.Observer.Evidence(a.First, a.Second)
	case simplex.Misbehaved:
		e.penalise(a.Validator, a.Reason)
	case simplex.Halted:
		if a.Against != nil {
			e.c.Observer.Conflict(a.Cert, *a.Against)
		}
		why := ErrHalted
		if a.Own {
			why = ErrContradiction
		}
		return fatal(fmt.Sprintf("halted at a %s of view %d (%s)", a.Cert.Kind, a.Cert.View, a.Reason), why)
	}
	return nil
}

// follow brings what depends on the machine's view up to date.
func (e *Engine) follow() {
	s := e.machine.Status()
	if s.View != e.view {
		e.view = s.View
		e.c.Observer.ViewEntered(s.View, s.Leader)
		if e.building != nil && e.building.view != s.View {
			e.building.cancel()
			e.building = nil
		}
	}
	e.status.follow(s, e.final, len(e.queue), len(e.fetches), e.sync.active)
}

// finalise logs that cert makes the last of blocks final, as what the last of echoes leads down to if there are any, and has
// the application finalise those that it was not already told about; it reports whether there were any.
func (e *Engine) finalise(blocks []consensus.Block, echoes []*consensus.Header, cert consensus.Certificate) (bool, error) {
	for len(blocks) > 0 && blocks[0].Header.Height <= e.final.Height {
		hash := blocks[0].Header.Hash()
		if known, ok := e.c.Log.FinalAt(blocks[0].Header.Height); ok && known != hash {
			return false, fatal(fmt.Sprintf("blocks %s and %s final at height %d", known.Short(), hash.Short(), blocks[0].Header.Height), ErrHalted)
		}
		blocks = blocks[1:]
	}
	if len(blocks) == 0 {
		return false, nil
	}
	blocks = slices.Clone(blocks) // the machine's, until its next step
	began := time.Now()
	for _, bl := range blocks {
		if err := e.c.Log.AppendBlock(bl); err != nil {
			return false, fatal("block log", err)
		}
	}
	certified := blocks[len(blocks)-1].Header
	for _, h := range echoes {
		if err := e.c.Log.AppendBlock(consensus.Block{Header: h}); err != nil {
			return false, fatal("block log", err)
		}
		certified = h
	}
	if err := e.c.Log.AppendFinal(&cert); errors.Is(err, blocklog.ErrConflict) {
		return false, fatal(err.Error(), ErrHalted)
	} else if err != nil {
		return false, fatal("block log", err)
	}
	if err := e.syncLog(began); err != nil {
		return false, err
	}
	last := blocks[len(blocks)-1].Header
	e.final, e.sinceFinal = last, 0
	e.latest.Store(&consensus.FinalHeader{Header: certified, Cert: cert})
	e.expectLate(cert)
	e.enqueue(func() outcome {
		e.worker.settle(blocks)
		e.hand(blocks, cert)
		return nil
	})
	return true, nil
}

// building is the block that this validator is to propose in a view.
type building struct {
	view   consensus.View
	cancel context.CancelFunc
}

// build waits beside the owner until the block is due and then has the worker make it.
func (e *Engine) build(req BuildRequest) {
	if e.building != nil {
		e.building.cancel()
	}
	ctx, cancel := context.WithCancel(e.ctx)
	e.building = &building{view: req.View, cancel: cancel}
	e.spawn(func() {
		err := e.c.App.Await(ctx, req)
		e.post(func() error {
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				cancel()
				return fatal("waiting to build", err)
			}
			e.enqueue(func() outcome { return e.built(ctx, req) })
			return nil
		})
	})
}

// built runs on the worker.
func (e *Engine) built(ctx context.Context, req BuildRequest) outcome {
	block, err := e.worker.build(ctx, req)
	var set *shred.Set
	if block != nil && err == nil && block.Header.Body.Codec == consensus.CodecShards {
		set, err = shred.Cut(e.c.Committee, block.Body)
	}
	return func() error {
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fatal(fmt.Sprintf("building for view %d", req.View), err)
		}
		return e.step(simplex.Built{View: req.View, Block: block, Shreds: set})
	}
}

// rebuild makes a body of its parts beside the owner and the worker, at most maxRebuilds at a time; the others wait for a
// place. The machine asks once for each block.
func (e *Engine) rebuild(r simplex.Rebuild) {
	e.spawn(func() {
		select {
		case e.rebuilds <- struct{}{}:
		case <-e.ctx.Done():
			return
		}
		set, err := r.Parts.Rebuild()
		<-e.rebuilds
		e.post(func() error {
			if err != nil && !errors.Is(err, shred.ErrMalformed) {
				return fatal("rebuilding block "+r.Block.Short(), err)
			}
			e.status.count(func(c *Counters) {
				if c.Rebuilt++; err != nil {
					c.BadEncodings++
				}
			})
			return e.step(simplex.Rebuilt{Block: r.Block, Shreds: set})
		})
	})
}

// certify makes the worker's job for a verdict.
func (e *Engine) certify(bl consensus.Block) func() outcome {
	return func() outcome {
		began := time.Now()
		valid, known, err := e.worker.certify(e.ctx, bl)
		took := time.Since(began)
		return func() error {
			switch {
			case err != nil:
				return fatal(fmt.Sprintf("certifying a block of height %d", bl.Header.Height), err)
			case !known:
				return nil // beside the finalised chain: the machine is about to learn that
			}
			e.c.Observer.Judged(bl.Header, valid, took)
			return e.step(simplex.Judged{Block: bl.Header.Hash(), Valid: valid})
		}
	}
}
