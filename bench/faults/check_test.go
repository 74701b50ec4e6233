package faults

import (
	"context"
	"strings"
	"testing"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/state/tx"
)

// forge is a network whose committees sign whatever a test says, and a witness of it. Accounts 0 to 9 of both shards have
// 1,000 units each; a fee is 1.
type forge struct {
	*prooftest.Network
	witness *Witness
	t       *testing.T
}

func newForge(t *testing.T) *forge {
	f := &forge{Network: prooftest.New(t, "forge", 2), t: t}
	genesis := map[tx.ID]uint64{}
	for s := range consensus.ShardID(2) {
		for k := range uint32(10) {
			genesis[f.Account(s, k)] = 1000
		}
	}
	f.witness = NewWitness(2, []uint64{1, 10}, genesis, f.ShardOf)
	return f
}

// pay is a transfer between accounts of shard 0, or to shard 1 from account 100 on.
func (f *forge) pay(from, to uint32, amount uint64, nonce uint32) tx.Signed {
	if to >= 100 {
		return f.Transfer(f.Account(0, from), f.Account(1, to-100), amount, nonce)
	}
	return f.Transfer(f.Account(0, from), f.Account(0, to), amount, nonce)
}

// block makes a final block and tells the witness of it.
func (f *forge) block(s consensus.ShardID, txs []tx.Signed, bundles ...tx.Bundle) *proof.Contents {
	f.t.Helper()
	f.Add(s, txs, bundles)
	c, err := f.Finalise(s)[0].Verify(f.Trust)
	if err != nil {
		f.t.Fatal(err)
	}
	f.witness.Tell("a", c)
	return c
}

// bundle is receipts of shard 0 for shard 1.
func (f *forge) bundle(first uint64, txs ...tx.Signed) tx.Bundle {
	b := tx.Bundle{Source: 0, First: first}
	for _, t := range txs {
		b.Receipts = append(b.Receipts, f.Receipt(t))
	}
	return b
}

// fakeNode is a node of shard 0 that answers what it is told to.
type fakeNode struct {
	blocks  map[consensus.Height]*proof.Contents
	account proof.AccountStatement
	proven  *proof.Proven
	status  api.Status
	accused api.Evidence
	behind  int // blocks that it lacks at first; one fewer each time it tells its status
}

var errNotFinal = api.Refuse(api.NotFinal, "forged")

func (n *fakeNode) Name() string             { return "b" }
func (n *fakeNode) Shard() consensus.ShardID { return 0 }

func (n *fakeNode) Status(context.Context) (*api.Status, error) {
	s := n.status
	s.FinalHeight -= consensus.Height(n.behind)
	n.behind = max(n.behind-1, 0)
	return &s, nil
}

func (n *fakeNode) Evidence(context.Context) (*api.Evidence, error) { e := n.accused; return &e, nil }

func (n *fakeNode) Block(_ context.Context, h consensus.Height) (*proof.Contents, error) {
	if c := n.blocks[h]; c != nil && h+consensus.Height(n.behind) <= n.status.FinalHeight {
		return c, nil
	}
	return nil, errNotFinal
}

func (n *fakeNode) Finality(context.Context, tx.Hash) (*proof.Proven, error) {
	if n.proven == nil {
		return nil, errNotFinal
	}
	return n.proven, nil
}

func (n *fakeNode) Account(context.Context, tx.ID) (*proof.AccountStatement, error) {
	a := n.account
	return &a, nil
}

