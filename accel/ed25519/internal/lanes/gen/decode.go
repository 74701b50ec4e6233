package main

import (
	"fmt"
	"math/big"
)

// Decoding takes the two points of a signature through the same chain of squarings side by side: one squaring alone
// waits for itself most of the time.

// side addresses what belongs to point i of the two.
type side int

// What belongs to a side is in a structure coded of point_amd64.go: four words, then X, Y, T.
func (s side) base() string { return [2]string{"SI", "DX"}[s] }
func (s side) words() mem   { return mem{s.base(), 0} }
func (s side) x() mem       { return mem{s.base(), 4 * 64} }
func (s side) y() mem       { return mem{s.base(), 4*64 + feSize} }
func (s side) t() mem       { return mem{s.base(), 4*64 + 2*feSize} }

// tmp are six elements for each side.
func (s side) tmp(n int) mem { return mem{"DI", (int(s)*6 + n) * feSize} }

const (
	tmpU = iota // numerator y^2 - 1
	tmpV        // denominator d y^2 + 1
	tmpZ        // the base of the power
	tmpA
	tmpB
	tmpC
)

var sides = [2]side{0, 1}

// unpack reads the 255 bits of y; the sign is left in its word.
func (f *field) unpack(s side) fe {
	y := f.fresh()
	y.max = canonicalMax
	word := func(i int) string { return s.words().limb(i) }
	next := f.take()
	f.line("VMOVDQU64", word(0), y.r[0])
	for i := 1; i < 4; i++ { // limb i starts in word i-1 and ends in word i
		f.line("VMOVDQU64", word(i-1), y.r[i])
		f.line("VPSRLQ", fmt.Sprintf("$%d", 64-13*i), y.r[i], y.r[i])
		f.line("VPSLLQ", fmt.Sprintf("$%d", 13*i), word(i), next)
		f.line("VPORQ", next, y.r[i], y.r[i])
	}
	f.line("VPSRLQ", "$12", word(3), y.r[4])
	for _, r := range y.r {
		f.line("VPANDQ", f.mask, r, r)
	}
	f.give(next)
	return y
}

// mulTo emits to = a * b in memory.
func (f *field) mulTo(to, a, b mem) {
	x, y := f.load(a), f.load(b)
	f.mulInto(to, x, y)
	f.drop(x, y)
}

func (f *field) mulInto(to mem, x, y fe) {
	r := f.mul(x, y, 0)
	f.carry(&r)
	f.store(r, to)
	f.drop(r)
}

// sqrTo emits to = from^(2^n) in memory, for both sides.
func (f *field) sqrTo(to, from, n int) {
	var v [2]fe
	for _, s := range sides {
		v[s] = f.load(s.tmp(from))
	}
	loop := fmt.Sprintf("%s_to%d_from%d_times%d_at%d", f.function, to, from, n, f.out.Len())
	if n > 1 {
		f.line("MOVQ", fmt.Sprintf("$%d", n), "AX")
		f.label(loop)
	}
	for _, s := range sides {
		f.sqrInPlace(&v[s])
	}
	if n > 1 {
		f.line("DECQ", "AX")
		f.line("JNZ", loop)
	}
	for _, s := range sides {
		f.store(v[s], s.tmp(to))
		f.drop(v[s])
	}
}

// sqrInPlace squares a carried element into its own registers, so that a loop can go round.
func (f *field) sqrInPlace(v *fe) {
	r := f.sqr(*v, 0)
	f.carry(&r)
	for i := range limbs {
		if r.max[i].Cmp(carriedMax[i]) > 0 {
			panic("a square that is not carried")
		}
		f.line("VMOVDQA64", r.r[i], v.r[i])
	}
	v.max = carriedMax
	f.drop(r)
}

