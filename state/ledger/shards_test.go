package ledger

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"tutti/state/tx"
)

// network is several shards in step, each a real ledger, with a fixed lag of bundles.
type network struct {
	t       *testing.T
	params  []Params
	ledgers []*Ledger
	tips    []tx.Hash
	height  uint64
	nonces  []map[tx.ID]uint32
	rng     *rand.Rand
}

const networkAccounts = 30

func newNetwork(t *testing.T, shards uint16, edit func(*Params)) *network {
	n := &network{t: t, rng: rand.New(rand.NewPCG(5, 6))}
	for s := range shards {
		p := testParams(t, s, shards, networkAccounts)
		p.GenesisBlock = blockName(uint64(s) << 32)
		edit(&p)
		n.params = append(n.params, p)
		n.ledgers = append(n.ledgers, mustOpen(t, testOptions(p, networkAccounts)))
		n.tips = append(n.tips, p.GenesisBlock)
		n.nonces = append(n.nonces, map[tx.ID]uint32{})
	}
	return n
}

// bundles are what a shard can receive from the others' final blocks.
func (n *network) bundles(dest int) []tx.Bundle {
	var out []tx.Bundle
	for source, l := range n.ledgers {
		if source == dest {
			continue
		}
		m := l.Meta()
		if m.Height == 0 {
			continue
		}
		h := ForeignHeader{Shard: uint16(source), Known: Known{Epoch: 1}, Height: m.Height}
		for i := range m.Channels {
			h.Links = append(h.Links, m.Channels[i].Link())
		}
		ours := n.ledgers[dest].blocks[n.tips[dest]].meta
		first := ours.Channels[ours.channel(uint16(source))].Received.Count()
		receipts, err := l.Receipts(uint16(dest), first, m.Channels[m.channel(uint16(dest))].Sent.Count())
		if err != nil {
			n.t.Fatal(err)
		}
		out = append(out, tx.Bundle{Source: uint16(source), Proof: fakeProof(h), First: first, Receipts: receipts})
	}
	return out
}

// step makes one block in each shard; every second one without bundles.
func (n *network) step(txs int, anyone func(shard int) tx.ID) {
	n.height++
	for s, l := range n.ledgers {
		p := &n.params[s]
		var candidates []tx.Signed
		for range txs {
			from := p.GenesisID(n.rng.Uint64N(networkAccounts))
			nonce := n.nonces[s][from]
			candidates = append(candidates, transfer(p, from, anyone(n.rng.IntN(len(n.ledgers))), 1+n.rng.Uint64N(2000), nonce))
			n.nonces[s][from]++
		}
		in := BuildInput{Parent: n.tips[s], Height: n.height, Candidates: candidates, MaxBytes: 1 << 20, MaxTxs: 1000}
		if n.height%2 == 0 {
			in.Bundles = n.bundles(s)
		}
		built, err := l.Build(context.Background(), in)
		if err != nil {
			n.t.Fatal(err)
		}
		for i, err := range built.LeftBundles {
			if err != nil {
				n.t.Fatalf("height %d, shard %d refuses bundle %d: %v", n.height, s, i, err)
			}
		}
		for i, r := range built.Left {
			// What is left out does not use its nonce; everything after it does not fit either.
			if r != None {
				from := candidates[i].From
				n.nonces[s][from] = min(n.nonces[s][from], candidates[i].Nonce)
			}
		}
		name := blockName(uint64(s)<<32 + n.height)
		if _, err := l.Execute(context.Background(), ExecuteInput{Parent: n.tips[s], Block: name, Height: n.height, Body: built.Body, Want: built.Commitments}); err != nil {
			n.t.Fatal(err)
		}
		n.tips[s] = name
	}
	for s, l := range n.ledgers {
		finalise(n.t, l, n.tips[s])
	}
}

// held is all units in the network: in shards, and sent but not received.
func (n *network) held() (sum uint64) {
	for _, l := range n.ledgers {
		s := l.Stats()
		sum += s.Supply
		for _, c := range l.Meta().Channels {
			sum += c.Outflow - c.Inflow // over both ends: what is on its way
		}
	}
	return sum
}

func (n *network) quiet() bool {
	for _, l := range n.ledgers {
		for _, c := range l.Meta().Channels {
			other := n.ledgers[c.Shard].Meta()
			back := other.Channels[other.channel(uint16(l.o.Params.Shard))]
			if c.Sent.Count() != back.Received.Count() || c.Returns > 0 || c.Acked != c.Sent.Count() {
				return false
			}
		}
	}
	return true
}

