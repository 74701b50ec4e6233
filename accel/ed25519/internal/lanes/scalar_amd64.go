//go:build amd64 && !purego

package lanes

import (
	"encoding/binary"
	"math/bits"
)

// scalar is a number below 2^256, least word first.
type scalar [4]uint64

// The order of the base point is L = 2^252 + c.
const (
	orderC0 = 0x5812631a5cf5d3ed
	orderC1 = 0x14def9dea2f79cd6
	orderL3 = 1 << 60
)

func scalarOf(b []byte) (s scalar) {
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return s
}

// reduced reports whether s is below L.
func (s *scalar) reduced() bool {
	_, b := bits.Sub64(s[0], orderC0, 0)
	_, b = bits.Sub64(s[1], orderC1, b)
	_, b = bits.Sub64(s[2], 0, b)
	_, b = bits.Sub64(s[3], orderL3, b)
	return b == 1
}

// plus adds word to each word of s: digits of s become signed without carries between them. The scalar must be small
// enough, which those below 2^255 are for the two words in use.
func (s *scalar) plus(word uint64) (t scalar) {
	var c uint64
	for i := range s {
		t[i], c = bits.Add64(s[i], word, c)
	}
	return t
}

// reduce is a number of 512 bits modulo L. Each step replaces the part h above bit 252 by -h c, since 2^252 = -c, and
// adds a multiple of L that keeps the result positive: 2^133 L, then 2^8 L, then L.
func reduce(x *[8]uint64) scalar {
	// h < 2^260, h c < 2^385, so that y < 2^252 + 2^133 L < 2^386.
	var y [7]uint64
	subProduct(y[:], x[:4], above(x[:]), 133)
	// h < 2^134, h c < 2^259, z < 2^261.
	var z [5]uint64
	subProduct(z[:], y[:4], above(y[:]), 8)
	// h < 2^9, h c < 2^134, and what is left is below 2^252 + L < 2 L.
	var r scalar
	subProduct(r[:], z[:4], above(z[:]), 0)
	if !r.reduced() {
		var b uint64
		r[0], b = bits.Sub64(r[0], orderC0, 0)
		r[1], b = bits.Sub64(r[1], orderC1, b)
		r[2], b = bits.Sub64(r[2], 0, b)
		r[3] -= orderL3 + b
	}
	return r
}

// above is x >> 252.
func above(x []uint64) (h [5]uint64) {
	for i := 3; i < len(x); i++ {
		h[i-3] = x[i] >> 60
		if i+1 < len(x) {
			h[i-3] |= x[i+1] << 4
		}
	}
	return h
}

// subProduct sets r to the low 252 bits of x, less h c, plus 2^shift L. r has room for it.
func subProduct(r, x []uint64, h [5]uint64, shift uint) {
	// 2^shift L in t: c is shifted by whole words and bits.
	var t [8]uint64
	w, s := shift/64, shift%64
	t[w] = orderC0 << s
	t[w+1] = orderC1<<s | orderC0>>(64-s)
	t[w+2] = orderC1 >> (64 - s)
	top := shift + 252
	t[top/64] |= 1 << (top % 64)

	var c uint64
	for i := range r {
		var xi uint64
		switch {
		case i < 3:
			xi = x[i]
		case i == 3:
			xi = x[3] & (orderL3 - 1)
		}
		r[i], c = bits.Add64(t[i], xi, c)
	}
	for j, word := range [2]uint64{orderC0, orderC1} {
		var carry, borrow uint64
		for i := 0; i+j < len(r); i++ {
			var hi, lo uint64
			if i < len(h) {
				hi, lo = bits.Mul64(h[i], word)
			}
			var c uint64
			lo, c = bits.Add64(lo, carry, 0)
			carry = hi + c
			r[i+j], borrow = bits.Sub64(r[i+j], lo, borrow)
		}
	}
}

// limbs are the low 255 bits as limbs of 51.
func (s *scalar) limbs() [5]uint64 {
	const mask = 1<<51 - 1
	return [5]uint64{
		s[0] & mask,
		(s[0]>>51 | s[1]<<13) & mask,
		(s[1]>>38 | s[2]<<26) & mask,
		(s[2]>>25 | s[3]<<39) & mask,
		s[3] >> 12 & mask,
	}
}

// half is a number below 2^128.
type half [2]uint64

// signed4Half makes digits of four bits signed.
var signed4Half = half{0x8888888888888888, 0x8888888888888888}

func (a half) plus(b half) (r half) {
	var c uint64
	r[0], c = bits.Add64(a[0], b[0], 0)
	r[1], _ = bits.Add64(a[1], b[1], c)
	return r
}

func (a half) minus(b half) (r half) {
	var c uint64
	r[0], c = bits.Sub64(a[0], b[0], 0)
	r[1], _ = bits.Sub64(a[1], b[1], c)
	return r
}

// times is a s modulo L.
func (a half) times(s *scalar) scalar {
	var x [8]uint64
	for i, word := range a {
		var carry uint64
		for j, other := range s {
			hi, lo := bits.Mul64(word, other)
			var c uint64
			lo, c = bits.Add64(lo, carry, 0)
			hi += c
			x[i+j], c = bits.Add64(x[i+j], lo, 0)
			carry = hi + c
		}
		x[i+len(s)] = carry
	}
	return reduce(&x)
}
