package bls

import (
	"math/big"
	"testing"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"tutti/accel/bls/internal/curve"
)

// parameter is the curve's x modulo the group order.
var parameter = new(big.Int).Sub(fr.Modulus(), new(big.Int).SetUint64(0xd201000000010000))

// points are one of each group.
func points() (curve.G1, curve.G2) {
	p, _ := curve.Generator()
	return p, curve.Portable{}.HashToG2([]byte("a point"), dstVote)
}

func TestEndomorphisms(t *testing.T) {
	p, q := points()
	var wantP curve.G1
	var wantQ curve.G2
	if got := endo.timesX(&q); got != *wantQ.ScalarMultiplication(&q, parameter) {
		t.Error("psi is not x")
	}
	if got := endo.timesX2(&p); got != *wantP.ScalarMultiplication(&p, new(big.Int).Mul(parameter, parameter)) {
		t.Error("the endomorphism of G1 is not x^2")
	}
	var jac curve.G1Jac
	if got := affineG1(mulX(*jac.FromAffine(&p))); got != *wantP.ScalarMultiplication(&p, parameter) {
		t.Error("mulX is not x")
	}
}

// value is the number that a factor stands for.
func (f factor) value() *big.Int {
	v := new(big.Int)
	for j := 3; j >= 0; j-- {
		v.Mul(v, parameter).Add(v, big.NewInt(int64(f[j]))).Mod(v, fr.Modulus())
	}
	return v
}

// TestCombine compares both combinations with multiplication by the factors' values.
func TestCombine(t *testing.T) {
	p0, q0 := points()
	var ps []curve.G1
	var qs []curve.G2
	for i := range 20 {
		k := big.NewInt(int64(i)*int64(i) + 1)
		var p curve.G1
		var q curve.G2
		ps, qs = append(ps, *p.ScalarMultiplication(&p0, k)), append(qs, *q.ScalarMultiplication(&q0, k))
	}
	for _, n := range []int{1, 2, 5, 20} {
		fs := draw(n)
		fs[0] = factor{0, 0, 0, -1}
		if n > 2 {
			fs[1], fs[2] = factor{1<<15 - 1, -1 << 15, 1<<15 - 1, -1 << 15}, factor{1, 0x4000, 0, 0x100}
			ps[2], qs[2] = ps[1], qs[1]
		}
		var wantP curve.G1Jac
		var wantQ curve.G2Jac
		for i, f := range fs {
			var p curve.G1
			var q curve.G2
			wantP.AddMixed(p.ScalarMultiplication(&ps[i], f.value()))
			wantQ.AddMixed(q.ScalarMultiplication(&qs[i], f.value()))
		}
		if got := combineG1(fs, func(i int) *curve.G1 { return &ps[i] }); got != affineG1(wantP) {
			t.Errorf("%d points of G1 combine wrongly", n)
		}
		if got := combineG2(fs, func(i int) *curve.G2 { return &qs[i] }); got != affineG2(wantQ) {
			t.Errorf("%d points of G2 combine wrongly", n)
		}
	}
}
