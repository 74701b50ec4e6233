//go:build amd64 && !purego

package keysum

import (
	"flag"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"
	"github.com/klauspost/cpuid/v2"

	"tutti/accel/bls/internal/curve"
	"tutti/accel/internal/cpu"
)

// needKernel skips where the kernel cannot run.
func needKernel(t testing.TB) {
	if !cpu.Has(cpuid.AVX512F, cpuid.AVX512IFMA) {
		t.Skip("no AVX-512 IFMA here")
	}
}

var bigP = fp.Modulus()

// point is a pair of numbers modulo p, on the curve or not: the chord formula does not ask.
type point struct{ x, y *big.Int }

func (p point) row() Row {
	return Lanes{}.Pack(&curve.G1{X: *new(fp.Element).SetBigInt(p.x), Y: *new(fp.Element).SetBigInt(p.y)})
}

// chord is the sum by the formula, in Go's integers.
func chord(a, b point) point {
	slope := new(big.Int).Sub(b.x, a.x)
	slope.ModInverse(slope.Mod(slope, bigP), bigP)
	slope.Mul(slope, new(big.Int).Sub(b.y, a.y))
	x := new(big.Int).Mul(slope, slope)
	x.Sub(x, a.x).Sub(x, b.x).Mod(x, bigP)
	y := new(big.Int).Sub(a.x, x)
	y.Mul(y, slope).Sub(y, a.y).Mod(y, bigP)
	return point{x, y}
}

// number draws one below p, of 20 one at the edge of the field, of a limb or of a word.
func number(r *rand.Rand) *big.Int {
	if r.IntN(20) == 0 {
		edge := new(big.Int).Lsh(big.NewInt(1), uint(r.IntN(381)))
		edge.Add(edge, big.NewInt(int64(r.IntN(3)-1)))
		if r.IntN(2) == 0 {
			edge.Sub(bigP, edge)
		}
		return edge.Mod(edge, bigP)
	}
	b := make([]byte, 56)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return new(big.Int).Mod(new(big.Int).SetBytes(b), bigP)
}

// round sets n groups of running sums to as, adds bs, and compares each lane with the formula.
func round(t *testing.T, s *scratch, as, bs []point, rounds int) {
	t.Helper()
	n := len(as) / 8
	rows := func(ps []point) *[8 * groups]*Row {
		var list [8 * groups]*Row
		for i := range ps {
			r := ps[i].row()
			list[i] = &r
		}
		return &list
	}
	loadRows(s, rows(as), n)
	added := rows(bs)
	bound := uint64(1)
	for range rounds {
		bound = s.setBounds(bound, 1)
		forwardRows(s, added, n)
		if !s.invert(n) {
			for i := range as {
				if as[i].x.Cmp(bs[i].x) == 0 {
					return // as it should
				}
			}
			t.Fatal("a product is zero, and no difference")
		}
		backward(s, added, n)
		s.check(n, n, bound)
		got := points(s.ax[:n], s.ay[:n])
		for i := range as {
			as[i] = chord(as[i], bs[i])
			if got[i].X.BigInt(new(big.Int)).Cmp(as[i].x) != 0 || got[i].Y.BigInt(new(big.Int)).Cmp(as[i].y) != 0 {
				t.Fatalf("group %d, lane %d: got %v, want %v", i/8, i%8, got[i], as[i])
			}
		}
	}
}

// TestKernel compares the kernel with Go's integers, lane by lane.
func TestKernel(t *testing.T) {
	needKernel(t)
	s := new(scratch)
	for seed := range uint64(6) {
		kernelCase(t, s, seed)
	}
}

func kernelCase(t *testing.T, s *scratch, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	n := 8 * (1 + r.IntN(6))
	as, bs := make([]point, n), make([]point, n)
	for i := range as {
		as[i], bs[i] = point{number(r), number(r)}, point{number(r), number(r)}
	}
	round(t, s, as, bs, 1+r.IntN(4))
}

// FuzzKernel is TestKernel with seeds of the fuzzer's choice.
func FuzzKernel(f *testing.F) {
	needKernel(f)
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		s := pool.Get().(*scratch)
		defer pool.Put(s)
		kernelCase(t, s, seed)
	})
}

// TestLaneIsolation changes one lane's point to something that is on no curve: only this lane's sum changes.
func TestLaneIsolation(t *testing.T) {
	needKernel(t)
	r := rand.New(rand.NewPCG(1, 1))
	s := new(scratch)
	as, bs := make([]point, 24), make([]point, 24)
	for i := range as {
		as[i], bs[i] = point{number(r), number(r)}, point{number(r), number(r)}
	}
	for bad := range as {
		damaged := append([]point(nil), bs...)
		damaged[bad] = point{number(r), big.NewInt(0)}
		round(t, s, append([]point(nil), as...), damaged, 2) // compares all lanes with the formula
	}
}

