// Package curve is the arithmetic of BLS12-381 that accel/bls stands on, done by one of several engines.
//
// The point types are gnark-crypto's in every build. blst keeps the same numbers in the same order (six 64-bit limbs,
// least significant first, in Montgomery form modulo 2^384, always reduced; points affine, or Jacobian with Z = 0 for
// infinity; infinity affine is (0,0)), so that its engine hands pointers over without converting. An engine does what
// is worth doing in more than one way; light glue, such as additions of two points, is gnark-crypto's.
//
// Every engine gives the same results for the same inputs; accel/bls checks each against known answers before it is
// used, and the tests check them against each other. Engines are safe for concurrent use, start no goroutines and keep
// nothing. None is constant-time unless it says so.
package curve

import (
	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
)

// Points of the two groups' curves, affine and Jacobian, and elements of the pairing's target group.
type (
	G1    = bls12381.G1Affine
	G1Jac = bls12381.G1Jac
	G2    = bls12381.G2Affine
	G2Jac = bls12381.G2Jac
	GT    = bls12381.GT

	E2 = bls12381.E2 // a coordinate of G2
)

// Engine does the arithmetic. "In the group" means in the subgroup of prime order.
type Engine interface {
	Name() string

	// NewSecret derives a secret, big-endian, from at least 32 bytes (EIP-2333, hkdf_mod_r without key info).
	NewSecret(ikm []byte) [32]byte
	// Public is secret times the generator of G1. The secret is big-endian, above zero and below the group order.
	Public(secret *[32]byte) G1
	// Sign is secret times the hash of msg. Only blst's engine does it in constant time.
	Sign(secret *[32]byte, msg, dst []byte) G2

	// DecodeG1 decodes a compressed point that is canonical, on the curve, in the group and not infinity.
	DecodeG1(b *[48]byte) (G1, bool)
	// DecodeG2 decodes a point of 96 bytes, compressed, or 192 bytes, not compressed, that is canonical, on the curve
	// and not infinity. Whether it is in the group is not checked.
	DecodeG2(b []byte) (G2, bool)
	// InG2 reports whether a point of the curve, not infinity, is in the group.
	InG2(p *G2) bool
	// HashToG2 is RFC 9380's BLS12381G2_XMD:SHA-256_SSWU_RO_ with the tag dst, of at most 255 bytes.
	HashToG2(msg, dst []byte) G2

	// SumG1 adds points of the curve up, equal, opposite and infinite ones included.
	SumG1(ps []G1) G1Jac
	// SumG2 adds points of the curve up, in the group or not.
	SumG2(ps []G2) G2Jac
	// Pairing is the product of the pairings of ps[i] with qs[i], all in their groups; infinity on either side
	// contributes one. Values of different engines may differ by a fixed exponent.
	Pairing(ps []G1, qs []G2) GT
}

// Generator is the generator of G1, and its negative.
func Generator() (g, negative G1) {
	_, _, g, _ = bls12381.Generators()
	negative.Neg(&g)
	return g, negative
}

// One is the neutral element of the target group.
func One() GT {
	var one GT
	one.SetOne()
	return one
}
