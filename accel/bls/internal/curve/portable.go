package curve

import (
	"crypto/hkdf"
	"crypto/sha256"
	"math/big"

	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
)

// Portable is the engine that every build has: gnark-crypto, which is Go with some Go assembly. Its signing is not
// constant-time.
type Portable struct{}

// Name implements Engine.
func (Portable) Name() string { return "gnark" }

// NewSecret implements Engine. EIP-2333: salt = SHA-256("BLS-SIG-KEYGEN-SALT-"), and again of the salt while the
// secret is zero; 48 bytes of HKDF(salt, ikm || 0, 0x0030) modulo the group order.
func (Portable) NewSecret(ikm []byte) [32]byte {
	const size = 48
	material := append(append([]byte(nil), ikm...), 0)
	salt := []byte("BLS-SIG-KEYGEN-SALT-")
	for {
		h := sha256.Sum256(salt)
		salt = h[:]
		okm, err := hkdf.Key(sha256.New, material, salt, string([]byte{0, size}), size)
		if err != nil {
			return [32]byte{} // not for 48 bytes of SHA-256
		}
		if s := new(big.Int).SetBytes(okm); s.Mod(s, fr.Modulus()).Sign() != 0 {
			return [32]byte(s.FillBytes(make([]byte, 32)))
		}
	}
}

// Public implements Engine.
func (Portable) Public(secret *[32]byte) G1 {
	var p G1
	p.ScalarMultiplicationBase(new(big.Int).SetBytes(secret[:]))
	return p
}

// Sign implements Engine.
func (e Portable) Sign(secret *[32]byte, msg, dst []byte) G2 {
	h := e.HashToG2(msg, dst)
	var p G2
	p.ScalarMultiplication(&h, new(big.Int).SetBytes(secret[:]))
	return p
}

// The three flags in the first byte of an encoded point.
const (
	flagCompressed = 0x80
	flagInfinity   = 0x40
	flagLargest    = 0x20 // the larger y of the two
	flags          = flagCompressed | flagInfinity | flagLargest
)

// element decodes 48 bytes big-endian, less the flags if masked; false if not below p.
func element(b []byte, masked bool) (fp.Element, bool) {
	var buf [fp.Bytes]byte
	copy(buf[:], b)
	if masked {
		buf[0] &^= flags
	}
	x, err := fp.BigEndian.Element(&buf)
	return x, err == nil
}

// DecodeG1 implements Engine.
func (Portable) DecodeG1(b *[48]byte) (G1, bool) {
	if b[0]&(flagCompressed|flagInfinity) != flagCompressed {
		return G1{}, false
	}
	x, ok := element(b[:], true)
	if !ok {
		return G1{}, false
	}
	p := G1{X: x}
	_, four := bls12381.CurveCoefficients()
	y2 := *new(fp.Element).Square(&x)
	y2.Mul(&y2, &x).Add(&y2, &four)
	if p.Y.Sqrt(&y2) == nil {
		return G1{}, false
	}
	if p.Y.LexicographicallyLargest() != (b[0]&flagLargest != 0) {
		p.Y.Neg(&p.Y)
	}
	if !p.IsInSubGroup() {
		return G1{}, false
	}
	return p, true
}

// Join is the point with a compressed form and a second coordinate: canonical, on the curve and not infinity. Whether it is in
// the group is not checked.
func Join(b, y *[48]byte) (p G1, ok bool) {
	if b[0]&(flagCompressed|flagInfinity) != flagCompressed {
		return G1{}, false
	}
	var okX, okY bool
	p.X, okX = element(b[:], true)
	p.Y, okY = element(y[:], false)
	if !okX || !okY || p.Y.LexicographicallyLargest() != (b[0]&flagLargest != 0) || !p.IsOnCurve() {
		return G1{}, false
	}
	return p, true
}

// DecodeG2 implements Engine. The second coordinate of an element comes first in the encoding.
func (Portable) DecodeG2(b []byte) (G2, bool) {
	var p G2
	var ok [4]bool
	switch {
	case len(b) == 96 && b[0]&(flagCompressed|flagInfinity) == flagCompressed:
		p.X.A1, ok[0] = element(b[:48], true)
		p.X.A0, ok[1] = element(b[48:], false)
		if !ok[0] || !ok[1] || !solveG2(&p) {
			return G2{}, false
		}
		if p.Y.LexicographicallyLargest() != (b[0]&flagLargest != 0) {
			p.Y.Neg(&p.Y)
		}
		return p, true
	case len(b) == 192 && b[0]&flags == 0:
		p.X.A1, ok[0] = element(b[:48], false)
		p.X.A0, ok[1] = element(b[48:96], false)
		p.Y.A1, ok[2] = element(b[96:144], false)
		p.Y.A0, ok[3] = element(b[144:], false)
		if ok != [4]bool{true, true, true, true} || p.IsInfinity() || !p.IsOnCurve() {
			return G2{}, false
		}
		return p, true
	}
	return G2{}, false
}

// solveG2 sets p.Y to a root of x^3 + 4(1+u); false if there is none.
func solveG2(p *G2) bool {
	var y2, b bls12381.E2
	_, four := bls12381.CurveCoefficients()
	b.A0, b.A1 = four, four
	y2.Square(&p.X).Mul(&y2, &p.X).Add(&y2, &b)
	p.Y.Sqrt(&y2) // of a non-residue it is some element whose square differs
	var check bls12381.E2
	return check.Square(&p.Y).Equal(&y2)
}

// InG2 implements Engine.
func (Portable) InG2(p *G2) bool { return p.IsInSubGroup() }

// HashToG2 implements Engine.
func (Portable) HashToG2(msg, dst []byte) G2 {
	p, err := bls12381.HashToG2(msg, dst)
	if err != nil {
		return G2{} // only for a tag above 255 bytes; infinity verifies nothing
	}
	return p
}

// SumG1 implements Engine.
func (Portable) SumG1(ps []G1) G1Jac {
	var sum G1Jac
	for i := range ps {
		sum.AddMixed(&ps[i])
	}
	return sum
}

// SumG2 implements Engine.
func (Portable) SumG2(ps []G2) G2Jac {
	var sum G2Jac
	for i := range ps {
		sum.AddMixed(&ps[i])
	}
	return sum
}

// Pairing implements Engine.
func (Portable) Pairing(ps []G1, qs []G2) GT {
	f, err := bls12381.Pair(ps, qs)
	if err != nil {
		return GT{} // unequal or no lengths; zero equals no pairing
	}
	return f
}
