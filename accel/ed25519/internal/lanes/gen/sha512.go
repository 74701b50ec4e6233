package main

import (
	"fmt"
	"math/big"
)

// sha512File has the compression function of SHA-512 (FIPS 180-4) for a block of each lane.
func sha512File() []byte {
	e := newEmitter()
	e.sha512()
	return e.file()
}

// primes are the first n.
func primes(n int) (all []int64) {
	for c := int64(2); len(all) < n; c++ {
		if big.NewInt(c).ProbablyPrime(0) {
			all = append(all, c)
		}
	}
	return all
}

// rootBits are the first 64 bits of the fraction of the cube root of n.
func rootBits(n int64) uint64 {
	// floor(cbrt(n) * 2^64) is the integer cube root of n * 2^192.
	target := new(big.Int).Lsh(big.NewInt(n), 192)
	root := new(big.Int)
	for bit := 68; bit >= 0; bit-- {
		try := new(big.Int).SetBit(root, bit, 1)
		if new(big.Int).Exp(try, big.NewInt(3), nil).Cmp(target) <= 0 {
			root = try
		}
	}
	return new(big.Int).And(root, new(big.Int).SetUint64(^uint64(0))).Uint64()
}

// sha512 keeps the state in eight registers and the last sixteen words of the schedule in sixteen.
func (e *emitter) sha512() {
	var k []uint64
	for _, n := range primes(80) {
		k = append(k, rootBits(n))
	}
	table := e.constant("round constants", k...)
	swap := e.constant("byte order", 0x0001020304050607, 0x08090a0b0c0d0e0f)

	e.begin("sha512Block", "(state *[8]vector, blocks *[8]unsafe.Pointer, active uint64)", 0, 24)
	e.line("MOVQ", "blocks+8(FP)", "SI")
	for i, r := range rowRegisters {
		e.line("MOVQ", fmt.Sprintf("%d(SI)", 8*i), r)
	}
	var state, w [16]reg
	for i := range w {
		w[i] = e.take()
	}
	order := e.take()
	e.line("VBROADCASTI64X2", swap, order)
	for b := range 4 {
		e.transpose(b*blockSize, func(i int, column reg) { e.line("VPSHUFB", order, column, w[4*b+i]) })
	}
	e.give(order)
	e.line("MOVQ", "state+0(FP)", "DI")
	for i := range 8 {
		state[i] = e.take()
		e.line("VMOVDQU64", fmt.Sprintf("%d(DI)", 64*i), state[i])
	}
	e.line("LEAQ", table, "SI")
	e.line("MOVQ", "$4", "CX")
	e.label("sixteen")
	e.rounds(state[:8], w[:], true)
	e.line("ADDQ", "$128", "SI")
	e.line("DECQ", "CX")
	e.line("JNZ", "sixteen")
	e.rounds(state[:8], w[:], false)
	e.line("MOVQ", "active+16(FP)", "AX")
	e.line("KMOVW", "AX", "K1")
	for i := range 8 {
		old := e.take()
		at := fmt.Sprintf("%d(DI)", 64*i)
		e.line("VMOVDQU64", at, old)
		e.line("VPADDQ", old, state[i], "K1", old)
		e.line("VMOVDQU64", old, at)
		e.give(old)
	}
	e.end()
}

// rounds emits sixteen rounds. The working variables return to their registers after eight.
func (e *emitter) rounds(s, w []reg, schedule bool) {
	sum := func(x reg, a, b, c int, shift bool) reg {
		r, t, u := e.take(), e.take(), e.take()
		e.line("VPRORQ", fmt.Sprintf("$%d", a), x, r)
		e.line("VPRORQ", fmt.Sprintf("$%d", b), x, t)
		last := "VPRORQ"
		if shift {
			last = "VPSRLQ"
		}
		e.line(last, fmt.Sprintf("$%d", c), x, u)
		e.line("VPTERNLOGQ", "$0x96", u, t, r)
		e.give(t, u)
		return r
	}
	for t := range 16 {
		at := func(i int) reg { return s[(i-t+16)%8] }
		a, b, c, d := at(0), at(1), at(2), at(3)
		ee, f, g, h := at(4), at(5), at(6), at(7)
		x := e.take()
		e.line("VPADDQ.BCST", fmt.Sprintf("%d(SI)", 8*t), w[t], x)
		e.line("VPADDQ", x, h, h)
		e.line("VMOVDQA64", ee, x)
		e.line("VPTERNLOGQ", "$0xca", g, f, x) // e ? f : g
		e.line("VPADDQ", x, h, h)
		r := sum(ee, 14, 18, 41, false)
		e.line("VPADDQ", r, h, h)
		e.give(r)
		e.line("VPADDQ", h, d, d)
		e.line("VMOVDQA64", a, x)
		e.line("VPTERNLOGQ", "$0xe8", c, b, x) // the majority
		e.line("VPADDQ", x, h, h)
		r = sum(a, 28, 34, 39, false)
		e.line("VPADDQ", r, h, h)
		e.give(r, x)
		if schedule {
			r := sum(w[(t+1)%16], 1, 8, 7, true)
			e.line("VPADDQ", r, w[t], w[t])
			e.give(r)
			e.line("VPADDQ", w[(t+9)%16], w[t], w[t])
			r = sum(w[(t+14)%16], 19, 61, 6, true)
			e.line("VPADDQ", r, w[t], w[t])
			e.give(r)
		}
	}
}
