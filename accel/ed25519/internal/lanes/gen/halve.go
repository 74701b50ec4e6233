package main

import "fmt"

// Half-size scalars: for each lane's k, u and v of about 126 bits with u = v k modulo L, by Euclid's algorithm on L and
// k stopped half-way. It keeps r0 = t0 k and r1 = t1 k modulo L, r falling and |t| growing with r0 |t1| + r1 |t0| = L,
// so that at the first r1 below 2^126 both r1 and t1 are small enough. Quotients are taken in powers of two, which takes
// more steps but no division. (Antipa et al., "Accelerated verification of ECDSA signatures", 2005, have the idea;
// Pornin, "Optimized lattice basis reduction in dimension 2", 2020, and the half-size Euclid of "Accelerating EdDSA
// signature verification with faster scalar size halving", 2025, the way to do it fast on one number.)
//
// As in Lehmer's algorithm most steps see the upper 62 bits of r0 and r1 only, a and b, and note what they did as
// factors: after some steps r0' = +-(x0 r0 - y0 r1) and r1' = -+(x1 r0 - y1 r1), which is then done to the whole numbers
// at once. b stays above 2^35, so the factors stay below 2^27 and the true r differ from a and b by less than 2^28 units
// (windowBits - stopBits + 1); a difference below 2^29 is not taken, so no r turns negative. t0 and t1 have opposite
// signs all the time, so their absolute values only add up.
//
// A lane that does not arrive (a quotient of 2^27, or a and b too close to tell: a few in 2^20) is reported, and the
// caller does without.
const (
	halfBits   = 126
	windowBits = 62
	stopBits   = 35
	marginBits = 29
	rounds     = 9 // five or six are usual

	rLimbs, tLimbs = 5, 3 // of 52 bits
	halveR0        = 0
	halveR1        = halveR0 + 64*rLimbs
	halveT0        = halveR1 + 64*rLimbs
	halveT1        = halveT0 + 64*tLimbs
)

// halver holds the registers of the steps.
type halver struct {
	*emitter
	mask           reg // 52 bits
	a, b           reg
	x0, y0, x1, y1 reg
	least, stop    reg // 2^126 in the window's unit, and what b must not fall below
}

func at(off, i int) string { return fmt.Sprintf("%d(DI)", off+64*i) }

// halve emits the function. K7: t0 is negative; K6: the signs of x0 and y0 are the other ones; K5: not there yet; K4:
// the lane can go on in this window.
func (e *emitter) halve() {
	e.begin("halve", "(h *halving) uint64", 0, 16)
	e.line("MOVQ", "h+0(FP)", "DI")
	h := &halver{emitter: e, mask: e.broadcast(1<<52 - 1)}
	for _, r := range []*reg{&h.a, &h.b, &h.x0, &h.y0, &h.x1, &h.y1, &h.least, &h.stop} {
		*r = e.take()
	}
	h.line("MOVQ", fmt.Sprintf("$%d", rounds), "CX")
	h.line("KXNORB", "K7", "K7", "K7")
	h.label("window")
	h.window()
	h.startFactors()
	h.label("step")
	h.line("VPCMPUQ", "$5", h.stop, h.b, "K1") // b >= stop
	h.line("KANDB", "K1", "K4", "K4")
	h.line("KTESTB", "K4", "K4")
	h.line("JZ", "whole")
	h.step()
	h.line("JMP", "step")
	h.label("whole")
	h.whole()
	h.line("KMOVB", "K5", "AX")
	h.line("TESTQ", "AX", "AX")
	h.line("JZ", "done")
	h.line("DECQ", "CX")
	h.line("JNZ", "window")
	h.label("done")
	h.line("KNOTB", "K5", "K5")
	h.line("KNOTB", "K7", "K7")
	h.line("KMOVB", "K5", "AX")
	h.line("KMOVB", "K7", "BX")
	h.line("SHLQ", "$8", "BX")
	h.line("ORQ", "BX", "AX")
	h.line("MOVQ", "AX", "ret+8(FP)")
	e.end()
}

