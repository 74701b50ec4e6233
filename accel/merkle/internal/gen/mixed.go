package main

import "fmt"

// The mixed kernel hashes messages sixteen at a time in the lanes of AVX-512 registers and, between those instructions
// and on execution units that they leave idle, eight more with SHA-NI, two in turns.
//
// The lanes use Z16 to Z31 and keep their message schedule in memory, SHA-NI uses X0 to X15; states between blocks
// are in memory. So the two lists of instructions share nothing but pointers that one of them only reads, and are
// merged in proportion.

const (
	lanes   = 16
	inTurns = 8 // messages hashed by SHA-NI in the time of sixteen in lanes; 6 to 12 make no difference on Zen 4
	width   = lanes + inTurns

	// Offsets from R14, which is aligned to 64 bytes: the schedule, the states, and what is left to do.
	schedule   = 0
	laneState  = schedule + 16*64
	turnState  = laneState + 8*64
	phaseAt    = turnState + 32*inTurns
	blocksLeft = phaseAt + 8
	tailAt     = blocksLeft + 8
	mixedFrame = tailAt + 8 + 64 // 64 for aligning
)

// program is a list of instructions.
type program []string

func (p *program) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

// merge interleaves two programs so that both end at the same time.
func merge(a, b program) (out program) {
	for i, j := 0, 0; i < len(a) || j < len(b); {
		if j == len(b) || i < len(a) && i*len(b) <= j*len(a) {
			out = append(out, a[i])
			i++
		} else {
			out = append(out, b[j])
			j++
		}
	}
	return out
}

// mixed writes the kernel, whose arguments are those of sha2x, but for groups of 24 messages.
func mixed() {
	fmt.Fprintf(&out, "// func sha24x(dst, src *byte, groups, stride, blocks int, tail *byte, tailStride, tailBlocks int, padding *[64]uint32)\n")
	fmt.Fprintf(&out, "// Requires: SHA, AVX, AVX512F, AVX512BW\nTEXT ·sha24x(SB), 0, $%d-72\n", mixedFrame)
	emit("MOVQ dst+0(FP), DI")
	emit("MOVQ src+8(FP), SI")
	emit("MOVQ groups+16(FP), CX")
	emit("MOVQ tail+40(FP), AX")
	emit("MOVQ padding+64(FP), R13")
	emit("LEAQ ·k256(SB), BX")
	emit("LEAQ 63(SP), R14")
	emit("ANDQ $~63, R14")
	emit("MOVQ AX, %d(R14)", tailAt)
	emit("LEAQ lanes256<>(SB), R8")
	emit("VZEROUPPER")
	emit("VMOVDQU flip256<>(SB), %s", flip)
	label("group")
	begin()
	emit("MOVQ $0, %d(R14)", phaseAt)
	emit("MOVQ SI, AX")
	emit("MOVQ stride+24(FP), R10")
	emit("MOVQ blocks+32(FP), R11")
	emit("MOVQ R11, %d(R14)", blocksLeft)
	emit("TESTQ R11, R11")
	emit("JZ   tails")
	label("messages")
	emit("LEAQ (R10)(R10*2), R11")
	emit("LEAQ (AX)(R10*4), DX")
	emit("LEAQ (DX)(R10*4), R9")
	emit("LEAQ (R9)(R10*4), R15")
	label("block")
	emit("LEAQ (R15)(R10*4), R12")
	put(merge(laneBlock(), turnBlock()))
	for _, base := range bases {
		emit("ADDQ $64, %s", base)
	}
	emit("DECQ %d(R14)", blocksLeft)
	emit("JNZ  block")
	label("tails")
	emit("CMPQ %d(R14), $0", phaseAt)
	emit("JNE  last")
	emit("MOVQ $1, %d(R14)", phaseAt)
	emit("MOVQ %d(R14), AX", tailAt)
	emit("MOVQ tailStride+48(FP), R10")
	emit("MOVQ tailBlocks+56(FP), R11")
	emit("MOVQ R11, %d(R14)", blocksLeft)
	emit("TESTQ R11, R11")
	emit("JNZ  messages")
	label("last")
	emit("TESTQ R13, R13")
	emit("JZ   store")
	put(merge(lanePadding(), turnPadding()))
	label("store")
	put(merge(laneDigests(), turnDigests()))
	emit("MOVQ stride+24(FP), R10")
	emit("IMUL3Q $%d, R10, R10", width)
	emit("ADDQ R10, SI")
	emit("MOVQ tailStride+48(FP), R10")
	emit("IMUL3Q $%d, R10, R10", width)
	emit("ADDQ R10, %d(R14)", tailAt)
	emit("ADDQ $%d, DI", 32*width)
	emit("DECQ CX")
	emit("JNZ  group")
	emit("VZEROUPPER")
	emit("RET")
}

