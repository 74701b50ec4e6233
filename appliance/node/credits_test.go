package node

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/netstack"
	"tutti/netstack/simnet"
	"tutti/state/tx"
)

// creditsPair is two nodes: one of shard 0 that asks, and one of shard 1 that answers with what answer returns.
func creditsPair(t *testing.T, net *prooftest.Network, answer func(tx.Hash) (*proof.Credit, error)) (asker *credits, ask, serve *simnet.Node) {
	t.Helper()
	sim := simnet.New(simnet.Config{})
	t.Cleanup(sim.Close)
	ask, serve = sim.Join(nodeID(1)), sim.Join(nodeID(2))
	peers := [][]netstack.NodeID{nil, {nodeID(2)}}
	asker = newCredits(ask, peers, net.Trust, noMiss, func(context.Context, tx.Hash) (*proof.Credit, error) { return nil, errors.New("none here") })
	newCredits(serve, peers, net.Trust, noMiss, func(_ context.Context, id tx.Hash) (*proof.Credit, error) { return answer(id) })
	return asker, ask, serve
}

func noMiss(consensus.ShardID, consensus.Epoch) {}

// TestCreditsOfEpochs: a credit of an epoch that is not known is not believed, and its committee is asked for.
func TestCreditsOfEpochs(t *testing.T) {
	net := prooftest.New(t, "credits", 2)
	step, _ := net.HandOver(1, 1)
	transfer := net.Transfer(net.Account(0, 1), net.Account(1, 2), 30, 1)
	_, block := net.Send(transfer)
	good := creditOf(t, block, 0)
	c, _, _ := creditsPair(t, net, func(tx.Hash) (*proof.Credit, error) { return good, nil })
	var missed []consensus.Epoch
	c.miss = func(shard consensus.ShardID, epoch consensus.Epoch) {
		if shard == 1 {
			missed = append(missed, epoch)
		}
	}
	if got := c.lookup(t.Context(), 1, net.ID(transfer)); got != nil || len(missed) != 1 || missed[0] != 2 {
		t.Errorf("believed %v, asked for epochs %v", got, missed)
	}
	if err := net.Trust.Advance(step); err != nil {
		t.Fatal(err)
	}
	if got := c.lookup(t.Context(), 1, net.ID(transfer)); got == nil || len(missed) != 1 {
		t.Errorf("not believed, asked for epochs %v", missed)
	}
}

func creditOf(t *testing.T, b *proof.Block, k int) *proof.Credit {
	t.Helper()
	c, err := b.Open()
	if err != nil {
		t.Fatal(err)
	}
	return c.Credit(k)
}

func TestCredits(t *testing.T) {
	net := prooftest.New(t, "credits", 2)
	transfer := net.Transfer(net.Account(0, 1), net.Account(1, 2), 30, 1)
	_, block := net.Send(transfer)
	_, otherBlock := net.Send(net.Transfer(net.Account(0, 1), net.Account(1, 2), 40, 2))
	stranger := prooftest.New(t, "stranger", 2)
	_, strangers := stranger.Send(stranger.Transfer(net.Account(0, 1), net.Account(1, 2), 30, 1))
	id := net.ID(transfer)
	good, asked := creditOf(t, block, 0), 0
	var now func() (*proof.Credit, error)
	c, ask, _ := creditsPair(t, net, func(tx.Hash) (*proof.Credit, error) { asked++; return now() })
	spoilt := func(f func(*proof.Credit)) func() (*proof.Credit, error) {
		return func() (*proof.Credit, error) {
			c := *good
			f(&c)
			return &c, nil
		}
	}
	for name, answer := range map[string]func() (*proof.Credit, error){
		"not consumed yet":        func() (*proof.Credit, error) { return nil, errors.New("not yet") },
		"of another transaction":  func() (*proof.Credit, error) { return creditOf(t, otherBlock, 0), nil },
		"of another network":      func() (*proof.Credit, error) { return creditOf(t, strangers, 0), nil },
		"with another amount":     spoilt(func(c *proof.Credit) { c.Receipt.Amount++ }),
		"with another outcome":    spoilt(func(c *proof.Credit) { c.Outcome = tx.Returned }),
		"with a forged signature": spoilt(func(c *proof.Credit) { c.Final.Cert.Signature[3] ^= 1 }),
	} {
		now = answer
		if got := c.lookup(t.Context(), 1, id); got != nil {
			t.Errorf("%s: believed", name)
		}
	}
	now = func() (*proof.Credit, error) { return good, nil }
	got := c.lookup(t.Context(), 1, id)
	if got == nil || got.Receipt.Tx != id || got.Verify(net.Trust) != nil {
		t.Fatalf("the credit is %v", got)
	}
	before := asked
	if again := c.lookup(t.Context(), 1, id); again != got || asked != before {
		t.Errorf("known, and asked for again")
	}
	if _, err := ask.Request(t.Context(), nodeID(2), creditProtocol, id[:31]); err == nil {
		t.Error("a malformed question is answered")
	}
	b, err := ask.Request(t.Context(), nodeID(2), creditProtocol, id[:])
	if want, _ := json.Marshal(good); err != nil || string(b) != string(want) {
		t.Errorf("served %d bytes: %v", len(b), err)
	}
}

func TestCreditsForget(t *testing.T) {
	c := &credits{known: map[tx.Hash]*proof.Credit{}}
	id := func(i int) tx.Hash { return tx.Hash{byte(i), byte(i >> 8)} }
	for i := range keptCredits + 7 {
		c.keep(id(i), &proof.Credit{})
		c.keep(id(i), &proof.Credit{})
	}
	if len(c.known) != keptCredits || c.known[id(6)] != nil || c.known[id(7)] == nil {
		t.Errorf("%d are known", len(c.known))
	}
}

func TestCreditsAskInTurn(t *testing.T) {
	sim := simnet.New(simnet.Config{})
	defer sim.Close()
	var asked []byte
	for i := range byte(3) {
		sim.Join(nodeID(10+i)).Serve(creditProtocol, func(context.Context, netstack.NodeID, []byte) ([]byte, error) {
			asked = append(asked, i)
			return nil, errors.New("not yet")
		})
	}
	peers := [][]netstack.NodeID{nil, {nodeID(10), nodeID(11)}, {nodeID(12)}}
	c := newCredits(sim.Join(nodeID(1)), peers, nil, noMiss, nil)
	for range 2 { // the shards' turns do not lock into one another
		c.lookup(t.Context(), 1, tx.Hash{})
		c.lookup(t.Context(), 2, tx.Hash{})
	}
	if string(asked) != string([]byte{0, 2, 1, 2}) {
		t.Errorf("asked %v", asked)
	}
}
