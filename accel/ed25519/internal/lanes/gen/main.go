// Command gen writes the assembly of package lanes. Run it with go generate in the package's folder.
package main

import (
	"fmt"
	"os"
)

func main() {
	for name, text := range files() {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func files() map[string][]byte {
	return map[string][]byte{
		"point_amd64.s":  pointFile(),
		"halve_amd64.s":  halveFile(),
		"sha512_amd64.s": sha512File(),
		"base.bin":       baseFile(),
	}
}

// pointFile has the functions on groups of eight points; point_amd64.go says what each does.
func pointFile() []byte {
	e := newEmitter()
	e.double()
	for _, v := range []struct {
		name string
		out  form
	}{{"Next", forAdd}, {"Last", forDouble}} {
		e.chosen("addKey"+v.name, projectiveBlocks, false, v.out)
		e.chosen("addCached"+v.name, affineBlocks, false, v.out)
		e.chosen("addBase"+v.name, affineBlocks, true, v.out)
	}
	e.simple("addRow", func(f *field) { f.addRow(addend{affine: true}, forAdd) })
	e.simple("addRowZ", func(f *field) { f.addRow(addend{}, forAdd) })
	e.simple("unsum", (*field).unsum)
	e.setRow()
	e.storeRow()
	e.storeAffine()
	e.arithmetic()
	e.prefetch()
	e.decoder()
	e.isNeutral()
	return e.file()
}

// simple emits a function of a group alone.
func (e *emitter) simple(name string, body func(f *field)) {
	e.begin(name, "(p *group)", 0, 8)
	e.line("MOVQ", "p+0(FP)", "DI")
	body(e.field())
	e.end()
}

func (e *emitter) double() {
	e.begin("double", "(p *group, n uint64)", 0, 16)
	e.line("MOVQ", "p+0(FP)", "DI")
	e.line("MOVQ", "n+8(FP)", "AX")
	f := e.field()
	f.line("DECQ", "AX")
	f.line("JZ", "last")
	f.label("more")
	f.doubling(forDouble)
	f.line("DECQ", "AX")
	f.line("JNZ", "more")
	f.label("last")
	f.doubling(forAdd)
	e.end()
}

// chosen emits an addition of rows that signed digits choose.
func (e *emitter) chosen(name string, blocks int, shared bool, out form) {
	bits, table, tables := uint(4), "tables", "*[8]unsafe.Pointer"
	if shared {
		bits, table, tables = 8, "table", "unsafe.Pointer"
	}
	e.begin(name, fmt.Sprintf("(p *group, %s %s, words *vector, shift uint64)", table, tables), 0, 32)
	e.line("MOVQ", "p+0(FP)", "DI")
	e.line("MOVQ", table+"+8(FP)", "BX")
	e.line("MOVQ", "words+16(FP)", "SI")
	e.line("MOVQ", "shift+24(FP)", "CX")
	f := e.field()
	f.chooseRows(bits, blocks, shared)
	f.gather(blocks)
	f.addRow(addend{affine: blocks == affineBlocks, signed: true}, out)
	e.end()
}

// setRow makes the row of affine points.
func (e *emitter) setRow() {
	e.begin("setRow", "(r *row, p *coded)", 0, 16)
	e.line("MOVQ", "r+0(FP)", "DI")
	e.line("MOVQ", "p+8(FP)", "SI")
	f := e.field()
	s := side(0)
	x, y := f.load(s.x()), f.load(s.y())
	plus := f.add(y, x)
	f.carry(&plus)
	f.store(plus, mem{"DI", 0})
	f.drop(plus)
	minus := f.difference(y, x)
	f.store(minus, mem{"DI", feSize})
	f.drop(minus, x)
	t, k := f.load(s.t()), f.splat(twoD)
	f.mulInto(mem{"DI", 2 * feSize}, t, k)
	e.end()
}

// unsum turns the sum as an addition takes it into what a doubling takes: 2X, 2Y, 2Z.
func (f *field) unsum() {
	plus, minus, z := f.load(sumX), f.load(sumY), f.load(sumZ)
	y := f.add(plus, minus)
	x := f.difference(plus, minus)
	f.addTo(&z, z)
	f.carry(&y)
	f.carry(&z)
	f.store(x, sumX)
	f.store(y, sumY)
	f.store(z, sumZ)
}

// arithmetic emits field operations on elements in memory.
func (e *emitter) arithmetic() {
	e.begin("multiply", "(to, a, b *element)", 0, 24)
	e.line("MOVQ", "to+0(FP)", "DI")
	e.line("MOVQ", "a+8(FP)", "SI")
	e.line("MOVQ", "b+16(FP)", "DX")
	e.field().mulTo(mem{base: "DI"}, mem{base: "SI"}, mem{base: "DX"})
	e.end()

	e.begin("square", "(to, a *element, n uint64)", 0, 24)
	e.line("MOVQ", "to+0(FP)", "DI")
	e.line("MOVQ", "a+8(FP)", "SI")
	e.line("MOVQ", "n+16(FP)", "AX")
	f := e.field()
	v := f.load(mem{base: "SI"})
	f.label("again")
	f.sqrInPlace(&v)
	f.line("DECQ", "AX")
	f.line("JNZ", "again")
	f.store(v, mem{base: "DI"})
	e.end()
}

func (e *emitter) storeAffine() {
	e.begin("storeAffine", "(r *row, rows unsafe.Pointer, stride uint64)", 0, 24)
	e.line("MOVQ", "r+0(FP)", "DI")
	e.line("MOVQ", "rows+8(FP)", "SI")
	e.line("MOVQ", "stride+16(FP)", "CX")
	e.field().scatter(mem{"DI", 0}, mem{"DI", feSize}, mem{"DI", 2 * feSize})
	e.end()
}

func (e *emitter) storeRow() {
	e.begin("storeRow", "(p *group, rows unsafe.Pointer, stride uint64)", 0, 24)
	e.line("MOVQ", "p+0(FP)", "DI")
	e.line("MOVQ", "rows+8(FP)", "SI")
	e.line("MOVQ", "stride+16(FP)", "CX")
	f := e.field()
	t, k := f.load(sumT), f.splat(twoD)
	f.mulInto(spill, t, k)
	f.drop(t, k)
	f.scatter(sumX, sumY, spill, sumZ)
	e.end()
}

// prefetch asks for cache lines ahead of their use.
func (e *emitter) prefetch() {
	e.begin("prefetch", "(p unsafe.Pointer, lines uint64)", 0, 16)
	e.line("MOVQ", "p+0(FP)", "SI")
	e.line("MOVQ", "lines+8(FP)", "CX")
	e.label("line")
	e.line("PREFETCHT1", "(SI)")
	e.line("ADDQ", "$64", "SI")
	e.line("DECQ", "CX")
	e.line("JNZ", "line")
	e.line("RET")
}

func (e *emitter) decoder() {
	e.begin("decode", "(temp *[12]element, first, second *coded) uint64", 0, 32)
	e.line("MOVQ", "temp+0(FP)", "DI")
	e.line("MOVQ", "first+8(FP)", "SI")
	e.line("MOVQ", "second+16(FP)", "DX")
	e.field().decode()
	e.line("MOVQ", "AX", "ret+24(FP)")
	e.end()
}

// isNeutral tells of a sum in the form for an addition whether X = 0 and Y = Z.
func (e *emitter) isNeutral() {
	e.begin("isNeutral", "(p *group) uint64", 0, 16)
	e.line("MOVQ", "p+0(FP)", "DI")
	f := e.field()
	plus, minus := f.load(sumX), f.load(sumY)
	f.zero(f.difference(plus, minus), "K1")
	z := f.load(sumZ)
	f.zero(f.difference(minus, z), "K2")
	f.line("KANDW", "K1", "K2", "K1")
	f.line("KMOVW", "K1", "AX")
	f.line("ANDQ", "$255", "AX")
	f.line("MOVQ", "AX", "ret+8(FP)")
	e.end()
}
