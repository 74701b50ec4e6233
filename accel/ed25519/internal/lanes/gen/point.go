package main

import (
	"fmt"
	"math/big"
)

// Points are on -x^2 + y^2 = 1 + d x^2 y^2 in extended coordinates (Hisil, Wong, Carter and Dawson, "Twisted Edwards
// Curves Revisited", 2008), X/Z = x, Y/Z = y, T = XY/Z. The formulas are complete: they hold for all points.
//
// In memory a point is four elements in one of two forms. What a doubling takes is X, Y, Z. What an addition takes is
// Y+X, Y-X, Z, T: to make both sums before the carry costs no more carries than to make X and Y.

// groupX are the offsets in the structure group of point_amd64.go.
const (
	feSize = 64 * limbs
	groupP = 0                 // the sum: X or Y+X, Y or Y-X, Z, T
	groupQ = groupP + 4*feSize // what is added to it: Y+X, Y-X, 2dT, Z
	groupG = groupQ + 4*feSize // spilled
	groupR = groupG + feSize   // addresses of the rows
)

var (
	sumX  = mem{"DI", groupP}
	sumY  = mem{"DI", groupP + feSize}
	sumZ  = mem{"DI", groupP + 2*feSize}
	sumT  = mem{"DI", groupP + 3*feSize}
	rowP  = mem{"DI", groupQ}
	rowM  = mem{"DI", groupQ + feSize}
	rowT  = mem{"DI", groupQ + 2*feSize}
	rowZ  = mem{"DI", groupQ + 3*feSize}
	spill = mem{"DI", groupG}
)

// d is the curve's constant, -121665/121666.
var (
	d      = modP(new(big.Int).Mul(big.NewInt(-121665), new(big.Int).ModInverse(big.NewInt(121666), p)))
	twoD   = modP(new(big.Int).Lsh(d, 1))
	sqrtM1 = new(big.Int).Exp(big.NewInt(2), new(big.Int).Rsh(new(big.Int).Sub(p, big.NewInt(1)), 2), p)
)

func modP(v *big.Int) *big.Int { return new(big.Int).Mod(v, p) }

// form says what a function leaves in the sum.
type form int

const (
	forDouble form = iota // X, Y, Z
	forAdd                // Y+X, Y-X, Z, T
)

// finish computes X = EF, Y = GH, T = EH, Z = FG of carried factors and stores the sum.
func (f *field) finish(E, F, G, H fe, out form) {
	z := f.mul(F, G, 0)
	f.carry(&z)
	f.store(z, sumZ)
	f.drop(z)
	if out == forAdd {
		t := f.mul(E, H, 0)
		f.carry(&t)
		f.store(t, sumT)
		f.drop(t)
	}
	x := f.mul(E, F, 0)
	f.drop(E, F)
	if out == forDouble {
		f.carry(&x)
		f.store(x, sumX)
		f.drop(x)
		y := f.mul(G, H, 0)
		f.carry(&y)
		f.store(y, sumY)
		f.drop(y, G, H)
		return
	}
	y := f.mul(G, H, over(x))
	f.drop(G, H)
	f.storeSums(x, y)
}

// storeSums stores Y+X and Y-X of raw X and Y, which are used up. y contains a bias over x.
func (f *field) storeSums(x, y fe) {
	sum := f.add(y, x)
	f.subFrom(&y, x)
	f.drop(x)
	f.carry(&sum)
	f.store(sum, sumX)
	f.carry(&y)
	f.store(y, sumY)
	f.drop(sum, y)
}

