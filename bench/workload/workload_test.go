package workload

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tutti/accel/ed25519"
	"tutti/appliance/genesis"
	"tutti/consensus"
	"tutti/state/tx"
)

// drawn makes a generator whose accounts all have nonce 0, and draws n transfers that are settled at once.
func drawn(tb testing.TB, opt Options, n int) (*Generator, []Transfer) {
	tb.Helper()
	g, err := New(opt)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range uint32(g.Accounts()) {
		g.Ready(i, 0)
	}
	out := make([]Transfer, 0, n)
	for range n {
		t, ok := g.Next()
		if !ok {
			tb.Fatalf("no free payer after %d transfers", len(out))
		}
		if !t.Invalid {
			g.Done(t.From, true)
		}
		out = append(out, t)
	}
	return g, out
}

func TestDeterminism(t *testing.T) {
	for _, opt := range []Options{
		{Kind: Uniform, Seed: 1, Shards: 1, Accounts: 1000},
		{Kind: Uniform, Seed: 1, Shards: 3, Accounts: 1000, CrossShard: 0.5, Invalid: 0.1},
		{Kind: Zipf, Seed: 1, Shards: 2, Accounts: 1000, CrossShard: 0.2, Window: 8},
	} {
		t.Run(fmt.Sprint(opt.Kind, opt.Shards), func(t *testing.T) {
			_, a := drawn(t, opt, 2000)
			_, b := drawn(t, opt, 2000)
			if d := cmp.Diff(a, b); d != "" {
				t.Errorf("one seed, two streams:\n%s", d)
			}
			opt.Seed++
			if _, c := drawn(t, opt, 2000); cmp.Equal(a, c) {
				t.Error("two seeds, one stream")
			}
		})
	}
}

// TestGolden pins the stream: a result can be reproduced from its seed with a later build.
func TestGolden(t *testing.T) {
	_, got := drawn(t, Options{Kind: Zipf, Seed: 7, Shards: 2, Accounts: 100, CrossShard: 0.5, Invalid: 0.3}, 4)
	want := []Transfer{
		{From: 23, To: 74, Amount: 2, Nonce: 0},
		{From: 78, To: 87, Amount: 17, Nonce: 0, Invalid: true},
		{From: 31, To: 9, Amount: 5, Nonce: 0},
		{From: 31, To: 14, Amount: 7, Nonce: 1},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the stream of a seed has changed:\n%s", d)
	}
}

func TestShares(t *testing.T) {
	const n = 20_000
	g, all := drawn(t, Options{Kind: Uniform, Seed: 3, Shards: 4, Accounts: 4003, CrossShard: 0.2, Invalid: 0.05}, n)
	if g.Accounts() != 4000 {
		t.Errorf("draws from %d accounts, want whole rows of 4 shards", g.Accounts())
	}
	var cross, invalid int
	var payers, shards [4000]int
	amounts := map[uint64]bool{}
	for _, x := range all {
		if x.From == x.To {
			t.Fatal("an account pays itself")
		}
		payers[x.From]++
		shards[x.From%4]++
		if x.From%4 != x.To%4 {
			cross++
		}
		if x.Invalid {
			invalid++
			if x.Amount <= 16 || amounts[x.Amount] {
				t.Fatalf("invalid transfer of %d could be taken for another one", x.Amount)
			}
			amounts[x.Amount] = true
		} else if x.Amount < 1 || x.Amount > 16 {
			t.Fatalf("amount %d", x.Amount)
		}
	}
	near := func(what string, got, want float64) {
		if math.Abs(got-want) > 0.015 {
			t.Errorf("%s %.3f, want %.3f", what, got, want)
		}
	}
	near("cross-shard share", float64(cross)/n, 0.2)
	near("invalid share", float64(invalid)/n, 0.05)
	for s := range 4 {
		near("share of a shard", float64(shards[s])/n, 0.25)
	}
	for i, k := range payers {
		if k > 30 { // 5 expected
			t.Errorf("account %d paid %d times", i, k)
		}
	}
}

