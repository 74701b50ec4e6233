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
	"tutti/appliance/client"
	"tutti/appliance/config"
	"tutti/appliance/localnet"
	"tutti/appliance/node"
	"tutti/consensus"
	"tutti/state/tx"
)

// prepared is a network of opt, with a small crowd and ports that are free now. No node runs, and it has no client.
func prepared(t *testing.T, opt localnet.Options) *network {
	t.Helper()
	n := &network{t: t, nodes: map[string]*running{}, nonce: map[uint64]uint32{}}
	var err error
	if opt.APIPort, err = localnet.FreePorts(opt.Shards * opt.Validators); err != nil {
		t.Fatal(err)
	}
	opt.Home, opt.Accounts = filepath.Join(t.TempDir(), "net"), 16
	if opt.Config == nil {
		opt.Config = func(c *config.Config) { c.Verify.Workers = 1 }
	}
	if n.Network, err = localnet.Prepare(opt); err != nil {
		t.Fatal(err)
	}
	return n
}

// startOf is such a network with all its nodes started.
func startOf(t *testing.T, opt localnet.Options) *network {
	t.Helper()
	n := prepared(t, opt)
	n.start(n.Names...)
	return n
}

// newClient knows the genesis file and asks these nodes.
func (n *network) newClient(names ...string) *client.Client {
	n.t.Helper()
	trust, err := node.Trust(n.Genesis)
	if err != nil {
		n.t.Fatal(err)
	}
	var urls []string
	for _, name := range names {
		urls = append(urls, n.nodes[name].url)
	}
	c, err := client.New(client.Options{URLs: urls, Trust: trust})
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// across sends a transfer from a member to another. Even members are on shard 0, odd ones on shard 1.
func (n *network) across(ctx context.Context, from uint64, to int) tx.Signed {
	n.t.Helper()
	s := n.sign(from, tx.Tx{Kind: tx.Transfer, To: n.member(to), Amount: 3})
	if err := n.client.Submit(ctx, []tx.Signed{s})[0]; err != nil {
		n.t.Fatal(err)
	}
	return s
}

// credited waits for a transfer to arrive, and is the epochs of debit and credit.
func (n *network) credited(ctx context.Context, s tx.Signed) (debit, credit consensus.Epoch) {
	n.t.Helper()
	p, f, err := n.client.Await(ctx, &s)
	if err != nil || !p.Success || !p.CrossShard || !p.Settled || p.Credit == nil || p.Credit.Outcome != "credited" {
		n.t.Fatalf("%+v, %v", p, err)
	}
	return f.Final.Header().Epoch, f.Credit.Final.Header().Epoch
}

// TestEpochsOfShards: transfers between two shards arrive through the epochs of both, also after one shard stood still for more epochs
// of the other than one proof leads over, after restarts, and where a node copies its state.
func TestEpochsOfShards(t *testing.T) {
	n := startOf(t, localnet.Options{Shards: 2, Validators: 4, EpochBlocks: 10, IntervalMs: 30})
	n.client = n.newClient(n.Names...)
	ctx, done := context.WithTimeout(t.Context(), 2*time.Minute)
	defer done()
	shard := [][]string{n.Names[:4], n.Names[4:]}
	epochOf := func(name string) consensus.Epoch {
		s, _ := get[api.Status](n, name, "/v1/status")
		return s.Epoch.Number
	}
	began := time.Now()
	told := func(what string) {
		t.Logf("%5.1f s: %s, epochs %d and %d", time.Since(began).Seconds(), what, epochOf(shard[0][0]), epochOf(shard[1][0]))
	}

	debits, credits := [2]map[consensus.Epoch]bool{{}, {}}, [2]map[consensus.Epoch]bool{{}, {}}
	var first *tx.Signed
	for len(credits[0]) < 5 || len(credits[1]) < 5 || epochOf(shard[0][0]) < 6 || epochOf(shard[1][0]) < 6 {
		there, back := n.across(ctx, 0, 1), n.across(ctx, 1, 0)
		if first == nil {
			first = &there
		}
		for side, s := range []tx.Signed{there, back} {
			d, c := n.credited(ctx, s)
			debits[side][d], credits[1-side][c] = true, true
		}
	}
	told("credited in five epochs of either shard")

	n.stop(shard[1]...)
	at := epochOf(shard[0][0])
	waits := n.across(ctx, 0, 1)
	paying, stop := context.WithCancel(ctx)
	paid := make(chan struct{})
	go func() { defer close(paid); n.pay(paying, 2, 4) }()
	for e := range consensus.Epoch(9) {
		n.reach(at+e+1, shard[0]...)
	}
	stop()
	<-paid
	n.start(shard[1]...)
	n.client.Close()
	n.client = n.newClient(n.Names...)
	n.credited(ctx, waits)
	n.credited(ctx, n.across(ctx, 1, 0))
	n.credited(ctx, n.across(ctx, 0, 1))
	told("one shard has caught up")
	for side, names := range shard {
		for _, name := range names {
			n.until(name+" follows the other shard", func() bool {
				s, _ := get[api.Status](n, name, "/v1/status")
				return len(s.Links) == 1 && s.Links[0].Epoch+1 >= epochOf(shard[1-side][0])
			})
		}
	}

	n.stop("s0v0", "s1v1")
	if err := os.RemoveAll(n.data("s1v1")); err != nil { // it gets channels that know later committees with the state
		t.Fatal(err)
	}
	n.start("s0v0")
	n.begin("s1v1", node.Sync)
	last := n.across(ctx, 0, 1)
	n.credited(ctx, last)
	n.credited(ctx, n.across(ctx, 1, 0))
	for _, name := range []string{"s0v0", "s1v1"} {
		n.until(name+" is in step", func() bool { _, status := n.raw(name, "/readyz"); return status == 200 })
	}
	for _, name := range shard[0] { // the first transfer's credit is of a committee that none of them holds any more
		for _, s := range []*tx.Signed{&last, first} {
			n.until(name+" knows the credit", func() bool {
				got, _ := get[api.Transaction](n, name, "/v1/transactions/"+n.id(*s))
				return got.State == api.Credited
			})
		}
	}
	told("after restarts")

	// A client that begins with the genesis file follows both shards and proves what happened in the first epochs.
	n.client.Close()
	n.client = n.newClient("s0v0", "s1v1", "s1v0")
	n.credited(ctx, *first)
	for s := range consensus.ShardID(2) {
		if err := n.client.Sync(ctx, s, nil); err != nil {
			t.Error(err)
		}
	}
	n.client.Close()
	n.until("the units add up", func() bool {
		var held, genesis uint64
		for _, names := range shard {
			s, _ := get[api.Status](n, names[0], "/v1/status")
			u := s.Supply
			held, genesis = held+u.Balances+u.Fees+u.Deposits+u.Treasury, genesis+u.Genesis
		}
		return held == genesis // nothing is on its way
	})
	n.stop(slices.Collect(maps.Keys(n.nodes))...)
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.logs) > 0 {
		t.Errorf("in the logs:\n%s", strings.Join(n.logs, ""))
	}
}
