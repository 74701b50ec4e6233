package bls

import (
	"errors"
	"fmt"
	"slices"

	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"

	"tutti/accel/bls/internal/curve"
	"tutti/accel/bls/internal/keysum"
)

// sumAnswer is a known sum of the first multiples of the generator of G1.
type sumAnswer struct {
	n   int
	sum string // n(n+1)/2 times the generator, compressed
}

// sumAnswers were computed with Python's integers by the textbook formulas for affine points. The lengths are below
// and above those that fill lanes and rounds.
var sumAnswers = []sumAnswer{
	{1, "97f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb"},
	{8, "90c0c1f774e77d9fad044aa06009a15e33941477b4b9a79fa43f327608a0a54524b3fcef0a896cb0df790e9995b6ebf1"},
	{100, "8feaa3490bf7a9f74373d33fb8571671af3124ef9f8c6ab24f2c1472206c473ce6babb7956acb7fb9c358809a58da92e"},
	{2000, "92ff092e4aeeb254b4e4719ddfef356f7767ae013f2d9dc98c2069023adfdf09a481a70d1d5bbaf7388c4f189fabf943"},
}

// sumTwice is that of 2000 and again 2000: points that add up by doubling.
const sumTwice = "81500a3c9fcef7e3a642c8b00e7b16ab9a67a90d4759990cc46fc926956250bc1138d114eab4b988668fa3b3d2c0858a"

// sumKeys are the generator's first 2000 multiples.
func sumKeys() []curve.G1 {
	g, _ := curve.Generator()
	multiples := make([]curve.G1Jac, 2000)
	multiples[0].FromAffine(&g)
	for i := range multiples[1:] {
		multiples[i+1].Set(&multiples[i])
		multiples[i+1].AddMixed(&g)
	}
	return bls12381.BatchJacobianToAffineG1(multiples)
}

// pack puts points in an adder's form.
func pack(a keysum.Adder, keys []curve.G1) []keysum.Row {
	rows := make([]keysum.Row, len(keys))
	for i := range keys {
		rows[i] = a.Pack(&keys[i])
	}
	return rows
}

// checkAdder gives an adder sums with known answers, of distinct points and of equal and opposite ones.
func checkAdder(a keysum.Adder, keys []curve.G1, answers []sumAnswer) error {
	rows := pack(a, keys)
	for i := range rows {
		if a.Unpack(&rows[i]) != keys[i] {
			return fmt.Errorf("known answer: key %d changes in its row", i)
		}
	}
	sum := func(rows []keysum.Row) curve.G1 {
		return affineG1(a.Sum(len(rows), func(i int) *keysum.Row { return &rows[i] }))
	}
	for _, answer := range answers {
		if got := sum(rows[:answer.n]); got.Bytes() != array48(answer.sum) {
			return fmt.Errorf("known answer: %d keys add up to %x", answer.n, got.Bytes())
		}
	}
	if got := sum(slices.Concat(rows, rows)); got.Bytes() != array48(sumTwice) {
		return fmt.Errorf("known answer: keys that occur twice add up to %x", got.Bytes())
	}
	opposite := slices.Clone(keys)
	for i := range opposite {
		opposite[i].Neg(&opposite[i])
	}
	if got := sum(slices.Concat(rows, pack(a, opposite))); !got.IsInfinity() {
		return errors.New("known answer: keys and their opposites do not cancel out")
	}
	return nil
}
