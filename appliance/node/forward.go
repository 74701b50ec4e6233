package node

import (
	"context"
	"time"

	"tutti/accel/distill"
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

	forwardBatches     = 64                               // distilled, waiting to be sent
	resendBatchesBytes = 8 << 20                          // distilled, in one round
	maxBatchSize       = netstack.MaxTransactionBytes - 1 // bytes of a distilled batch, which goes in one message
	batchMark          = 0                                // the first byte of a message with one; of signed transactions it is a kind
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

// forwarder sends accepted transactions and distilled batches to coming leaders. One goroutine, run, owns what it sends.
type forwarder struct {
	transport     netstack.Transport
	leaders       leaders
	resend        func(now time.Time, max int) []tx.Signed
	resendBatches func(now time.Time, maxBytes int) []*distill.Batch
	queue         chan tx.Signed      // accepted here; when full the transaction waits for its resend
	batches       chan *distill.Batch // likewise
}

func newForwarder(t netstack.Transport, l leaders, resend func(time.Time, int) []tx.Signed, resendBatches func(time.Time, int) []*distill.Batch) *forwarder {
	return &forwarder{
		transport: t, leaders: l, resend: resend, resendBatches: resendBatches,
		queue: make(chan tx.Signed, forwardQueue), batches: make(chan *distill.Batch, forwardBatches),
	}
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

// addBatch queues an accepted batch, likewise.
func (f *forwarder) addBatch(b *distill.Batch) {
	select {
	case f.batches <- b:
	default:
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
		case b := <-f.batches:
			f.sendBatch(b)
		case <-flush.C:
			f.drain()
		case now := <-again.C:
			f.send(f.resend(now, resendBatch))
			for _, b := range f.resendBatches(now, resendBatchesBytes) {
				f.sendBatch(b)
			}
		}
	}
}

// sendBatch queues a batch for every coming leader.
func (f *forwarder) sendBatch(b *distill.Batch) {
	message := b.Append(append(make([]byte, 0, 1+b.Bytes()), batchMark))
	for _, n := range f.leaders(forwardLeaders) {
		_ = f.transport.Send(n, netstack.ClassTransaction, message) // best effort; counted by the transport
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
