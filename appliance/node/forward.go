package node

import (
	"context"
	"time"

	"tutti/consensus"
	"tutti/netstack"
	"tutti/state/tx"
)

// Accepted transactions go on to the leaders of the coming views, in batches, and again from time to time until they
// are final or expired. Each receiver verifies a transaction once; the verdict is remembered until it executes.
const (
	forwardEvery   = 25 * time.Millisecond // larger batches verify at less cost for each
	forwardLeaders = 2                     // distinct leaders ahead that get each batch
	forwardQueue   = 32768
	forwardBatch   = 256 << 10 // bytes
	resendEvery    = 500 * time.Millisecond
	resendAfter    = time.Second // the first time; see pool.Options
	resendBatch    = 4096        // transactions looked at in one round
)

// leaders says who leads the coming views.
type leaders func(n int) []netstack.NodeID

// upcomingLeaders returns up to n distinct other validators that lead the views after view, soonest first.
func upcomingLeaders(c *consensus.Committee, self int, view consensus.View, n int) (out []netstack.NodeID) {
	seen := map[int]bool{self: true}
	for v := view; v < view+consensus.View(4*n) && len(out) < n; v++ {
		if l := c.Leader(v); !seen[l] {
			seen[l] = true
			out = append(out, netstack.NodeID(c.Validators[l].Node))
		}
	}
	return out
}

// forwarder sends accepted transactions to coming leaders. One goroutine, run, owns the batch.
type forwarder struct {
	transport netstack.Transport
	leaders   leaders
	resend    func(now time.Time, max int) []tx.Signed
	queue     chan tx.Signed // accepted here; when full the transaction waits for its resend
}

func newForwarder(t netstack.Transport, l leaders, resend func(time.Time, int) []tx.Signed) *forwarder {
	return &forwarder{transport: t, leaders: l, resend: resend, queue: make(chan tx.Signed, forwardQueue)}
}

// add queues accepted transactions. It never blocks: what does not fit is sent by the resend round.
func (f *forwarder) add(txs []tx.Signed) {
	for i := range txs {
		select {
		case f.queue <- txs[i]:
		default:
			return
		}
	}
}

func (f *forwarder) run(ctx context.Context) {
	flush := time.NewTicker(forwardEvery)
	defer flush.Stop()
	again := time.NewTicker(resendEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-flush.C:
			f.drain()
		case now := <-again.C:
			f.send(f.resend(now, resendBatch))
		}
	}
}

func (f *forwarder) drain() {
	n := len(f.queue)
	if n == 0 {
		return
	}
	txs := make([]tx.Signed, 0, n)
	for range n {
		txs = append(txs, <-f.queue)
	}
	f.send(txs)
}

// send cuts txs into batches and queues each for every coming leader.
func (f *forwarder) send(txs []tx.Signed) {
	if len(txs) == 0 {
		return
	}
	to := f.leaders(forwardLeaders)
	var batch []byte
	out := func() {
		for _, n := range to {
			_ = f.transport.Send(n, netstack.ClassTransaction, batch) // best effort; counted by the transport
		}
		batch = nil
	}
	for i := range txs {
		batch = txs[i].Append(batch)
		if len(batch) >= forwardBatch {
			out()
		}
	}
	if len(batch) > 0 {
		out()
	}
}
