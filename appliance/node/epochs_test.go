package node_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/config"
	"tutti/appliance/localnet"
	"tutti/appliance/node"
	"tutti/consensus"
	"tutti/state/tx"
)

// pay makes transfers from one member to another until ctx ends.
func (n *network) pay(ctx context.Context, from uint64, to int) {
	beat := time.NewTicker(20 * time.Millisecond)
	defer beat.Stop()
	for ctx.Err() == nil {
		s := n.sign(from, tx.Tx{Kind: tx.Transfer, To: n.member(to), Amount: 1})
		if n.client.Submit(ctx, []tx.Signed{s})[0] != nil {
			n.nonce[from]--
		}
		select {
		case <-beat.C:
		case <-ctx.Done():
		}
	}
}

// reach waits until nodes are in an epoch.
func (n *network) reach(epoch consensus.Epoch, names ...string) {
	n.t.Helper()
	for _, name := range names {
		n.until(name+" is in the epoch", func() bool {
			s, _ := get[api.Status](n, name, "/v1/status")
			return s.Epoch.Number >= epoch
		})
	}
}

func (n *network) data(name string) string {
	return config.Home(filepath.Join(string(n.Home), "nodes", name)).Data()
}

// TestEpochs: a shard goes through epochs in which seats change hands, also while a node is stopped and comes back, and a client that
// begins with the genesis file follows all of it.
func TestEpochs(t *testing.T) {
	n := startOf(t, localnet.Options{
		Shards: 1, Validators: 5, EpochBlocks: 10, CommitteeSize: 4, IntervalMs: 50,
		Powers: []uint64{4, 4, 4, 4, 1}, // s0v4 is away for long, and each view that it leads costs a timer
	})
	n.client = n.newClient(n.Names...)
	first := n.sign(2, tx.Tx{Kind: tx.Transfer, To: n.member(1), Amount: 7})
	limit, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	if err := n.client.Submit(limit, []tx.Signed{first})[0]; err != nil {
		t.Fatal(err)
	}
	if p, _, err := n.client.Await(limit, &first); err != nil || !p.Success {
		t.Fatalf("%+v, %v", p, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	paid := make(chan struct{})
	go func() { defer close(paid); n.pay(ctx, 0, 1) }()
	n.reach(2, n.Names...)
	n.stop("s0v2") // who has lost the hand-overs makes them again from the log
	if err := os.Remove(filepath.Join(n.data("s0v2"), "epochs")); err != nil {
		t.Fatal(err)
	}
	n.start("s0v2")
	n.reach(4, n.Names...)
	n.stop("s0v4") // who has lost everything gets the hand-overs first, then the state
	if err := os.RemoveAll(n.data("s0v4")); err != nil {
		t.Fatal(err)
	}
	n.reach(5, "s0v0", "s0v1", "s0v2", "s0v3")
	n.begin("s0v4", node.Sync)
	n.reach(6, n.Names...)
	n.stop("s0v1") // who has only lost the state keeps its votes
	n.begin("s0v1", node.Resync)
	n.reach(7, n.Names...)
	stop()
	<-paid

	var all []api.Status
	for _, name := range n.Names {
		s, _ := get[api.Status](n, name, "/v1/status")
		all = append(all, s)
		if s.Epoch.Seats != 4 || s.Epoch.Left == nil || s.Epoch.Last != s.Epoch.After+10 || (s.ValidatorIndex < 0) != (s.Role == "follower") {
			t.Errorf("%s: %+v", name, s.Epoch)
		}
	}
	for _, s := range all[:1] {
		c := n.newClient("s0v2")
		if err := c.Sync(limit, 0, nil); err != nil {
			t.Fatal(err)
		}
		for h := consensus.Height(1); h < s.FinalHeight; h += 3 {
			if _, err := c.Block(limit, 0, h); err != nil {
				t.Errorf("block %d: %v", h, err)
			}
		}
		c.Close()
	}
	if p, _, err := n.client.Await(limit, &first); err != nil || p.Where.Height > 10 {
		t.Errorf("of the first epoch: %+v, %v", p, err)
	}
	n.client.Close()
	n.stop(slices.Collect(maps.Keys(n.nodes))...)
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.logs) > 0 {
		t.Errorf("in the logs:\n%s", strings.Join(n.logs, ""))
	}
}