// TestCanaries: the checker finds each kind of contradiction, and nothing where there is none.
func TestCanaries(t *testing.T) {
	for _, tc := range []struct {
		name string
		play func(*forge)
		want string // in a complaint; empty: there is none
	}{
		{"an honest network", honest, ""},
		{"two final blocks at a height", func(f *forge) {
			f.block(0, []tx.Signed{f.pay(0, 1, 5, 0)})
			fork := newForge(f.t)
			f.witness.Tell("b", fork.block(0, []tx.Signed{f.pay(0, 2, 5, 0)}))
		}, "two final blocks at height 1"},
		{"a block beside the chain", func(f *forge) {
			f.block(0, []tx.Signed{f.pay(0, 1, 5, 0)})
			fork := newForge(f.t)
			fork.block(0, nil)
			f.witness.Tell("b", fork.block(0, nil))
		}, "does not follow"},
		{"a gap", func(f *forge) {
			fork := newForge(f.t)
			fork.block(0, nil)
			f.witness.Tell("b", fork.block(0, nil))
		}, "1 was expected"},
		{"executed twice", func(f *forge) {
			f.block(0, []tx.Signed{f.pay(0, 1, 5, 0)})
			f.block(0, []tx.Signed{f.pay(0, 1, 5, 0)})
		}, "takes effect a second time"},
		{"a nonce used twice", func(f *forge) {
			f.block(0, []tx.Signed{f.pay(0, 1, 5, 0), f.pay(0, 1, 6, 0)})
		}, "has nonce 0, the account was at 1"},
		{"money from nowhere", func(f *forge) {
			f.block(0, []tx.Signed{f.pay(0, 1, 1000, 0)})
		}, "costs 1001"},
		{"spent in the block that brings it", func(f *forge) {
			f.block(0, []tx.Signed{f.pay(0, 1, 900, 0), f.pay(1, 2, 1500, 0)})
		}, "costs 1501"},
		{"an expired transfer", func(f *forge) {
			late := f.pay(0, 1, 1, 0)
			late.Expiry = 1
			f.block(0, nil)
			f.block(0, []tx.Signed{late})
		}, "was good up to height 1"},
		{"a receiver that does not exist", func(f *forge) {
			f.block(0, []tx.Signed{f.pay(0, 50, 1, 0)})
		}, "does not exist"},
		{"a payer of another shard", func(f *forge) {
			f.block(1, []tx.Signed{f.pay(0, 1, 1, 0)})
		}, "has no place here"},
		{"a credit without a debit", func(f *forge) {
			f.block(1, nil, f.bundle(0, f.pay(0, 100, 5, 0)))
			f.witness.Settled()
		}, "no shard debited them"},
		{"a credit twice", func(f *forge) {
			p := f.pay(0, 100, 5, 0)
			f.block(0, []tx.Signed{p})
			f.block(1, nil, f.bundle(0, p))
			f.block(1, nil, f.bundle(1, p))
		}, "credited a second time"},
		{"a credit twice before the debit is told", func(f *forge) {
			p := f.pay(0, 100, 5, 0)
			f.block(1, nil, f.bundle(0, p))
			f.block(1, nil, f.bundle(1, p))
		}, "credited a second time"},
		{"another amount arrives", func(f *forge) {
			p := f.pay(0, 100, 5, 0)
			f.block(0, []tx.Signed{p})
			b := f.bundle(0, p)
			b.Receipts[0].Amount++
			f.block(1, nil, b)
		}, "was debited as"},
		{"another amount had arrived", func(f *forge) {
			p := f.pay(0, 100, 5, 0)
			b := f.bundle(0, p)
			b.Receipts[0].Amount++
			f.block(1, nil, b)
			f.block(0, []tx.Signed{p})
		}, "was debited as"},
		{"a receipt left out", func(f *forge) {
			p, q := f.pay(0, 100, 5, 0), f.pay(1, 101, 5, 0)
			f.block(0, []tx.Signed{p, q})
			f.block(1, nil, f.bundle(1, q))
		}, "comes as receipt 1 of shard 0, expected 0"},
		{"a lost block", func(f *forge) {
			f.block(0, nil)
			f.witness.CheckKept(f.t.Context(), &fakeNode{status: api.Status{FinalHeight: 1}}, span{1, 1})
		}, "has lost block 1"},
		{"another block in its place", func(f *forge) {
			f.block(0, nil)
			fork := newForge(f.t).block(0, []tx.Signed{f.pay(0, 1, 5, 0)})
			n := &fakeNode{status: api.Status{FinalHeight: 1}, blocks: map[consensus.Height]*proof.Contents{1: fork}}
			f.witness.CheckKept(f.t.Context(), n, span{1, 1})
		}, "proved"},
		{"a lost transfer", func(f *forge) {
			c := f.block(0, []tx.Signed{f.pay(0, 1, 5, 0)})
			f.witness.CheckHeld(f.t.Context(), &fakeNode{}, alone(f.Trust), []*proof.Finality{c.Finality(0)})
		}, "a client holds a proof: not_final"},
		{"a transfer in another block", func(f *forge) {
			held, n := f.held(), &fakeNode{}
			moved := *n.prove(f, held)
			moved.Where.Height++
			n.proven = &moved
			f.witness.CheckHeld(f.t.Context(), n, alone(f.Trust), []*proof.Finality{held})
		}, "a client holds a proof that it is in"},
		{"a forged proof", func(f *forge) {
			held := f.held()
			held.Success = false
			f.witness.CheckHeld(f.t.Context(), &fakeNode{}, alone(f.Trust), []*proof.Finality{held})
		}, "does not verify any more"},
		{"a unit too much", func(f *forge) {
			f.block(0, []tx.Signed{f.pay(0, 1, 5, 0)})
			a := proof.AccountStatement{ID: f.Account(0, 1), Exists: true, Balance: 1006, StateHeight: 1}
			f.witness.CheckAccounts(f.t.Context(), &fakeNode{account: a}, []tx.ID{a.ID})
		}, "is proven to have 1006 units"},
		{"a nonce behind", func(f *forge) {
			f.block(0, []tx.Signed{f.pay(0, 1, 5, 0)})
			a := proof.AccountStatement{ID: f.Account(0, 0), Exists: true, Balance: 994, StateHeight: 1}
			f.witness.CheckAccounts(f.t.Context(), &fakeNode{account: a}, []tx.ID{a.ID})
		}, "the blocks give 994 and 1"},
		{"an account gone", func(f *forge) {
			a := proof.AccountStatement{ID: f.Account(0, 0)}
			f.witness.CheckAccounts(f.t.Context(), &fakeNode{account: a}, []tx.ID{a.ID})
		}, "proven to exist false"},
		{"an account of a block nobody was told of", func(f *forge) {
			f.witness.CheckAccount("b", 0, &proof.AccountStatement{ID: f.Account(0, 0), Exists: true, Balance: 1000, StateHeight: 1})
		}, "which no client was told of"},
		{"another state root", func(f *forge) {
			for range 3 {
				f.block(0, nil)
			}
			f.witness.CheckRoot(f.t.Context(), &fakeNode{status: api.Status{FinalHeight: 3, StateHeight: 1, StateRoot: proof.Digest{1}}})
		}, "the certified header has"},
		{"evidence against a validator", func(f *forge) {
			f.witness.CheckEvidence(f.t.Context(), &fakeNode{accused: api.Evidence{Total: 1, Proofs: []api.EvidenceProof{{View: 7, First: "one vote", Second: "another"}}}})
		}, "in view 7 one vote, and another"},
		{"evidence that is not shown", func(f *forge) {
			f.witness.CheckEvidence(f.t.Context(), &fakeNode{accused: api.Evidence{Total: 1}})
		}, "shows none"},
		{"no evidence", func(f *forge) { f.witness.CheckEvidence(f.t.Context(), &fakeNode{}) }, ""},
		{"no state root", func(f *forge) {
			f.witness.CheckRoot(f.t.Context(), &fakeNode{status: api.Status{FinalHeight: 3}})
		}, "shows no state root"},
		{"money made", func(f *forge) {
			f.witness.CheckRoot(f.t.Context(), &fakeNode{status: api.Status{Supply: api.Supply{Balances: 1}}})
		}, "supply is not conserved"},
		{"money that never arrives", func(f *forge) {
			sent := &fakeNode{status: api.Status{Supply: api.Supply{Balances: 990, Outflow: 10, Genesis: 1000}}}
			got := &fakeNode{status: api.Status{Supply: api.Supply{Balances: 1000, Genesis: 1000}}}
			ctx, cancel := context.WithTimeout(f.t.Context(), time.Millisecond)
			defer cancel()
			f.witness.CheckSupply(ctx, [][]Node{{sent}, {got}}, 2000)
		}, "10 units left shards, 0 arrived"},
		{"two supplies in a shard", func(f *forge) {
			one := &fakeNode{status: api.Status{Supply: api.Supply{Balances: 1000, Genesis: 1000}}}
			two := &fakeNode{status: api.Status{Supply: api.Supply{Balances: 999, Fees: 1, Genesis: 1000}}}
			ctx, cancel := context.WithTimeout(f.t.Context(), time.Millisecond)
			defer cancel()
			f.witness.CheckSupply(ctx, [][]Node{{one, two}}, 1000)
		}, "does not settle"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newForge(t)
			tc.play(f)
			wrongs := strings.Join(f.witness.Wrongs(), "\n")
			if (tc.want == "") != (wrongs == "") || !strings.Contains(wrongs, tc.want) {
				t.Errorf("complaints: %q, want one with %q", wrongs, tc.want)
			}
		})
	}
}

