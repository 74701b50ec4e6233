package main

import (
	"fmt"
	"math/big"
)

// The field is that of 2^255 - 19. An element of a lane is five limbs of 64 bits, the value sum of limb[i] * 2^(51 i);
// lane n of a vector register holds the limb of element n. A limb may be larger than 51 bits: the generator keeps the
// largest possible value of every limb at every step and refuses to emit a step in which
//
//   - a limb that enters a multiplication reaches 2^52, because VPMADD52 ignores the bits above,
//   - a sum reaches 2^64,
//   - a difference can be negative.
//
// What stands between two functions, in memory, is "carried": limbs below the bounds of carriedMax. So the bounds hold
// for any sequence of calls whose inputs are carried. The build with tag "checked" looks at them at run time.

const limbs = 5

// p is 2^255 - 19.
var p = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))

func pow2(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }

// carriedMax bounds the limbs of what the functions leave in memory. The slack above 51 bits is what one parallel
// carry leaves: 19 times the carry of limb 4 in limb 0, the carry below in the others.
var carriedMax = func() (max [limbs]*big.Int) {
	for i := range max {
		max[i] = new(big.Int).Add(pow2(51), pow2(13))
	}
	max[0] = new(big.Int).Add(pow2(51), pow2(17))
	return max
}()

// canonicalMax bounds limbs of 51 bits.
var canonicalMax = func() (max [limbs]*big.Int) {
	for i := range max {
		max[i] = new(big.Int).Sub(pow2(51), big.NewInt(1))
	}
	return max
}()

// fe is a field element in registers.
type fe struct {
	r    [limbs]reg
	max  [limbs]*big.Int
	bias bias // contained in it, so that this much can be subtracted from each limb
}

// fits panics if a limb can exceed its 64 bits.
func (e *emitter) fits(f *fe, what string) {
	for i, m := range f.max {
		if m.BitLen() > 64 || m.Sign() < 0 {
			panic(fmt.Sprintf("%s, %s: limb %d can be %x", e.function, what, i, m))
		}
	}
}

// mem is the address of an element in memory: limb i of all lanes at offset off + 64 i.
type mem struct {
	base string
	off  int
}

func (m mem) limb(i int) string { return fmt.Sprintf("%d(%s)", m.off+64*i, m.base) }

func (e *emitter) fresh() (f fe) {
	for i := range f.r {
		f.r[i] = e.take()
	}
	return f
}

func (e *emitter) drop(fs ...fe) {
	for _, f := range fs {
		e.give(f.r[:]...)
	}
}

// load reads a carried element.
func (e *emitter) load(m mem) fe { return e.loadMax(m, carriedMax) }

func (e *emitter) loadMax(m mem, max [limbs]*big.Int) fe {
	f := e.fresh()
	f.max = max
	for i, r := range f.r {
		e.line("VMOVDQU64", m.limb(i), r)
	}
	return f
}

// store writes an element, which must be carried.
func (e *emitter) store(f fe, m mem) {
	for i, r := range f.r {
		if f.max[i].Cmp(carriedMax[i]) > 0 {
			panic(fmt.Sprintf("%s: stored limb %d can be %x", e.function, i, f.max[i]))
		}
		e.line("VMOVDQU64", r, m.limb(i))
	}
}

// splat is a constant element in all lanes.
func (e *emitter) splat(v *big.Int) fe {
	f := fe{max: canonicalMax}
	for i, w := range limbsOf(v) {
		f.r[i] = e.broadcast(w)
	}
	return f
}

// limbsOf splits a value below 2^255.
func limbsOf(v *big.Int) (l [limbs]uint64) {
	mask := new(big.Int).Sub(pow2(51), big.NewInt(1))
	for i := range l {
		l[i] = new(big.Int).And(new(big.Int).Rsh(v, uint(51*i)), mask).Uint64()
	}
	return l
}

// field holds the constants that most functions keep in registers.
type field struct {
	*emitter
	mask, nineteen reg
}