// power raises tmpZ to 2^252 - 3 = (p - 5) / 8 into tmpA, by the usual chain of 251 squarings and 11 multiplications.
func (f *field) power() {
	mul := func(to, a, b int) {
		for _, s := range sides {
			f.mulTo(s.tmp(to), s.tmp(a), s.tmp(b))
		}
	}
	const z, a, b, c = tmpZ, tmpA, tmpB, tmpC
	f.sqrTo(a, z, 1)   // 2
	f.sqrTo(b, a, 2)   // 8
	mul(b, z, b)       // 9
	mul(a, a, b)       // 11
	f.sqrTo(a, a, 1)   // 22
	mul(a, b, a)       // 2^5 - 1
	f.sqrTo(b, a, 5)   //
	mul(a, b, a)       // 2^10 - 1
	f.sqrTo(b, a, 10)  //
	mul(b, b, a)       // 2^20 - 1
	f.sqrTo(c, b, 20)  //
	mul(b, c, b)       // 2^40 - 1
	f.sqrTo(b, b, 10)  //
	mul(a, b, a)       // 2^50 - 1
	f.sqrTo(b, a, 50)  //
	mul(b, b, a)       // 2^100 - 1
	f.sqrTo(c, b, 100) //
	mul(b, c, b)       // 2^200 - 1
	f.sqrTo(b, b, 50)  //
	mul(a, b, a)       // 2^250 - 1
	f.sqrTo(a, a, 2)   // 2^252 - 4
	mul(a, a, z)       // 2^252 - 3
}

// canonical makes the one representation below p, with limbs of 51 bits, of a carried element, in place. A carried
// element is below 2p, so one subtraction is enough.
func (f *field) canonical(a *fe) {
	over := f.take()
	ripple := func() { // brings every limb below 2^51, but for what goes from the last to the first
		for i := range limbs - 1 {
			f.line("VPSRLQ", "$51", a.r[i], over)
			f.line("VPANDQ", f.mask, a.r[i], a.r[i])
			f.line("VPADDQ", over, a.r[i+1], a.r[i+1])
		}
	}
	wrap := func() {
		f.line("VPSRLQ", "$51", a.r[limbs-1], over)
		f.line("VPANDQ", f.mask, a.r[limbs-1], a.r[limbs-1])
		f.line("VPMULUDQ", f.nineteen, over, over)
		f.line("VPADDQ", over, a.r[0], a.r[0])
	}
	ripple()
	wrap()
	ripple() // now below 2^255: a value that wrapped is small, so this time nothing leaves the last limb
	// It is p or more exactly if 19 more reach 2^255; then 19 more without the bit 2^255 is the value less p.
	sum := f.take()
	f.line("VPADDQ", f.nineteen, a.r[0], sum)
	for i := 1; i < limbs; i++ {
		f.line("VPSRLQ", "$51", sum, sum)
		f.line("VPADDQ", a.r[i], sum, sum)
	}
	f.line("VPSRLQ", "$51", sum, sum)
	f.line("VPMULUDQ", f.nineteen, sum, sum)
	f.line("VPADDQ", sum, a.r[0], a.r[0])
	ripple()
	f.line("VPANDQ", f.mask, a.r[limbs-1], a.r[limbs-1])
	f.give(over, sum)
	a.max = canonicalMax
}

// zero sets a mask register in the lanes where a carried element is 0 modulo p. The element is used up.
func (f *field) zero(a fe, k string) {
	f.canonical(&a)
	for i := 1; i < limbs; i++ {
		f.line("VPORQ", a.r[i], a.r[0], a.r[0])
	}
	f.line("VPTESTNMQ", a.r[0], a.r[0], k)
	f.drop(a)
}

// difference is a - b, carried, in the registers of a.
func (f *field) difference(a, b fe) fe {
	f.plusBias(&a, over(b))
	f.subFrom(&a, b)
	f.carry(&a)
	return a
}