// TestZipf compares the frequencies of the most popular accounts with the law, at both ends.
func TestZipf(t *testing.T) {
	const n, accounts = 50_000, 1000
	g, all := drawn(t, Options{Kind: Zipf, Seed: 5, Shards: 1, Accounts: accounts, Window: 1000}, n)
	var from, to [accounts]float64
	for _, x := range all {
		from[x.From]++
		to[x.To]++
	}
	var harmonic float64
	for i := range accounts {
		harmonic += 1 / float64(i+1)
	}
	for rank := range 5 {
		want := n / float64(rank+1) / harmonic
		for end, counts := range map[string]*[accounts]float64{"payer": &from, "receiver": &to} {
			// A receiver that was drawn to be the payer is its neighbour instead, so the law holds a little less there.
			if got := counts[g.shuffle[rank]]; math.Abs(got-want)/want > 0.18 {
				t.Errorf("%s of rank %d drawn %.0f times, want about %.0f", end, rank, got, want)
			}
		}
	}
}

// TestNonces plays a random history: nonces of an account are consecutive, no more than Window are under way, and an
// account whose nonce is unknown is not drawn.
func TestNonces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		window := rapid.IntRange(1, 3).Draw(t, "window")
		g, err := New(Options{Kind: Uniform, Seed: rapid.Uint64().Draw(t, "seed"), Shards: 2, Accounts: 8, CrossShard: 0.5, Window: window, Invalid: 0.1})
		if err != nil {
			t.Fatal(err)
		}
		next := map[uint32]uint32{}
		for i := range uint32(8) {
			next[i] = 100 * i
			g.Ready(i, next[i])
		}
		unknown := map[uint32]bool{}
		var flying []Transfer
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if len(flying) > 0 && rapid.Bool().Draw(t, "settle") {
				at := rapid.IntRange(0, len(flying)-1).Draw(t, "which")
				f := flying[at]
				flying = append(flying[:at], flying[at+1:]...)
				spent := rapid.IntRange(0, 3).Draw(t, "spent") > 0
				unknown[f.From] = unknown[f.From] || !spent
				if g.Done(f.From, spent) != (unknown[f.From] && g.Active(f.From) == 0) {
					t.Fatal("wrong answer about what has to be read")
				}
				continue
			}
			for i := range unknown {
				if unknown[i] && g.Active(i) == 0 {
					delete(unknown, i)
					g.Ready(i, next[i])
				}
			}
			x, ok := g.Next()
			if !ok {
				continue
			}
			if unknown[x.From] || x.Nonce != next[x.From] {
				t.Fatalf("account %d pays with nonce %d, want %d, known %t", x.From, x.Nonce, next[x.From], !unknown[x.From])
			}
			if !x.Invalid {
				next[x.From]++
				flying = append(flying, x)
			}
			if g.Active(x.From) > window {
				t.Fatalf("%d under way", g.Active(x.From))
			}
		}
	})
}

// TestAgain: a transfer that was taken back is drawn again as it was, once, and not when its nonce is another's by then.
func TestAgain(t *testing.T) {
	g, err := New(Options{Kind: Uniform, Shards: 1, Accounts: 2, Window: 1})
	if err != nil {
		t.Fatal(err)
	}
	g.Ready(0, 7)
	x, ok := g.Next()
	if !ok || g.Again(x) {
		t.Fatalf("%+v: drawn again while it is under way", x)
	}
	if !g.TakeBack(x) || !g.Again(x) || g.Active(x.From) != 1 || g.Again(x) {
		t.Errorf("%+v: not once", x)
	}
	g.Done(x.From, true)
	if g.Again(x) {
		t.Errorf("%+v: its nonce is used", x)
	}
	if x.Invalid = true; g.Again(x) {
		t.Error("one with a wrong signature uses up no nonce")
	}
}

// TestExhausted: with every payer busy there is no transfer, rather than an endless search.
func TestExhausted(t *testing.T) {
	g, err := New(Options{Kind: Uniform, Shards: 1, Accounts: 4})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := g.Next(); ok {
		t.Error("an account with unknown nonce pays")
	}
	for i := range uint32(4) {
		g.Ready(i, 0)
	}
	for n := range 4 {
		if _, ok := g.Next(); !ok {
			t.Fatalf("no transfer %d", n)
		}
	}
	if x, ok := g.Next(); ok {
		t.Errorf("all are busy, and yet %+v", x)
	}
}

