package pool

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tutti/state/tx"
)

// wantCandidates requires payer and nonce of what is offered, in order.
func wantCandidates(t *testing.T, p *Pool, maxTxs, maxBytes int, ancestors []tx.Hash, want [][2]uint32) []tx.Signed {
	t.Helper()
	got := p.Candidates(maxTxs, maxBytes, ancestors)
	if diff := cmp.Diff(want, payments(got)); diff != "" {
		t.Fatalf("candidates (-want +got):\n%s", diff)
	}
	check(t, p)
	return got
}

func TestCandidatesAreFair(t *testing.T) {
	p, _, _ := newPool(t, nil)
	mustAdd(t, p, transfer(0, 0), transfer(0, 1), transfer(0, 2), transfer(1, 0), transfer(2, 0), transfer(2, 1), transfer(3, 1))
	all := [][2]uint32{{0, 0}, {1, 0}, {2, 0}, {0, 1}, {2, 1}, {0, 2}} // 3 waits for its nonce 0
	wantCandidates(t, p, 100, math.MaxInt, nil, all)
	wantCandidates(t, p, 2, math.MaxInt, nil, all[:2])
	wantCandidates(t, p, 2, math.MaxInt, nil, [][2]uint32{{2, 0}, {0, 0}}) // who was offered queues up again
	wantCandidates(t, p, 100, 2*tx.TransferWire+96, nil, [][2]uint32{{1, 0}, {2, 0}})
	wantCandidates(t, p, 0, math.MaxInt, nil, nil)
	mustAdd(t, p, transfer(3, 0))
	wantCandidates(t, p, 100, math.MaxInt, nil, [][2]uint32{{0, 0}, {1, 0}, {2, 0}, {3, 0}, {0, 1}, {2, 1}, {3, 1}, {0, 2}})
}

// TestForks has two children of one parent that contain different candidates.
func TestForks(t *testing.T) {
	p, l, _ := newPool(t, nil)
	mustAdd(t, p, transfer(0, 0), transfer(0, 1), transfer(1, 0))
	a, b, c := tx.Hash{0xa}, tx.Hash{0xb}, tx.Hash{0xc}
	block := wantCandidates(t, p, 2, math.MaxInt, nil, [][2]uint32{{0, 0}, {1, 0}})
	p.Included(a, ids(p, block))
	p.Included(a, nil) // a second report changes nothing
	wantCandidates(t, p, 9, math.MaxInt, []tx.Hash{a}, [][2]uint32{{0, 1}})
	wantCandidates(t, p, 9, math.MaxInt, []tx.Hash{b}, [][2]uint32{{1, 0}, {0, 0}, {0, 1}}) // not reported: empty
	p.Included(b, ids(p, block[:1]))
	wantCandidates(t, p, 9, math.MaxInt, []tx.Hash{b}, [][2]uint32{{1, 0}, {0, 1}})
	p.Included(c, ids(p, []tx.Signed{transfer(0, 1)})) // on a
	wantCandidates(t, p, 9, math.MaxInt, []tx.Hash{a, c}, nil)

	l.set(local(0), Account{Balance: 1e6 - 15, Nonce: 1})
	p.Finalised(b, height+1, block[:1])
	p.Abandoned(a)
	p.Abandoned(c)
	p.Abandoned(c)
	wantCandidates(t, p, 9, math.MaxInt, nil, [][2]uint32{{1, 0}, {0, 1}})
	if p.slots != 0 || len(p.blocks) != 0 {
		t.Errorf("slots %b, %d blocks", p.slots, len(p.blocks))
	}
}

func TestBlocksAreBounded(t *testing.T) {
	p, _, _ := newPool(t, nil)
	mustAdd(t, p, transfer(0, 0))
	for i := range maxBlocks + 3 {
		p.Included(tx.Hash{1, byte(i)}, ids(p, []tx.Signed{transfer(0, 0)}))
	}
	if c := p.Counters(); c.Untracked != 3 || len(p.blocks) != maxBlocks {
		t.Fatalf("counters %+v, %d blocks", c, len(p.blocks))
	}
	wantCandidates(t, p, 9, math.MaxInt, []tx.Hash{{1, maxBlocks - 1}}, nil)
	wantCandidates(t, p, 9, math.MaxInt, []tx.Hash{{1, maxBlocks}}, [][2]uint32{{0, 0}})
	for i := range maxBlocks + 3 {
		p.Abandoned(tx.Hash{1, byte(i)})
	}
	if p.slots != 0 {
		t.Errorf("slots %b", p.slots)
	}
}