// window makes a and b of the upper bits of r0 and r1, both shifted as the longer one needs, and least and stop.
func (h *halver) window() {
	top, shift := h.take(), h.take()
	h.line("VMOVDQU64", at(halveR0, 4), top)
	h.line("VPORQ", at(halveR1, 4), top, top)
	h.line("VPTESTMQ", top, top, "K1")
	o3 := h.take()
	h.line("VMOVDQU64", at(halveR0, 3), o3)
	h.line("VPORQ", at(halveR1, 3), o3, o3)
	h.line("VPTESTMQ", o3, o3, "K2")
	o2 := h.take()
	h.line("VMOVDQU64", at(halveR0, 2), o2)
	h.line("VPORQ", at(halveR1, 2), o2, o2)
	// K1: the top limb is 4. K2: it is 3, if not 4. 52 h of these in shift.
	h.line("VMOVDQA64", o3, "K2", o2)
	h.line("VMOVDQA64", top, "K1", o2)
	h.line("VPBROADCASTQ", h.word(2*52), shift)
	h.line("VPBROADCASTQ", h.word(3*52), "K2", shift)
	h.line("VPBROADCASTQ", h.word(4*52), "K1", shift)
	h.give(top, o3)

	zeros := o2 // above the top bit, of the limb's 52
	h.line("VPLZCNTQ", o2, zeros)
	h.line("VPSUBQ.BCST", h.word(12), zeros, zeros)
	const low = windowBits - 52
	var counts [4]reg // left and right shifts of the limbs from the top one down
	for i := range counts {
		counts[i] = h.take()
	}
	h.line("VPADDQ.BCST", h.word(low), zeros, counts[0])
	h.line("VPBROADCASTQ", h.word(52-low), counts[1])
	h.line("VPSUBQ", zeros, counts[1], counts[1])
	h.line("VPSUBQ.BCST", h.word(52-low), zeros, counts[2])
	h.line("VPBROADCASTQ", h.word(104-low), counts[3])
	h.line("VPSUBQ", zeros, counts[3], counts[3])
	for _, w := range []struct {
		to  reg
		off int
	}{{h.a, halveR0}, {h.b, halveR1}} {
		limb, part := h.take(), h.take()
		load := func(below int) {
			h.line("VMOVDQU64", at(w.off, 2-below), limb)
			h.line("VMOVDQU64", at(w.off, 3-below), "K2", limb)
			h.line("VMOVDQU64", at(w.off, 4-below), "K1", limb)
		}
		// Shifts by 64 or more, which negative counts are, give 0.
		load(0)
		h.line("VPSLLVQ", counts[0], limb, w.to)
		load(1)
		h.line("VPSRLVQ", counts[1], limb, part)
		h.line("VPORQ", part, w.to, w.to)
		h.line("VPSLLVQ", counts[2], limb, part)
		h.line("VPORQ", part, w.to, w.to)
		load(2)
		h.line("VPSRLVQ", counts[3], limb, part)
		h.line("VPORQ", part, w.to, w.to)
		h.give(limb, part)
	}
	// The window's unit is 2^(52 h - low - zeros).
	h.line("VPADDQ.BCST", h.word(halfBits+low), zeros, zeros)
	h.line("VPSUBQ", shift, zeros, zeros)
	h.line("VPBROADCASTQ", h.word(1), h.least)
	h.line("VPSLLVQ", zeros, h.least, h.least)
	h.line("VPMAXUQ.BCST", h.word(1<<stopBits), h.least, h.stop)
	h.give(counts[:]...)
	h.give(zeros, shift)
}

// startFactors sets the factors of no step, and puts a and b in order.
func (h *halver) startFactors() {
	h.line("VPBROADCASTQ", h.word(1), h.x0)
	h.line("VPXORQ", h.y0, h.y0, h.y0)
	h.line("VPXORQ", h.x1, h.x1, h.x1)
	h.line("VPBROADCASTQ", h.word(1), h.y1)
	h.line("KXORB", "K6", "K6", "K6")
	h.order()
	h.line("VPCMPUQ", "$5", h.least, h.b, "K5") // b >= least
	h.line("KMOVB", "K5", "K4")
}

