package bls

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"

	"tutti/accel/bls/internal/curve"
)

// A batch of equations S[i] = k[i] H is checked as one, the sum of f[i] S[i] against the sum of f[i] k[i] H, with
// factors f[i] drawn after the points are fixed. If one equation is wrong by an element other than the neutral one,
// then, given all other factors, at most one value of its own factor makes the sum come out right: the group's order is
// a prime. So a wrong batch passes with a chance of at most one over the number of values that a factor takes.
//
// Here f = a + b x + c x^2 + d x^3, where x = -0xd201000000010000 is the curve's parameter and a, b, c, d are 16-bit
// numbers with sign, not all zero. These 2^64 - 1 values are distinct modulo the group order: the difference of two of
// them is a polynomial in x with coefficients below 2^16 in size, whose leading term is larger than all others together
// as |x| > 2^63, and whose size is below 2^16 |x|^3 (1 + 2^-40) < 2^209, less than the order, which has 255 bits.
//
// Multiplying by x is almost free in both groups: in G2 it is the endomorphism psi (untwist, Frobenius, twist), and in
// G1 by x^2 it is (X, Y) -> (beta X, -Y) with a cube root of unity beta. So the long factors of n points become 16-bit
// factors of 4n points, which saves buckets and doublings (the decomposition of Galbraith, Lin and Scott, Endomorphisms
// for faster elliptic curve cryptography, 2009, with the coefficients drawn instead of computed).
type factor [4]int16

// draw fills a slice with random factors.
func draw(n int) []factor {
	b := make([]byte, 8*n)
	rand.Read(b) // does not fail: the runtime stops the process first
	fs := make([]factor, n)
	for i := range fs {
		for j := range fs[i] {
			fs[i][j] = int16(binary.LittleEndian.Uint16(b[8*i+2*j:]))
		}
		if fs[i] == (factor{}) {
			fs[i][0] = 1 // 2^-64 more likely than the others
		}
	}
	return fs
}

// endomorphisms are the constants of psi and of multiplication by x^2 in G1.
type endomorphisms struct {
	psiX, psiY curve.E2
	beta       fp.Element
}

// Values in Montgomery form, as gnark-crypto's bls12-381.go has them in decimal (endo.u, endo.v and the square of
// thirdRootOneG1). The tests multiply by x and x^2 to check them.
var endo = endomorphisms{
	psiX: curve.E2{
		A1: fp.Element{0x890dc9e4867545c3, 0x2af322533285a5d5, 0x50880866309b7e2c, 0xa20d1b8c7e881024, 0x14e4f04fe2db9068, 0x14e56d3f1564853a},
	},
	psiY: curve.E2{
		A0: fp.Element{0x3e2f585da55c9ad1, 0x4294213d86c18183, 0x382844c88b623732, 0x92ad2afd19103e18, 0x1d794e4fac7cf0b9, 0x0bd592fc7d825ec8},
		A1: fp.Element{0x7bcfa7a25aa30fda, 0xdc17dec12a927e7c, 0x2f088dd86b4ebef1, 0xd1ca2087da74d4a7, 0x2da2596696cebc1d, 0x0e2b7eedbbfd87d2},
	},
	beta: fp.Element{0x30f1361b798a64e8, 0xf3b8ddab7ece5a2a, 0x16a8ca3ac61577f7, 0xc26a2ff874fd029b, 0x3636b76660701c6e, 0x051ba4ab241b6160},
}

// timesX is x p for p in G2.
func (c *endomorphisms) timesX(p *curve.G2) (q curve.G2) {
	q.X.Conjugate(&p.X)
	q.X.Mul(&q.X, &c.psiX)
	q.Y.Conjugate(&p.Y)
	q.Y.Mul(&q.Y, &c.psiY)
	return q
}

// timesX2 is x^2 p for p in G1.
func (c *endomorphisms) timesX2(p *curve.G1) (q curve.G1) {
	q.X.Mul(&p.X, &c.beta)
	q.Y.Neg(&p.Y)
	return q
}

// mulX is x p for p in G1.
func mulX(p curve.G1Jac) curve.G1Jac {
	const size = 0xd201000000010000 // -x
	var q curve.G1Jac
	for bit := 63; bit >= 0; bit-- {
		q.DoubleAssign()
		if uint64(size)>>bit&1 == 1 {
			q.AddAssign(&p)
		}
	}
	q.Neg(&q)
	return q
}

// combineG1 is the sum of fs[i] times the point at(i).
func combineG1(fs []factor, at func(i int) *curve.G1) curve.G1 {
	n := len(fs)
	points := make([]curve.G1, 2*n)
	even, odd := make([]int16, 2*n), make([]int16, 2*n)
	for i, f := range fs {
		points[i] = *at(i)
		points[n+i] = endo.timesX2(&points[i])
		even[i], odd[i], even[n+i], odd[n+i] = f[0], f[1], f[2], f[3]
	}
	sum := mulX(curve.MulSumG1(points, odd))
	rest := curve.MulSumG1(points, even)
	return affineG1(*sum.AddAssign(&rest))
}

// combineG2 is the sum of fs[i] times the signature at(i).
func combineG2(fs []factor, at func(i int) *curve.G2) curve.G2 {
	n := len(fs)
	points, factors := make([]curve.G2, 4*n), make([]int16, 4*n)
	for i, f := range fs {
		points[i] = *at(i)
		factors[i] = f[0]
		for j := 1; j < 4; j++ {
			points[j*n+i] = endo.timesX(&points[(j-1)*n+i])
			factors[j*n+i] = f[j]
		}
	}
	return affineG2(curve.MulSumG2(points, factors))
}
