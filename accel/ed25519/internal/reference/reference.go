// Package reference judges Ed25519 signatures by the ZIP-215 rule with code that no backend contains, for tests: the
// rule's three lines (see package accel/ed25519), written down with filippo.io/edwards25519 and crypto/sha512. It also
// makes the signatures at the edges of the rule that differential tests need.
package reference

import (
	"crypto/sha512"

	"filippo.io/edwards25519"
)

// Verify reports whether ZIP-215 accepts signature = R || S on message under key.
func Verify(key *[32]byte, message []byte, signature *[64]byte) bool {
	s, err := new(edwards25519.Scalar).SetCanonicalBytes(signature[32:])
	if err != nil {
		return false
	}
	// SetBytes takes y >= p and x = 0 with its sign set, as the rule says.
	a, err := new(edwards25519.Point).SetBytes(key[:])
	if err != nil {
		return false
	}
	r, err := new(edwards25519.Point).SetBytes(signature[:32])
	if err != nil {
		return false
	}
	k := challenge(signature[:32], key[:], message)
	minusA := new(edwards25519.Point).Negate(a)
	sum := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(k, minusA, s)
	sum.Subtract(sum, r)
	return sum.MultByCofactor(sum).Equal(edwards25519.NewIdentityPoint()) == 1
}

// challenge is SHA-512(R || key || message) modulo L.
func challenge(r, key, message []byte) *edwards25519.Scalar {
	h := sha512.New()
	h.Write(r)
	h.Write(key)
	h.Write(message)
	k, err := new(edwards25519.Scalar).SetUniformBytes(h.Sum(nil))
	if err != nil {
		panic("reference: SHA-512 has 64 bytes: " + err.Error())
	}
	return k
}

// Torsioned signs message with the secret scalar and nonce that the seed gives, after it added the points of small
// order encoded in keyTorsion and rTorsion to the key and to R. The rule accepts what it makes, the equation without
// the cofactor seldom does.
func Torsioned(seed [32]byte, message []byte, keyTorsion, rTorsion *[32]byte) (key [32]byte, signature [64]byte) {
	wide := sha512.Sum512(seed[:])
	a, _ := new(edwards25519.Scalar).SetUniformBytes(wide[:])
	wide = sha512.Sum512(append(wide[:], message...))
	nonce, _ := new(edwards25519.Scalar).SetUniformBytes(wide[:])
	shifted := func(s *edwards25519.Scalar, torsion *[32]byte) []byte {
		t, err := new(edwards25519.Point).SetBytes(torsion[:])
		if err != nil {
			panic("reference: torsion off the curve: " + err.Error())
		}
		return t.Add(t, new(edwards25519.Point).ScalarBaseMult(s)).Bytes()
	}
	copy(key[:], shifted(a, keyTorsion))
	copy(signature[:32], shifted(nonce, rTorsion))
	k := challenge(signature[:32], key[:], message)
	copy(signature[32:], new(edwards25519.Scalar).MultiplyAdd(k, a, nonce).Bytes())
	return key, signature
}
