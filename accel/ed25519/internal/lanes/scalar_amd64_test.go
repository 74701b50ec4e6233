//go:build amd64 && !purego

package lanes

import (
	"math/big"
	"math/rand/v2"
	"testing"
)

var order, _ = new(big.Int).SetString("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed", 16)

func (s *scalar) big() *big.Int { return number(s[:]) }

func number(words []uint64) *big.Int {
	v := new(big.Int)
	for i := len(words) - 1; i >= 0; i-- {
		v.Lsh(v, 64)
		v.Add(v, new(big.Int).SetUint64(words[i]))
	}
	return v
}

// words has its bits all set, all clear or random, word by word.
func words(rnd *rand.Rand, w []uint64) {
	for i := range w {
		w[i] = []uint64{0, ^uint64(0), rnd.Uint64()}[rnd.IntN(3)]
	}
}

// near is a multiple of L, give or take a little.
func near(rnd *rand.Rand, w []uint64) {
	for i := range w {
		w[i] = rnd.Uint64() >> rnd.IntN(64)
	}
	v := number(w)
	v.Sub(v, new(big.Int).Mod(v, order)).Add(v, big.NewInt(int64(rnd.IntN(5)-2)))
	if v.Sign() < 0 {
		v.SetInt64(0)
	}
	mask := new(big.Int).SetUint64(^uint64(0))
	for i := range w {
		w[i] = new(big.Int).And(new(big.Int).Rsh(v, uint(64*i)), mask).Uint64()
	}
}

func TestReduce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(13, 14))
	for i := range 100_000 {
		var x [8]uint64
		if i%2 == 0 {
			words(rnd, x[:])
		} else {
			near(rnd, x[:])
		}
		got := reduce(&x)
		if want := number(x[:]); got.big().Cmp(want.Mod(want, order)) != 0 {
			t.Fatalf("%x modulo L is %x, want %x", number(x[:]), got.big(), want)
		}
	}
}

func TestReduced(t *testing.T) {
	rnd := rand.New(rand.NewPCG(15, 16))
	for i := range 20_000 {
		var s scalar
		if i%2 == 0 {
			words(rnd, s[:])
		} else {
			near(rnd, s[:])
		}
		if got, want := s.reduced(), s.big().Cmp(order) < 0; got != want {
			t.Fatalf("%x below L: %v", s.big(), got)
		}
	}
}

func TestTimes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(19, 20))
	for range 20_000 {
		var a half
		var s scalar
		words(rnd, a[:])
		words(rnd, s[:])
		got := a.times(&s)
		want := new(big.Int).Mul(number(a[:]), s.big())
		if got.big().Cmp(want.Mod(want, order)) != 0 {
			t.Fatalf("%x * %x is %x", number(a[:]), s.big(), got.big())
		}
	}
}