func (e *emitter) field() *field {
	return &field{e, e.broadcast(1<<51 - 1), e.broadcast(19)}
}

// column is an accumulator of a product.
type column struct {
	r    reg
	used bool
	max  *big.Int
}

// columns are the accumulators of a product before it is folded.
type columns struct {
	f    *field
	c    [2 * limbs]column
	bias bias
}

// bias is a multiple of p, limb by limb n * (2^51 - 19) and n * (2^51 - 1), that a product may start from, so that
// another raw product can be subtracted from it. n = 0 means none.
type bias uint64

func (n bias) limb(i int) *big.Int {
	l := new(big.Int).Sub(pow2(51), big.NewInt(1))
	if i == 0 {
		l.Sub(pow2(51), big.NewInt(19))
	}
	return l.Mul(l, new(big.Int).SetUint64(uint64(n)))
}

// start readies the accumulators. A column below limbs starts from the bias halved for each
// doubling that it will see.
func (f *field) start(n bias, doublings uint) *columns {
	c := &columns{f: f, bias: n}
	for k := range c.c {
		if n != 0 && k < limbs {
			if n%(1<<doublings) != 0 {
				panic("a bias that does not halve")
			}
			l := (n >> doublings).limb(k)
			c.c[k] = column{f.broadcast(l.Uint64()), true, l}
			continue
		}
		c.c[k] = column{r: f.take(), max: new(big.Int)}
	}
	return c
}

// add accumulates the low or high 52 bits of the product of limb i of a and limb j of b into their column.
func (c *columns) add(high bool, a *fe, i int, b *fe, j int) {
	k, op := i+j, "VPMADD52LUQ"
	product := new(big.Int).Mul(a.max[i], b.max[j])
	most := new(big.Int).Sub(pow2(52), big.NewInt(1))
	if high {
		k, op = k+1, "VPMADD52HUQ"
		product.Rsh(product, 52)
	}
	if product.Cmp(most) > 0 {
		product = most
	}
	col := &c.c[k]
	if !col.used {
		c.f.line("VPXORQ", col.r, col.r, col.r)
		col.used = true
	}
	c.f.line(op, b.r[j], a.r[i], col.r)
	col.max = new(big.Int).Add(col.max, product)
}

// double doubles the columns in which something was accumulated.
func (c *columns) double() {
	for k := range c.c {
		if col := &c.c[k]; col.used {
			c.f.line("VPADDQ", col.r, col.r, col.r)
			col.max = new(big.Int).Lsh(col.max, 1)
		}
	}
}

// fold brings the upper columns down: 2^255 = 19. The result is raw: far more than 51 bits a limb, to be added to and
// subtracted from other raw ones, and then carried.
func (c *columns) fold() fe {
	var r fe
	for k := range limbs {
		low, high := c.c[k], c.c[k+limbs]
		c.f.line("VPMULLQ", c.f.nineteen, high.r, high.r)
		c.f.line("VPADDQ", high.r, low.r, low.r)
		c.f.give(high.r)
		r.r[k] = low.r
		r.max[k] = new(big.Int).Mul(high.max, big.NewInt(19))
		r.max[k].Add(r.max[k], low.max)
	}
	r.bias = c.bias
	c.f.fits(&r, "fold")
	return r
}

// factor panics if a limb has bits that VPMADD52 ignores.
func (f *field) factor(a *fe) {
	for i, m := range a.max {
		if m.BitLen() > 52 {
			panic(fmt.Sprintf("%s: factor limb %d can be %x", f.function, i, m))
		}
	}
}

// mul is the raw product a * b plus the bias. VPMADD52HUQ's upper half has the weight 2^52 of its column, twice that
// of the next: what it accumulates is doubled before the lower halves are added.
func (f *field) mul(a, b fe, n bias) fe {
	f.factor(&a)
	f.factor(&b)
	c := f.start(n, 1)
	for i := range limbs {
		for j := range limbs {
			c.add(true, &a, i, &b, j)
		}
	}
	c.double()
	for i := range limbs {
		for j := range limbs {
			c.add(false, &a, i, &b, j)
		}
	}
	return c.fold()
}

