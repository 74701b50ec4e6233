package curve

import "github.com/consensys/gnark-crypto/ecc/bls12-381/fp"

// Sums of small multiples of many points, by buckets (Pippenger's method) whose additions are in affine coordinates.
//
// The factors are cut into signed digits of w bits. For each digit's place, points are put into the bucket of their
// digit's size, negated if it is negative. Each bucket is then added up, pairs first, then pairs of pairs, and so on;
// all pairs of all buckets of one such pass share one inversion (Montgomery's trick), which makes an addition six
// multiplications in place of the eleven or more in other coordinates. The buckets' sum weighted by size is a sum of
// running sums. No engine does this faster for the few thousand points of a batch of votes.

// field is what the pointer type of a field element can do.
type field[E any] interface {
	*E
	Add(x, y *E) *E
	Sub(x, y *E) *E
	Mul(x, y *E) *E
	Square(x *E) *E
	Double(x *E) *E
	Neg(x *E) *E
	Inverse(x *E) *E
	Equal(x *E) bool
	IsZero() bool
	SetOne() *E
}

// point is an affine point other than infinity.
type point[E any] struct{ X, Y E }

// buckets are points to be added up, those of each bucket beside each other. They are those of one place at a time, so
// that they stay in the cache.
type buckets[E any, P field[E]] struct {
	points []point[E]
	start  []int // of each bucket in points, in order; bucket k is for digits k+1 and -(k+1)
	count  []int // of each bucket's points that are left

	// Of one pass.
	pairs []pair[E]
	moves [][2]int // to, from: points that are left without another
}

// pair is two points to be added: where they are and where their sum goes, whether they are equal, the denominator of
// their slope, and the product of the denominators before, which becomes the denominator's inverse.
type pair[E any] struct {
	to, a, b             int32
	equal                bool
	denominator, product E
}

// window chooses the digits' width for n points: the one with the fewest additions, where the buckets' own, which
// aren't in affine coordinates, count twice.
func window(n int) (width, places int) {
	best := 0
	for _, w := range []int{2, 3, 4, 6, 8} {
		count := (16 + w - 1) / w
		if cost := count * (n + 4<<(w-1)); best == 0 || cost < best {
			best, width, places = cost, w, count
		}
	}
	return width, places
}

// digits cuts factors into digits of width w, lowest place first: all first digits, then all second digits, and so on.
// They are between -2^(w-1) and 2^(w-1).
func digits(factors []int16, w, places int) []int16 {
	n, half := len(factors), 1<<(w-1)
	all := make([]int16, n*places)
	for i, f := range factors {
		v := int(f)
		for place := range places - 1 {
			d := (v+half)&(2*half-1) - half
			v = (v - d) >> w
			all[place*n+i] = int16(d)
		}
		all[(places-1)*n+i] = int16(v)
	}
	return all
}

func newBuckets[E any, P field[E]](n, w int) *buckets[E, P] {
	size := 1 << (w - 1)
	return &buckets[E, P]{
		points: make([]point[E], n), start: make([]int, size), count: make([]int, size),
		pairs: make([]pair[E], 0, n/2), moves: make([][2]int, 0, size),
	}
}

// fill sorts points by their digits at one place. at(i) is point i, false if it is infinity.
func (b *buckets[E, P]) fill(digits []int16, at func(i int) (point[E], bool)) {
	clear(b.count)
	for _, d := range digits {
		if d != 0 {
			b.count[max(d, -d)-1]++
		}
	}
	total := 0
	for k, c := range b.count {
		b.start[k] = total
		b.count[k] = 0
		total += c
	}
	for i, d := range digits {
		if d == 0 {
			continue
		}
		p, ok := at(i)
		if !ok {
			continue
		}
		if d < 0 {
			d = -d
			P(&p.Y).Neg(&p.Y)
		}
		b.points[b.start[d-1]+b.count[d-1]] = p
		b.count[d-1]++
	}
}

// add reduces every bucket to at most one point.
func (b *buckets[E, P]) add() {
	for b.pass() {
		b.invert()
		for i := range b.pairs {
			p := &b.pairs[i]
			b.points[p.to] = b.chord(p) // a place no later than the pair's own, which earlier pairs are done with
		}
		for _, m := range b.moves {
			b.points[m[0]] = b.points[m[1]]
		}
	}
}