// TestBoundsHold runs the kernel through as many rounds as it may, so that the running sums' bound is at its highest,
// and through the halvings after that. With the tag checked each round's values are looked at.
func TestBoundsHold(t *testing.T) {
	needKernel(t)
	rounds := maxRounds
	ps := chain(1e15, 16)
	rows := make([]Row, len(ps))
	for i := range ps {
		rows[i] = Lanes{}.Pack(&ps[i])
	}
	s := new(scratch)
	var list, added [8 * groups]*Row
	for i := range 8 {
		list[i], added[i] = &rows[i], &rows[8+i]
	}
	loadRows(s, &list, 1)
	want := append([]curve.G1(nil), ps[:8]...)
	bound := uint64(1)
	for range rounds {
		bound = s.setBounds(bound, 1)
		forwardRows(s, &added, 1)
		if !s.invert(1) {
			t.Fatal("unlucky points")
		}
		backward(s, &added, 1)
		s.check(1, 1, bound)
	}
	for i := range want {
		k := new(big.Int).SetInt64(int64(rounds))
		var many curve.G1
		want[i].Add(&want[i], many.ScalarMultiplication(&ps[8+i], k))
	}
	for i, got := range points(s.ax[:1], s.ay[:1]) {
		if got != want[i] {
			t.Errorf("lane %d is wrong after %d rounds", i, rounds)
		}
	}
	if bound > 1<<12 {
		t.Errorf("bound %d after %d rounds", bound, rounds)
	}
}

// TestJoin has numbers of up to 416 bits, which running sums may have.
func TestJoin(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for range 1000 {
		var limbs [8]uint64
		want := new(big.Int)
		for i := 7; i >= 0; i-- {
			limbs[i] = r.Uint64() & mask52
			if r.IntN(4) == 0 {
				limbs[i] = []uint64{0, mask52}[r.IntN(2)]
			}
			want.Lsh(want, 52).Add(want, new(big.Int).SetUint64(limbs[i]))
		}
		got := new(big.Int)
		e := join(limbs)
		for i := 5; i >= 0; i-- {
			got.Lsh(got, 64).Add(got, new(big.Int).SetUint64(e[i]))
		}
		if got.Cmp(want.Mod(want, bigP)) != 0 {
			t.Fatalf("%x joins to %x", limbs, got)
		}
		if s := split(e); join(s) != e {
			t.Fatalf("%x splits to %x", e, s)
		}
	}
}

var (
	cases = flag.Int("cases", 20_000, "additions in TestLanes")
	seed  = flag.Uint64("seed", 1, "seed of TestLanes")
)

// TestLanes compares -cases additions of random points of the curve, lane by lane, with gnark-crypto's affine addition,
// which does not go through the kernel. One in twenty added points is an edge case: equal or opposite to the running
// sum, a small multiple of the generator or its opposite, or a point that others have too. Where lanes hold equal or
// opposite points the kernel must notice, and it may not otherwise.
func TestLanes(t *testing.T) {
	needKernel(t)
	r := rand.New(rand.NewPCG(*seed, 3))
	s := new(scratch)
	small := chain(1, 64)
	done, noticed := 0, 0
	for done < *cases {
		n := 1 + r.IntN(groups)
		as, bs := chain(r.Uint64N(1<<62)+1, 8*n), chain(r.Uint64N(1<<62)+1, 8*n)
		r.Shuffle(8*n, func(i, j int) { bs[i], bs[j] = bs[j], bs[i] })
		clash := r.IntN(4) == 0
		collides := false
		for i := range bs {
			if r.IntN(20) == 0 {
				switch bs[i] = small[r.IntN(len(small))]; {
				case r.IntN(4) == 0:
					bs[i].Neg(&bs[i])
				case clash && r.IntN(n) == 0:
					bs[i] = as[i]
				case clash && r.IntN(n) == 0:
					bs[i].Neg(&as[i])
				}
			}
			collides = collides || as[i].X == bs[i].X
		}
		var rows [2][8 * groups]*Row
		for i := range as {
			a, b := Lanes{}.Pack(&as[i]), Lanes{}.Pack(&bs[i])
			rows[0][i], rows[1][i] = &a, &b
		}
		loadRows(s, &rows[0], n)
		bound := s.setBounds(1, 1)
		forwardRows(s, &rows[1], n)
		done += 8 * n
		if inverted := s.invert(n); inverted == collides {
			t.Fatalf("equal or opposite points in some lane: %v, noticed: %v", collides, !inverted)
		}
		if collides {
			noticed++
			continue
		}
		backward(s, &rows[1], n)
		s.check(n, n, bound)
		for i, got := range points(s.ax[:n], s.ay[:n]) {
			var want curve.G1
			if want.Add(&as[i], &bs[i]); got != want {
				t.Fatalf("lane %d of group %d: %v + %v = %v, want %v", i%8, i/8, as[i], bs[i], got, want)
			}
		}
	}
	t.Logf("%d additions; equal or opposite points noticed in %d rounds", done, noticed)
}
