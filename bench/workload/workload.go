// Package workload makes the transfers of a benchmark: who pays whom, how much, with which nonce, and the signature.
//
// A Generator draws transfers from a seed; the same options, the same seed and the same calls give the same transfers.
// A Crowd holds the keys of the accounts and signs. Accounts are numbered 0 to Accounts-1 from the first one that the
// crowd was given; account i is on shard i mod Shards, as genesis.Population lays a crowd out.
//
// # Distributions
//
// Payer and receiver are drawn in the same way, each from its shard's accounts: uniform, or by Zipf's law with exponent
// 1 over a seeded shuffle of the rows (row r holds accounts r*Shards to r*Shards+Shards-1, one of each shard, so every
// shard has the same law and popular accounts are spread over the table's pages). The payer's shard is uniform. With
// probability CrossShard the receiver is on another shard, uniform among them.
//
// # Nonces
//
// The generator knows each account's next nonce and how many of its transfers are under way. An account with Window of
// them, or with an unknown nonce, is not drawn; another one is drawn in its place, up to maxDraws times. With a Window
// of 1 nobody's transfer waits for another one of the same account.
//
// # Invalid transfers
//
// With probability Invalid the transfer is to be signed wrongly. It uses up no nonce and never has the content, hence
// the id, of another one: its amount is above MaxAmount and grows from one to the next.
//
// Nothing here is fatal, starts goroutines that outlive a call, or is safe for concurrent use but for Crowd.Sign.
package workload

import (
	"errors"
	"fmt"
	"math/rand/v2"
)

// Kind is a distribution of payers and receivers.
type Kind string

// The distributions.
const (
	Uniform Kind = "uniform"
	Zipf    Kind = "zipf"
)

// maxDraws bounds the draws for one payer that is free.
const maxDraws = 64

// MaxAccounts bounds a workload; the generator needs about 20 bytes for each.
const MaxAccounts = 1 << 26

// Options of a Generator. Zero Window and MaxAmount mean 1 and 16.
type Options struct {
	Kind       Kind
	Seed       uint64
	Shards     int
	Accounts   int     // at least two on each shard
	CrossShard float64 // share of transfers to another shard, 0 to 1
	Invalid    float64 // share of transfers with a wrong signature, 0 to 1
	Window     int     // transfers of one payer under way at once, at most 65,535
	MaxAmount  uint64  // amounts are uniform from 1 to this
}

// Transfer is one drawn transfer. From and To are account numbers.
type Transfer struct {
	From, To uint32
	Amount   uint64
	Nonce    uint32
	Invalid  bool // to be signed wrongly
}

// account is what the generator knows of one payer.
type account struct {
	nonce  uint32 // of its next transfer
	active uint16 // transfers under way
	known  bool   // nonce is right
}

// Generator draws transfers. One goroutine at a time may call it.
type Generator struct {
	opt      Options
	random   *rand.Rand
	rows     *alias   // nil: uniform
	shuffle  []uint32 // rank to row; nil: uniform
	accounts []account
	invalid  uint64 // drawn so far
}

// New makes a generator that knows no nonce yet; see Ready.
func New(opt Options) (*Generator, error) {
	if opt.Window == 0 {
		opt.Window = 1
	}
	if opt.MaxAmount == 0 {
		opt.MaxAmount = 16
	}
	share := func(p float64) bool { return p >= 0 && p <= 1 }
	switch {
	case opt.Kind != Uniform && opt.Kind != Zipf:
		return nil, fmt.Errorf("workload: distribution %q: choose %s or %s", opt.Kind, Uniform, Zipf)
	case opt.Shards < 1:
		return nil, fmt.Errorf("workload: %d shards", opt.Shards)
	case opt.Accounts < 2*opt.Shards || opt.Accounts > MaxAccounts:
		return nil, fmt.Errorf("workload: %d accounts on %d shards: need two for each shard, and at most %d", opt.Accounts, opt.Shards, MaxAccounts)
	case !share(opt.CrossShard) || !share(opt.Invalid):
		return nil, fmt.Errorf("workload: shares are from 0 to 1, not %v and %v", opt.CrossShard, opt.Invalid)
	case opt.CrossShard > 0 && opt.Shards == 1:
		return nil, errors.New("workload: one shard has no other to send to: leave the cross-shard share at 0")
	case opt.Window < 1 || opt.Window > 65535:
		return nil, fmt.Errorf("workload: window of %d: need 1 to 65535", opt.Window)
	}
	g := &Generator{opt: opt, random: rand.New(rand.NewPCG(opt.Seed, 0x7475747469)), accounts: make([]account, opt.Accounts)}
	if opt.Kind == Zipf {
		rows := g.rowCount()
		g.shuffle = make([]uint32, rows)
		weights := make([]float64, rows)
		for i := range g.shuffle {
			g.shuffle[i] = uint32(i)
			weights[i] = 1 / float64(i+1)
		}
		g.random.Shuffle(rows, func(i, j int) { g.shuffle[i], g.shuffle[j] = g.shuffle[j], g.shuffle[i] })
		g.rows = newAlias(weights)
	}
	return g, nil
}