func TestFinalised(t *testing.T) {
	p, l, _ := newPool(t, nil)
	soon := with(transfer(3, 0), func(s *tx.Signed) { s.Expiry = height + 1 })
	next := with(transfer(3, 1), func(s *tx.Signed) { s.Expiry = height + 2 })
	rich := with(transfer(1, 1), func(s *tx.Signed) { s.Amount = 900_000 })
	mustAdd(t, p, transfer(0, 0), transfer(0, 1), transfer(1, 0), rich, transfer(2, 0), soon, next)
	// 0 paid as pooled; 1 paid with a transaction that came in a batch and is poor now; 2's was skipped by the block.
	elsewhere := with(transfer(1, 0), func(s *tx.Signed) { s.Amount = 500_000 })
	l.set(local(0), Account{Balance: 1e6 - 15, Nonce: 1})
	l.set(local(1), Account{Balance: 1e6 - 500_010, Nonce: 1})
	p.Finalised(tx.Hash{1}, height+1, []tx.Signed{transfer(0, 0), transfer(2, 0), transfer(30, 0)}, batchOf(t, 1, elsewhere.Tx))
	check(t, p)
	wantCandidates(t, p, 9, math.MaxInt, nil, [][2]uint32{{0, 1}, {2, 0}})
	c := p.Counters()
	if c.Used != 2 || c.Unaffordable != 1 || c.Expired != 1 || c.Txs != 3 {
		t.Errorf("counters %+v", c)
	}
	if err := p.Submit(t.Context(), 1, []tx.Signed{transfer(0, 0)})[0]; code(err) != NonceTooLow {
		t.Errorf("replay: %v", err)
	}
	p.Finalised(tx.Hash{2}, height+200, nil)
	if c := p.Counters(); c.Txs != 0 || c.Expired != 4 || len(p.accounts) != 0 {
		t.Errorf("counters %+v, %d accounts", c, len(p.accounts))
	}
	check(t, p)
}

// TestAheadOfFinalised submits between the state's step and Finalised: what the state has executed is not counted
// against the balance twice.
func TestAheadOfFinalised(t *testing.T) {
	p, l, _ := newPool(t, nil)
	l.set(local(0), Account{Balance: 30})
	mustAdd(t, p, transfer(0, 0))
	l.set(local(0), Account{Balance: 15, Nonce: 1})
	mustAdd(t, p, transfer(0, 1))
	wantCandidates(t, p, 9, math.MaxInt, nil, [][2]uint32{{0, 1}})
}

func TestResend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, _ := newPool(t, nil)
		mine := transfer(0, 0)
		mustAdd(t, p, mine)
		if err := p.Forwarded(t.Context(), 7, []tx.Signed{transfer(1, 0)})[0]; err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var at []time.Duration
		for range 45 {
			for _, s := range p.Resend(time.Now(), 10) {
				if s != mine {
					t.Fatalf("resent %v", s)
				}
				at = append(at, time.Since(start)/time.Second)
			}
			time.Sleep(time.Second)
		}
		if want := []time.Duration{1, 3, 7, 15, 31}; !slices.Equal(at, want) {
			t.Errorf("resent after %v s, want %v", at, want)
		}

		// In a block it is left alone; abandoned, it is due again; a client's copy of a forwarded one makes it ours.
		p.Included(tx.Hash{1}, ids(p, []tx.Signed{mine}))
		time.Sleep(time.Minute)
		if got := p.Resend(time.Now(), 10); got != nil {
			t.Errorf("resent from a block: %v", payments(got))
		}
		p.Abandoned(tx.Hash{1})
		if err := p.Submit(t.Context(), 1, []tx.Signed{transfer(1, 0)})[0]; code(err) != Duplicate {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := p.Resend(time.Now(), 1); len(got) != 1 {
			t.Errorf("limit of 1: %v", payments(got))
		}
		if got := p.Resend(time.Now(), 9); len(got) != 1 {
			t.Errorf("the rest: %v", payments(got))
		}
		p.Finalised(tx.Hash{2}, height+200, nil)
		time.Sleep(time.Hour)
		if got := p.Resend(time.Now(), 9); got != nil {
			t.Errorf("resent after expiry: %v", payments(got))
		}
		check(t, p)
	})
}