// held makes a block with one transfer and the proof of it.
func (f *forge) held() *proof.Finality {
	return f.block(0, []tx.Signed{f.pay(0, 1, 5, 0)}).Finality(0)
}

// prove lets a node give a proof.
func (n *fakeNode) prove(f *forge, held *proof.Finality) *proof.Proven {
	f.t.Helper()
	p, err := held.Verify(f.Trust)
	if err != nil {
		f.t.Fatal(err)
	}
	n.proven = p
	return p
}

func honest(f *forge) {
	cross := f.pay(1, 102, 7, 0)
	n := &fakeNode{blocks: map[consensus.Height]*proof.Contents{}}
	first := f.block(0, []tx.Signed{f.pay(0, 1, 5, 0), cross, f.pay(0, 1, 6, 1)})
	f.block(1, nil, f.bundle(0, cross))
	early := f.pay(2, 103, 8, 0)
	f.block(1, nil, f.bundle(1, early)) // told before its debit
	n.blocks[1], n.blocks[2] = first, f.block(0, []tx.Signed{early})
	n.blocks[3] = f.block(0, nil)
	f.witness.Tell("b", first)
	ctx := f.t.Context()
	n.behind, n.status.FinalHeight = 2, 3 // at first
	f.witness.CheckKept(ctx, n, span{0, 3})
	held := first.Finality(0)
	n.prove(f, held)
	f.witness.CheckHeld(ctx, n, alone(f.Trust), []*proof.Finality{held})
	n.status = api.Status{FinalHeight: 3, StateHeight: 1, StateRoot: proof.Digest(n.blocks[3].Header.State)}
	n.status.Supply = api.Supply{Balances: 1985, Fees: 4, Outflow: 15, Inflow: 15, Genesis: 1989}
	f.witness.CheckRoot(ctx, n)
	f.witness.CheckSupply(ctx, [][]Node{{n, n}}, 1989)
	for _, a := range []proof.AccountStatement{
		{ID: f.Account(0, 0), Exists: true, Balance: 1000 - 5 - 6 - 2, Nonce: 2, StateHeight: 3},
		{ID: f.Account(0, 1), Exists: true, Balance: 1000 + 5 + 6 - 7 - 1, Nonce: 1, StateHeight: 1},
		{ID: f.Account(0, 2), Exists: true, Balance: 1000, StateHeight: 1},
		{ID: f.Account(0, 2), Exists: true, Balance: 1000 - 8 - 1, Nonce: 1, StateHeight: 2},
		{ID: f.Account(0, 77)},
	} {
		n.account = a
		f.witness.CheckAccounts(ctx, n, []tx.ID{a.ID})
	}
	f.witness.CheckAccount("c", 1, &proof.AccountStatement{ID: f.Account(1, 2), Exists: true, Balance: 1007, StateHeight: 1})
	f.witness.CheckAccount("c", 1, &proof.AccountStatement{ID: f.Account(1, 3), Exists: true, Balance: 1008, StateHeight: 2})
	if got := f.witness.Reverified(); got != 3+1+5 {
		f.t.Errorf("%d proofs were checked again, expected 9", got)
	}
}

// TestResults: a campaign counts its own runs, failed ones included, and those of its commit only.
func TestResults(t *testing.T) {
	r := Results{Path: t.TempDir() + "/soak.tsv", Commit: "abc"}
	other := Results{Path: r.Path, Commit: "abd"}
	for _, step := range []struct {
		results Results
		run     Result
	}{
		{r, Result{Seed: 1, Proofs: 5, Took: 1500 * time.Millisecond}},
		{other, Result{Seed: 2}},
		{r, Result{Seed: 3, Wrongs: []string{"first\n\tline", "second"}}},
	} {
		if err := step.results.Append(step.run, "detail"); err != nil {
			t.Fatal(err)
		}
	}
	if done, failed, err := r.Done(); done != 2 || failed != 1 || err != nil {
		t.Errorf("%d runs, %d failed, %v", done, failed, err)
	}
	if done, failed, err := other.Done(); done != 1 || failed != 0 || err != nil {
		t.Errorf("%d runs, %d failed, %v", done, failed, err)
	}
	if done, _, err := (Results{Path: t.TempDir() + "/none"}).Done(); done != 0 || err != nil {
		t.Errorf("no file: %d runs, %v", done, err)
	}
}
