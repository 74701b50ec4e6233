package faults

import (
	"context"
	"os"
	"testing"
	"time"

	"tutti/appliance/client"
	"tutti/appliance/localnet"
	"tutti/appliance/node"
	"tutti/consensus"
)

// epochBlocks of TestEpochs.
const epochBlocks = 20

// TestEpochs: real validators, five of them with four seats, go through epochs under load, while one is killed and another is away for
// three epochs. What was final in the first epoch is proven in the last, to a client that has the genesis file only.
func TestEpochs(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	w := newWorld(size{shards: 1, validators: 5, accounts: 200, rate: 200}, 1, t.Logf)
	var err error
	if w.home, err = os.MkdirTemp(dir(t), "tutti-epochs-"); err != nil {
		t.Fatal(err)
	}
	port, err := localnet.FreePorts(5)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.launch(ctx, localnet.Options{
		APIPort: port, Binary: build(t, ""), EpochBlocks: epochBlocks, CommitteeSize: 4, IntervalMs: 30,
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
		t.Logf("%6.1f s: %s, at block %d", time.Since(w.began).Seconds(), what, w.witness.Height(0))
	}
	epoch := func(k int) consensus.Height { return consensus.Height(k*epochBlocks) + 2 }
	step("the second epoch", w.passes(ctx, 0, epoch(1), time.Minute))
	step("a kill", w.kill("s0v1"))
	step("blocks without it", w.grows(ctx, 0, 3, time.Minute))
	step("its return", w.net.Restart("s0v1"))
	step("it is in step", w.finalAt(ctx, w.node("s0v1"), w.witness.Height(0), time.Minute))
	step("another stops", w.net.Stop("s0v3"))
	away := w.witness.Height(0)
	step("three epochs without it", w.passes(ctx, 0, away+3*epochBlocks, time.Minute))
	step("its return", w.net.Restart("s0v3"))
	step("it is in step", w.finalAt(ctx, w.node("s0v3"), w.witness.Height(0), time.Minute))
	step("two epochs more", w.grows(ctx, 0, max(2*epochBlocks, int(epoch(6))-int(w.witness.Height(0))), time.Minute))
	_, err = w.endLoad()
	step("the load's end", err)
	if o := w.outcome; o.Finalised == 0 || o.Lost+o.Returned+o.Expired+o.RejectedSum() > 0 {
		t.Errorf("of the load %d final, %d lost, %d returned, %d expired, refused: %v", o.Finalised, o.Lost, o.Returned, o.Expired, o.Rejected)
	}
	w.witness.CheckSupply(ctx, w.shards, w.supply())
	top := w.witness.Height(0)
	each(w.nodes, func(n *apiNode) {
		if err := w.finalAt(ctx, n, top, time.Minute); err != nil {
			t.Error(err)
			return
		}
		s, err := n.Status(ctx)
		if err != nil || s.Epoch.Number < 6 || s.Epoch.Seats != 4 {
			t.Errorf("%s: %+v, %v", n.name, s, err)
		}
		w.verifyAll(ctx, t, n, top)
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
	if err := c.Sync(ctx, 0, nil); err != nil {
		t.Errorf("%s: %v", n.name, err)
		return
	}
	proven := 0
	for h := consensus.Height(1); h <= top; h++ {
		told, _ := w.witness.at(0, h)
		b, err := c.Block(ctx, 0, h)
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
