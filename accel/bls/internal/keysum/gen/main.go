// Command gen writes kernel_amd64.s, the eight-lane arithmetic that package keysum describes, and layout_amd64.go,
// which doesn't compile unless the kernel and package scratch agree.
//
// Registers: Z0 to Z8 are a product's limbs in the making (they rotate), Z9 the quotient digit, Z10 one limb of the
// first factor, Z11 the mask of 52 bits, Z12 -1/p modulo 2^52, Z13 a carry, Z16 to Z23 the second factor, Z24 to Z31 p.
package main

import (
	"bytes"
	"fmt"
	"go/format"
	"log"
	"math/big"
	"os"
)

const (
	limbs     = 8
	vecBytes  = 64           // one limb in eight lanes
	elemBytes = 8 * vecBytes // one element in eight lanes
	second    = 16           // first register of the second factor
	prime     = 24           // first register of p
	carry     = "Z13"
	mask      = "Z11"
	quotient  = "Z9"
)

// Offsets into type scratch of package keysum.
var (
	groups = 128
	ax     = 0
	ay     = ax + groups*elemBytes
	bx     = ay + groups*elemBytes
	by     = bx + groups*elemBytes
	diff   = by + groups*elemBytes
	prefix = diff + groups*elemBytes
	inv    = prefix + (groups+1)*elemBytes
	slope  = inv + elemBytes
	temp   = slope + elemBytes
	k1     = temp + elemBytes
	k2     = k1 + 8*limbs
	k3     = k2 + 8*limbs
)

type writer struct{ bytes.Buffer }

func (w *writer) op(format string, args ...any) { fmt.Fprintf(w, "\t"+format+"\n", args...) }

// product is where the limbs of a product end up: 8 rotations among nine registers.
func product(i int) string { return fmt.Sprintf("Z%d", (8+i)%9) }

func reg(i int) string { return fmt.Sprintf("Z%d", i) }

// mul multiplies the element at address a by the one in the second factor's registers, in Montgomery form modulo
// 2^416, and leaves the limbs, below 2^52, in the product registers. Each round adds a[i] times the second factor and
// the multiple of p that clears the lowest limb, and moves down by one limb. The lowest limb's own low product is not
// computed: it is what makes the sum a multiple of 2^52, so its effect on the carry is that of rounding up.
func (w *writer) mul(a string) {
	for i := range 9 {
		w.op("VPXORQ Z%d, Z%d, Z%d", i, i, i)
	}
	for i := range limbs {
		t := func(j int) string { return reg((i + j) % 9) }
		w.op("VMOVDQU64 %s, Z10", offset(a, i*vecBytes))
		for j := range limbs {
			w.op("VPMADD52LUQ Z%d, Z10, %s", second+j, t(j))
			if j == 0 {
				w.op("VPXORQ %s, %s, %s", quotient, quotient, quotient)
				w.op("VPMADD52LUQ Z12, %s, %s", t(0), quotient)
			}
		}
		for j := range limbs {
			w.op("VPMADD52HUQ Z%d, Z10, %s", second+j, t(j+1))
		}
		w.op("VPADDQ %s, %s, %s", mask, t(0), carry)
		w.op("VPSRLQ $52, %s, %s", carry, carry)
		for j := 1; j < limbs; j++ {
			w.op("VPMADD52LUQ Z%d, %s, %s", prime+j, quotient, t(j))
		}
		for j := range limbs {
			w.op("VPMADD52HUQ Z%d, %s, %s", prime+j, quotient, t(j+1))
		}
		w.op("VPADDQ %s, %s, %s", carry, t(1), t(1))
		if i+1 < limbs {
			w.op("VPXORQ %s, %s, %s", t(0), t(0), t(0))
		}
	}
	w.normalise("VPSRLQ", product)
}

// normalise carries so that all limbs but the highest are below 2^52; with VPSRAQ limbs may be negative.
func (w *writer) normalise(shift string, at func(i int) string) {
	for i := range limbs - 1 {
		w.op("%s $52, %s, %s", shift, at(i), carry)
		w.op("VPANDQ %s, %s, %s", mask, at(i), at(i))
		w.op("VPADDQ %s, %s, %s", carry, at(i+1), at(i+1))
	}
}

func offset(base string, bytes int) string {
	var off int
	var register string
	if _, err := fmt.Sscanf(base, "%d(%s", &off, &register); err != nil {
		log.Fatal(err)
	}
	return fmt.Sprintf("%d(%s", off+bytes, register)
}

// at is the address of field in the scratch structure, for the group whose offset is in BX.
func at(field int) string { return fmt.Sprintf("%d(SI)(BX*1)", field) }

// fixed is the address of a field that all groups share.
func fixed(field int) string { return fmt.Sprintf("%d(SI)", field) }

func (w *writer) store(to string, from func(i int) string) {
	for i := range limbs {
		w.op("VMOVDQU64 %s, %s", from(i), offset(to, i*vecBytes))
	}
}