// doubling emits 2P of P in X, Y, Z, by dbl-2008-hwcd with all four results negated, which is the same point: four
// multiplications fewer than an addition are squarings.
func (f *field) doubling(out form) {
	x, y := f.load(sumX), f.load(sumY)
	E := f.mul(x, y, 0)
	xx := f.sqr(x, 0)
	f.drop(x)
	yy := f.sqr(y, over(xx))
	f.drop(y)
	z := f.load(sumZ)
	F := f.sqr(z, over(yy)/2)
	f.drop(z)
	f.addTo(&E, E)
	H := f.add(xx, yy)
	f.addTo(&F, F)
	f.addTo(&F, xx)
	f.subFrom(&F, yy)
	f.subFrom(&yy, xx)
	f.drop(xx)
	G := yy
	for _, v := range []*fe{&F, &G, &E, &H} {
		f.carry(v)
	}
	f.finish(E, F, G, H, out)
}

// addend says what an addition finds in the row.
type addend struct {
	affine bool // Z is 1
	signed bool // where mask K1 is set, the row's negative is added
}

// addRow emits P + Q, by add-2008-hwcd-3 without the constant k.
func (f *field) addRow(q addend, out form) {
	t := f.load(rowT)
	if q.signed {
		f.negateMasked(&t)
	}
	pt := f.load(sumT)
	C := f.mul(pt, t, 0)
	f.drop(pt, t)
	F := f.load(sumZ)
	if q.affine {
		f.addTo(&F, F)
		f.plusBias(&F, over(C))
	} else {
		qz := f.load(rowZ)
		product := f.mul(F, qz, over(C)/2)
		f.drop(F, qz)
		f.addTo(&product, product)
		F = product
	}
	G := f.add(F, C)
	f.subFrom(&F, C)
	f.drop(C)
	f.carry(&G)
	f.store(G, spill)
	f.drop(G)
	f.carry(&F)

	factor := func(sum, row, mirrored mem, n bias) fe {
		a, b := f.load(sum), f.load(row)
		if q.signed {
			for i, r := range b.r {
				f.line("VMOVDQU64", mirrored.limb(i), "K1", r)
			}
		}
		product := f.mul(a, b, n)
		f.drop(a, b)
		return product
	}
	A := factor(sumY, rowM, rowP, 0)
	B := factor(sumX, rowP, rowM, over(A))
	H := f.add(B, A)
	f.subFrom(&B, A)
	f.drop(A)
	f.carry(&B)
	f.carry(&H)
	f.finish(B, F, f.load(spill), H, out)
}

// negateMasked replaces a carried element by 2p minus it in the lanes of K1. The limbs stay below 2^52.
func (f *field) negateMasked(t *fe) {
	const n = bias(2)
	for i, r := range t.r {
		l := n.limb(i)
		if l.Cmp(t.max[i]) < 0 {
			panic(f.function + ": a negative limb")
		}
		from := f.broadcast(l.Uint64())
		f.line("VPSUBQ", r, from, "K1", r)
		f.give(from)
		t.max[i] = l
	}
}

// Rows: an entry of a table in one lane's own order, limbs of Y+X, Y-X, 2dT and, unless it is 1, Z, as 64-bit words.
// Rows of the eight lanes are read in blocks of four words and transposed.
const (
	affineBlocks     = 4 // 15 words and one of padding
	projectiveBlocks = 5
	blockSize        = 32
)

var rowRegisters = [8]string{"AX", "BX", "CX", "DX", "R8", "R9", "R10", "R11"}

// chooseRows makes signed digits of the words at (SI), shifted right by CX bits, sets K1 where they are negative, and
// loads the addresses of the rows: table, whose addresses are at (BX) or, if shared, BX itself, plus |digit| rows.
func (f *field) chooseRows(bits uint, blocks int, shared bool) {
	digit, shift := f.take(), f.take()
	f.line("VMOVQ", "CX", fmt.Sprintf("X%d", int(shift)))
	f.line("VMOVDQU64", "(SI)", digit)
	f.line("VPSRLQ", fmt.Sprintf("X%d", int(shift)), digit, digit)
	f.line("VPANDQ.BCST", f.word(1<<bits-1), digit, digit)
	f.line("VPSUBQ.BCST", f.word(1<<(bits-1)), digit, digit)
	f.line("VPMOVQ2M", digit, "K1")
	f.line("VPABSQ", digit, digit)
	f.line("VPMULUDQ.BCST", f.word(uint64(blocks*blockSize)), digit, digit)
	if shared {
		f.line("VPBROADCASTQ", "BX", shift)
		f.line("VPADDQ", shift, digit, digit)
	} else {
		f.line("VPADDQ", "(BX)", digit, digit)
	}
	f.line("VMOVDQU64", digit, fmt.Sprintf("%d(DI)", groupR))
	for i, r := range rowRegisters {
		f.line("MOVQ", fmt.Sprintf("%d(DI)", groupR+8*i), r)
	}
	f.give(digit, shift)
}

