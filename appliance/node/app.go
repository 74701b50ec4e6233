package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"tutti/accel/distill"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/engine"
	"tutti/state/ledger"
	"tutti/state/pool"
	"tutti/state/tx"
)

// pace is when a leader proposes.
type pace struct {
	interval  time.Duration // between blocks while there is something to do
	heartbeat time.Duration // between blocks of an idle chain
	maxBytes  int           // of a body
	maxTxs    int           // in a body
}

// application is the ledger and the pool as consensus sees them: it implements engine.App. The engine calls Finalise from
// one goroutine and the other methods from another; what they share with each other and the API is behind mu.
type application struct {
	chain   tx.Hash
	shard   consensus.ShardID
	seats   *seats
	pace    pace
	ledger  *ledger.Ledger
	pool    *pool.Pool
	batches *pool.Batches
	cross   *crossLinks
	history *history
	tell    func(*proof.Block) // a final block, in height order
	observe appObserver
	wake    chan struct{} // capacity 1: there may be something to propose

	mu     sync.Mutex // guards what follows
	open   map[consensus.Hash]*openBlock
	reason string // why the last invalid block was invalid
}

// appObserver is told what happens, for metrics.
type appObserver interface {
	// step says how long one step on one block took: build or finalise.
	step(name string, took time.Duration)
	// final tells of a final block, in height order, and of its parent's header, nil where that is not held any more.
	final(parent, h *consensus.Header, executed *ledger.Executed)
}

// openBlock is a block that was built or judged valid here and is not final.
type openBlock struct {
	header   *consensus.Header
	executed *ledger.Executed
}

// Sizes of encoded bodies: with nothing in it, and what the heads of all sections take.
const (
	emptyBody = 1
	bodyHeads = emptyBody + 4*(1+4)
)

// ancestry is the chain of open blocks from the final block up to and including the given one, newest first.
func (a *application) ancestry(hash consensus.Hash) (hashes []tx.Hash) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for b := a.open[hash]; b != nil; b = a.open[hash] {
		hashes = append(hashes, tx.Hash(hash))
		hash = b.header.Parent
	}
	return hashes
}

// owesRoot reports whether a block in the last StateLag ones did something, so that its root is not in a header yet.
func (a *application) owesRoot(parent *consensus.Header) bool {
	for h, n := parent, 0; h != nil && n < consensus.StateLag; n++ {
		if h.Body.Length > emptyBody {
			return true
		}
		h = a.header(h.Parent)
	}
	return false
}

// openHeader is the header of a block that is not final, nil of any other.
func (a *application) openHeader(hash consensus.Hash) *consensus.Header {
	a.mu.Lock()
	defer a.mu.Unlock()
	if b := a.open[hash]; b != nil {
		return b.header
	}
	return nil
}

// header finds a header among the open blocks and the recent final ones.
func (a *application) header(hash consensus.Hash) *consensus.Header {
	if h := a.openHeader(hash); h != nil {
		return h
	}
	return a.history.header(hash)
}