// rowCount is the number of whole rows; accounts beyond them are left out.
func (g *Generator) rowCount() int { return g.opt.Accounts / g.opt.Shards }

// Accounts is the number of accounts that are drawn from.
func (g *Generator) Accounts() int { return g.rowCount() * g.opt.Shards }

// draw draws an account of a shard.
func (g *Generator) draw(shard int) uint32 {
	var row int
	if g.rows == nil {
		row = g.random.IntN(g.rowCount())
	} else {
		row = int(g.shuffle[g.rows.draw(g.random)])
	}
	return uint32(row*g.opt.Shards + shard)
}

// Next draws a transfer. It is false if no free payer was found: too many wait already, or too few nonces are known.
func (g *Generator) Next() (Transfer, bool) {
	invalid := g.opt.Invalid > 0 && g.random.Float64() < g.opt.Invalid
	for range maxDraws {
		from := g.random.IntN(g.opt.Shards)
		t := Transfer{From: g.draw(from), Amount: 1 + g.random.Uint64N(g.opt.MaxAmount), Invalid: invalid}
		a := &g.accounts[t.From]
		if !a.known || int(a.active) >= g.opt.Window || invalid && a.active > 0 {
			continue
		}
		to := from
		if g.opt.CrossShard > 0 && g.random.Float64() < g.opt.CrossShard {
			to = (from + 1 + g.random.IntN(g.opt.Shards-1)) % g.opt.Shards
		}
		if t.To = g.draw(to); t.To == t.From {
			t.To = uint32((int(t.To) + g.opt.Shards) % g.Accounts()) // its neighbour on the shard
		}
		t.Nonce = a.nonce
		if invalid {
			g.invalid++
			t.Amount = g.opt.MaxAmount + g.invalid
			return t, true
		}
		a.nonce++
		a.active++
		return t, true
	}
	return Transfer{}, false
}

// Active is how many transfers of an account are under way.
func (g *Generator) Active(i uint32) int { return int(g.accounts[i].active) }

// Ready says that an account with no transfer under way may pay, and the nonce of its next transfer.
func (g *Generator) Ready(i uint32, nonce uint32) {
	g.accounts[i] = account{nonce: nonce, known: true}
}

// Done says that a valid transfer of an account is no longer under way. If spent is false it did not use up its nonce,
// so the account's next one is no longer known and the account is not drawn until it is Ready. The answer is whether
// the account now waits for that: nothing of it is under way and its nonce is unknown.
func (g *Generator) Done(i uint32, spent bool) (unknown bool) {
	a := &g.accounts[i]
	a.active--
	a.known = a.known && spent
	return !a.known && a.active == 0
}

// SetInvalid changes the share of transfers with a wrong signature from now on.
func (g *Generator) SetInvalid(share float64) { g.opt.Invalid = share }

// TakeBack says that a valid transfer was not taken by anybody, if it is the newest of its account: its nonce is drawn
// again. Otherwise nothing changes, and Done has to say what became of it.
func (g *Generator) TakeBack(t Transfer) bool {
	a := &g.accounts[t.From]
	if t.Invalid || !a.known || a.active == 0 || a.nonce != t.Nonce+1 {
		return false
	}
	a.nonce--
	a.active--
	return true
}

// Again draws a transfer once more that TakeBack took back, and reports whether it could: its payer is free, and its nonce is
// the next one still.
func (g *Generator) Again(t Transfer) bool {
	a := &g.accounts[t.From]
	if t.Invalid || !a.known || int(a.active) >= g.opt.Window || a.nonce != t.Nonce {
		return false
	}
	a.nonce++
	a.active++
	return true
}

// alias draws from a discrete distribution in constant time (Vose, 1991).
type alias struct {
	keep  []float32 // chance of an index to stand for itself
	other []uint32  // what it stands for else
}

func newAlias(weights []float64) *alias {
	n := len(weights)
	a := &alias{keep: make([]float32, n), other: make([]uint32, n)}
	var sum float64
	for _, w := range weights {
		sum += w
	}
	scaled := make([]float64, n)
	var small, large []uint32
	for i, w := range weights {
		scaled[i] = w * float64(n) / sum
		if scaled[i] < 1 {
			small = append(small, uint32(i))
		} else {
			large = append(large, uint32(i))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		a.keep[s], a.other[s] = float32(scaled[s]), l
		if scaled[l] -= 1 - scaled[s]; scaled[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, i := range append(small, large...) { // rounding leaves some
		a.keep[i], a.other[i] = 1, i
	}
	return a
}

func (a *alias) draw(r *rand.Rand) uint32 {
	i := uint32(r.IntN(len(a.keep)))
	if r.Float32() < a.keep[i] {
		return i
	}
	return a.other[i]
}
