package bench

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tutti/appliance/localnet"
	"tutti/appliance/node"
	"tutti/bench/load"
	"tutti/bench/openloop"
	"tutti/bench/report"
	"tutti/bench/workload"
)

// What the demo load is like.
const (
	demoCross    = 0.2
	demoTick     = 50 * time.Millisecond
	demoReadRate = 200 // nonces a second from each node
	demoSpan     = 4   // seconds for which it has payers, if transactions settle as slowly as that
	demoLeast    = 200 // payers at least
	demoReports  = time.Second
	demoLookBack = 10 // reports that its quantiles are over
)

// DemoLoad is a localnet.Load: signed transfers at a steady rate, a fifth of them between shards, paid by the first half
// of the crowd. It goes on while nodes die and come back, and takes up where an earlier one stopped: it reads nonces and
// sends what it can meanwhile.
func DemoLoad(ctx context.Context, n *localnet.Network, tps int, reported func(localnet.LoadStats)) error {
	trust, err := node.Trust(n.Genesis)
	if err != nil {
		return err
	}
	shards := uint64(len(n.APIs))
	accounts := min(n.Crowd.Count/2, uint64(max(demoSpan*tps, demoLeast)))
	if accounts = accounts / shards * shards; accounts < 2*shards {
		return errors.New("bench: the crowd is too small for a demo load: make the network with more accounts")
	}
	crowd, err := workload.NewCrowd(ctx, n.Crowd, n.Population.CrowdIDs(), 0, accounts, n.Genesis.Hash(), nil)
	if err != nil {
		return err
	}
	cross := demoCross
	if shards == 1 {
		cross = 0
	}
	s, err := load.Open(ctx, load.Options{
		Target: load.Target{Trust: trust, APIs: n.APIs, Crowd: crowd, Fee: n.Genesis.Parameters.Fees[0]},
		Workload: workload.Options{
			Kind: workload.Uniform, Seed: uint64(time.Now().UnixNano()), Shards: int(shards), Accounts: int(accounts), CrossShard: cross,
		},
		Tick: demoTick, Patience: -1, ReadRate: demoReadRate,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { reportDemo(ctx, s, reported) })
	_, err = s.Run(ctx, load.Phase{Rate: float64(tps)})
	cancel()
	group.Wait()
	return errors.Join(err, s.Close())
}

// reportDemo reports the counts, and the quantiles of the last reports together, until ctx ends.
func reportDemo(ctx context.Context, s *load.Session, reported func(localnet.LoadStats)) {
	var recent []*hdrhistogram.Histogram
	for openloop.Wait(ctx, demoReports) {
		now := s.Snapshot()
		if recent = append(recent, now.Latency); len(recent) > demoLookBack {
			recent = recent[1:]
		}
		all := hdrhistogram.Import(recent[0].Export())
		for _, h := range recent[1:] {
			all.Merge(h)
		}
		q := report.QuantilesOf(all)
		reported(localnet.LoadStats{Submitted: now.Submitted, Final: now.Settled, Rejected: now.Rejected, P50Ms: q.P50, P99Ms: q.P99})
	}
}