// TestModel drives a small pool at random and checks the tables and every list of candidates.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, l, _ := newPool(t, func(o *Options) {
			o.MaxTxs, o.MaxBytes, o.MaxPerAccount = 12, 12*tx.TransferWire, 5
		})
		for i := range uint32(4) {
			l.set(local(i), Account{Balance: 100})
		}
		h := uint64(height)
		var blocks []tx.Hash // reported, unfinalised
		draw := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, name) }
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check(t, p) },
			"submit": func(*rapid.T) {
				var txs []tx.Signed
				for range draw("n", 1, 4) {
					payer := uint32(draw("payer", 0, 3))
					account := l.get(local(payer))
					txs = append(txs, with(transfer(payer, account.Nonce+uint32(draw("ahead", 0, 4))), func(s *tx.Signed) {
						s.FeeClass = uint16(draw("class", 0, 1))
						s.Expiry = uint32(h) + uint32(draw("expiry", 1, 5))
						if draw("kind", 0, 3) == 0 {
							s.Kind, s.To = tx.Open, 0
						}
					}))
				}
				p.Submit(t.Context(), uint64(draw("source", 0, 2)), txs)
			},
			"include": func(*rapid.T) {
				txs := p.Candidates(draw("max", 0, 6), math.MaxInt, blocks)
				seen := map[tx.ID]uint32{}
				for _, s := range txs {
					if last, ok := seen[s.From]; ok && s.Nonce != last+1 {
						t.Fatalf("nonce %d of %s after %d", s.Nonce, s.From, last)
					}
					seen[s.From] = s.Nonce
				}
				id := tx.Hash{byte(rand.Int()), byte(rand.Int()), byte(rand.Int()), 1}
				p.Included(id, ids(p, txs))
				blocks = append(blocks, id)
			},
			"abandon": func(*rapid.T) {
				if len(blocks) > 0 {
					p.Abandoned(blocks[len(blocks)-1])
					blocks = blocks[:len(blocks)-1]
				}
			},
			"finalise": func(*rapid.T) {
				var txs []tx.Signed
				for range draw("n", 0, 3) {
					payer := uint32(draw("payer", 0, 3))
					a := l.get(local(payer))
					txs = append(txs, transfer(payer, a.Nonce))
					a.Nonce++
					a.Balance -= min(a.Balance, 15)
					l.set(local(payer), a)
				}
				id := tx.Hash{}
				if len(blocks) > 0 {
					id, blocks = blocks[0], blocks[1:]
				}
				h++
				p.Finalised(id, h, txs)
			},
			"resend": func(*rapid.T) { p.Resend(time.Now().Add(time.Hour), draw("limit", 0, 3)) },
		})
	})
}

// TestConcurrent uses everything at once; the race detector looks on.
func TestConcurrent(t *testing.T) {
	p, l, _ := newPool(t, func(o *Options) { o.MaxTxs = 60 })
	p.verifier = accept{}
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			for n := range uint32(60) {
				var txs []tx.Signed
				for i := range uint32(8) {
					txs = append(txs, with(transfer(8*uint32(g)+i, n/4), func(s *tx.Signed) { s.FeeClass = uint16(n & 1) }))
				}
				p.Submit(t.Context(), uint64(g), txs)
			}
		})
	}
	wg.Go(func() {
		for h := range uint64(60) {
			txs := p.Candidates(20, math.MaxInt, nil)
			id := tx.Hash{byte(h), 1}
			p.Included(id, ids(p, txs))
			if h%3 == 0 {
				p.Abandoned(id)
				continue
			}
			for i := range txs {
				a := l.get(txs[i].From)
				a.Nonce = txs[i].Nonce + 1
				l.set(txs[i].From, a)
			}
			p.Finalised(id, height+h/10, txs)
			p.Resend(time.Now().Add(time.Hour), 5)
			_ = fmt.Sprint(p.Counters(), p.Len(), p.Has(id))
		}
	})
	wg.Wait()
	check(t, p)
}
