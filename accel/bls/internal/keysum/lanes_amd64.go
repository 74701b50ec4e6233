//go:build amd64 && !purego

package keysum

import (
	"math/bits"
	"sync"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"
	"github.com/klauspost/cpuid/v2"

	"tutti/accel/bls/internal/curve"
	"tutti/accel/internal/cpu"
)

//go:generate go run ./gen

const (
	groups    = 128  // of eight points, in one round
	maxRounds = 1024 // before the running sums are taken out, so that bounds hold
	leastSum  = 96   // points from which on a sum is worth the kernel
	fewGroups = 4    // left to the engine
)

// elem is a field element in each of eight lanes: limb by limb, eight lanes each.
type elem [8][8]uint64

// scratch is what the kernel works on. Its layout is also in gen/main.go.
type scratch struct {
	ax, ay, bx, by [groups]elem     // running sums, and what is added to them
	diff           [groups]elem     // x2 - x1
	prefix         [groups + 1]elem // products of the differences before; of all at last
	inverse        elem             // of the product of the differences up to the current group
	slope, temp    elem
	k1, k2, k3     [8]uint64 // the multiples of p: B, B + C, B + C + 2
}

// pool holds *scratch, 390 KiB each; an entry is owned by one sum at a time.
var pool = sync.Pool{New: func() any { return new(scratch) }}

// loadRows sets the running sums of n groups to rows.
//
//go:noescape
func loadRows(s *scratch, rows *[8 * groups]*Row, n int)

// forwardRows loads n groups of rows, sets diff, and continues prefix from its first entry on.
//
//go:noescape
func forwardRows(s *scratch, rows *[8 * groups]*Row, n int)

// forwardPairs is forwardRows for points that are in bx and by.
//
//go:noescape
func forwardPairs(s *scratch, n int)

// backward replaces n running sums by their sums with bx, by. inverse is that of the last prefix. The first n groups
// of rows in next are brought into the cache meanwhile; nil pointers among them do no harm.
//
//go:noescape
func backward(s *scratch, next *[8 * groups]*Row, n int)

// Lanes adds in eight lanes; what is left over, and what the chord formula can't add, goes to the engine.
type Lanes struct{ Engine curve.Engine }

// Candidates are the adders of this build, given an engine for what is left over.
func Candidates(e curve.Engine) []Adder { return []Adder{Lanes{e}, Plain{e}} }

// Adders are those that this CPU can run.
func Adders(e curve.Engine) []Adder {
	all := Candidates(e)
	if !cpu.Has(Lanes{}.Needs()...) {
		return all[1:]
	}
	return all
}

// Needs are the CPU features without which Lanes is not to be called (selftest.Needs).
func (Lanes) Needs() []cpuid.FeatureID { return []cpuid.FeatureID{cpuid.AVX512F, cpuid.AVX512IFMA} }

// Name implements Adder.
func (Lanes) Name() string { return "ifma" }

// Sum implements Adder.
func (a Lanes) Sum(n int, row func(i int) *Row) curve.G1Jac {
	if n < leastSum {
		return sumBy(a, a.Engine, n, row)
	}
	s := pool.Get().(*scratch)
	defer pool.Put(s)
	const most = 8 * groups * maxRounds
	var sum curve.G1Jac
	for lo := 0; lo < n; lo += most {
		part := a.part(s, min(n-lo, most), func(i int) *Row { return row(lo + i) })
		sum.AddAssign(&part)
	}
	return sum
}

// part adds up at most maxRounds rounds.
func (a Lanes) part(s *scratch, n int, row func(i int) *Row) curve.G1Jac {
	var rounds [2][8 * groups]*Row // the current and the next
	all := n / 8
	sum := sumBy(a, a.Engine, n%8, func(i int) *Row { return row(8*all + i) })
	running := min(groups, (all+1)/2)
	fetch := func(to *[8 * groups]*Row, from int) int {
		count := min(running, all-from)
		for i := range 8 * count {
			to[i] = row(8*from + i)
		}
		return count
	}
	at := fetch(&rounds[0], 0)
	loadRows(s, &rounds[0], running)
	bound := uint64(1)
	count := fetch(&rounds[0], at)
	for r := 0; count > 0; r++ {
		current, next := &rounds[r%2], &rounds[1-r%2]
		at += count
		following := fetch(next, at)
		bound = s.setBounds(bound, 1)
		forwardRows(s, current, count)
		if s.invert(count) {
			backward(s, next, count)
			s.check(count, running, bound)
		} else {
			part := sumBy(a, a.Engine, 8*count, func(i int) *Row { return current[i] })
			sum.AddAssign(&part)
		}
		count = following
	}
	last := a.fold(s, running, bound)
	return *sum.AddAssign(&last)
}

// fold adds the running sums of the first n groups up.
func (a Lanes) fold(s *scratch, n int, bound uint64) curve.G1Jac {
	var none [8 * groups]*Row // rows to look ahead to
	var sum curve.G1Jac
	for n > fewGroups {
		half := n / 2
		copy(s.bx[:half], s.ax[n-half:n])
		copy(s.by[:half], s.ay[n-half:n])
		next := s.setBounds(bound, bound)
		forwardPairs(s, half)
		if s.invert(half) {
			backward(s, &none, half)
			bound = next
			s.check(half, n-half, bound)
		} else {
			part := a.Engine.SumG1(points(s.bx[:half], s.by[:half]))
			sum.AddAssign(&part)
		}
		n -= half
	}
	last := a.Engine.SumG1(points(s.ax[:n], s.ay[:n]))
	return *sum.AddAssign(&last)
}

// points takes groups of points out of the lanes.
func points(xs, ys []elem) []curve.G1 {
	ps := make([]curve.G1, 0, 8*len(xs))
	for g := range xs {
		for k := range 8 {
			x, y := xs[g].lane(k), ys[g].lane(k)
			x.Mul(&x, &fromLanes)
			y.Mul(&y, &fromLanes)
			ps = append(ps, curve.G1{X: x, Y: y})
		}
	}
	return ps
}

// setBounds sets the multiples of p for one round of running sums below b p and added points below c p, and returns
// the running sums' bound after it. See the package comment.
func (s *scratch) setBounds(b, c uint64) uint64 {
	s.k1, s.k2, s.k3 = multiple(b), multiple(b+c), multiple(b+c+2)
	s.prefix[0] = one
	return b + c + 2
}

// multiple is k p, for k below 2^20.
func multiple(k uint64) (limbs [8]uint64) {
	var carry uint64
	for i, m := range modulus {
		hi, lo := bits.Mul64(k, m)
		lo, c := bits.Add64(lo, carry, 0)
		limbs[i] = lo & mask52
		carry = (hi+c)<<12 | lo>>52
	}
	return limbs
}

// invert sets inverse to that of the last of n groups' products; false, and nothing done, if a lane's is zero.
func (s *scratch) invert(n int) bool {
	var values, products [8]fp.Element // a lane's product, and that of all lanes before it
	product := fp.One()
	for k := range values {
		values[k] = s.prefix[n].lane(k)
		products[k] = product
		product.Mul(&product, &values[k])
	}
	if product.IsZero() {
		return false
	}
	product.Inverse(&product)
	product.Mul(&product, &toInverse)
	for k := 7; k >= 0; k-- {
		var v fp.Element
		v.Mul(&product, &products[k])
		product.Mul(&product, &values[k])
		for i, limb := range split(v) {
			s.inverse[i][k] = limb
		}
	}
	return true
}