// pass pairs the points of every bucket; false if nothing is left to add. Pairs of opposite points vanish.
func (b *buckets[E, P]) pass() bool {
	b.pairs, b.moves = b.pairs[:0], b.moves[:0]
	changed := false
	for k, count := range b.count {
		from, to := b.start[k], b.start[k]
		i := 0
		for ; i+1 < count; i += 2 {
			if b.slope(from+i, from+i+1, to) {
				to++
			}
		}
		if i < count {
			if to < from+i {
				b.moves = append(b.moves, [2]int{to, from + i})
			}
			to++
		}
		b.count[k] = to - from
		changed = changed || count > 1
	}
	return changed
}

// slope notes a pair; false if the sum is infinity.
func (b *buckets[E, P]) slope(i, j, to int) bool {
	p, q := &b.points[i], &b.points[j]
	equal := P(&p.X).Equal(&q.X)
	if equal && (!P(&p.Y).Equal(&q.Y) || P(&p.Y).IsZero()) {
		return false
	}
	b.pairs = b.pairs[:len(b.pairs)+1]
	s := &b.pairs[len(b.pairs)-1]
	s.to, s.a, s.b, s.equal = int32(to), int32(i), int32(j), equal
	if equal {
		P(&s.denominator).Double(&p.Y)
	} else {
		P(&s.denominator).Sub(&q.X, &p.X)
	}
	return true
}

// invert turns the products into the denominators' inverses. No denominator is zero.
func (b *buckets[E, P]) invert() {
	var product E
	P(&product).SetOne()
	for i := range b.pairs {
		b.pairs[i].product = product
		P(&product).Mul(&product, &b.pairs[i].denominator)
	}
	P(&product).Inverse(&product)
	for i := len(b.pairs) - 1; i >= 0; i-- {
		p := &b.pairs[i]
		P(&p.product).Mul(&p.product, &product)
		P(&product).Mul(&product, &p.denominator)
	}
}

// chord is the sum of a pair's points, by their chord, or by the tangent, whose slope is 3 x^2 / 2 y.
func (b *buckets[E, P]) chord(s *pair[E]) (r point[E]) {
	p, q := &b.points[s.a], &b.points[s.b]
	var slope E
	if s.equal {
		var square E
		P(&square).Square(&p.X)
		P(&slope).Double(&square)
		P(&slope).Add(&slope, &square)
	} else {
		P(&slope).Sub(&q.Y, &p.Y)
	}
	P(&slope).Mul(&slope, &s.product)
	P(&r.X).Square(&slope)
	P(&r.X).Sub(&r.X, &p.X)
	P(&r.X).Sub(&r.X, &q.X)
	P(&r.Y).Sub(&p.X, &r.X)
	P(&r.Y).Mul(&r.Y, &slope)
	P(&r.Y).Sub(&r.Y, &p.Y)
	return r
}

// MulSumG1 is the sum of factors[i] times ps[i], for any points of the curve.
func MulSumG1(ps []G1, factors []int16) G1Jac {
	n := len(ps)
	w, places := window(n)
	all, b := digits(factors, w, places), newBuckets[fp.Element, *fp.Element](n, w)
	var sum G1Jac
	for place := places - 1; place >= 0; place-- {
		for range w {
			sum.DoubleAssign()
		}
		b.fill(all[place*n:(place+1)*n], func(i int) (point[fp.Element], bool) {
			return point[fp.Element]{ps[i].X, ps[i].Y}, !ps[i].IsInfinity()
		})
		b.add()
		var running, weighted G1Jac
		for k := len(b.count) - 1; k >= 0; k-- {
			if b.count[k] > 0 {
				p := b.points[b.start[k]]
				running.AddMixed(&G1{X: p.X, Y: p.Y})
			}
			weighted.AddAssign(&running)
		}
		sum.AddAssign(&weighted)
	}
	return sum
}

// MulSumG2 is the sum of factors[i] times ps[i], for any points of the curve.
func MulSumG2(ps []G2, factors []int16) G2Jac {
	n := len(ps)
	w, places := window(n)
	all, b := digits(factors, w, places), newBuckets[E2, *E2](n, w)
	var sum G2Jac
	for place := places - 1; place >= 0; place-- {
		for range w {
			sum.DoubleAssign()
		}
		b.fill(all[place*n:(place+1)*n], func(i int) (point[E2], bool) {
			return point[E2]{ps[i].X, ps[i].Y}, !ps[i].IsInfinity()
		})
		b.add()
		var running, weighted G2Jac
		for k := len(b.count) - 1; k >= 0; k-- {
			if b.count[k] > 0 {
				p := b.points[b.start[k]]
				running.AddMixed(&G2{X: p.X, Y: p.Y})
			}
			weighted.AddAssign(&running)
		}
		sum.AddAssign(&weighted)
	}
	return sum
}