func put(p program) {
	for _, line := range p {
		emit("%s", line)
	}
}

// begin writes the starting state for all messages of a group.
func begin() {
	for i := range 8 {
		emit("VPBROADCASTD %d(R8), Z16", 4*i)
		emit("VMOVDQA32 Z16, %d(R14)", laneState+64*i)
	}
	emit("VMOVDQU start256<>+0(SB), X0")
	emit("VMOVDQU start256<>+16(SB), X1")
	for i := range inTurns {
		emit("VMOVDQU X0, %d(R14)", turnState+32*i)
		emit("VMOVDQU X1, %d(R14)", turnState+32*i+16)
	}
}

// mixedConstants writes the starting state and the byte order's shuffle for the lanes.
func mixedConstants() {
	for i, word := range start {
		fmt.Fprintf(&out, "DATA lanes256<>+%d(SB)/4, $0x%08x\n", 4*i, word)
	}
	for i := range 4 {
		fmt.Fprintf(&out, "DATA lanes256<>+%d(SB)/8, $0x0405060700010203\nDATA lanes256<>+%d(SB)/8, $0x0c0d0e0f08090a0b\n", 64+16*i, 72+16*i)
	}
	fmt.Fprint(&out, "GLOBL lanes256<>(SB), RODATA|NOPTR, $128\n\n")
}

func z(i int) string { return fmt.Sprintf("Z%d", i) }

// bases point to messages 0, 4, 8 and 12; R10 is the stride between messages and R11 three times that.
var bases = [4]string{"AX", "DX", "R9", "R15"}

// message is the operand for the bytes from offset on in the block of message j of the lanes.
func message(j, offset int) string {
	return fmt.Sprintf("%d(%s)%s", offset, bases[j/4], [4]string{"", "(R10*1)", "(R10*2)", "(R11*1)"}[j%4])
}

// laneBlock is one block of messages 0 to 15.
func laneBlock() (p program) {
	load(&p)
	return append(p, laneRounds(true, func(p *program, t int, h string) {
		p.add("VPADDD.BCST %d(BX), %s, %s", 4*t, h, h)
		p.add("VPADDD %d(R14), %s, %s", schedule+64*(t%16), h, h)
	})...)
}

// lanePadding is the block that all messages share.
func lanePadding() program {
	return laneRounds(false, func(p *program, t int, h string) { p.add("VPADDD.BCST %d(R13), %s, %s", 4*t, h, h) })
}

// laneRounds is 64 rounds from and to the state in memory.
func laneRounds(scheduled bool, words func(p *program, t int, h string)) (p program) {
	state := [8]int{16, 17, 18, 19, 20, 21, 22, 23}
	for i, r := range state {
		p.add("VMOVDQA32 %d(R14), %s", laneState+64*i, z(r))
	}
	for t := range 64 {
		if scheduled && t >= 16 {
			extend(&p, t%16)
		}
		round(&p, &state, func(h string) { words(&p, t, h) })
	}
	for i, r := range state { // in order again
		p.add("VPADDD %d(R14), %s, %s", laneState+64*i, z(r), z(r))
		p.add("VMOVDQA32 %s, %d(R14)", z(r), laneState+64*i)
	}
	return p
}