// sqr is the raw square of a plus the bias. Products of different limbs count twice, so the upper halves of those are
// doubled twice, the lower halves of those and the upper halves of the equal ones once.
func (f *field) sqr(a fe, n bias) fe {
	f.factor(&a)
	c := f.start(n, 2)
	pairs := func(visit func(i, j int)) {
		for i := range limbs {
			for j := i + 1; j < limbs; j++ {
				visit(i, j)
			}
		}
	}
	pairs(func(i, j int) { c.add(true, &a, i, &a, j) })
	c.double()
	for i := range limbs {
		c.add(true, &a, i, &a, i)
	}
	pairs(func(i, j int) { c.add(false, &a, i, &a, j) })
	c.double()
	for i := range limbs {
		c.add(false, &a, i, &a, i)
	}
	return c.fold()
}

// carry brings the limbs of a raw element down to 51 bits and a little, all at once, in place.
func (f *field) carry(a *fe) {
	var over [limbs]reg
	var most [limbs]*big.Int
	for i, r := range a.r {
		over[i] = f.take()
		f.line("VPSRLQ", "$51", r, over[i])
		most[i] = new(big.Int).Rsh(a.max[i], 51)
	}
	for i, r := range a.r {
		f.line("VPANDQ", f.mask, r, r)
		if a.max[i].BitLen() > 51 {
			a.max[i] = canonicalMax[i]
		}
	}
	if most[limbs-1].BitLen() > 32 {
		panic(f.function + ": a carry of more than 32 bits")
	}
	f.line("VPMULUDQ", f.nineteen, over[limbs-1], over[limbs-1])
	most[limbs-1].Mul(most[limbs-1], big.NewInt(19))
	for i := range limbs {
		to := (i + 1) % limbs
		f.line("VPADDQ", over[i], a.r[to], a.r[to])
		a.max[to] = new(big.Int).Add(a.max[to], most[i])
		f.give(over[i])
	}
	a.bias = 0
	f.fits(a, "carry")
}

// add is a + b in fresh registers, not carried.
func (f *field) add(a, b fe) fe {
	r := f.fresh()
	for i := range limbs {
		f.line("VPADDQ", b.r[i], a.r[i], r.r[i])
		r.max[i] = new(big.Int).Add(a.max[i], b.max[i])
	}
	r.bias = a.bias + b.bias
	f.fits(&r, "add")
	return r
}

// addTo is a += b.
func (f *field) addTo(a *fe, b fe) {
	for i := range limbs {
		f.line("VPADDQ", b.r[i], a.r[i], a.r[i])
		a.max[i] = new(big.Int).Add(a.max[i], b.max[i])
	}
	a.bias += b.bias
	f.fits(a, "addTo")
}

// subFrom is a -= b, for an a that contains a bias over b.
func (f *field) subFrom(a *fe, b fe) {
	for i := range limbs {
		if a.bias.limb(i).Cmp(b.max[i]) < 0 {
			panic(fmt.Sprintf("%s: a difference can be negative in limb %d: %x under %x", f.function, i, a.bias.limb(i), b.max[i]))
		}
		f.line("VPSUBQ", b.r[i], a.r[i], a.r[i])
	}
	a.bias = 0
}

// plusBias adds a bias to an element, in place.
func (f *field) plusBias(a *fe, n bias) {
	for i := range limbs {
		l := n.limb(i)
		f.line("VPADDQ.BCST", f.word(l.Uint64()), a.r[i], a.r[i])
		a.max[i] = new(big.Int).Add(a.max[i], l)
	}
	a.bias += n
	f.fits(a, "plusBias")
}

// over is the least bias that is a power of two and covers every limb of b.
func over(b fe) bias {
	for n := bias(1); ; n *= 2 {
		covers := true
		for i := range limbs {
			covers = covers && n.limb(i).Cmp(b.max[i]) >= 0
		}
		if covers {
			return n
		}
	}
}
