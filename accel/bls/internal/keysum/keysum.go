// Package keysum adds many points of BLS12-381's G1 up, eight at a time where the CPU has AVX-512 IFMA.
//
// Points lie in rows of 128 bytes without pointers; an Adder says how, and adds rows up. There are two: Plain keeps
// points as they are and leaves the sum to an engine of package curve; Lanes keeps them as its kernel reads them. They
// give the same sums for all points of the curve, equal and opposite ones included.
//
// # The lanes
//
// A field element is eight limbs of 52 bits, little-endian, times 2^-416 modulo p (Montgomery form), so that the
// 52-bit multiply-add instructions fit; eight elements lie side by side, limb by limb (an elem). A group is eight
// points, one per lane. The kernel keeps up to 128 groups of running sums in affine coordinates and adds a round of
// as many groups of points to them, all by the chord formula,
//
//	slope = (y2 - y1) / (x2 - x1), x3 = slope^2 - x1 - x2, y3 = slope (x1 - x3) - y1,
//
// whose divisions share one inversion (Montgomery's trick: running products forward, their inverse backward), so that
// an addition costs six multiplications. What is left are 128 groups; halving them by additions among themselves until
// few are left, and the engine for those, gives the sum.
//
// The formula is wrong if x1 = x2, that is for equal or opposite points. Then a difference is zero, so is the product
// of its lane, and the round is given to the engine instead: the running sums have not changed yet. So sums never
// become infinity, and whoever arranges such keys gets no worse than the engine's speed. Infinity has no row.
//
// # Bounds
//
// p has 381 bits, so 416 bits leave room for sums to grow and nothing is reduced but by multiplication. Write B for a
// bound of the running sums' coordinates and C for the added points', in units of p; rows are canonical, so C = 1 for
// them and B = 1 at first. All values are kept from going negative by adding a multiple of p that depends on B and C:
//
//	x2 - x1 + B p                    in (0, (B + C) p)
//	y2 - y1 + B p                    in (0, (B + C) p)
//	x3 = slope^2 + (B + C) p - x1 - x2       below (B + C + 2) p
//	x1 - x3 + (B + C + 2) p          in (0, (2 B + C + 2) p)
//	y3 = slope (...) + B p - y1      below (B + 2) p
//
// so that B grows to B + C + 2 with each round. A product a b is below p + a b / 2^416, which is less than 2 p as long
// as a b < 2^35 p^2. With at most maxRounds = 1024 rounds B stays below 2^12, and the halvings (C = B, so B grows to
// 2 B + 2 in each of at most 7) keep it below 2^19; the largest product, slope times x1 - x3, is below 2^22 p^2, and
// all values are below 2^19 * 2^2 * p < 2^416. A limb in the making gathers four 52-bit products in each of eight
// rounds, and a carry: below 2^58. A build with the tag `checked` asserts the bounds of everything that is stored.
package keysum

import (
	"tutti/accel/bls/internal/curve"
)

// Row is a point in the form of some Adder. Zero rows are nobody's form of a point.
type Row [16]uint64

// Adder packs points of the curve that are not infinity and adds them up. Safe for concurrent use.
type Adder interface {
	Name() string
	// Pack is the row of a point of the curve that is not infinity.
	Pack(p *curve.G1) Row
	// Unpack is the point of a row that Pack made.
	Unpack(r *Row) curve.G1
	// Sum adds n rows up; row(i) is the i-th, made by Pack, and is asked for once or twice.
	Sum(n int, row func(i int) *Row) curve.G1Jac
}

// Plain is an engine's own sum.
type Plain struct{ Engine curve.Engine }

// Name implements Adder.
func (a Plain) Name() string { return a.Engine.Name() }

// Pack implements Adder: the coordinates' limbs, x first.
func (Plain) Pack(p *curve.G1) (r Row) {
	copy(r[:6], p.X[:])
	copy(r[6:12], p.Y[:])
	return r
}

// Unpack implements Adder.
func (Plain) Unpack(r *Row) (p curve.G1) {
	copy(p.X[:], r[:6])
	copy(p.Y[:], r[6:12])
	return p
}

// plainBlock bounds the points that Plain.Sum copies at a time, to 24 KiB.
const plainBlock = 256

// Sum implements Adder.
func (a Plain) Sum(n int, row func(i int) *Row) curve.G1Jac { return sumBy(a, a.Engine, n, row) }

// sumBy unpacks rows and gives them to an engine, a block at a time.
func sumBy(a Adder, e curve.Engine, n int, row func(i int) *Row) curve.G1Jac {
	var sum curve.G1Jac
	points := make([]curve.G1, 0, min(n, plainBlock))
	for i := range n {
		points = append(points, a.Unpack(row(i)))
		if len(points) == plainBlock || i == n-1 {
			part := e.SumG1(points)
			sum.AddAssign(&part)
			points = points[:0]
		}
	}
	return sum
}
