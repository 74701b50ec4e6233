package ledger

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"tutti/state/tx"
)

// TestConcurrentCalls builds, executes two forks, finalises, abandons and reads at the same time. The race detector
// and the sums of balances are the judges.
func TestConcurrentCalls(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	const accounts, blocks = 500, 25
	p := testParams(t, 0, 1, accounts)
	o := testOptions(p, accounts)
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for ctx.Err() == nil {
				id := p.GenesisID(rng.Uint64N(accounts))
				if _, ok := l.Account(id); !ok {
					t.Errorf("account %x is gone", uint64(id))
				}
				if s := l.Stats(); s.Supply != accounts*testBalance {
					t.Errorf("supply %d at height %d", s.Supply, s.Height)
				}
				proof, err := l.AccountProof(id)
				if err != nil {
					t.Error(err)
				} else if root := rootAt(l, proof.Height); root != (tx.Hash{}) {
					if _, exists, err := VerifyAccountProof(root, id, proof); err != nil || !exists {
						t.Errorf("proof at height %d: %v, %v", proof.Height, exists, err)
					}
				}
			}
		})
	}
	g := &load{&p, rand.New(rand.NewPCG(1, 2)), make([]uint32, accounts)}
	parent := p.GenesisBlock
	for h := uint64(1); h <= blocks; h++ {
		txs := g.txs(60)
		for i := range txs {
			fakeSign(p.GenesisHash, &txs[i], keyOf(txs[i].From))
		}
		names := [2]tx.Hash{blockName(h), blockName(1<<32 + h)}
		var both sync.WaitGroup
		for fork, name := range names {
			both.Go(func() {
				built, err := l.Build(ctx, BuildInput{Parent: parent, Height: h, Candidates: txs[fork*10:], MaxBytes: 1 << 20, MaxTxs: 100})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := l.Execute(ctx, ExecuteInput{Parent: parent, Block: name, Height: h, Body: built.Body, Want: built.Commitments}); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		// One fork wins; the other goes by itself or by name, while its child is being built.
		both.Go(func() {
			_, err := l.Build(ctx, BuildInput{Parent: names[1], Height: h + 1, Candidates: txs, MaxBytes: 1 << 20, MaxTxs: 100})
			if err != nil && !errors.Is(err, ErrUnknownParent) {
				t.Error(err)
			}
		})
		if h%2 == 0 {
			both.Go(func() { l.Abandon(names[1]) })
		}
		if err := l.Finalise(ctx, names[0]); err != nil {
			t.Fatal(err)
		}
		both.Wait()
		parent = names[0]
	}
	stop()
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// rootAt is the root of a block kept at a height on the final chain; zero: it is not kept any more.
func rootAt(l *Ledger, height uint64) tx.Hash {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for b := l.last; b != nil; b = b.parent {
		if b.height == height {
			return b.root
		}
	}
	return tx.Hash{}
}