func TestRefusals(t *testing.T) {
	for want, opt := range map[string]Options{
		"choose uniform or zipf":  {Kind: "normal", Shards: 1, Accounts: 10},
		"0 shards":                {Kind: Uniform, Accounts: 10},
		"two for each shard":      {Kind: Uniform, Shards: 6, Accounts: 10},
		"shares are from 0 to 1":  {Kind: Uniform, Shards: 2, Accounts: 10, CrossShard: 1.5},
		"not 0 and NaN":           {Kind: Uniform, Shards: 2, Accounts: 10, Invalid: math.NaN()},
		"no other to send to":     {Kind: Uniform, Shards: 1, Accounts: 10, CrossShard: 0.1},
		"window of 100000":        {Kind: Uniform, Shards: 1, Accounts: 10, Window: 100_000},
		"3 accounts on 2 shards:": {Kind: Uniform, Shards: 2, Accounts: 3},
	} {
		if _, err := New(opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", opt, err, want)
		}
	}
}

func testCrowd(tb testing.TB, first, n uint64) (genesis.Crowd, *Crowd) {
	tb.Helper()
	c := genesis.Crowd{Seed: [32]byte{9}, Count: 3000, Balance: 5}
	ids := make([]tx.ID, c.Count)
	for i := range ids {
		ids[i] = tx.MakeID(uint16(i%4), uint32(i/4))
	}
	out, err := NewCrowd(tb.Context(), c, ids, first, n, consensus.Hash{7}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return c, out
}

// TestCrowd: signatures are those of genesis.Crowd's keys, byte for byte, under the network's rule.
func TestCrowd(t *testing.T) {
	c, crowd := testCrowd(t, 10, 1500)
	for _, i := range []uint32{0, 1, 1023, 1024, 1499} {
		x := Transfer{From: i, To: (i + 1) % 1500, Amount: 77, Nonce: 3}
		s, id := crowd.Sign(x, 500)
		want := tx.Tx{Kind: tx.Transfer, From: crowd.ID(x.From), To: crowd.ID(x.To), Amount: 77, Nonce: 3, Expiry: 500}
		if d := cmp.Diff(want, s.Tx); d != "" {
			t.Fatal(d)
		}
		if id != s.TxID(crowd.Genesis()) {
			t.Error("wrong id")
		}
		key, message := c.Key(10+uint64(i)), s.Message(crowd.Genesis())
		if crowd.PublicKey(i) != key.Public() || s.Signature != key.Sign(message) {
			t.Errorf("account %d does not sign as member %d", i, 10+i)
		}
		x.Invalid = true
		bad, _ := crowd.Sign(x, 500)
		for _, v := range []struct {
			s    tx.Signed
			want bool
		}{{s, true}, {bad, false}} {
			if ed25519.Verify(ed25519.Item{Key: key.Public(), Message: message, Signature: v.s.Signature}) != v.want {
				t.Errorf("signature valid: %t, want %t", !v.want, v.want)
			}
		}
	}
	if _, err := NewCrowd(t.Context(), c, make([]tx.ID, 3000), 2999, 2, consensus.Hash{}, nil); err == nil {
		t.Error("keys beyond the crowd")
	}
}

func BenchmarkNext(b *testing.B) {
	for _, kind := range []Kind{Uniform, Zipf} {
		b.Run(string(kind), func(b *testing.B) {
			g, _ := drawn(b, Options{Kind: kind, Shards: 2, Accounts: 100_000, CrossShard: 0.2}, 0)
			sum := uint64(0)
			for b.Loop() {
				if x, ok := g.Next(); ok {
					sum += uint64(x.To)
					g.Done(x.From, true)
				}
			}
			if sum == 0 {
				b.Fatal("nothing drawn")
			}
		})
	}
}

func BenchmarkSign(b *testing.B) {
	_, crowd := testCrowd(b, 0, 100)
	var last tx.Signed
	n := uint32(0)
	for b.Loop() {
		n++
		last, _ = crowd.Sign(Transfer{From: n % 100, To: 1, Nonce: n}, 9)
	}
	if last.Signature == ([64]byte{}) {
		b.Fatal("not signed")
	}
}