// transpose reads four words at off of each lane's row and hands over the four columns.
func (e *emitter) transpose(off int, use func(i int, column reg)) {
	at := func(lane int) string { return fmt.Sprintf("%d(%s)", off, rowRegisters[lane]) }
	var pair [4]reg
	for i, lane := range []int{0, 1, 4, 5} { // with lanes 2, 3, 6, 7 in the upper halves
		pair[i] = e.take()
		e.line("VMOVDQU64", at(lane), pair[i].half())
		e.line("VINSERTI64X4", "$1", at(lane+2), pair[i], pair[i])
	}
	low, high := e.take(), e.take()
	for odd, op := range []string{"VPUNPCKLQDQ", "VPUNPCKHQDQ"} {
		e.line(op, pair[1], pair[0], low)
		e.line(op, pair[3], pair[2], high)
		for half, pick := range []string{"$0x88", "$0xdd"} {
			column := e.take()
			e.line("VSHUFI64X2", pick, high, low, column)
			use(2*half+odd, column)
			e.give(column)
		}
	}
	e.give(low, high)
	e.give(pair[:]...)
}

// gather transposes the chosen rows into the row's elements.
func (f *field) gather(blocks int) {
	for b := range blocks {
		f.transpose(b*blockSize, func(i int, column reg) {
			f.line("VMOVDQU64", column, fmt.Sprintf("%d(DI)", groupQ+64*(4*b+i)))
		})
	}
}

// scatter writes elements as rows of the eight lanes: lane n's to (SI) + n * CX.
func (f *field) scatter(elements ...mem) {
	pick := [2]reg{f.take(), f.take()} // rows n and n+2 of pairs of columns
	for i, words := range [][]uint64{{0, 1, 8, 9, 4, 5, 12, 13}, {2, 3, 10, 11, 6, 7, 14, 15}} {
		f.line("VMOVDQU64", f.constant(fmt.Sprintf("rows %d", i), words...), pick[i])
	}
	var words []string
	for _, m := range elements {
		for i := range limbs {
			words = append(words, m.limb(i))
		}
	}
	for b := range (len(words) + 3) / 4 {
		var c [4]reg
		for i := range c {
			c[i] = f.take()
			f.line("VMOVDQU64", words[min(4*b+i, len(words)-1)], c[i])
		}
		f.line("MOVQ", "SI", "AX")
		left, right := f.take(), f.take()
		var rows [4]reg
		for odd, op := range []string{"VPUNPCKLQDQ", "VPUNPCKHQDQ"} {
			f.line(op, c[1], c[0], left)
			f.line(op, c[3], c[2], right)
			for i := range pick { // rows 2i+odd below, 2i+4+odd above
				r := f.take()
				rows[2*i+odd] = r
				f.line("VMOVDQA64", pick[i], r)
				f.line("VPERMI2Q", right, left, r)
			}
		}
		for half := range 2 {
			for _, r := range rows {
				at := fmt.Sprintf("%d(AX)", b*blockSize)
				if half == 0 {
					f.line("VMOVDQU64", r.half(), at)
				} else {
					f.line("VEXTRACTI64X4", "$1", r, at)
				}
				f.line("ADDQ", "CX", "AX")
			}
		}
		f.give(left, right)
		f.give(rows[:]...)
		f.give(c[:]...)
	}
	f.give(pick[:]...)
}