// load turns the blocks of the sixteen messages by 90 degrees: word i of all of them into the schedule.
func load(p *program) {
	p.add("VMOVDQU32 64(R8), Z31")
	for g := range 4 { // four words at a time
		for k := range 4 { // of messages k, 4+k, 8+k, 12+k
			p.add("VMOVDQU32 %s, X%d", message(k, 16*g), 16+k)
			for b := 1; b < 4; b++ {
				p.add("VINSERTI32X4 $%d, %s, %s, %s", b, message(4*b+k, 16*g), z(16+k), z(16+k))
			}
		}
		turn(p, 16, 20)
		for k := range 4 {
			p.add("VPSHUFB Z31, %s, %s", z(20+k), z(20+k))
			p.add("VMOVDQA32 %s, %d(R14)", z(20+k), schedule+64*(4*g+k))
		}
	}
}

// turn transposes four by four words in each quarter of the registers from, from+1, ... into to, to+1, ...; from is
// overwritten.
func turn(p *program, from, to int) {
	p.add("VPUNPCKLDQ %s, %s, %s", z(from+1), z(from), z(to))     // a0 b0 a1 b1
	p.add("VPUNPCKHDQ %s, %s, %s", z(from+1), z(from), z(to+1))   // a2 b2 a3 b3
	p.add("VPUNPCKLDQ %s, %s, %s", z(from+3), z(from+2), z(to+2)) // c0 d0 c1 d1
	p.add("VPUNPCKHDQ %s, %s, %s", z(from+3), z(from+2), z(to+3)) // c2 d2 c3 d3
	p.add("VPUNPCKHQDQ %s, %s, %s", z(to+2), z(to), z(from))      // a1 b1 c1 d1
	p.add("VPUNPCKLQDQ %s, %s, %s", z(to+2), z(to), z(to))        // a0 b0 c0 d0
	p.add("VPUNPCKLQDQ %s, %s, %s", z(to+3), z(to+1), z(to+2))    // a2 b2 c2 d2
	p.add("VPUNPCKHQDQ %s, %s, %s", z(to+3), z(to+1), z(to+3))    // a3 b3 c3 d3
	p.add("VMOVDQA32 %s, %s", z(from), z(to+1))
}

// extend replaces word i of the schedule by the one that is sixteen later.
func extend(p *program, i int) {
	at := func(i int) string { return fmt.Sprintf("%d(R14)", schedule+64*(i%16)) }
	sigma := func(word string, r1, r2, shift int, to string) {
		p.add("VMOVDQA32 %s, Z28", word)
		p.add("VPRORD $%d, Z28, %s", r1, to)
		p.add("VPRORD $%d, Z28, Z29", r2)
		p.add("VPSRLD $%d, Z28, Z28", shift)
		p.add("VPTERNLOGD $0x96, Z28, Z29, %s", to)
	}
	sigma(at(i+1), 7, 18, 3, "Z30")
	p.add("VPADDD %s, Z30, Z30", at(i))
	sigma(at(i+14), 17, 19, 10, "Z31")
	p.add("VPADDD %s, Z30, Z30", at(i+9))
	p.add("VPADDD Z31, Z30, Z30")
	p.add("VMOVDQA32 Z30, %s", at(i))
}