func factor(i int) string { return reg(second + i) }

// difference leaves plus + multiple - minus, normalised, in the second factor's registers.
func (w *writer) difference(plus func(i int) string, multiple int, minus ...string) {
	for i := range limbs {
		if from := plus(i); from[0] == 'Z' {
			w.op("VPADDQ.BCST %s, %s, %s", fixed(multiple+8*i), from, factor(i))
		} else {
			w.op("VMOVDQU64 %s, %s", from, factor(i))
			w.op("VPADDQ.BCST %s, %s, %s", fixed(multiple+8*i), factor(i), factor(i))
		}
		for _, m := range minus {
			w.op("VPSUBQ %s, %s, %s", offset(m, i*vecBytes), factor(i), factor(i))
		}
	}
	w.normalise("VPSRAQ", factor)
}

func memory(base string) func(i int) string {
	return func(i int) string { return offset(base, i*vecBytes) }
}

// pointers hold the addresses of eight rows. R15 is left alone for shared builds.
var pointers = []string{"AX", "R8", "R9", "R10", "R11", "R12", "R13", "R14"}

// rows loads eight 64-byte halves of rows, whose addresses are in the pointer registers, and transposes them: Z0 to Z7 are limbs
// 0 to 7, with row k in lane k.
func (w *writer) rows(half int) {
	for k := range 8 {
		w.op("VMOVDQU64 %d(%s), Z%d", half, pointers[k], k)
	}
	pairs := []int{8, 0, 1, 2, 3, 4, 5, 6}
	for k := 0; k < 8; k += 2 {
		w.op("VPUNPCKLQDQ Z%d, Z%d, Z%d", k+1, k, pairs[k])
		w.op("VPUNPCKHQDQ Z%d, Z%d, Z%d", k+1, k, pairs[k+1])
	}
	for k := 0; k < 8; k += 4 {
		for i, imm := range []int{0x88, 0x88, 0xdd, 0xdd} {
			w.op("VSHUFI64X2 $%#x, Z%d, Z%d, Z%d", imm, pairs[k+2+i%2], pairs[k+i%2], second+k+i)
		}
	}
	for i := range 8 {
		w.op("VSHUFI64X2 $%#x, Z%d, Z%d, Z%d", []int{0x88, 0xdd}[i/4], second+4+i%4, second+i%4, i)
	}
}

func (w *writer) constants() {
	for i := range limbs {
		w.op("VPBROADCASTQ modulus<>+%d(SB), Z%d", 8*i, prime+i)
	}
	w.op("VPBROADCASTQ mask52<>(SB), %s", mask)
	w.op("VPBROADCASTQ inverse52<>(SB), Z12")
}

// forward is one of the two functions of the first pass.
func (w *writer) forward(fromRows bool) {
	if fromRows {
		w.WriteString(`
// func forwardRows(s *scratch, rows *[8 * groups]*Row, n int)
TEXT ·forwardRows(SB), NOSPLIT, $0-24
	MOVQ s+0(FP), SI
	MOVQ rows+8(FP), DI
	MOVQ n+16(FP), CX
`)
	} else {
		w.WriteString(`
// func forwardPairs(s *scratch, n int)
TEXT ·forwardPairs(SB), NOSPLIT, $0-16
	MOVQ s+0(FP), SI
	MOVQ n+8(FP), CX
`)
	}
	w.constants()
	w.op("XORQ BX, BX")
	label := map[bool]string{true: "rows", false: "pairs"}[fromRows]
	fmt.Fprintf(w, "%s:\n", label)
	if fromRows {
		for k := range 8 {
			w.op("MOVQ %d(DI), %s", 8*k, pointers[k])
		}
		w.rows(64)
		w.store(at(by), reg)
		w.rows(0)
		w.store(at(bx), reg)
		w.op("ADDQ $64, DI")
		w.difference(reg, k1, at(ax))
	} else {
		w.difference(memory(at(bx)), k1, at(ax))
	}
	w.store(at(diff), factor)
	w.mul(at(prefix))
	w.store(at(prefix+elemBytes), product)
	w.op("ADDQ $%d, BX", elemBytes)
	w.op("DECQ CX")
	w.op("JNZ %s", label)
	w.op("VZEROUPPER")
	w.op("RET")
}

// load is the function that sets the running sums.
func (w *writer) load() {
	w.WriteString(`
// func loadRows(s *scratch, rows *[8 * groups]*Row, n int)
TEXT ·loadRows(SB), NOSPLIT, $0-24
	MOVQ s+0(FP), SI
	MOVQ rows+8(FP), DI
	MOVQ n+16(FP), CX
	XORQ BX, BX
load:
`)
	for k := range 8 {
		w.op("MOVQ %d(DI), %s", 8*k, pointers[k])
	}
	w.rows(64)
	w.store(at(ay), reg)
	w.rows(0)
	w.store(at(ax), reg)
	w.op("ADDQ $64, DI")
	w.op("ADDQ $%d, BX", elemBytes)
	w.op("DECQ CX")
	w.op("JNZ load")
	w.op("VZEROUPPER")
	w.op("RET")
}

