package faults

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"tutti/appliance/client"
	"tutti/appliance/localnet"
	"tutti/appliance/node"
	"tutti/consensus"
)

// epochBlocks of TestEpochs.
const epochBlocks = 10

// TestEpochs: two shards of real validators, five of them with four seats in each, go through epochs under a load that pays across,
// while one is killed in one shard and one is away for three epochs in the other. What was final in the first epoch is proven in
// the last, to a client that has the genesis file only.
func TestEpochs(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	w := newWorld(size{shards: 2, validators: 5, accounts: 200, rate: 100, cross: 0.5}, 1, t.Logf)
	var err error
	if w.home, err = os.MkdirTemp(dir(t), "tutti-epochs-"); err != nil {
		t.Fatal(err)
	}
	port, err := localnet.FreePorts(10)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.launch(ctx, localnet.Options{
		APIPort: port, Binary: build(t, ""), EpochBlocks: epochBlocks, CommitteeSize: 4, IntervalMs: 30,
		Powers: []uint64{4, 4, 4, 1, 4}, // who is away leads seldom: each of its views costs a timer
	}, 1); err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = w.close()
		}
	}()
	step := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%6.1f s: %s, at blocks %d and %d", time.Since(w.began).Seconds(), what, w.witness.Height(0), w.witness.Height(1))
	}
	epoch := func(k int) consensus.Height { return consensus.Height(k*epochBlocks) + 2 }
	step("the second epoch", errors.Join(w.passes(ctx, 0, epoch(1), time.Minute), w.passes(ctx, 1, epoch(1), time.Minute)))
	away := w.witness.Height(1)
	step("one stops, another is killed", errors.Join(w.net.Stop("s1v3"), w.kill("s0v1")))
	step("blocks without the killed one", w.grows(ctx, 0, 3, time.Minute))
	step("its return", w.net.Restart("s0v1"))
	step("it is in step", w.finalAt(ctx, w.node("s0v1"), w.witness.Height(0), time.Minute))
	step("three epochs without the stopped one", w.passes(ctx, 1, away+3*epochBlocks, time.Minute))
	step("its return", w.net.Restart("s1v3"))
	step("it is in step", w.finalAt(ctx, w.node("s1v3"), w.witness.Height(1), time.Minute))
	step("the seventh epoch", errors.Join(w.passes(ctx, 0, epoch(6), time.Minute), w.passes(ctx, 1, epoch(6), time.Minute)))
	_, err = w.endLoad()
	step("the load's end", err)
	if o := w.outcome; o.Finalised == 0 || o.Lost+o.Returned+o.Expired+o.RejectedSum() > 0 {
		t.Errorf("of the load %d final, %d lost, %d returned, %d expired, refused: %v", o.Finalised, o.Lost, o.Returned, o.Expired, o.Rejected)
	}
	w.witness.CheckSupply(ctx, w.shards, w.supply())
	tops := []consensus.Height{w.witness.Height(0), w.witness.Height(1)}
	each(w.nodes, func(n *apiNode) {
		top := tops[n.shard]
		if err := w.finalAt(ctx, n, top, time.Minute); err != nil {
			t.Error(err)
			return
		}
		s, err := n.Status(ctx)
		if err != nil || s.Epoch.Number < 6 || s.Epoch.Seats != 4 {
			t.Errorf("%s: %+v, %v", n.name, s, err)
		} else if len(s.Links) != 1 || s.Links[0].Epoch < 6 || s.Links[0].Received == 0 {
			t.Errorf("%s: the other shard: %+v", n.name, s.Links)
		}
		if slices.Contains([]string{"s0v0", "s0v1", "s1v0", "s1v3"}, n.name) {
			w.verifyAll(ctx, t, n, top)
		}
	})
	t.Logf("%6.1f s: verified", time.Since(w.began).Seconds())
	w.stopFollowing()
	w.orderly()
	for _, wrong := range w.witness.Wrongs() {
		t.Error(wrong)
	}
	closed = true
	if err := w.close(); err != nil {
		t.Error(err)
	}
}

// verifyAll asks a node for every block up to a height, as a client does that begins with the genesis file.
func (w *world) verifyAll(ctx context.Context, t *testing.T, n *apiNode, top consensus.Height) {
	t.Helper()
	trust, err := node.Trust(w.net.Genesis)
	if err != nil {
		t.Error(err)
		return
	}
	c, err := client.New(client.Options{URLs: []string{n.url}, Trust: trust, HTTP: w.http})
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	if err := c.Sync(ctx, n.shard, nil); err != nil {
		t.Errorf("%s: %v", n.name, err)
		return
	}
	proven := 0
	for h := consensus.Height(1); h <= top; h++ {
		told, _ := w.witness.at(n.shard, h)
		b, err := c.Block(ctx, n.shard, h)
		if err != nil {
			t.Errorf("%s: block %d: %v", n.name, h, err)
			continue
		}
		if b.Header.Hash() != told.hash {
			t.Errorf("%s: another block at height %d than clients were told", n.name, h)
		}
		if len(b.IDs) > 0 && h%7 == 0 {
			if p, _, err := c.Proof(ctx, b.IDs[0]); err != nil || p.Where.Height != h {
				t.Errorf("%s: the proof of a transaction of block %d: %v", n.name, h, err)
			} else {
				proven++
			}
		}
	}
	if proven == 0 {
		t.Errorf("%s: no transaction was proven", n.name)
	}
}