// decode emits the negatives of both encoded points, X, Y and T with Z = 1, and sets bits of AX: lane n's point of
// the first side is on the curve, bit n; that of the second, bit 8 + n. An encoding may have y of p or more, and the sign of x = 0 set.
func (f *field) decode() {
	for _, s := range sides {
		f.ratio(s)
	}
	f.power()
	for _, s := range sides {
		f.root(s)
	}
	f.line("KMOVW", "K5", "AX")
	f.line("KMOVW", "K6", "BX")
	f.line("SHLQ", "$8", "BX")
	f.line("ORQ", "BX", "AX")
}

// ratio emits u, v and z = u v^7.
func (f *field) ratio(s side) {
	y := f.unpack(s)
	f.store(y, s.y())
	yy := f.sqr(y, 0)
	f.carry(&yy)
	f.drop(y)
	one := f.broadcast(1)
	k := f.splat(d)
	v := f.mul(k, yy, 0)
	f.drop(k)
	f.line("VPADDQ", one, v.r[0], v.r[0])
	v.max[0] = new(big.Int).Add(v.max[0], big.NewInt(1))
	f.carry(&v)
	f.store(v, s.tmp(tmpV))
	f.plusBias(&yy, 2)
	f.line("VPSUBQ", one, yy.r[0], yy.r[0])
	f.give(one)
	f.carry(&yy)
	f.store(yy, s.tmp(tmpU))
	u := yy
	square := func(a fe) fe {
		r := f.sqr(a, 0)
		f.carry(&r)
		return r
	}
	times := func(a, b fe) fe {
		r := f.mul(a, b, 0)
		f.carry(&r)
		return r
	}
	vv := square(v)
	v3 := times(vv, v)
	f.drop(vv)
	f.mulInto(s.tmp(tmpC), u, v3)
	uv3 := f.load(s.tmp(tmpC))
	f.drop(u, v3)
	v = f.reload(v, s.tmp(tmpV))
	vv = square(v)
	f.drop(v)
	v4 := square(vv)
	f.drop(vv)
	f.mulInto(s.tmp(tmpZ), uv3, v4)
	f.drop(uv3, v4)
	// u v^3 is needed after the power, whose chain uses all temporaries but u, v, z: it waits where x will be.
	w := f.load(s.tmp(tmpC))
	f.store(w, s.x())
	f.drop(w)
}

// reload forgets what is in registers and reads it again.
func (f *field) reload(a fe, m mem) fe {
	f.drop(a)
	return f.load(m)
}

// root emits x = u v^3 (u v^7)^((p-5)/8), times the square root of -1 if v x^2 = -u, with the sign that the encoding
// does not ask for, and T.
func (f *field) root(s side) {
	f.mulTo(s.tmp(tmpB), s.x(), s.tmp(tmpA))
	x := f.load(s.tmp(tmpB))
	xx := f.sqr(x, 0)
	f.carry(&xx)
	v := f.load(s.tmp(tmpV))
	vxx := f.mul(xx, v, 0)
	f.carry(&vxx)
	f.drop(xx, v)
	u := f.load(s.tmp(tmpU))
	sum := f.add(vxx, u)
	f.carry(&sum)
	f.zero(sum, "K2")
	f.zero(f.difference(vxx, u), "K1")
	f.drop(u)
	f.line("KORW", "K1", "K2", fmt.Sprintf("K%d", 5+s))
	f.line("KANDNW", "K2", "K1", "K2") // the other square root, where it is not the first as well
	root := f.splat(sqrtM1)
	other := f.mul(x, root, 0)
	f.carry(&other)
	f.drop(root)
	for i, r := range x.r {
		f.line("VMOVDQA64", other.r[i], "K2", r)
	}
	f.drop(other)
	f.canonical(&x)
	sign, parity := f.take(), f.take()
	f.line("VPSRLQ", "$63", s.words().limb(3), sign)
	f.line("VPANDQ.BCST", f.word(1), x.r[0], parity)
	f.line("VPCMPEQQ", sign, parity, "K1")
	f.give(sign, parity)
	f.negateMasked(&x)
	f.carry(&x)
	f.store(x, s.x())
	f.drop(x)
	f.mulTo(s.t(), s.x(), s.y())
}