func (w *writer) backward() {
	w.WriteString(`
// func backward(s *scratch, next *[8 * groups]*Row, n int)
TEXT ·backward(SB), NOSPLIT, $0-24
	MOVQ s+0(FP), SI
	MOVQ next+8(FP), DX
	MOVQ n+16(FP), CX
`)
	w.constants()
	w.op("MOVQ CX, BX")
	w.op("SHLQ $9, BX")
	fmt.Fprintf(w, "back:\n")
	w.op("SUBQ $%d, BX", elemBytes)
	for k := range 8 {
		w.op("MOVQ %d(DX), %s", 8*k, pointers[k])
		w.op("PREFETCHT1 (%s)", pointers[k])
		w.op("PREFETCHT1 64(%s)", pointers[k])
	}
	w.op("ADDQ $64, DX")
	for i := range limbs { // the inverse of all differences up to this one
		w.op("VMOVDQU64 %s, %s", offset(fixed(inv), i*vecBytes), factor(i))
	}
	w.mul(at(prefix))
	w.store(fixed(temp), product) // the inverse of this one
	w.mul(at(diff))
	w.store(fixed(inv), product)
	w.difference(memory(at(by)), k1, at(ay))
	w.mul(fixed(temp))
	w.store(fixed(slope), product)
	for i := range limbs {
		w.op("VMOVDQA64 %s, %s", product(i), factor(i))
	}
	w.mul(fixed(slope))
	w.difference(product, k2, at(ax), at(bx)) // the new x
	w.store(fixed(temp), factor)
	w.difference(memory(at(ax)), k3, fixed(temp))
	for i := range limbs {
		w.op("VMOVDQU64 %s, Z14", offset(fixed(temp), i*vecBytes))
		w.op("VMOVDQU64 Z14, %s", offset(at(ax), i*vecBytes))
	}
	w.mul(fixed(slope))
	w.difference(product, k1, at(ay)) // the new y
	w.store(at(ay), factor)
	w.op("DECQ CX")
	w.op("JNZ back")
	w.op("VZEROUPPER")
	w.op("RET")
}

func main() {
	p, _ := new(big.Int).SetString("1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab", 16)
	radix := new(big.Int).Lsh(big.NewInt(1), 52)
	negInverse := new(big.Int).ModInverse(p, radix)
	negInverse.Sub(radix, negInverse)

	w := new(writer)
	w.WriteString("// Code generated by gen/main.go. DO NOT EDIT.\n\n//go:build amd64 && !purego\n\n#include \"textflag.h\"\n\n")
	digits := new(big.Int).Set(p)
	for i := range limbs {
		digit := new(big.Int).Mod(digits, radix)
		digits.Rsh(digits, 52)
		fmt.Fprintf(w, "DATA modulus<>+%d(SB)/8, $%#x\n", 8*i, digit)
	}
	w.WriteString("GLOBL modulus<>(SB), RODATA|NOPTR, $64\n\n")
	fmt.Fprintf(w, "DATA mask52<>+0(SB)/8, $%#x\nGLOBL mask52<>(SB), RODATA|NOPTR, $8\n\n", uint64(1<<52-1))
	fmt.Fprintf(w, "DATA inverse52<>+0(SB)/8, $%#x\nGLOBL inverse52<>(SB), RODATA|NOPTR, $8\n", negInverse)
	w.load()
	w.forward(true)
	w.forward(false)
	w.backward()
	if err := os.WriteFile("kernel_amd64.s", w.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
	w.layout()
}

// layout writes assertions that type scratch is as the kernel thinks.
func (w *writer) layout() {
	w.Reset()
	w.WriteString("// Code generated by gen/main.go. DO NOT EDIT.\n\n//go:build amd64 && !purego\n\npackage keysum\n\nimport \"unsafe\"\n\nvar (\n")
	w.op("_ [groups]byte = [%d]byte{}", groups)
	for _, f := range []struct {
		name   string
		offset int
	}{
		{"ax", ax},
		{"ay", ay},
		{"bx", bx},
		{"by", by},
		{"diff", diff},
		{"prefix", prefix},
		{"inverse", inv},
		{"slope", slope},
		{"temp", temp},
		{"k1", k1},
		{"k2", k2},
		{"k3", k3},
	} {
		w.op("_ [unsafe.Offsetof(scratch{}.%s)]byte = [%d]byte{}", f.name, f.offset)
	}
	w.WriteString(")\n")
	source, err := format.Source(w.Bytes())
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("layout_amd64.go", source, 0o644); err != nil {
		log.Fatal(err)
	}
}