// TestShardsConserveSupply sends transfers between three shards, a third of them to accounts that do not exist.
func TestShardsConserveSupply(t *testing.T) {
	n := newNetwork(t, 3, func(p *Params) { p.ReceiptWindow = 40 })
	total := n.held()
	anyone := func(shard int) tx.ID {
		p := &n.params[shard]
		if n.rng.IntN(3) == 0 {
			return tx.MakeID(p.Table.Partitions(p.Shard)[0], 1000+n.rng.Uint32N(9))
		}
		return p.GenesisID(n.rng.Uint64N(networkAccounts))
	}
	for range 40 {
		n.step(40, anyone)
		if n.held() != total {
			t.Fatalf("height %d: %d units, %d at genesis", n.height, n.held(), total)
		}
	}
	for range 12 + keepAcked + receiptsSweep {
		n.step(0, nil)
	}
	if !n.quiet() {
		t.Fatal("receipts are still on their way long after the last transfer")
	}
	supply, returned, treasury := uint64(0), false, uint64(0)
	for s, l := range n.ledgers {
		supply += l.Stats().Supply
		treasury += l.Stats().Treasury
		for _, c := range l.Meta().Channels {
			returned = returned || c.Sent.Count() > 0
			if got, err := l.Receipts(c.Shard, c.Sent.Count(), c.Sent.Count()); err != nil || len(got) != 0 {
				t.Fatal(got, err)
			}
		}
		// The acknowledged outbox is gone but for the last range.
		kept := 0
		for _, c := range l.Meta().Channels {
			err := l.store.Receipts(c.Shard, 0, func(first uint64, v []byte) (bool, error) {
				kept += len(v) / receiptBytes
				return true, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if kept > 200 {
			t.Errorf("shard %d keeps %d receipts that were acknowledged", s, kept)
		}
	}
	if supply != total || treasury != 0 || !returned {
		t.Fatalf("%d units of %d, %d in the treasury", supply, total, treasury)
	}
}

// TestWindowCountsReturns: returns go first, whatever the window, and take its room.
func TestWindowCountsReturns(t *testing.T) {
	p := testParams(t, 0, 2, 10)
	p.ReceiptWindow = 3
	l := mustOpen(t, testOptions(p, 10))
	far, missing := tx.MakeID(200, 0), tx.MakeID(0, 99)
	lost := make([]tx.Receipt, 2)
	for i := range lost {
		lost[i] = tx.Receipt{From: far, To: missing, Amount: 1}
	}
	step(t, l, p.GenesisBlock, 1, blockName(1), nil, receiptBundle(&p, 1, 1, 0, 0, lost))
	in := BuildInput{Parent: blockName(1), Height: 2, MaxBytes: 1 << 20, MaxTxs: 10}
	for i := range uint32(3) {
		in.Candidates = append(in.Candidates, transfer(&p, p.GenesisID(0), far, 1, i))
	}
	built, err := l.Build(context.Background(), in)
	if err != nil || !slices.Equal(built.Left, []Reason{None, WindowFull, NonceGap}) || built.Commitments.Links[0].Sent != 3 {
		t.Fatal(err, built)
	}
}

// TestReturns follows one transfer to a missing account there and back, block by block.
func TestReturns(t *testing.T) {
	n := newNetwork(t, 2, func(p *Params) {})
	a, b := n.ledgers[0], n.ledgers[1]
	payer, missing := n.params[0].GenesisID(0), tx.MakeID(n.params[1].Table.Partitions(1)[0], 5000)
	paid := transfer(&n.params[0], payer, missing, 700, 0)
	step(t, a, n.tips[0], 1, blockName(1), []tx.Signed{paid})
	n.tips[0] = blockName(1)
	finalise(t, a, n.tips[0])
	before, _ := a.Account(payer)

	received := step(t, b, n.tips[1], 1, blockName(101), nil, n.bundles(1)...)
	n.tips[1] = blockName(101)
	if received.Credits[0] != tx.Returned || received.Commitments.Links[0].Sent != 0 {
		t.Fatalf("the receipt is %v, %d sent back already", received.Credits[0], received.Commitments.Links[0].Sent)
	}
	if next := step(t, b, n.tips[1], 2, blockName(102), nil); next.Commitments.Links[0].Sent != 1 {
		t.Fatal("the next block does not send it back")
	}
	finalise(t, b, blockName(101))
	for height, want := range [][]tx.CreditOutcome{{}, {tx.Returned}, {}} {
		if got, err := b.Credits(uint64(height)); err != nil || !slices.Equal(got, want) {
			t.Fatalf("credits of block %d: %v, %v", height, got, err)
		}
	}
	if m := b.Meta(); m.Channels[0].Returns != 1 || m.Channels[0].Net() != 0 {
		t.Fatalf("%+v", m.Channels[0])
	}
	finalise(t, b, blockName(102))
	n.tips[1] = blockName(102)

	back := step(t, a, n.tips[0], 2, blockName(2), nil, n.bundles(0)...)
	finalise(t, a, blockName(2))
	after, _ := a.Account(payer)
	if back.Credits[0] != tx.Credited || after.Balance != before.Balance+700 || after.Nonce != 1 {
		t.Fatalf("%v, %+v", back.Credits[0], after)
	}
	receipts, err := b.Receipts(0, 0, 1)
	want := tx.Receipt{From: missing, To: payer, Amount: 700, Tx: paid.TxID(n.params[0].GenesisHash), Return: true}
	if err != nil || receipts[0] != want {
		t.Fatal(receipts, err)
	}
}