// round is one round; words adds its word and constant to h. The registers change their roles instead of their
// contents.
func round(p *program, state *[8]int, words func(h string)) {
	a, b, c, d := z(state[0]), z(state[1]), z(state[2]), z(state[3])
	e, f, g, h := z(state[4]), z(state[5]), z(state[6]), z(state[7])
	sum := func(x string, r1, r2, r3 int, to string) {
		p.add("VPRORD $%d, %s, %s", r1, x, to)
		p.add("VPRORD $%d, %s, Z26", r2, x)
		p.add("VPRORD $%d, %s, Z27", r3, x)
		p.add("VPTERNLOGD $0x96, Z27, Z26, %s", to)
	}
	words(h)
	sum(e, 6, 11, 25, "Z24")
	p.add("VMOVDQA32 %s, Z25", e)
	p.add("VPTERNLOGD $0xca, %s, %s, Z25", g, f) // e ? f : g
	p.add("VPADDD Z24, %s, %s", h, h)
	p.add("VPADDD Z25, %s, %s", h, h)
	p.add("VPADDD %s, %s, %s", h, d, d)
	sum(a, 2, 13, 22, "Z24")
	p.add("VMOVDQA32 %s, Z25", a)
	p.add("VPTERNLOGD $0xe8, %s, %s, Z25", c, b) // what two of a, b, c say
	p.add("VPADDD Z24, %s, %s", h, h)
	p.add("VPADDD Z25, %s, %s", h, h)
	*state = [8]int{state[7], state[0], state[1], state[2], state[3], state[4], state[5], state[6]}
}

// laneDigests turns the lanes' state back into digests.
func laneDigests() (p program) {
	p.add("VMOVDQU32 64(R8), Z31")
	for g := range 2 {
		for i := range 4 {
			p.add("VMOVDQA32 %d(R14), %s", laneState+64*(4*g+i), z(16+i))
		}
		turn(&p, 16, 24)
		for k := range 4 {
			p.add("VPSHUFB Z31, %s, %s", z(24+k), z(24+k))
			p.add("VMOVDQU32 X%d, %d(DI)", 24+k, 32*k+16*g)
			for b := 1; b < 4; b++ {
				p.add("VEXTRACTI32X4 $%d, %s, %d(DI)", b, z(24+k), 32*(4*b+k)+16*g)
			}
		}
	}
	return p
}

// turnBlock is one block of the messages after the lanes'; R12 points to the first.
func turnBlock() (p program) {
	two := streams
	two[0].data, two[1].data = "R12", "R12)(R10*1"
	for first := 0; first < inTurns; first += 2 {
		p = append(p, keepState(two, first, blockRounds(two))...)
		p.add("LEAQ (R12)(R10*2), R12")
	}
	return p
}

// turnPadding is the block that all messages share.
func turnPadding() (p program) {
	for first := 0; first < inTurns; first += 2 {
		p = append(p, keepState(streams, first, paddingRounds(streams))...)
	}
	return p
}

// keepState puts rounds between loading the states of two messages and adding to them.
func keepState(two [2]stream, first int, rounds program) (p program) {
	for i, s := range two {
		p.add("VMOVDQU %d(R14), %s", turnState+32*(first+i), s.abef)
		p.add("VMOVDQU %d(R14), %s", turnState+32*(first+i)+16, s.cdgh)
	}
	p = append(p, rounds...)
	for i, s := range two {
		at := turnState + 32*(first+i)
		p.add("VPADDD %d(R14), %s, %s", at, s.abef, s.abef)
		p.add("VPADDD %d(R14), %s, %s", at+16, s.cdgh, s.cdgh)
		p.add("VMOVDQU %s, %d(R14)", s.abef, at)
		p.add("VMOVDQU %s, %d(R14)", s.cdgh, at+16)
	}
	return p
}

// turnDigests writes the digests of the messages after the lanes'.
func turnDigests() (p program) {
	for first := 0; first < inTurns; first += 2 {
		for i, s := range streams {
			p.add("VMOVDQU %d(R14), %s", turnState+32*(first+i), s.abef)
			p.add("VMOVDQU %d(R14), %s", turnState+32*(first+i)+16, s.cdgh)
		}
		p = append(p, digests(streams, 32*(lanes+first))...)
	}
	return p
}
