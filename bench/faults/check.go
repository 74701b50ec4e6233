package faults

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/tx"
)

// What follows asks nodes whether what clients were told still stands, and enters what does not as a complaint. That a
// node does not answer is one, too.

const (
	asksAtOnce   = 4 // of one node
	settleWithin = 90 * time.Second
	statusWait   = 2 * time.Second // for a node to tell its status
)

// span is a range of heights of a shard, both ends included.
type span struct{ from, to consensus.Height }

// CheckKept asks a node for blocks that clients were told of. Another node may have told of the last ones, so this one is given time
// to call them final.
func (w *Witness) CheckKept(ctx context.Context, n Node, s span) {
	if err := reaches(ctx, n, s.to, settleWithin, always); err != nil {
		w.Wrong("clients were told of block %d of shard %d: %v", s.to, n.Shard(), err)
		return
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(asksAtOnce)
	for h := max(s.from, 1); h <= s.to; h++ {
		group.Go(func() error {
			w.checkBlock(ctx, n, h)
			return nil
		})
	}
	_ = group.Wait() // complaints are entered
}

// reaches waits until a node calls a height final, as long as it is up.
func reaches(ctx context.Context, n Node, height consensus.Height, most time.Duration, up func() bool) error {
	var at consensus.Height
	var last error
	await(ctx, most, nil, func() bool {
		call, cancel := context.WithTimeout(ctx, statusWait)
		defer cancel()
		var s *api.Status
		if s, last = n.Status(call); last == nil {
			at = s.FinalHeight
		}
		return at >= height || !up()
	})
	switch {
	case at >= height:
		return nil
	case !up():
		return fmt.Errorf("%s is not running", n.Name())
	}
	return fmt.Errorf("%s did not reach final height %d within %s: it is at %d (%v)", n.Name(), height, most, at, last)
}

// always is for nodes of which nobody watches the process.
func always() bool { return true }

func (w *Witness) checkBlock(ctx context.Context, n Node, h consensus.Height) {
	was, ok := w.at(n.Shard(), h)
	if !ok {
		w.Wrong("no client was told of block %d of shard %d, so nobody can ask for it", h, n.Shard())
		return
	}
	c, err := n.Block(ctx, h)
	var refused *api.Error
	switch {
	case errors.As(err, &refused):
		w.Wrong("%s has lost block %d, which %s proved to be final: %v", n.Name(), h, was.by, err)
	case err != nil:
		w.Wrong("%s: block %d: %v", n.Name(), h, err)
	case c.Header.Hash() != was.hash:
		w.Wrong("%s has block %s at height %d of shard %d, %s proved %s to be final", n.Name(), c.Header.Hash().Short(), h, n.Shard(), was.by, was.hash.Short())
	default:
		w.reverified()
	}
}

// believer verifies a proof that a client holds.
type believer func(context.Context, *proof.Finality) (*proof.Proven, error)

// alone believes what a trust shows, without anybody's help.
func alone(t *proof.Trust) believer {
	return func(_ context.Context, f *proof.Finality) (*proof.Proven, error) { return f.Verify(t) }
}

// CheckHeld verifies proofs that clients hold once more, and asks a node of the payer's shard for each.
func (w *Witness) CheckHeld(ctx context.Context, n Node, verify believer, held []*proof.Finality) {
	for _, f := range held {
		p, err := verify(ctx, f)
		if err != nil {
			w.Wrong("a proof that a client holds does not verify any more: %v", err)
			continue
		}
		if p.Where.Shard != n.Shard() {
			continue
		}
		got, err := n.Finality(ctx, tx.Hash(p.ID))
		switch {
		case err != nil:
			w.Wrong("%s: transaction %s, of which a client holds a proof: %v", n.Name(), p.ID, err)
		case got.Where != p.Where || got.Success != p.Success:
			w.Wrong("%s: transaction %s is in %+v, a client holds a proof that it is in %+v", n.Name(), p.ID, got.Where, p.Where)
		default:
			w.reverified()
		}
	}
}

// CheckRoot compares the state root that a node shows with the certified header's.
func (w *Witness) CheckRoot(ctx context.Context, n Node) {
	s, err := n.Status(ctx)
	if err != nil {
		w.Wrong("%s: status: %v", n.Name(), err)
		return
	}
	if !s.Supply.Conserved() {
		w.Wrong("%s: supply is not conserved: %+v", n.Name(), s.Supply)
	}
	if s.StateHeight == 0 {
		if s.FinalHeight > consensus.StateLag {
			w.Wrong("%s shows no state root at final height %d", n.Name(), s.FinalHeight)
		}
		return
	}
	in := s.StateHeight + consensus.StateLag
	if !await(ctx, settleWithin, w.News, func() bool { return w.Height(n.Shard()) >= in }) {
		w.Wrong("%s calls height %d final, clients were told of %d at most", n.Name(), in, w.Height(n.Shard()))
		return
	}
	if was, _ := w.at(n.Shard(), in); consensus.Hash(s.StateRoot) != was.state {
		w.Wrong("%s shows state root %s of height %d, the certified header has %s", n.Name(), s.StateRoot, s.StateHeight, was.state)
	}
}

// CheckAccounts asks a node for proofs of accounts and compares them with the books.
func (w *Witness) CheckAccounts(ctx context.Context, n Node, ids []tx.ID) {
	for _, id := range ids {
		s, err := n.Account(ctx, id)
		if err != nil {
			w.Wrong("%s: account %s: %v", n.Name(), id, err)
			continue
		}
		if await(ctx, settleWithin, w.News, func() bool { return w.Height(n.Shard()) >= s.Where.Height }) {
			w.CheckAccount(n.Name(), n.Shard(), s)
			w.reverified()
		} else {
			w.Wrong("%s proves with block %d, clients were told of %d at most", n.Name(), s.Where.Height, w.Height(n.Shard()))
		}
	}
}

// CheckEvidence asks a node for proofs that validators contradicted themselves. It is for a network of validators that
// run our program alone: however it was stopped and started, it must not.
func (w *Witness) CheckEvidence(ctx context.Context, n Node) {
	e, err := n.Evidence(ctx)
	switch {
	case err != nil:
		w.Wrong("%s: evidence: %v", n.Name(), err)
	case e.Total > 0 && len(e.Proofs) > 0:
		p := e.Proofs[0]
		w.Wrong("%s has %d proofs of slashable votes, the first one names %+v: in view %d %s, and %s", n.Name(), e.Total, p.Validators, p.View, p.First, p.Second)
	case e.Total > 0:
		w.Wrong("%s has %d proofs of slashable votes, and shows none", n.Name(), e.Total)
	}
}

// CheckSupply waits until the nodes of each shard agree on a height and nothing is on its way between shards, and adds up
// what all shards have. It is for a network without load.
func (w *Witness) CheckSupply(ctx context.Context, shards [][]Node, genesis uint64) {
	why := "nobody was asked"
	if !await(ctx, settleWithin, nil, func() bool {
		why = w.addUp(ctx, shards, genesis)
		return why == ""
	}) {
		w.Wrong("the shards' supply does not settle: %s", why)
	}
	w.Settled()
}

func (w *Witness) addUp(ctx context.Context, shards [][]Node, genesis uint64) string {
	var have, in, out uint64
	for _, nodes := range shards {
		var first *api.Status
		for i, n := range nodes {
			s, err := n.Status(ctx)
			switch {
			case err != nil:
				return fmt.Sprintf("%s: %v", n.Name(), err)
			case !s.Supply.Conserved():
				return fmt.Sprintf("%s: %+v", n.Name(), s.Supply)
			case i == 0:
				first = s
			case s.Supply != first.Supply:
				return fmt.Sprintf("%s has %+v, %s %+v", n.Name(), s.Supply, nodes[0].Name(), first.Supply)
			}
		}
		s := first.Supply
		have += s.Balances + s.Fees + s.Deposits + s.Treasury
		in += s.Inflow
		out += s.Outflow
	}
	switch left := w.InTransit(); {
	case in != out:
		return fmt.Sprintf("%d units left shards, %d arrived", out, in)
	case have != genesis:
		return fmt.Sprintf("all shards have %d units, genesis gave %d", have, genesis)
	case left > 0:
		return fmt.Sprintf("%d receipts were not consumed", left)
	}
	return ""
}

// each does something with all nodes at once.
func each[N Node](nodes []N, do func(N)) {
	var group sync.WaitGroup
	for _, n := range nodes {
		group.Go(func() { do(n) })
	}
	group.Wait()
}

// askEvery is how often a condition is looked at that nobody announces.
const askEvery = 50 * time.Millisecond

// await waits until a condition holds, at most so long. It looks at it whenever news are closed, and now and then.
func await(ctx context.Context, most time.Duration, news func() <-chan struct{}, holds func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		var next <-chan struct{}
		if news != nil {
			next = news()
		}
		if holds() {
			return true
		}
		timer := time.NewTimer(askEvery)
		select {
		case <-next:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
		timer.Stop()
	}
}
