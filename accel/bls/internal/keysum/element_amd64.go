//go:build amd64 && !purego

package keysum

import (
	"math/bits"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"

	"tutti/accel/bls/internal/curve"
)

const mask52 = 1<<52 - 1

// modulus is p in limbs of 52 bits.
var modulus = [8]uint64{0xeffffffffaaab, 0xfeb153ffffb9f, 0x6b0f6241eabff, 0x12bf6730d2a0f, 0x764774b84f385, 0x1ba7b6434bacd, 0x1ea397fe69a4b, 0x1a011}

// Powers of two that take gnark-crypto's Montgomery form (2^384) to the lanes' (2^416) and back. The inverse of an
// element in the lanes' form, taken for one in gnark-crypto's, is short of 2^64.
var (
	toLanes   = fp.Element{0x44f6480ea8e9b9af, 0xa96f7d65766c8fe4, 0xe82efd4228b540fe, 0x6723e5f0ade53b2e, 0x25ff6eb6fdd4230a, 0x14c8ee06ef23c24a} // 2^32
	fromLanes = fp.Element{5: 1 << 32}                                                                                                             // 2^-32
	toInverse = fp.Element{0x42b7fde37dba9366, 0x7784894e27525bc3, 0xb2b91b9dc1f5b1e9, 0x206f497dfcafb872, 0x594137cc89a9b0bb, 0x0411cd9d20d7e399} // 2^64
)

// one in the lanes' form has the limbs that 2^32 has in gnark-crypto's.
var one = func() (e elem) {
	for i, limb := range split(toLanes) {
		e[i] = [8]uint64{limb, limb, limb, limb, limb, limb, limb, limb}
	}
	return e
}()

// split cuts the limbs of an element, whatever they stand for, into 52 bits each.
func split(e fp.Element) (limbs [8]uint64) {
	for i := range limbs {
		word, shift := 52*i/64, 52*i%64
		limbs[i] = e[word] >> shift
		if shift > 12 && word < 5 {
			limbs[i] |= e[word+1] << (64 - shift)
		}
		limbs[i] &= mask52
	}
	return limbs
}

// join is the inverse of split, modulo p, for limbs of a number below 2^416.
func join(limbs [8]uint64) fp.Element {
	var words [7]uint64
	for i, limb := range limbs {
		word, shift := 52*i/64, 52*i%64
		words[word] |= limb << shift
		if shift > 12 && word < 6 {
			words[word+1] |= limb >> (64 - shift)
		}
	}
	e := fp.Element(words[:6])
	for { // at most ten times, usually once
		var d fp.Element
		var borrow uint64
		for i := range d {
			d[i], borrow = bits.Sub64(e[i], prime[i], borrow)
		}
		if borrow != 0 {
			break
		}
		e = d
	}
	if words[6] != 0 {
		e.Add(&e, new(fp.Element).SetUint64(words[6])) // whose limbs are those of words[6] 2^384 modulo p
	}
	return e
}

// prime is p in limbs of 64 bits.
var prime = [6]uint64{0xb9feffffffffaaab, 0x1eabfffeb153ffff, 0x6730d2a0f6b0f624, 0x64774b84f38512bf, 0x4b1ba7b6434bacd7, 0x1a0111ea397fe69a}

// lane is one lane's number modulo p.
func (e *elem) lane(k int) fp.Element {
	return join([8]uint64{e[0][k], e[1][k], e[2][k], e[3][k], e[4][k], e[5][k], e[6][k], e[7][k]})
}

// Pack implements Adder: eight limbs of x, then eight of y, in the lanes' form.
func (Lanes) Pack(p *curve.G1) (r Row) {
	var x, y fp.Element
	xs, ys := split(*x.Mul(&p.X, &toLanes)), split(*y.Mul(&p.Y, &toLanes))
	copy(r[:8], xs[:])
	copy(r[8:], ys[:])
	return r
}

// Unpack implements Adder.
func (Lanes) Unpack(r *Row) (p curve.G1) {
	x, y := join([8]uint64(r[:8])), join([8]uint64(r[8:]))
	p.X.Mul(&x, &fromLanes)
	p.Y.Mul(&y, &fromLanes)
	return p
}