// Await implements engine.App: it waits until the block interval has passed and there is something to do, or until the
// heartbeat.
func (a *application) Await(ctx context.Context, req engine.BuildRequest) error {
	parent := req.Parent
	ancestors := a.ancestry(parent.Hash())
	var channels []ledger.Channel
	if len(parent.Links) > 0 {
		channels, _ = a.ledger.Channels(tx.Hash(parent.Hash()), uint64(parent.Height)) // none: the view is over
	}
	began := time.Now()
	since := func() time.Duration {
		return max(time.Since(time.UnixMilli(parent.TimeMs)), time.Since(began)) // whoever made the parent may have a clock that is ahead
	}
	if err := sleepUntil(ctx, a.pace.interval-since()); err != nil {
		return err
	}
	beat := time.NewTimer(a.pace.heartbeat - since())
	defer beat.Stop()
	for {
		if a.owesRoot(parent) || a.cross.waiting(channels) || len(a.pool.Candidates(1, tx.MaxTxBytes, ancestors)) > 0 || a.batches.Waits(ancestors) {
			return nil
		}
		select {
		case <-a.wake:
		case <-beat.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// signedShare is the part of a block, one in so many, that batches leave to signed transactions where those wait.
const signedShare = 8

// room is how many transfers and bytes of a block batches may take while some signed transactions wait.
func (p pace) room(maxBytes, waiting int) (txs, bytes int) {
	return p.maxTxs - min(p.maxTxs/signedShare, waiting), maxBytes - bodyHeads - min(maxBytes/signedShare, waiting*tx.MaxTxBytes)
}

// Build implements engine.App. Receipts from other shards go first, then batches, oldest first, then signed transactions,
// for which batches leave an eighth of the block.
func (a *application) Build(ctx context.Context, req engine.BuildRequest) (*consensus.Block, error) {
	began := time.Now()
	parent := req.Parent
	height := parent.Height + 1
	maxBytes := min(a.pace.maxBytes, req.MaxBody)
	ancestors := a.ancestry(parent.Hash())
	txs, bytes := a.pace.room(maxBytes, a.pool.Len())
	batches := a.batches.Offer(txs, bytes, ancestors)
	txs, bytes = a.pace.maxTxs, maxBytes
	for _, b := range batches {
		txs, bytes = txs-b.Count(), bytes-b.Bytes()
	}
	candidates := a.pool.Candidates(txs, bytes, ancestors)
	channels, err := a.ledger.Channels(tx.Hash(parent.Hash()), uint64(parent.Height))
	if err != nil {
		return nil, err
	}
	bundles := a.cross.bundles(height, channels, maxBytes-bodyHeads, req.MaxBody-bodyHeads)
	for i, bytes := 0, bodyHeads; i < len(bundles); i++ {
		bytes += bundleBytes(&bundles[i])
		maxBytes = max(maxBytes, bytes) // one that could not be cut
	}
	built, err := a.ledger.Build(ctx, ledger.BuildInput{
		Parent: tx.Hash(parent.Hash()), Height: uint64(height), Candidates: candidates, Batches: batches, Bundles: bundles,
		MaxBytes: maxBytes, MaxTxs: a.pace.maxTxs,
	})
	if err != nil {
		return nil, err
	}
	for i, err := range built.LeftBatches {
		switch {
		case err == nil, errors.Is(err, ledger.ErrNoRoom):
		case errors.Is(err, ledger.ErrSkipped):
			a.batches.Skipped(batches[i])
		default:
			a.batches.Drop(batches[i])
		}
	}
	for i, err := range built.LeftBundles {
		if err != nil && len(bundles[i].Receipts) > 0 { // else another leader has used newer news
			a.cross.refused(bundles[i].Source)
		}
	}
	a.observe.step("build", time.Since(began))
	c := built.Commitments
	committee := a.seats.current.Load().Committee
	h := &consensus.Header{
		Version: consensus.HeaderVersion, Chain: consensus.Hash(a.chain), Shard: a.shard, Epoch: req.Epoch, View: req.View,
		Height: height, TimeMs: max(time.Now().UnixMilli(), parent.TimeMs+1), Parent: parent.Hash(),
		Body: committee.BodyRef(built.Body), Outcomes: consensus.Hash(c.Outcomes), Links: consensusLinks(c.Links),
		State: consensus.Hash(c.State), Diff: consensus.Hash(c.Diff),
		Committee: committee.Hash(),
	}
	if h.NextCommittee, err = a.seats.committeeAfter(h, a.openHeader); err != nil {
		return nil, err
	}
	return &consensus.Block{Header: h, Body: built.Body}, nil
}

func sleepUntil(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// nudge says that there may be something to propose. It never blocks.
func (a *application) nudge() { poke(a.wake) }

// Certify implements engine.App: it executes the block on its parent. The block that ends the epoch names the next committee, and
// no other does.
func (a *application) Certify(ctx context.Context, b consensus.Block) (bool, error) {
	hash := b.Header.Hash()
	next, err := a.seats.committeeAfter(b.Header, a.openHeader)
	if err != nil {
		return false, fmt.Errorf("certify block %s at height %d: %w", hash.Short(), b.Header.Height, err)
	}
	if b.Header.NextCommittee != next {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.reason = fmt.Sprintf("the header names %s as the next committee, it has to be %s", b.Header.NextCommittee.Short(), next.Short())
		return false, nil
	}
	executed, err := a.ledger.Execute(ctx, ledger.ExecuteInput{
		Parent: tx.Hash(b.Header.Parent), Block: tx.Hash(hash), Height: uint64(b.Header.Height), Body: b.Body,
		Want: ledger.Commitments{
			Outcomes: tx.Hash(b.Header.Outcomes), Links: ledgerLinks(b.Header.Links),
			State: tx.Hash(b.Header.State), Diff: tx.Hash(b.Header.Diff),
		},
	})
	if errors.Is(err, ledger.ErrInvalidBody) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.reason = err.Error()
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("execute block %s at height %d: %w", hash.Short(), b.Header.Height, err)
	}
	a.pool.Included(tx.Hash(hash), executed.IDs[:len(executed.Body.Txs)])
	a.batches.Included(tx.Hash(hash), executed.Body.Batches)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open[hash] = &openBlock{header: b.Header, executed: executed}
	return true, nil
}

// Finalise implements engine.App. Each block becomes durable, in height order, before anyone is told.
func (a *application) Finalise(ctx context.Context, blocks []consensus.Block, cert consensus.Certificate) error {
	final := make([]*proof.Block, 0, len(blocks))
	last := blocks[len(blocks)-1].Header
	echoes, err := echoesTo(a.history.log, last, &cert)
	if err != nil {
		return fmt.Errorf("finalization of block %d: %w", last.Height, err)
	}
	for i := range blocks {
		began := time.Now()
		h := blocks[i].Header
		hash := h.Hash()
		a.mu.Lock()
		open := a.open[hash]
		a.mu.Unlock()
		if open == nil {
			return fmt.Errorf("block %s at height %d became final without a verdict", hash.Short(), h.Height)
		}
		if err := a.seats.final(h); err != nil {
			return err
		}
		if err := a.ledger.Finalise(ctx, tx.Hash(hash)); err != nil {
			return fmt.Errorf("make block %d durable: %w", h.Height, err)
		}
		headers := make([]*consensus.Header, 0, len(blocks)-i+len(echoes))
		for _, d := range blocks[i:] {
			headers = append(headers, d.Header)
		}
		headers = append(headers, echoes...)
		b := &proof.Block{Final: proof.Final{Headers: headers, Cert: cert}, Body: blocks[i].Body, Credits: open.executed.Credits}
		body := open.executed.Body
		a.observe.final(a.history.header(h.Parent), h, open.executed)
		a.history.add(b, body, open.executed)
		a.pool.Finalised(tx.Hash(hash), uint64(h.Height), body.Txs, body.Batches...)
		a.batches.Finalised(tx.Hash(hash), uint64(h.Height), tookEffect(body))
		a.mu.Lock()
		delete(a.open, hash) // not before history and pool know the block, for others look for it here meanwhile
		a.mu.Unlock()
		var own *consensus.Certificate
		if cert.Block == hash {
			own = &cert
		}
		a.cross.finalised(h, own, a.ledger.Meta().Channels)
		if len(headers) <= 1+proof.MaxDescendants { // else it is too far below its certificate to be shown as one proof
			final = append(final, b)
		}
		a.observe.step("finalise", time.Since(began))
	}
	for _, b := range final {
		a.tell(b)
	}
	return nil
}

// tookEffect are the batches of a final body but for those of which more than a quarter was skipped. No correct leader
// includes those; one that does, to be rid of a batch that comes too soon, has not: it waits on.
func tookEffect(body *tx.Body) (out []*distill.Batch) {
	at := len(body.Txs)
	for _, b := range body.Batches {
		skips := 0
		for _, ok := range body.Outcomes[at : at+b.Count()] {
			if !ok {
				skips++
			}
		}
		if at += b.Count(); skips <= b.Count()/4 {
			out = append(out, b)
		}
	}
	return out
}

// Abandon implements engine.App.
func (a *application) Abandon(block consensus.Hash) {
	a.ledger.Abandon(tx.Hash(block))
	a.pool.Abandoned(tx.Hash(block))
	a.batches.Abandoned(tx.Hash(block))
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, block)
}

// Final implements engine.App.
func (a *application) Final() (consensus.Height, consensus.Hash) {
	height, block := a.ledger.Final()
	return consensus.Height(height), consensus.Hash(block)
}

// included finds the open block with a transaction, for the API.
func (a *application) included(id tx.Hash) (consensus.Height, bool) {
	a.mu.Lock()
	open := slices.Collect(maps.Values(a.open))
	a.mu.Unlock()
	for _, b := range open {
		if slices.Contains(b.executed.IDs, id) {
			return b.header.Height, true
		}
	}
	return 0, false
}

// lastReason says why the last invalid block was invalid.
func (a *application) lastReason() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reason
}