// order exchanges a and b, and their factors, where a is less.
func (h *halver) order() {
	h.line("VPCMPUQ", "$1", h.b, h.a, "K1") // a < b
	less := h.take()
	h.line("VPMINUQ", h.a, h.b, less)
	h.line("VPMAXUQ", h.a, h.b, h.a)
	h.line("VMOVDQA64", less, h.b)
	for _, pair := range [][2]reg{{h.x0, h.x1}, {h.y0, h.y1}} {
		h.line("VPXORQ", pair[0], pair[1], less)
		h.line("VPXORQ", less, pair[0], "K1", pair[0])
		h.line("VPXORQ", less, pair[1], "K1", pair[1])
	}
	h.line("KXORB", "K1", "K6", "K6")
	h.give(less)
}

// step subtracts b 2^s from a, where a stays well above 0.
func (h *halver) step() {
	s, t, over := h.take(), h.take(), h.take()
	h.line("VPLZCNTQ", h.b, s)
	h.line("VPLZCNTQ", h.a, t)
	h.line("VPSUBQ", t, s, s)
	h.line("VPSLLVQ", s, h.b, t)
	h.line("VPADDQ.BCST", h.word(1<<marginBits), t, over)
	h.line("VPCMPUQ", "$1", over, h.a, "K1") // a < t + margin
	h.line("VPTESTNMQ", s, s, "K1", "K2")
	h.line("KANDNB", "K4", "K2", "K4")
	h.line("VPSRLQ", "$1", t, "K1", t)
	h.line("VPSUBQ.BCST", h.word(1), s, "K1", s)
	h.line("VPSUBQ", t, h.a, "K4", h.a)
	h.line("VPSLLVQ", s, h.x1, t)
	h.line("VPADDQ", t, h.x0, "K4", h.x0)
	h.line("VPSLLVQ", s, h.y1, over)
	h.line("VPADDQ", over, h.y0, "K4", h.y0)
	h.give(s, t, over)
	h.order()
}

// scaled adds the limbs at off times the factor to fresh columns, modulo 2^(52 n).
func (h *halver) scaled(off, n int, factor reg, columns []reg) []reg {
	if columns == nil {
		for range n {
			c := h.take()
			h.line("VPXORQ", c, c, c)
			columns = append(columns, c)
		}
	}
	for i := range n {
		h.line("VPMADD52LUQ", at(off, i), factor, columns[i])
		if i+1 < n {
			h.line("VPMADD52HUQ", at(off, i), factor, columns[i+1])
		}
	}
	return columns
}

// ripple brings columns to limbs of 52 bits. They may be negative, the number they make is not.
func (h *halver) ripple(c []reg) {
	over := h.take()
	for i := range c {
		if i+1 < len(c) {
			h.line("VPSRAQ", "$52", c[i], over)
			h.line("VPADDQ", over, c[i+1], c[i+1])
		}
		h.line("VPANDQ", h.mask, c[i], c[i])
	}
	h.give(over)
}

// whole does the steps of a window to the whole numbers.
func (h *halver) whole() {
	difference := func(x, y reg, reverse bool) []reg {
		p := h.scaled(halveR0, rLimbs, x, nil)
		q := h.scaled(halveR1, rLimbs, y, nil)
		if reverse {
			p, q = q, p
		}
		for i := range p {
			r := h.take()
			h.line("VPSUBQ", q[i], p[i], r)
			h.line("VPSUBQ", p[i], q[i], "K6", r)
			h.give(p[i])
			p[i] = r
		}
		h.give(q...)
		h.ripple(p)
		return p
	}
	sum := func(x, y reg) []reg {
		c := h.scaled(halveT0, tLimbs, x, nil)
		h.scaled(halveT1, tLimbs, y, c)
		h.ripple(c)
		return c
	}
	save := func(off int, c []reg) {
		for i, r := range c {
			h.line("VMOVDQU64", r, at(off, i))
		}
		h.give(c...)
	}
	r0 := difference(h.x0, h.y0, false)
	r1 := difference(h.x1, h.y1, true)
	save(halveR0, r0)
	save(halveR1, r1)
	t0, t1 := sum(h.x0, h.y0), sum(h.x1, h.y1)
	save(halveT0, t0)
	save(halveT1, t1)
	h.line("KXORB", "K6", "K7", "K7")
}

// halveFile has the halving of scalars.
func halveFile() []byte {
	e := newEmitter()
	e.halve()
	return e.file()
}
