package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"tutti/consensus"
	"tutti/consensus/blocklog"
)

// knownBlock is a block that the application judged valid and has not been told the end of.
type knownBlock struct {
	height consensus.Height
	parent consensus.Hash
}

// worker makes the calls of the application, on one goroutine. It keeps the promise that App gives about which blocks are
// certified, finalised and abandoned, whatever order the machine and block sync ask in.
type worker struct {
	app    App
	log    *blocklog.Log
	height consensus.Height // of the last finalised block
	hash   consensus.Hash
	known  map[consensus.Hash]knownBlock // above height; as many as the machine holds blocks, and sync's
}

// enqueue puts a job at the end of the worker's queue. Owner only.
func (e *Engine) enqueue(job func() outcome) { e.queue = append(e.queue, job) }

func (e *Engine) runWorker() {
	for {
		select {
		case <-e.ctx.Done():
			return
		case job := <-e.work:
			if then := job(); then != nil {
				e.post(then)
			}
		}
	}
}

// stands reports whether the application holds the state after a block.
func (w *worker) stands(hash consensus.Hash) bool {
	_, ok := w.known[hash]
	return ok || hash == w.hash
}

// build makes a block; nil if the parent has gone, which gives the view up.
func (w *worker) build(ctx context.Context, req BuildRequest) (*consensus.Block, error) {
	if ctx.Err() != nil || !w.stands(req.Parent.Hash()) {
		return nil, nil
	}
	return w.app.Build(ctx, req)
}

// certify judges a block. known is false when the block is beside the finalised chain, so that nobody needs a verdict.
func (w *worker) certify(ctx context.Context, bl consensus.Block) (valid, known bool, err error) {
	h, hash := bl.Header, bl.Header.Hash()
	if h.Height <= w.height {
		final, ok := w.log.FinalAt(h.Height)
		return true, ok && final == hash, nil
	}
	if w.stands(hash) {
		return true, true, nil
	}
	if !w.stands(h.Parent) {
		return false, false, nil
	}
	if valid, err = w.app.Certify(ctx, bl); valid && err == nil {
		w.known[hash] = knownBlock{h.Height, h.Parent}
	}
	return valid, true, err
}

// finalise has the application make blocks final, and settles them.
func (w *worker) finalise(ctx context.Context, blocks []consensus.Block, cert consensus.Certificate) error {
	if err := w.app.Finalise(ctx, blocks, cert); err != nil {
		return err
	}
	w.settle(blocks)
	return nil
}

// settle notes that blocks are final and abandons what can't become final any more.
func (w *worker) settle(blocks []consensus.Block) {
	for _, bl := range blocks {
		delete(w.known, bl.Header.Hash())
	}
	last := blocks[len(blocks)-1].Header
	w.height, w.hash = last.Height, last.Hash()
	var left []consensus.Hash // by height, so that parents come first
	for hash := range w.known {
		left = append(left, hash)
	}
	slices.SortFunc(left, func(a, b consensus.Hash) int {
		return cmp.Or(cmp.Compare(w.known[a].height, w.known[b].height), slices.Compare(a[:], b[:]))
	})
	for _, hash := range left {
		if !w.stands(w.known[hash].parent) {
			w.abandon(hash)
		}
	}
}

// finalJob is blocks for the application to make durable. done is closed when that is tried.
type finalJob struct {
	blocks []consensus.Block
	cert   consensus.Certificate
	done   chan struct{}
}

// hand gives blocks to the finaliser. It waits while the queue is full, and, where they are several, until they are durable:
// so the application is never more than about maxFinals blocks behind the log, which may drop what lies below its retention.
func (e *Engine) hand(blocks []consensus.Block, cert consensus.Certificate) {
	job := finalJob{blocks, cert, make(chan struct{})}
	select {
	case e.finals <- job:
	case <-e.ctx.Done():
		return
	}
	if len(blocks) > 1 {
		select {
		case <-job.done:
		case <-e.ctx.Done():
		}
	}
}

// runFinaliser makes the calls of App.Finalise, so that a disk that is slow for a while delays no verdict.
func (e *Engine) runFinaliser() {
	for {
		select {
		case <-e.ctx.Done():
			return
		case job := <-e.finals:
			err := e.c.App.Finalise(e.ctx, job.blocks, job.cert)
			close(job.done)
			e.post(func() error {
				if err != nil {
					return fatal(fmt.Sprintf("finalising up to height %d", job.blocks[len(job.blocks)-1].Header.Height), err)
				}
				for _, bl := range job.blocks {
					e.status.finalised(bl.Header)
					e.c.Observer.Finalised(bl.Header, job.cert)
				}
				return e.endAt(job.blocks[len(job.blocks)-1].Header)
			})
		}
	}
}

func (w *worker) abandon(hash consensus.Hash) {
	if _, ok := w.known[hash]; ok {
		delete(w.known, hash)
		w.app.Abandon(hash)
	}
}
